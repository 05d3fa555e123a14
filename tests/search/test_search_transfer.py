"""The front of a study on another attribute: refitted, and with the same networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vlbias.errors import ConfigError
from vlbias.search import open_study, transfer, transfers
from vlbias.search.front import Candidate
from vlbias.search.spaces import Space
from vlbias.search.study import run
from vlbias.search.task import make_task
from vlbias.search.trainer import TrainSettings, evaluate_model

sys.path.insert(0, str(Path(__file__).parent))
from tiny_faces import TinyFaces, tiny_space, tiny_table


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Three finished trials on gender; the same people have a skin column."""
    table = tiny_table()
    faces = TinyFaces(table.assign(skin=np.where(table["identity"] // 5 % 2, "dark", "light")))
    path = tmp_path_factory.mktemp("study") / "study.log"
    study = run(
        faces, protected="gender", space=tiny_space(), storage=str(path), image_size=16, n_trials=3,
        fidelity=("epochs", 1, 1), eta=None, max_error=1.0, sampler="random",
        training=TrainSettings(batch_size=16, device="cpu"), show_progress=False,
    )  # fmt: skip
    return faces, path, study


def test_a_front_is_refitted_on_another_attribute_and_goes_on(studied, tmp_path, monkeypatch):
    faces, path, study = studied
    found = transfer(open_study(path), faces, protected="skin", refit=1, device="cpu", folder=tmp_path)
    assert found.protected == "skin" and found.is_refitted and found.front.refits == 1
    assert found.front.table["error"].is_monotonic_increasing
    assert set(found.front.table.index) == {one.number for one in study.candidates()}
    assert set(found.front.groups.index.get_level_values(1)) == {"dark", "light"}
    for candidate in study.candidates():
        row = found.front.table.loc[candidate.number]
        assert row["val_error"] == candidate.values["error"]
        assert row["error_low"] <= row["error"] <= row["error_high"]
    written = json.loads(found.write(tmp_path / "transfer.json").read_text())
    assert [row["objective"] for row in written["rank_correlation"]] == ["error", "rank_gap"]
    assert len(written["candidates"]) == len(found.front.table) and written["dataset"] == "tiny"
    # What was evaluated is not evaluated again.
    monkeypatch.setattr("vlbias.search.trainer.Trainer.advance", None)
    again = transfer(open_study(path), faces, protected="skin", refit=1, device="cpu", folder=tmp_path)
    assert again.front.table.equals(found.front.table)


def test_the_same_networks_are_those_of_the_study(studied):
    faces, path, study = studied
    found = transfer(open_study(path), faces, protected="skin", refit=0, device="cpu")
    assert not found.is_refitted
    task = make_task(faces, protected="skin", image_size=16)
    for candidate in study.candidates():
        trainer = study._recipe.trainer(candidate.configuration, candidate.number)
        trainer.load(candidate.checkpoint)
        expected = evaluate_model(trainer.model, None, task, task.test).objectives()
        assert found.front.table.loc[candidate.number, "rank_gap"] == pytest.approx(expected["rank_gap"])


def test_the_correlation_is_that_of_ranks_and_its_p_value_that_of_all_orders():
    before, here = np.array([0.1, 0.2, 0.3, 0.4, 0.5]), np.array([1.0, 2.0, 3.0, 5.0, 4.0])

    class Front:
        table = pd.DataFrame({"val_error": before, "error": here, "val_gap": before, "gap": np.ones(5)})

    table = transfers._correlation(Front, ["error", "gap"])
    assert table.loc["error", "spearman"] == pytest.approx(stats.spearmanr(before, here).statistic)
    # Of the 120 orders five agree as well: the given one, and four with one neighbouring pair exchanged.
    assert table.loc["error", "p_value"] == pytest.approx(5 / 120)
    assert np.isnan(table.loc["gap", "spearman"]) and np.isnan(table.loc["gap", "p_value"])


def test_a_space_comes_back_from_its_dictionary(small_space):
    assert Space.from_dict(json.loads(json.dumps(small_space.to_dict()))) == small_space


def test_what_cannot_be_taken_along_is_said(studied, tmp_path):
    faces, path, study = studied
    with pytest.raises(ConfigError, match="refit` must be a whole number"):
        transfer(study, faces, protected="skin", refit=-1)
    with pytest.raises(ConfigError, match="does not say how it trains"):
        transfers._told({**study.header, "space": {}})
    gone = [Candidate(one.number, one.configuration, one.values, None) for one in study.candidates()]
    bare = open_study(path)
    bare.candidates = lambda: gone
    with pytest.raises(ConfigError, match=r"has no checkpoint here; use refit >= 1"):
        transfer(bare, faces, protected="skin", refit=0)


def test_the_command_prints_the_table_and_writes_it(studied, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    import vlbias.cli.transfer as command
    from vlbias.cli import app

    faces, path, study = studied
    monkeypatch.setattr(command, "open_faces", lambda *_, **__: faces)
    words = ["search", "transfer", str(path.parent), "--data", "elsewhere", "--protected", "skin", "--refit", "0"]
    done = CliRunner().invoke(app, [*words, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert written["protected"] == "skin" and not written["is_refitted"]
    assert "spearman" in done.output and study.candidates()[0].configuration.label() in done.output
