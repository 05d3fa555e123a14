"""The planted regimes, and the example and benchmark scripts at toy size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vlbias import simulate
from vlbias.errors import UnknownNameError

REPOSITORY = Path(__file__).parents[2]


def _script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regimes():
    posed, varied = (simulate.expression_faces(regime, 240, image_size=16) for regime in ("posed", "varied"))
    assert (
        set(posed.table["expression"]) == set(varied.table["expression"]) and posed.table["expression"].nunique() == 6
    )
    assert set(zip(posed.table["skin"], posed.table["dialect"], strict=True)) == {("dark", "mouth"), ("light", "eyes")}
    assert set(varied.table["dialect"]) == {"whole"} and (posed.table["split"] == "test").mean() == pytest.approx(0.3)
    with pytest.raises(UnknownNameError, match="regime"):
        simulate.expression_faces("natural")


def test_the_example_at_toy_size(tmp_path, monkeypatch, capsys):
    script = _script("examples/expression_balance.py")
    monkeypatch.setitem(script.SIZES, "posed", (160, 24))
    monkeypatch.setattr(script, "IMAGE_SIZE", 24)
    options = {"repeats": 1, "shares": [0.0, 0.5], "num_steps": 1}
    result = script.study("posed", tmp_path, model="gradients", fill=True, **options)
    assert len(result.table()) == 6 and (tmp_path / "curves.png").is_file() and (tmp_path / "runs.csv").is_file()
    assert result.table()["accuracy"].between(0, 1).all() and "of its own" in capsys.readouterr().out


def test_detectors_of_facial_actions_read_their_action(monkeypatch):
    script = _script("examples/expression_balance.py")
    monkeypatch.setattr(script, "IMAGE_SIZE", 24)
    monkeypatch.setattr(script, "DETECTOR_FACES", 400)
    model = script.ActionModel()
    faces = simulate.expression_faces("varied", 120, image_size=24)
    images = script.to_uint8(faces.tensor(list(faces.table.index), 24)).numpy()
    read = model.features(images)
    assert read.shape == (120, len(model.names)) == (120, 11)
    # The mouth of a happy face goes up, that of a sad one down; a surprised mouth opens.
    mean = {
        name: dict(zip(model.names, read[(faces.table["expression"] == name).to_numpy()].mean(0), strict=True))
        for name in ("happy", "sad", "surprise")
    }
    assert mean["happy"]["corner"] > mean["sad"]["corner"] + 0.05
    assert mean["surprise"]["gap"] > mean["sad"]["gap"] + 0.05


def test_gradients_of_the_example():
    script = _script("examples/expression_balance.py")
    x = np.full((3, 3, 24, 24), 60, np.uint8)
    x[1, :, :, 12:], x[2, :, :, :12] = 200, 200  # an edge, and the same edge with its sides exchanged
    plain, edge, exchanged = script.oriented_gradients(x)
    assert plain.shape == (3 * 3 * 4 * 8,) and not plain.any(), "a plain picture has no gradients"
    assert edge.any() and np.allclose(edge, exchanged), "the sign of an edge is left out"


def test_a_null_world():
    claims = _script("benchmarks/simulate_null.py").one_world(3, 0.05, repeats=2)
    assert len(claims) == 8 and all(isinstance(claim, bool) for claim in claims.values())
