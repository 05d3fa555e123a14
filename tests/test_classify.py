"""Downstream classifiers, at the smallest size that can learn anything."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from vlbias import classify
from vlbias.errors import CheckpointError, ConfigError, LabelError, OutputError, ShapeError, TrainingError
from vlbias.images import load_pixels

TINY = classify.FitSettings(
    backbone_options={"channels": [8, 8, 16, 16], "stem_width": 4},
    image_size=32,
    num_steps=20,
    batch_size=8,
    shift_px=1,
)


def squares(n, seed=0, size=32):
    """Bright squares on grey noise mark class "b"."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 3, size, size, generator=generator) * 0.4 - 0.2
    labels = ["b" if i % 2 else "a" for i in range(n)]
    x[1::2, :, size // 4 : -size // 4, size // 4 : -size // 4] += 0.7
    return x, labels


@pytest.fixture(scope="module")
def fitted():
    x, labels = squares(32)
    return classify.fit(x, labels, settings=TINY, num_steps=60, learning_rate=5e-3)


def test_learns_what_can_be_seen(fitted):
    x, labels = squares(40, seed=9)
    assert np.mean([a == b for a, b in zip(fitted.predict(x), labels, strict=True)]) >= 0.95
    assert fitted.losses[-1] < fitted.losses[0]
    assert fitted.classes == ["a", "b"]


def test_probabilities_do_not_depend_on_the_batch(fitted):
    x, _ = squares(7, seed=3)
    together = fitted.predict_proba(x)
    assert together.shape == (7, 2)
    torch.testing.assert_close(together.sum(1), torch.ones(7))
    torch.testing.assert_close(fitted.predict_proba(x, batch_size=2), together, atol=1e-5, rtol=1e-4)
    as_bytes = fitted.predict_proba(x.add(1).mul(127.5).round().to(torch.uint8))
    torch.testing.assert_close(as_bytes, together, atol=0.02, rtol=0.02)  # 8-bit rounding of the pixels
    assert fitted.predict_proba(x[:0]).shape == (0, 2)


def test_other_sizes_are_resized_with_gradients(fitted):
    x = squares(2, size=48)[0].requires_grad_()
    fitted.logits(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_saved_and_loaded_agree(fitted, tmp_path):
    x, _ = squares(6, seed=4)
    fitted.save_pretrained(tmp_path / "new" / "classifier")
    loaded = classify.Classifier.from_pretrained(tmp_path / "new" / "classifier")
    torch.testing.assert_close(loaded.predict_proba(x), fitted.predict_proba(x), atol=0, rtol=0)
    assert loaded.classes == fitted.classes
    assert loaded.settings.image_size == 32


def test_the_seed_decides_everything(fitted):
    x, labels = squares(32)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    again = classify.fit(x, labels, settings=TINY, num_steps=5)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random state must not move"
    twice = classify.fit(x, labels, settings=TINY, num_steps=5)
    other = classify.fit(x, labels, settings=TINY, num_steps=5, seed=1)
    assert again.losses == twice.losses != other.losses


def test_focal_loss_is_cross_entropy_at_gamma_zero_and_matches_the_formula():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    target, weight = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1.0, 2.0, 0.5])
    for w in (None, weight):
        torch.testing.assert_close(
            classify.focal_loss(logits, target, gamma=0, weight=w), F.cross_entropy(logits, target, weight=w)
        )
    by_hand = []
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        p = math.exp(row[y]) / sum(math.exp(v) for v in row)
        by_hand.append(-((1 - p) ** 2) * math.log(p))
    assert classify.focal_loss(logits, target, gamma=2).item() == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_focal_loss_and_class_weights_train():
    x, labels = squares(16)
    for changes in ({"loss": "focal"}, {"class_weights": "balanced"}, {"class_weights": {"a": 1.0, "b": 3.0}}):
        classifier = classify.fit(x, labels, settings=TINY, num_steps=2, **changes)
        assert all(math.isfinite(loss) for loss in classifier.losses)


def test_balanced_weights_are_inverse_frequencies():
    settings = classify.FitSettings(class_weights="balanced")
    weights = classify._class_weights(settings, ["a", "b"], torch.tensor([0, 0, 0, 1]))
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 4 / 2]))


def test_shifting_repeats_the_edge_and_mirroring_flips():
    x = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    settings = classify.FitSettings(flip=False, shift_px=2)
    seen = set()
    for seed in range(30):
        out = classify._augment(x, settings, torch.Generator().manual_seed(seed))
        top = next(
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(out[0], F.pad(x, (2, 2, 2, 2), mode="replicate")[0, :, 2 + dy : 8 + dy, 2 + dx : 8 + dx])
        )
        seen.add(top)
    assert len(seen) > 10
    mirrored = classify._augment(x, classify.FitSettings(shift_px=0), torch.Generator().manual_seed(0))
    for before, after in zip(x, mirrored, strict=True):
        assert torch.equal(after, before) or torch.equal(after, before.flip(-1))


class Dataset:
    """The least that a dataset must offer."""

    def __init__(self, images, **columns):
        self.images = images
        self.table = pd.DataFrame(columns, index=[f"item-{i}" for i in range(len(images))])

    def tensor(self, items, size):
        rows = [self.table.index.get_loc(item) for item in items]
        return F.interpolate(self.images[rows], size=(size, size))


def test_a_dataset_and_its_column_equal_tensors_and_labels():
    x, labels = squares(12)
    x = x.add(1).mul(127.5).round().div(127.5).sub(1)  # what survives 8 bits
    dataset = Dataset(x, mark=labels, other=[None, *labels[1:]])
    one = classify.fit(dataset, "mark", settings=TINY, num_steps=3)
    two = classify.fit(load_pixels(dataset, list(dataset.table.index), 32, chunk=5), labels, settings=TINY, num_steps=3)
    assert one.losses == two.losses
    with pytest.raises(LabelError, match="no column 'smile'; it has mark, other"):
        classify.fit(dataset, "smile", settings=TINY)
    with pytest.raises(LabelError, match="1 missing values, the first at position 0"):
        classify.fit(dataset, "other", settings=TINY)
    with pytest.raises(ConfigError, match="name of one of its columns"):
        classify.fit(dataset, labels, settings=TINY)


def test_bad_images_and_labels():
    x, labels = squares(4)
    with pytest.raises(ShapeError, match=r"must be \(n, 3, h, w\); got \(4, 32, 32\)"):
        classify.fit(x[:, 0], labels, settings=TINY)
    with pytest.raises(ShapeError, match=r"4 labels, one per image; got shape \(3,\)"):
        classify.fit(x, labels[:3], settings=TINY)
    with pytest.raises(LabelError, match="all labels are 'a'"):
        classify.fit(x, ["a"] * 4, settings=TINY)
    with pytest.raises(LabelError, match="contains b, which `classes` lacks"):
        classify.fit(x, labels, classes=["a", "c"], settings=TINY)
    with pytest.raises(TrainingError, match="loss became nan at step 0"):
        classify.fit(torch.full_like(x, float("nan")), labels, settings=TINY)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"backbone": "resnet10x"}, "Unknown backbone 'resnet10x'. Near names in timm: resnet10t"),
        ({"backbone_options": {"colour": 3}}, "cannot be built with"),
        ({"learning_rat": 1.0}, "Did you mean 'learning_rate'"),
        ({"loss": "hinge"}, "cross_entropy, focal; got 'hinge'"),
        ({"num_steps": 0}, "`num_steps` of FitSettings must be a whole number in 1..500,000; got 0"),
        ({"num_steps": True}, "a whole number in 1..500,000; got True"),
        ({"learning_rate": float("nan")}, "`learning_rate` of FitSettings"),
        ({"loss": "focal", "label_smoothing": 0.1}, "belongs to cross-entropy"),
        ({"class_weights": "even"}, "'balanced' or None; got 'even'"),
        ({"class_weights": {"a": 1.0}}, r"lacks a weight for \['b'\]"),
    ],
)
def test_bad_settings_are_named(changes, text):
    x, labels = squares(4)
    with pytest.raises(ConfigError, match=text):
        classify.fit(x, labels, settings=TINY, **changes)


def test_pretrained_weights_come_from_a_local_file_alone(fitted, tmp_path):
    x, labels = squares(8)
    with pytest.raises(CheckpointError, match="must be a local file"):
        classify.fit(x, labels, settings=TINY, pretrained_file="timm/resnet10t")
    fitted.save_pretrained(tmp_path)
    weights = str(tmp_path / "classifier.safetensors")
    module = classify.create_backbone("resnet10t", 2, pretrained_file=weights, options=TINY.resolved_options())
    torch.testing.assert_close(module.state_dict()["conv1.0.weight"], fitted.module.state_dict()["conv1.0.weight"])
    with pytest.raises(CheckpointError, match="does not fit backbone 'resnet18'"):
        classify.create_backbone("resnet18", 2, pretrained_file=weights)


def test_damaged_folders_are_refused(fitted, tmp_path):
    with pytest.raises(CheckpointError, match="has no classifier.json"):
        classify.Classifier.from_pretrained(tmp_path)
    fitted.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    config = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(config | {"format": "other"}))
    with pytest.raises(CheckpointError, match="is not of format"):
        classify.Classifier.from_pretrained(tmp_path)
    (tmp_path / "classifier.json").write_text(json.dumps(config | {"classes": ["a", "b", "c"]}))
    with pytest.raises(CheckpointError, match="does not fit its architecture, 2 keys"):
        classify.Classifier.from_pretrained(tmp_path)
    config["settings"]["colour"] = 3
    (tmp_path / "classifier.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"classifier\.json: Unknown setting 'colour'"):
        classify.Classifier.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file. Give a folder"):
        fitted.save_pretrained(tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": None}, "`classes` must list"),
        ({"classes": ["a"]}, "`classes` must list"),
        ({"classes": ["a", {}]}, "must be labels"),
        ({"settings": None}, "`settings` an object"),
        ({"settings": []}, "`settings` an object"),
        ({"losses": [[]]}, "classifier.json"),
        ({"losses": 3}, "classifier.json"),
    ],
)
def test_a_config_of_other_kinds_is_a_sentence(fitted, tmp_path, change, said):
    fitted.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    config = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=said):
        classify.Classifier.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint_path": "evil.pth"},
        {"pretrained": True},
        {"pretrained_cfg": 1},
        {"norm_layer": "torch.nn.BatchNorm2d"},
        {"channels": [32, "x"]},
        {"stem_width": 10**9},
        {"channels": [16] * 1000},
        [1],
        "x",
    ],
)
def test_options_in_a_file_are_numbers_alone(fitted, tmp_path, options):
    fitted.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    config = json.loads((tmp_path / "classifier.json").read_text())
    config["settings"]["backbone_options"] = options
    (tmp_path / "classifier.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"classifier\.json: the options? .*of a network must be"):
        classify.Classifier.from_pretrained(tmp_path)


def test_transformers_see_pictures_of_the_size_asked_for(tmp_path):
    x, labels = squares(8)
    for name, options in (
        ("vit_tiny_patch16_224", {"depth": 1, "embed_dim": 24, "num_heads": 2}),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1], "embed_dim": 8, "num_heads": [1, 1]}),
    ):
        fitted = classify.fit(x, labels, settings=TINY, backbone=name, backbone_options=options, num_steps=1)
        fitted.save_pretrained(tmp_path / name)
        again = classify.Classifier.from_pretrained(tmp_path / name)
        assert torch.equal(again.predict_proba(x), fitted.predict_proba(x))


def test_a_backbone_that_cannot_see_so_small_pictures_is_named():
    x, labels = squares(4)
    with pytest.raises(ConfigError, match="backbone 'inception_v3' does not take pictures of 32 px"):
        classify.fit(x, labels, settings=TINY, backbone="inception_v3", backbone_options={}, num_steps=1)


def test_a_fingerprint_follows_data_and_settings():
    x, labels = squares(4)
    base = classify.fingerprint(x, labels, TINY)
    assert classify.fingerprint(x.clone(), list(labels), TINY) == base
    assert classify.fingerprint(x + 0.01, labels, TINY) != base
    assert classify.fingerprint(x, labels[::-1], TINY) != base
    assert classify.fingerprint(x, labels, replace(TINY, seed=1)) != base


def test_amp_learns_in_half_precision_and_is_another_run():
    x, labels = squares(32)
    exact, half = (classify.fit(x, labels, settings=TINY, device="cpu", amp=amp) for amp in (False, True))
    assert half.losses != exact.losses and half.losses[-1] < half.losses[0]
    assert half.losses[0] == pytest.approx(exact.losses[0], rel=0.02)
    assert half.predict_proba(x).dtype == torch.float32
    assert classify.fingerprint(x, labels, replace(TINY, amp=True)) != classify.fingerprint(x, labels, TINY)
    assert "amp" not in TINY.of_result() and replace(TINY, amp=True, device="cpu").of_result()["amp"]


def test_weights_of_images_decide_what_is_learned():
    x, labels = squares(32)
    lies = [label if row < 16 else {"a": "b", "b": "a"}[label] for row, label in enumerate(labels)]
    weights = torch.tensor([1.0] * 16 + [0.0] * 16)
    fitted = classify.fit(
        x, lies, settings=TINY, num_steps=60, learning_rate=5e-3, hooks=classify.FitHooks(weights=weights)
    )
    seen, truth = squares(40, seed=9)
    assert np.mean([a == b for a, b in zip(fitted.predict(seen), truth, strict=True)]) >= 0.9
    for wrong in (torch.ones(31), torch.zeros(32), -weights, weights * math.nan):
        with pytest.raises(ShapeError, match="`weights` must be \\(32,\\), finite, >= 0"):
            classify.fit(x, labels, settings=TINY, hooks=classify.FitHooks(weights=wrong))


def test_hooks_change_batches_losses_and_the_start(fitted):
    x, labels = squares(16)
    rows_seen = []

    def darker(batch, targets, generator):
        return batch - 0.5, F.one_hot(targets, 2).float()

    def loss(logits, targets, rows):
        rows_seen.append(rows)
        assert targets.shape == (8, 2)
        return F.cross_entropy(logits, targets)

    hooks = classify.FitHooks(change_batch=darker, loss=loss)
    classify.fit(x, labels, settings=TINY, num_steps=2, hooks=hooks)
    assert sorted(torch.cat(rows_seen).tolist()) == list(range(16))
    # From weights that know the answer, a step of next to nothing changes nothing.
    hooks = classify.FitHooks(start=fitted.module.state_dict())
    again = classify.fit(x, labels, settings=TINY, num_steps=1, learning_rate=1e-9, hooks=hooks, ema_decay=0)
    assert again.predict(x) == fitted.predict(x) == labels


def test_losses_of_items_have_the_mean_of_the_usual_loss():
    logits, targets = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1, 0])
    smooth = replace(TINY, label_smoothing=0.1)
    expected = F.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(classify.item_losses(logits, targets, smooth).mean(), expected)
    focal = replace(TINY, loss="focal")
    torch.testing.assert_close(
        classify.item_losses(logits, targets, focal).mean(), classify.focal_loss(logits, targets)
    )
