"""What edits do, by readers whose answers are known: counted again by hand, beside the truth, as a page."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from doubles import tiny_editor

from vlbias import audit, classify, load_dataset
from vlbias.errors import ConfigError, DatasetError, UnknownNameError
from vlbias.images import to_float
from vlbias.paths import PathTrainingSettings
from vlbias.report import write_drift

TINY = classify.FitSettings(
    backbone_options={"channels": [8, 8, 8, 8], "stem_width": 4}, num_steps=2, batch_size=8, shift_px=1
)
FEW = audit.DriftSettings(columns=("skin", "glasses"), strengths=(0.5, 1.0), num_faces=5, fit=TINY)


@pytest.fixture(scope="module")
def faces():
    drawn = load_dataset("synthfaces", n=90, image_size=16, seed=3)
    split = ["train" if row % 2 else "test" for row in range(90)]
    return replace(drawn, table=drawn.table.assign(split=split))


class Known:
    """Reads skin from the brightness, glasses from the blue of the picture."""

    def __init__(self, classes):
        self.classes = classes

    def predict(self, x):
        x = to_float(x)
        if "dark" in self.classes:
            return ["dark" if one.mean() < 0 else "light" for one in x]
        return ["1" if one[2].mean() > 0 else "0" for one in x]


def known(images, labels, *, settings, progress):
    return Known(sorted(set(labels)))


def test_shares_by_hand(faces, monkeypatch):
    monkeypatch.setattr("vlbias.audit.path_drift.fit", known)
    renderer = tiny_editor().renderer
    report = audit.drift(renderer, faces, settings=FEW, show_progress=False)
    assert list(report.table["walk"].unique()) == ["skin: light → dark", "skin: dark → light"]
    assert len(report.table) == 2 * 2 * 3  # walks, strengths, readings
    test = faces.table[faces.table["split"] == "test"]
    ids = faces.select(list(test.index[test["skin"] == "light"])).sample(5).ids
    x_0 = faces.tensor(ids, 16)
    rows = report.table[report.table["walk"] == "skin: light → dark"].set_index(["strength", "reading"])
    for strength in (0.5, 1.0):
        edited = renderer.edit(x_0, renderer.encode(x_0), {"skin_tone": strength})
        dark = (edited.mean((1, 2, 3)) < 0).float().mean()
        moved = ((edited[:, 2].mean((1, 2)) > 0) != (x_0[:, 2].mean((1, 2)) > 0)).float().mean()
        assert rows.loc[(strength, "success"), "value"] == pytest.approx(float(dark))
        assert rows.loc[(strength, "glasses"), "value"] == pytest.approx(float(moved))
        assert 0 <= rows.loc[(strength, "identity"), "value"] <= 1 + 1e-6
    true = faces.counterfactual(ids, skin="dark")
    expected = np.mean([one.mean() < 0 for one in true.tensor(true.ids, 16)])
    assert rows.xs("success", level="reading")["truth"].tolist() == pytest.approx([expected] * 2)
    assert rows["num_faces"].eq(5).all()
    assert (rows["low"] <= rows["value"]).all() and (rows["value"] <= rows["high"]).all()
    unseen = faces.tensor(list(test.index), 16)
    right = np.mean(["dark" if one.mean() < 0 else "light" for one in unseen] == test["skin"].to_numpy())
    assert report.readers.loc["skin", "accuracy"] == pytest.approx(right)
    assert report.readers.loc["skin", "num_faces"] == len(test)
    # There once, and back at each of two strengths; an editor without probes corrects nothing.
    evaluations = renderer.evaluations_to_open + 2 * renderer.evaluations_to_render
    assert report.costs.loc["as it is", "edit_evaluations"] == evaluations / 2


def test_who_is_walked_is_drawn_and_no_matter_of_order(faces, monkeypatch):
    """Files of UTKFace are named by age: the first sixty young ones are children."""
    monkeypatch.setattr("vlbias.audit.path_drift.fit", known)
    renderer = tiny_editor().renderer
    by_age = faces.select(list(faces.table.sort_values("age").index))
    one, other = (audit.drift(renderer, those, settings=FEW, show_progress=False) for those in (faces, by_age))
    assert np.allclose(one.table["value"], other.table["value"])
    another = audit.drift(renderer, faces, settings=replace(FEW, seed=1), show_progress=False)
    assert not np.allclose(one.table["value"], another.table["value"])
    assert audit.taught_faces(faces).table["split"].eq("train").all()
    assert len(audit.taught_faces(faces.split("test"))) == 30  # of 45, none of which is marked to teach


def test_fitted_readers_and_the_page(faces, tmp_path):
    renderer = tiny_editor().renderer
    variants = {"as it is": audit.Walks(renderer), "other": audit.Walks(renderer, 1200)}
    report = audit.drift(variants, faces, settings=FEW, show_progress=False)
    both = [part.drop(columns="paths").reset_index(drop=True) for _, part in report.table.groupby("paths", sort=False)]
    assert both[0].equals(both[1])  # the same paths
    page = write_drift(tmp_path, report, command="vlbias paths").read_text()
    assert "1,200" in page and "skin: light → dark" in page and "Ways to find paths" in page
    stored = json.loads((tmp_path / "paths.json").read_text())
    assert stored == json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert len(stored["walks"]) == 24 and stored["costs"][0]["training_evaluations"] is None
    assert "other" in repr(report) and "true counterfactuals" in page
    of_photographs = replace(report, table=report.table.assign(truth=float("nan")))
    assert "counterfactual" not in write_drift(tmp_path, of_photographs, command="vlbias paths").read_text()


def test_what_cannot_be_measured_is_refused(faces):
    renderer = tiny_editor().renderer
    with pytest.raises(UnknownNameError, match="Unknown attribute 'hat'"):
        audit.drift(renderer, faces, settings=replace(FEW, columns=("hat",)))
    with pytest.raises(DatasetError, match="no column of 'synthfaces' goes with a path of 'tiny'"):
        audit.drift(renderer, faces, settings=replace(FEW, columns=("glasses",)))
    with pytest.raises(DatasetError, match="fewer than 10 faces of a value of 'skin'"):
        audit.drift(renderer, faces.select(faces.ids[:20]), settings=FEW)
    half = faces.table["glasses"].astype(object).where(faces.table["split"] == "train", None)
    with pytest.raises(
        DatasetError, match="no face of 'synthfaces' that is not in the split 'train' has a label of 'gl"
    ):
        audit.drift(renderer, faces.with_column("glasses", half), settings=FEW)
    with pytest.raises(DatasetError, match="'age' of 'synthfaces' has 90 values"):
        audit.drift(renderer, faces, settings=replace(FEW, columns=("age",)))
    with pytest.raises(ConfigError, match="has no paths or no probes"):
        audit.path_variants(renderer, torch.zeros(2, 3, 16, 16))


def test_paths_are_found_in_five_ways(monkeypatch):
    """Training itself is tested in its own room; here, what each way is asked for, and the straight one."""
    renderer = tiny_editor().renderer
    asked = []

    def trained(diffae, clip, dipoles, images, *, settings, guards=None, probes=None):
        asked.append((settings, sorted(guards or {})))
        return renderer.paths

    dipoles = {**renderer.paths.dipoles, "smile": renderer.paths.dipoles["age"]}
    normals = torch.nn.functional.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    probes = SimpleNamespace(
        dipoles=dipoles, names=list(dipoles), index=list(dipoles).index, normals=lambda mean, std: normals
    )
    renderer.probes = probes
    renderer.clip = SimpleNamespace()
    monkeypatch.setattr("vlbias.audit.path_drift.train_paths", trained)
    monkeypatch.setattr("vlbias.audit.path_drift.calibrate", lambda paths, z_sem, probes: paths)
    monkeypatch.setattr(type(renderer), "changed", lambda self, *, paths: SimpleNamespace(paths=paths))
    settings = PathTrainingSettings(steps=3, batch_size=4)
    found = audit.path_variants(renderer, torch.zeros(2, 3, 16, 16), settings=settings)
    assert list(found) == ["as it is", "rbf", "linear", "affine", "logistic", "published"]
    assert [one.training_evaluations for one in found.values()] == [None, 24, 24, 24, 0, 480]
    assert [(one.network, one.space, one.decode_steps) for one, _ in asked] == [
        ("rbf", "normalized", 1),
        ("linear", "normalized", 1),
        ("affine", "normalized", 1),
        ("rbf", "raw", 20),
    ]
    assert [guards for _, guards in asked] == [["smile"], ["smile"], ["smile"], []]
    straight = found["logistic"].renderer.paths
    codes = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(straight.direction(codes, 0), normals[:1].expand(4, -1), atol=1e-6)
