"""Classifiers and CLIP as labellers."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from PIL import Image

from vlbias.data import load_dataset
from vlbias.errors import ConfigError, ShapeError
from vlbias.labelling import ClassifierLabeller, Labels, evaluate, zero_shot


@pytest.fixture
def photos(tmp_path):
    """Ten pictures from black to white with their true label."""
    rows = ["file_name,shade"]
    for i in range(10):
        Image.new("RGB", (16, 16), (25 * i,) * 3).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'bright' if i >= 5 else 'dim'}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    return load_dataset("folder", tmp_path)


def brightness(x: torch.Tensor) -> torch.Tensor:
    """Probability that a picture is dim or bright, from its mean."""
    bright = (x.mean(dim=(1, 2, 3)) + 1) / 2
    return torch.stack([1 - bright, bright], dim=1)


def test_any_function_labels(photos, capsys):
    labels = ClassifierLabeller(brightness, ["dim", "bright"], size=16).label(photos, batch_size=3)
    assert "labelling: 10/10 images" in capsys.readouterr().err
    assert labels.table.index.tolist() == photos.ids
    # level 125 is 0.49 of white: called dim although it is given as bright
    assert labels.table["label"].tolist() == ["dim"] * 6 + ["bright"] * 4
    assert labels.table.loc["9.png", "p_bright"] == pytest.approx(225 / 255, abs=1e-5)
    assert labels.table.loc["9.png", "p_dim"] == pytest.approx(1 - 225 / 255, abs=1e-5)
    assert labels.table.loc["0.png", "confidence"] == pytest.approx(1)
    scored = evaluate(labels, photos.table["shade"])
    assert scored.accuracy == pytest.approx(0.9) and scored.recall == {"bright": 0.8, "dim": 1.0}
    assert labels.coverage == 1 and labels.unlabelled() == {}


def test_the_batch_size_changes_nothing(photos):
    def table(batch_size: int) -> pd.DataFrame:
        labeller = ClassifierLabeller(brightness, ["dim", "bright"], size=16)
        return labeller.label(photos, batch_size=batch_size).table

    assert table(64).equals(table(1))


def test_logits_and_imagenet_normalisation(photos):
    def network(x: torch.Tensor) -> torch.Tensor:
        assert float(x.max()) > 1.5  # normalised as asked: white becomes (1 - 0.5) / 0.25
        return torch.stack([-x.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3))], dim=1)

    labeller = ClassifierLabeller(network, ["dim", "bright"], size=16, output="logits", mean=[0.5] * 3, std=[0.25] * 3)
    table = labeller.label(photos.select(photos.ids[8:])).table
    assert table["label"].tolist() == ["bright"] * 2
    expected = torch.tensor([-(225 / 255 - 0.5) / 0.25, (225 / 255 - 0.5) / 0.25]).softmax(0)
    assert table.loc["9.png", "p_bright"] == pytest.approx(float(expected[1]), abs=1e-5)


def test_a_torch_module_is_a_function(photos):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    labels = ClassifierLabeller(network, [0, 1, 2], size=8, output="logits").label(photos)
    assert labels.table["label"].dtype == "int64" and labels.coverage == 1


def test_unsure_and_unreadable_faces_have_a_reason_and_no_label(photos):
    (photos.root / "3.png").write_bytes(b"")
    labels = ClassifierLabeller(brightness, ["dim", "bright"], size=16, min_confidence=0.6).label(photos, batch_size=4)
    assert labels.unlabelled() == {"low_confidence": 2, "unreadable_image": 1}
    assert labels.table.loc[["3.png", "5.png"], "label"].isna().all()
    assert labels.coverage == pytest.approx(0.7)
    labelled = labels.apply(photos, "seen", min_confidence=0.9)
    assert labelled.table["seen"].dropna().tolist() == ["dim"] * 2
    assert labelled.attributes == ["shade", "seen"]
    assert "not of a person; only labels of confidence >= 0.9" in labelled.descriptions["seen"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a"]}, r"two or more different labels; got \['a'\]"),
        ({"classes": ["a", "a"]}, "two or more different labels"),
        ({"output": "scores"}, "`output` must be one of probabilities, logits; got 'scores'"),
        ({"mean": [0.5] * 3}, "`mean` and `std` go together"),
        ({"min_confidence": 2}, "`min_confidence` must be a number in 0..1; got 2"),
        ({"size": 0}, "`size` must be a whole number in 1..4096; got 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        ClassifierLabeller(brightness, **({"classes": ["dim", "bright"], "size": 16} | options))


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda x: torch.ones(len(x), 3) / 3, r"gave \(10, 3\) scores; expected \(10, 2\)"),
        (lambda x: torch.full((len(x), 2), float("nan")), "gave NaN"),
        (lambda x: torch.randn(len(x), 2), "do not sum to one; pass output='logits'"),
    ],
)
def test_a_wrong_classifier_is_noticed(photos, predict, message):
    with pytest.raises(ShapeError, match=message):
        ClassifierLabeller(predict, ["dim", "bright"], size=16).label(photos)


def test_labels_need_their_columns(photos):
    with pytest.raises(ConfigError, match="lacks the column confidence, reason"):
        Labels("toy", pd.DataFrame({"label": [1]}))
    table = pd.DataFrame({"label": ["dim"], "confidence": [0.5], "reason": None}, index=["0.png"])
    with pytest.raises(ConfigError, match="`min_confidence` must be a number in 0..1; got 7"):
        Labels("toy", table).apply(photos, "seen", min_confidence=7)


class FakeClip:
    """Knows two texts by their brightness; checks what it is asked."""

    name = "fake"

    class preprocess:
        size = (16, 12)

    def zero_shot(self, x, classes, temperature=None, templates=None):
        assert x.shape[1:] == (3, 16, 16) and temperature == 0.5 and templates == ["a photo of {}"]
        assert list(classes) == ["dim", "bright"]
        return brightness(x)


def test_zero_shot_asks_the_clip_and_says_how(photos):
    classes = {"dim": "a dark picture", "bright": ["a white picture", "a light picture"]}
    labeller = zero_shot(FakeClip(), classes, temperature=0.5, templates=["a photo of {}"])
    labels = labeller.label(photos)
    assert labels.table["label"].tolist() == ["dim"] * 6 + ["bright"] * 4
    assert "zero-shot labels of the CLIP 'fake'" in labels.source
    assert "bright: a white picture | a light picture" in labels.source and "not of a person" in labels.source
    with pytest.raises(ConfigError, match=r"at least two labels with their prompts; got \['dim'\]"):
        zero_shot(FakeClip(), {"dim": "a dark picture"})
