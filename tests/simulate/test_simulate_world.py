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
    assert result.table()["accuracy"].max() > 1 / 6 and "of its own" in capsys.readouterr().out
    features = script.oriented_gradients(np.full((2, 3, 24, 24), 90, np.uint8))
    assert features.shape == (2, 4 * 4 * 8) and not features.any(), "a plain picture has no gradients"


def test_a_null_world():
    claims = _script("benchmarks/simulate_null.py").one_world(3, 0.05)
    assert len(claims) == 8 and all(isinstance(claim, bool) for claim in claims.values())
