"""A column filled by a machine: scored against what it replaces, written down, read back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from vlbias.data import join, load_dataset
from vlbias.errors import CheckpointNotFoundError, ConfigError, DatasetError, LabelError, UnknownNameError
from vlbias.labelling import Labels, label_column, labeller_of, layout_of, read_reports, write_reports


class Fixed:
    """A labeller that says what it was told: words and confidences in the order of the faces."""

    def __init__(self, words, confidences=None):
        self.words, self.confidences = words, confidences or [0.9] * len(words)

    def label(self, dataset):
        reasons = [None if word is not None else "blurred" for word in self.words]
        table = {"label": self.words, "confidence": self.confidences, "reason": reasons}
        return Labels("a test's labels", pd.DataFrame(table, index=dataset.table.index))


@pytest.fixture(scope="module")
def faces():
    """Six faces whose skin is light, light, light, dark, dark, dark."""
    drawn = load_dataset("synthfaces", n=6, seed=0)
    return drawn.with_column("skin", ["light"] * 3 + ["dark"] * 3)


def test_it_is_scored_against_the_labels_that_it_replaces(faces):
    # by hand: four of the five labelled ones agree
    labeller = Fixed(["light", "light", "dark", "dark", "dark", None])
    labelled, report, score = label_column(faces, "skin", labeller)
    assert labelled.table["skin"].tolist()[:5] == ["light", "light", "dark", "dark", "dark"]
    assert labelled.table["skin"].isna().tolist() == [False] * 5 + [True]
    assert faces.table["skin"].tolist() == ["light"] * 3 + ["dark"] * 3  # the given dataset stays
    assert score.accuracy == pytest.approx(0.8) and report.evaluation == score.to_dict()
    assert report.against == "skin" and report.num_faces == 6
    assert report.counts == {"dark": 3, "light": 2} and report.unlabelled == {"blurred": 1}
    assert report.evaluation["confusion"] == [[2, 0, 1], [1, 2, 0]]  # given dark, light; found dark, light, none
    assert "a test's labels" in labelled.descriptions["skin"]


def test_unsure_labels_are_left_out_of_the_score_too(faces):
    labeller = Fixed(["light", "light", "dark", "dark", "dark", "dark"], [0.9, 0.9, 0.4, 0.9, 0.9, float("nan")])
    labelled, report, score = label_column(faces, "skin", labeller, min_confidence=0.5)
    assert labelled.table["skin"].isna().sum() == 2 and report.unlabelled == {"low_confidence": 2}
    assert score.accuracy == 1 and score.coverage == pytest.approx(4 / 6)


def test_without_given_labels_there_is_no_score(faces):
    labelled, report, score = label_column(faces, "tone", Fixed(["light"] * 6))
    assert score is None and report.evaluation is None and report.against is None
    assert "tone" in labelled.attributes
    _, report, score = label_column(faces, "tone", Fixed(["light"] * 6), against="skin")
    assert report.against == "skin" and score.accuracy == pytest.approx(0.5)


def test_words_are_the_text_of_numbers(faces):
    numbered = faces.with_column("glasses", [0, 1, 0, 1, 1, 0])
    labelled, _, score = label_column(numbered, "glasses", Fixed(["0", "1", "0", "1", "0", None]))
    assert score.accuracy == pytest.approx(0.8) and labelled.table["glasses"].dropna().tolist() == [0, 1, 0, 1, 0]


def test_wrong_columns_and_words(faces):
    with pytest.raises(UnknownNameError, match="Unknown attribute 'skim'"):
        label_column(faces, "tone", Fixed(["light"] * 6), against="skim")
    with pytest.raises(LabelError, match="are not among the given"):
        label_column(faces, "skin", Fixed(["pale"] * 6))
    with pytest.raises(ConfigError, match="`min_confidence` must be a number in 0..1"):
        label_column(faces, "skin", Fixed(["light"] * 6), min_confidence=2)


def test_reports_are_written_and_read(faces, tmp_path):
    _, report, _ = label_column(faces, "skin", Fixed(["light", "light", "dark", "dark", "dark", None]))
    assert read_reports(tmp_path) == []
    write_reports(tmp_path, [report])
    assert read_reports(tmp_path) == [report]
    values = json.loads((tmp_path / "labelling.json").read_text())
    values["columns"][0]["colour"] = "red"
    (tmp_path / "labelling.json").write_text(json.dumps(values))
    with pytest.raises(DatasetError, match="labelling.json is not a report of labels .*colour"):
        read_reports(tmp_path)
    (tmp_path / "labelling.json").write_text('["skin"]')
    with pytest.raises(DatasetError, match="is not a report of labels"):
        read_reports(tmp_path)


def test_labellers_from_words():
    assert labeller_of("ita:-12.5", layout="utkface").split_ita == -12.5
    assert labeller_of("monk").split_ita is None
    asked = {}

    class Scorer:
        name, preprocess = "scorer", type("Preprocess", (), {"size": (32, 32)})

        def zero_shot(self, x, classes, **_):
            asked.update(classes)
            return np.tile([0.3, 0.7], (len(x), 1))

    labeller = labeller_of("clip:0=bare face| no glasses ; 1=glasses", clip=Scorer())
    assert labeller.classes == ["0", "1"]
    labeller.label(load_dataset("synthfaces", n=2))
    assert asked == {"0": ("bare face", "no glasses"), "1": ("glasses",)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ita", "expected an angle in degrees"),
        ("ita:warm", "expected an angle in degrees"),
        ("monk:3", "takes nothing after it"),
        ("clip:0=bare face;=glasses", "expected LABEL=PROMPT"),
        ("clip:0=bare;0=glasses", "expected LABEL=PROMPT"),
        ("clip:0=bare;1=glasses", "need an editor with a CLIP"),
        ("race:1", "Unknown labeller 'race'"),
    ],
)
def test_words_that_name_no_labeller(words, message):
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        labeller_of(words)


def test_the_layout_is_that_of_the_dataset(faces):
    assert layout_of(faces, "utkface") == "synthfaces"
    assert layout_of(join([faces], name="holidays"), "utkface") == "utkface"


def test_a_classifier_from_a_file_is_a_labeller(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra 'faces'")
    import onnx_files

    path = onnx_files.linear(tmp_path / "tint.onnx", np.eye(3)[:, :2], np.zeros(2))
    about = {"layout": None, "mean": 0, "std": 1, "classes": ["red", "green"]}
    path.with_suffix(".json").write_text(json.dumps(about))
    labeller = labeller_of(f"file:{path}", layout="utkface")
    x = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]).view(2, 3, 1, 1).expand(2, 3, 8, 8)
    assert labeller.size == 8 and labeller.classes == ["red", "green"]
    assert labeller.probabilities(x).tolist() == [[1, 0], [0, 1]]
    assert labeller.source == "labels of the classifier tint.onnx, not of a person"
    with pytest.raises(CheckpointNotFoundError, match="gone.onnx does not exist"):
        labeller_of("file:gone.onnx")
