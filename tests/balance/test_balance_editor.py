"""The pipeline on a real Editor: real autoencoder, paths and probes, small and untrained; only CLIP is a stand-in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from doubles import TINY
from PIL import Image

from vlbias.balance import Balancer, Checks
from vlbias.clip import Preprocess
from vlbias.data import FaceDataset
from vlbias.diffae import DiffAE, PriorConfig
from vlbias.editor import Editor
from vlbias.images import open_image, to_tensor
from vlbias.paths import Dipole, PathSet, Probes
from vlbias.rendering import RenderSettings

# An untrained decoder does not show what the code says: what is tested here is that the parts fit together.
ANYTHING = Checks(reached=-1e6, sampled=-1e6, target=-1e6, identity=-1e6, min_skill=-10.0, max_strength=3.0)


class Brightness(torch.nn.Module):
    """In the place of CLIP: reads how bright a picture is."""

    preprocess = Preprocess(size=(16, 16))

    def encode_image(self, x):
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1), dim=1)

    def zero_shot(self, x, classes, temperature=None):
        positive = torch.sigmoid(-3 * x.mean(dim=(1, 2, 3)))
        return torch.stack([positive, 1 - positive], dim=1)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(editor, dataset): 24 pictures of 20 px, bright or dark on the whole, with a bright or dark lower half."""
    folder = tmp_path_factory.mktemp("real")
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(24):
        dark, smile = index % 2, int(index % 8 < 4)
        pixels = torch.rand(20, 20, 3, generator=generator) * 60 + (30 if dark else 160)
        pixels[10:] += 35 if smile else -25
        Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save(folder / f"{index}.png")
        skin = "dark" if dark else "light"
        rows.append({"file_name": f"{index}.png", "split": "train", "smile": smile, "skin": skin})
    # the association: three of four bright smiling faces stay, one dark one
    table = pd.DataFrame(rows, index=[row["file_name"] for row in rows]).drop(["1.png", "3.png", "4.png", "9.png"])
    faces = FaceDataset("ramps", table, root=folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = PriorConfig(num_layers=3, hidden_channels=24, skip_layers=(1, 2), time_channels=8)
        diffae = DiffAE(replace(TINY, prior=prior))
        for parameter in diffae.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.1)
    diffae.eval().requires_grad_(False)
    x_0 = faces.tensor(list(table.index), 16)
    diffae.fit_normalization(((x_0 + 1) * 127.5).byte())
    z_sem = diffae.encode(x_0)
    dipoles = {"skin_tone": Dipole("dark", "light"), "smile": Dipole("smiling", "not smiling")}
    labels = {
        "skin_tone": torch.tensor([float(skin == "dark") for skin in table["skin"]]),
        "smile": torch.tensor(table["smile"].tolist()),
    }
    probes = Probes.fit(z_sem, labels, dipoles=dipoles)
    paths = PathSet(
        {"skin_tone": dipoles["skin_tone"]}, 16, network="linear", mean=diffae.z_mean[0], std=diffae.z_std[0]
    )
    with torch.no_grad():
        normal = probes.normals(paths.mean, paths.std)[:1]
        for parameter in paths.field.parameters():
            parameter.copy_(normal.reshape(parameter.shape))
    render = RenderSettings(invert_steps=3, decode_steps=2, solver="ddim", batch_size=8)
    return Editor(diffae, clip=Brightness(), paths=paths, probes=probes, settings=render, info={"name": "small"}), faces


@pytest.mark.parametrize("source", ["real", "prior"])
def test_a_real_editor_goes_through(real, tmp_path, source):
    editor, faces = real
    settings = {"target": "smile", "protected": "skin", "source": source, "checks": ANYTHING, "chunk_size": 4}
    balancer = Balancer(editor, prior_steps=2, **settings)
    plan = balancer.plan(faces)
    assert len(plan) and plan.cost.minutes is not None
    result = balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    assert result.complete and result.report["edits"]["kept"] > 0
    edits = result.table[result.table["origin"] == "edited"]
    size = open_image(tmp_path / "out" / edits["file_name"].iloc[0]).size
    assert size == ((20, 20) if source == "real" else (16, 16))  # the donor's own, where there is one
    Balancer(editor, prior_steps=2, **settings).run(faces, plan, tmp_path / "again", show_progress=False)
    for name in edits["file_name"]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_photographs_of_a_thousand_pixels(real, tmp_path):
    """The way of full-size weights with small ones: 1024 px JPEG in, edited at 16 px, 1024 px JPEG out."""
    editor, small = real
    photos = tmp_path / "photos"
    photos.mkdir()
    grain = np.random.default_rng(0)
    for item in small.ids:
        pixels = np.asarray(small.image(item).resize((1024, 1024), Image.Resampling.BICUBIC), dtype=np.float32)
        noisy = (pixels + grain.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(photos / f"{item}.jpg", quality=92)
    faces = replace(small, root=photos, table=small.table.assign(file_name=[f"{item}.jpg" for item in small.ids]))
    balancer = Balancer(editor, target="smile", protected="skin", checks=ANYTHING, chunk_size=4)
    result = balancer.run(faces, balancer.plan(faces, limit=2), tmp_path / "out", show_progress=False)
    edits = result.table[result.table["origin"] == "edited"].to_dict("records")
    assert edits
    for row in edits:
        donor, edit = faces.path(row["source_id"]), tmp_path / "out" / row["file_name"]
        with Image.open(donor) as old, Image.open(edit) as new:
            assert (new.format, new.size, new.quantization) == ("JPEG", (1024, 1024), old.quantization)
        before, after = open_image(donor), open_image(edit)
        change = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
        # what was added is smooth: an eighth of the picture's edge holds it, up to what JPEG rounds
        coarse = change.reshape(128, 8, 128, 8, 3).mean(axis=(1, 3))
        smooth = np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)
        assert coarse.std() > 5 and (change - smooth).std() < 0.3 * coarse.std()
        # seen at the editor's size it is the editor's own edit; enlarging softens what differs from pixel to pixel
        x_0 = to_tensor(before, editor.image_size)
        wanted = editor.edit(x_0, skin_tone=float(row["strength"])) - x_0
        found = to_tensor(after, editor.image_size) - x_0
        assert torch.corrcoef(torch.stack([wanted.flatten(), found.flatten()]))[0, 1] > 0.7
        assert editor.edit(before, skin_tone=0.0).tobytes() == before.tobytes()


@pytest.mark.parametrize(("retries", "walks"), [(2, 1), (3, 2)])
def test_a_donor_is_inverted_and_decoded_once_and_a_smaller_change_costs_nothing(real, tmp_path, retries, walks):
    """3 to invert, 2 for the donor unedited, and 2 a walk; .8 and .64 of a change are taken from the same walk."""
    editor, faces = real
    never = replace(ANYTHING, identity=1e6, retries=retries)
    balancer = Balancer(
        editor.with_settings(method="difference"), target="smile", protected="skin", checks=never, chunk_size=4
    )
    result = balancer.run(faces, balancer.plan(faces, limit=1), tmp_path / "out", show_progress=False)
    walked = int((result.rejected["reason"] == "identity_lost").sum())
    assert walked and result.unet_evaluations == walked * (3 + walks * 3)  # of five levels, there and back
