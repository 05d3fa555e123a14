"""An autoencoder at twice its size: what it knew it still knows, exactly, and its decoder alone learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from doubles import TINY_PRIOR, people, run_command, tiny_editor
from torch.nn import functional as F

from vlbias import Editor
from vlbias.data.folder import load_folder
from vlbias.diffae import DiffAE, DiffAETrainingSettings, Student, enlarge, train_diffae
from vlbias.diffae.haar import HaarBands, haar_bands
from vlbias.errors import ConfigError, TrainingError
from vlbias.files import read_object
from vlbias.images import to_float
from vlbias.recipes import build_enlarged
from vlbias.rendering import RenderSettings


@pytest.fixture
def small(tiny_config, make_model):
    config = replace(tiny_config, prediction_type="v_prediction", enc_patch_size=2, prior=TINY_PRIOR)
    return make_model(config)


@pytest.fixture
def images(tiny_images):
    """uint8 (12, 3, 32, 32) with noise of 8 grey levels, which is their detail."""
    noise = 8 * torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return (F.interpolate(tiny_images.float(), 32, mode="bilinear") + noise).clamp(0, 255).to(torch.uint8)


def test_bands_keep_lengths_and_come_back():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    bands = haar_bands(x)
    assert bands.shape == (2, 4, 3, 4, 4)
    torch.testing.assert_close(bands.square().sum(), x.square().sum())
    torch.testing.assert_close(bands[:, 0], 2 * F.avg_pool2d(x, 2))


@pytest.mark.parametrize("t", [0, 40, 500, 999])
def test_alone_the_bands_are_the_best_linear_prediction(small, images, t):
    """With a network that says nothing, each band's prediction is that of a Wiener filter of its deviation."""
    model = enlarge(small, images)
    signal, noise = (level.item() for level in model._levels(torch.tensor([t])))
    x_t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(t))
    bands = HaarBands(model.config)
    _, beside = bands.split(x_t, torch.tensor([t]))
    x_0 = signal * x_t - noise * bands.join(torch.zeros_like(beside), beside, torch.tensor([t]))
    for band, std in zip((slice(0, 1), slice(1, 4)), model.config.haar_stds, strict=True):
        gain = signal * std**2 / (signal**2 * std**2 + noise**2)
        torch.testing.assert_close(haar_bands(x_0)[:, band], gain * haar_bands(x_t)[:, band], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("t", [0, 40, 500, 999])
def test_of_means_it_says_what_it_said(small, make_model, images, patch, t):
    small = make_model(replace(small.config, patch_size=patch, enc_patch_size=patch))
    model = enlarge(small, images)
    assert model.config.image_size == 32 and model.config.patch_size == 2 * patch
    x_0 = to_float(images)
    z_sem = small.encode(F.avg_pool2d(x_0, 2))
    torch.testing.assert_close(model.encode(x_0), z_sem, rtol=1e-4, atol=1e-5)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    step = torch.full((len(x_0),), t)
    large = model.predict_x0(model.add_noise(x_0, eps, step), step, z_sem)
    # the mean of four has half the noise
    x_t = small.add_noise(F.avg_pool2d(x_0, 2), 2 * F.avg_pool2d(eps, 2), step)
    torch.testing.assert_close(F.avg_pool2d(large, 2), small.predict_x0(x_t, step, z_sem), rtol=1e-4, atol=1e-4)


def test_its_detail_is_measured(small, images):
    pixels = images.reshape(12, 3, 16, 2, 16, 2).double() / 127.5
    differences = pixels - pixels.mean(dim=(3, 5), keepdim=True)
    expected = (differences.square().sum() / (3 / 4 * differences.numel())).sqrt()
    assert enlarge(small, images).config.haar_stds == pytest.approx((2.0, expected.item()), rel=0.01)


def test_codes_prior_and_statistics_are_those_it_had(small, images):
    small.fit_normalization(torch.randint(0, 255, (8, 3, 16, 16), dtype=torch.uint8))
    model = enlarge(small, images)
    assert torch.equal(model.z_mean, small.z_mean) and torch.equal(model.z_std, small.z_std)
    noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.prior.sample(noise), small.prior.sample(noise))


def test_its_decoder_alone_is_trained(small, images, tmp_path):
    model = enlarge(small, images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = DiffAETrainingSettings(max_images=96, batch_size=8, warmup_images=0, train_encoder=False, device="cpu")
    assert train_diffae(model, images, settings, tmp_path / "run").finished
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"unet"}


def test_it_learns_detail_better_than_a_filter(small, images, tmp_path):
    """Pictures whose differences follow from their means: there is more to know than their deviation."""
    means = F.interpolate(torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(2)), 32, mode="bilinear")
    stripes = torch.tensor([1.0, -1.0]).repeat(16) * (means - 0.5)
    images = ((0.5 * means + 0.25 + 0.2 * stripes) * 255).round().to(torch.uint8)
    model = enlarge(small, images)
    x_0, step = to_float(images[:16]), torch.full((16,), 50)
    x_t = model.add_noise(x_0, torch.randn(x_0.shape, generator=torch.Generator().manual_seed(3)), step)

    def lacking(model):
        error = model.predict_x0(x_t, step, model.encode(x_0)) - x_0
        return haar_bands(error)[:, 1:].square().mean()

    before = lacking(model)
    settings = DiffAETrainingSettings(
        max_images=1600, batch_size=16, learning_rate=1e-2, warmup_images=0, train_encoder=False, ema_decay=0.9,
        device="cpu",
    )  # fmt: skip
    train_diffae(model, images, settings, tmp_path / "run")
    assert lacking(model) < 0.8 * before


def test_it_is_saved_and_loaded(small, images, tmp_path):
    model = enlarge(small, images)
    model.save_pretrained(tmp_path / "large", dtype=torch.float32)
    loaded, x_0 = DiffAE.from_pretrained(tmp_path / "large"), to_float(images)
    z_sem = model.encode(x_0)
    assert torch.equal(loaded.invert(x_0, z_sem, 3, "dpm++2m"), model.invert(x_0, z_sem, 3, "dpm++2m"))


def test_what_cannot_be_enlarged_is_refused(tiny_config, make_model, small, images):
    with pytest.raises(ConfigError, match="this one predicts noise"):
        enlarge(make_model(tiny_config), images)
    with pytest.raises(ConfigError, match="this one was enlarged before"):
        enlarge(enlarge(small, images), images)
    with pytest.raises(ConfigError, match=r"must be uint8 \(n, 3, 32, 32\); got torch.uint8 \(12, 3, 16, 16\)"):
        enlarge(small, images[:, :, ::2, ::2])


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_student_is_left_behind_and_so_are_its_few_steps(small, tmp_path):
    r = tiny_editor(replace(small.config, attention_resolutions=()), settings=RenderSettings(edit_steps=3)).renderer
    editor = Editor(r.diffae, paths=r.paths, settings=r.settings, student=Student(r.diffae, 1))
    faces = load_folder(people(tmp_path / "people"))
    larger = build_enlarged(editor, faces, tmp_path / "large", diffae_images=16, device="cpu").renderer
    assert larger.student is None and larger.settings.edit_steps == RenderSettings().edit_steps


def test_the_command_writes_an_editor_and_goes_on_after_a_kill(small, tmp_path, monkeypatch):
    base = tiny_editor(replace(small.config, attention_resolutions=()), license="research only", usual_rebuild_db=20.0)
    base.save_pretrained(tmp_path / "base", dtype=torch.float32)
    faces, out = people(tmp_path / "people"), tmp_path / "large"
    words = ("train", "enlarge", f"{tmp_path / 'base'}/", faces, out, "--images", 64)
    with monkeypatch.context() as patch:
        patch.setattr("vlbias.diffae.training._Trainer._stop_asked", lambda *_: True)
        with pytest.raises(TrainingError, match="stopped after 0 images; the same command goes on"):
            run_command(*words)
    assert "large: 32 px" in run_command(*words)
    editor = Editor.from_pretrained(f"{out}/")
    assert (editor.name, editor.renderer.image_size, editor.attributes) == ("large", 32, ["age", "skin_tone"])
    assert editor.renderer.settings == base.renderer.settings
    assert editor.renderer.info.get("usual_rebuild_db") != 20.0  # true at the other size alone
    assert "research only" in (out / "README.md").read_text()
    assert read_object(out / "enlarge.json")["editor"] == "tiny"
    assert not (out / ".building").exists()
