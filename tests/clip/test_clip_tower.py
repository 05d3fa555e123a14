"""The image tower that learns labels first, and the augmentation that keeps it from learning faces by heart."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
import torch

from vlbias.augment import augment
from vlbias.clip import (
    MILD,
    STRONG,
    Augmentation,
    ClipConfig,
    ClipTrainingSettings,
    LabelTargets,
    TableCaptions,
    TowerTrainingSettings,
    train_clip,
    train_tower,
)
from vlbias.errors import CheckpointError, ConfigError, ShapeError, TrainingError, UnknownNameError
from vlbias.recipes import photograph_templates

TINY = ClipConfig(image_size=32, vision_width=8, embed_dim=16, text_width=16, text_heads=2, text_layers=1)
QUIET = Augmentation(shift=0.03, turn=5, zoom=0.05)


@pytest.fixture(scope="module")
def portraits():
    """120 pictures: the red level says the age, a bright upper half says a man."""
    generator = torch.Generator().manual_seed(0)
    age = torch.randint(18, 80, (120,), generator=generator)
    man = torch.rand(120, generator=generator) < 0.5
    x = torch.randint(100, 130, (120, 3, 32, 32), generator=generator)
    x[:, 0] += ((age - 50) * 2).view(-1, 1, 1)
    x[man, :, :16] += 60
    table = pd.DataFrame({"age": age.numpy(), "gender": ["male" if m else "female" for m in man.tolist()]})
    return x.clamp(0, 255).to(torch.uint8), table.assign(race="White", skin="light")


def batch(n=6, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("settings", [MILD, STRONG])
def test_augmentation_repeats_by_seed_and_stays_in_range(settings):
    x = batch()
    one, again, other = (augment(x, settings, seeded(seed)) for seed in (0, 0, 1))
    assert one.shape == x.shape and one.min() >= -1 and one.max() <= 1
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_no_augmentation_is_the_picture():
    assert torch.equal(augment(batch(), Augmentation(shift=0.0), seeded(), flip=False), batch())


def test_each_setting_does_what_it_says():
    x = batch()

    def only(**settings):
        return augment(x, Augmentation(**({"shift": 0.0} | settings)), seeded(), flip=False)

    grey = only(grey=0.999)
    assert torch.allclose(grey[:, :1].expand_as(grey), grey)
    light = only(brightness=0.1) - x
    assert torch.allclose(light, light[:, :1, :1, :1].expand_as(light), atol=1e-5) and light.abs().max() <= 0.1 + 1e-5
    cast = only(cast=0.05) - x
    assert torch.allclose(cast, cast[:, :, :1, :1].expand_as(cast), atol=1e-5)
    blurred = only(blur=0.999)
    assert (blurred.diff(dim=-1).square().mean() < 0.5 * x.diff(dim=-1).square().mean()).all()
    covered = (only(erase=0.999) != x).any(dim=1).float().mean(dim=(1, 2))
    assert (covered > 0.01).all() and (covered < 0.25).all()
    moved = only(shift=0.06, turn=10.0, zoom=0.1)
    assert (moved != x).any()


def test_targets_are_soft_for_ages_and_silent_where_a_label_is_missing():
    table = pd.DataFrame({"age": [20.0, 21.0, 70.0, None] * 10, "skin": ["light", None, "dark", "dark"] * 10})
    table["age"] += pd.Series(range(40)) / 10
    targets = LabelTargets(table, ["age", "skin"], num_bins=10, softness=1.0)
    ages, skins = targets.blocks
    assert ages.shape == (40, 10) and skins.shape == (40, 2) and targets.num_classes == 12
    assert torch.allclose(ages[0].sum(), torch.tensor(1.0)) and ages[3].sum() == 0 and skins[1].sum() == 0
    near, far = (ages[0] * ages[1]).sum(), (ages[0] * ages[2]).sum()
    assert near > 10 * far
    flat = targets.loss(torch.zeros(4, 12), torch.arange(4))
    assert float(flat) == pytest.approx(torch.log(torch.tensor(10.0)).item() + torch.log(torch.tensor(2.0)).item())
    with pytest.raises(ConfigError, match="`table` of LabelTargets must be a DataFrame; got"):
        LabelTargets([{"skin": "light"}], ["skin"])
    # rows without a label count for nothing
    assert float(LabelTargets(table, ["skin"]).loss(torch.tensor([[9.0, -9.0]]), torch.tensor([1]))) == 0


def test_a_tower_learns_labels_and_a_clip_starts_from_it(portraits):
    images, table = portraits
    losses = []
    training = TowerTrainingSettings(
        num_images=3000, batch_size=30, learning_rate=4e-3, augmentation=QUIET, ema_decay=0.9
    )
    columns = ["age", "gender"]
    tower = train_tower(images, table, columns, TINY, training, on_step=lambda _, loss: losses.append(loss))
    assert sum(losses[-10:]) / 10 < 0.75 * losses[0]
    captions = TableCaptions(photograph_templates(), table, seed=0)
    settings = ClipTrainingSettings(num_images=30, batch_size=30, text_steps=2, augmentation=MILD, tower_rate=0.0)
    clip = train_clip(images, captions, TINY, settings, tower=tower)
    started = clip.model.visual.state_dict()
    kept = [name for name in tower if "attnpool" not in name and "running" not in name and "num_batches" not in name]
    assert kept and all(torch.equal(started[name], tower[name]) for name in kept)
    with pytest.raises(CheckpointError, match="`tower` does not fit its architecture.*; and [0-9]+ more"):
        train_clip(images, captions, ClipConfig(image_size=32, vision_width=16), settings, tower=tower)


def test_an_interrupted_tower_comes_out_the_same(portraits, tmp_path, monkeypatch):
    images, table = portraits
    training = TowerTrainingSettings(num_images=150, batch_size=30, augmentation=STRONG)
    whole = train_tower(images, table, ["gender"], TINY, training)
    monkeypatch.setattr("vlbias.optim.SAVE_INTERVAL_S", 0.0)

    def stop(seen, _):
        if seen == 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tower(images, table, ["gender"], TINY, training, state_path=tmp_path / "state", on_step=stop)
    with pytest.raises(TrainingError, match="another run"):
        train_tower(images, table, ["gender"], TINY, replace(training, seed=1), state_path=tmp_path / "state")
    again = train_tower(images, table, ["gender"], TINY, training, state_path=tmp_path / "state")
    assert all(torch.allclose(whole[name].float(), again[name].float(), atol=1e-6) for name in whole)
    monkeypatch.setattr("vlbias.clip.learner.augment", None)  # a finished state trains no more
    finished = train_tower(images, table, ["gender"], TINY, training, state_path=tmp_path / "state")
    assert all(torch.equal(finished[name], again[name]) for name in again)


def test_bad_settings_are_refused(portraits):
    images, table = portraits
    with pytest.raises(ConfigError, match=r"`turn` of Augmentation must be a number in \[0, 90\); got 90"):
        Augmentation(turn=90)
    with pytest.raises(ConfigError, match="`softness` of TowerTrainingSettings must be a number > 0"):
        TowerTrainingSettings(softness=0)
    with pytest.raises(UnknownNameError, match="Unknown column 'agee'"):
        train_tower(images, table, ["agee"], TINY)
    with pytest.raises(ConfigError, match="'race' has fewer than two values"):
        train_tower(images, table, ["race"], TINY)
    with pytest.raises(ConfigError, match="`columns` is empty"):
        train_tower(images, table, [], TINY)
    with pytest.raises(ShapeError, match="120, 3, 32, 32.* and 5 rows"):
        train_tower(images, table[:5], ["age"], TINY)
