"""``examples/other_generator.py``: any image-to-image pipeline gets planning, verification, resuming and reports."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DModel
from PIL import Image

from vlbias import Balancer, Dipole, load_dataset
from vlbias.balance import Checks
from vlbias.clip import load
from vlbias.errors import OutputError
from vlbias.images import to_pil, to_tensor

ANYTHING = Checks(reached=-1e6, target=-1e6, identity=-1e6, min_skill=-10.0)
DIPOLE = Dipole("a face with dark skin", "a face with light skin")


class TinyPipeline(DiffusionPipeline):
    """Image to image by a random UNet of a few weights; the words decide whether it shades the picture."""

    def __init__(self, unet: UNet2DModel, scheduler: DDIMScheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, prompt, image, strength, num_inference_steps, generator):
        x_0 = to_tensor(image, 32)
        self.scheduler.set_timesteps(num_inference_steps)
        steps = self.scheduler.timesteps[-max(1, int(num_inference_steps * strength)) :]
        x = self.scheduler.add_noise(x_0, torch.randn(x_0.shape, generator=generator), steps[:1])
        for t in steps:
            x = self.scheduler.step(self.unet(x, t).sample, t, x).prev_sample
        shade = -0.5 if "dark" in prompt else 0.5
        return SimpleNamespace(images=to_pil((0.9 * x_0 + 0.1 * x.clamp(-1, 1) + shade).clamp(-1, 1)))


@pytest.fixture(scope="module")
def example(repository):
    spec = importlib.util.spec_from_file_location("other_generator", repository / "examples" / "other_generator.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pieces(example, repository, tmp_path_factory):
    """(backend, faces): the pipeline was saved to a folder and loaded from it."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        32, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline")
    TinyPipeline(unet, DDIMScheduler(clip_sample=True)).save_pretrained(folder)
    pipeline = TinyPipeline.from_pretrained(folder, local_files_only=True)
    faces = load_dataset("synthfaces", n=48, seed=3, bias={("smile", "skin_tone"): 0.8})
    faces = faces.select(faces.table["split"] == "train")
    clip = load(repository / "checkpoints" / "synthfaces-64" / "clip", device="cpu")
    length = example.distance_between(clip, DIPOLE, faces, "skin", ["light", "dark"], size=64)
    backend = example.PipelineBackend(
        pipeline, clip, {"skin_tone": DIPOLE}, {"skin_tone": length}, name="tiny", image_size=32, steps=3
    )
    return backend, faces


def test_it_draws_what_is_asked_and_leaves_still_faces_alone(pieces):
    backend, faces = pieces
    x = faces.tensor(faces.ids[:3], 32)
    z = backend.encode(x)
    walked = backend.walk(z, {"skin_tone": torch.tensor([0.0, 1.0, -1.0])})
    before = backend.evaluations
    edited = backend.render(x, z, walked, backend.trace(x, z))
    assert torch.equal(edited[0], x[0]) and backend.evaluations - before == 2 * backend.steps
    assert edited[1].mean() < x[1].mean() - 0.1 and edited[2].mean() > x[2].mean() + 0.1
    assert torch.equal(edited, backend.render(x, z, walked, backend.trace(x, z)))


def test_a_dataset_is_balanced_and_a_run_is_resumed(pieces, tmp_path):
    backend, faces = pieces
    balancer = Balancer(backend, target="smile", protected="skin", checks=ANYTHING, chunk_size=2)
    plan = balancer.plan(faces, limit=4)
    assert plan.cost.minutes is None and "time not measured" in plan.describe()
    result = balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    assert result.complete and result.report["edits"]["kept"] == 4 and result.report["editor"] == "tiny"
    edits = result.table[result.table["origin"] == "edited"]
    for name, donor in zip(edits["file_name"], edits["source_id"], strict=True):
        with Image.open(tmp_path / "out" / name) as edit:
            donor_pixels = np.asarray(faces.image(donor), dtype=float)
            assert edit.size == faces.image(donor).size
            assert abs(np.asarray(edit, dtype=float).mean() - donor_pixels.mean()) > 5
    calls = backend.evaluations
    assert balancer.run(faces, plan, tmp_path / "out", show_progress=False).complete and backend.evaluations == calls
    backend.amount /= 2
    try:
        with pytest.raises(OutputError, match=r"another job: `backend\.amount` is 0\.5 there and 0\.25 here"):
            balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    finally:
        backend.amount *= 2


def test_its_edits_pass_the_same_checks_or_none(pieces, tmp_path):
    """A shade is no skin: what does not read as the wanted group, the same class and the same person is turned down."""
    backend, faces = pieces
    strict = Checks(min_skill=0.0, identity=0.999, retries=0)
    balancer = Balancer(backend, target="smile", protected="skin", checks=strict, chunk_size=4)
    result = balancer.run(faces, balancer.plan(faces, limit=2), tmp_path / "out", show_progress=False)
    assert result.complete and result.report["edits"]["kept"] == 0
    assert set(result.rejected["reason"]) <= {
        "identity_lost", "target_changed", "protected_not_reached", "out_of_reach", "already_in_group", "no_donor_left",
    }  # fmt: skip
