"""The drawn world as a search's dataset, and the benchmark scripts at toy size."""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from vlbias import search
from vlbias.errors import ConfigError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawn_people_are_a_task():
    people = search.drawn_people(80, 4, image_size=16)
    table = people.table
    assert (table.groupby("identity").size() == 4).all() and table.groupby("identity")["skin"].nunique().max() == 1
    task = search.make_task(people, protected="skin", image_size=16)
    assert task.groups == ("dark", "light") and len(task.val) == len(task.test), "galleries are of one size"
    natural = search.make_task(people, protected="skin", image_size=16, balance_gallery=False)
    assert len(natural.train) + len(natural.val) + len(natural.test) == 80
    with pytest.raises(ConfigError, match="two pictures"):
        search.drawn_people(80, 1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A made-up table of the benchmark's grid: error falls with the epochs, gap and error trade off."""
    script = _script("search_pruning")
    generator = np.random.default_rng(0)
    rows = {}
    for configuration in script.configurations():
        quality, tilt = generator.random(2)
        epochs = [
            {
                "val": {"error": 0.1 + 0.6 * quality + 0.2 / e, "rank_gap": 0.1 + 0.5 * tilt * quality + 0.1 / e},
                "test": {"error": 0.15 + 0.6 * quality, "rank_gap": 0.2},
                "collapsed": 0.0,
            }
            for e in range(1, 10)
        ]
        rows[configuration.label()] = {"epochs": epochs}
    path = tmp_path_factory.mktemp("table") / "table.json"
    path.write_text(json.dumps({"images": 0, "size": 0, "rows": rows}))
    return path


def test_the_pruning_study_replays_a_table(table, tmp_path, capsys):
    script = _script("search_pruning")
    assert len({c.label() for c in script.configurations()}) == 108
    script.study(table, 2, 36, ["random", "tpe", "nsga2"], tmp_path / "curves.json")
    curves = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert set(curves) == {f"{s} {h}" for s in ("random", "tpe", "nsga2") for h in ("none", "error", "both")}
    validation = [row for each in curves.values() for row in each["val"]]
    assert all(0 <= a <= b <= 1 for row in validation for a, b in itertools.pairwise(row))
    assert all(0 <= value <= 1 for each in curves.values() for row in each["test"] for value in row)
    script.curse(table)
    script.choice(table, 20)
    printed = capsys.readouterr().out
    assert "halving by both minus error" in printed and "reliability 0.0  dominated on test in 0.0%" in printed


def test_claims_of_a_world(capsys):
    script = _script("search_front")
    truth, found = script.one_world(0, 50, num_groups=3)
    assert truth.shape == found.mean.shape == (6, 2) and found.dominance.shape == (7, 6)
    assert found.interval.shape == (6, 2, 2) and not found.withheld and script.one_world(0, 50, refits=1)[1].withheld
    intervals = _script("search_intervals")
    right = intervals.truth(12, 2, "equal")
    assert right["rank_gap"] == 0 < right["error"] and len(intervals.holds(0, 12, 2, "equal", right, 50)) == 5
    # The quadrature is the expectation over people and refits.
    generator = np.random.default_rng(0)
    noise = np.hypot(script.OF_PERSON, script.OF_REFIT) * generator.normal(size=200000)
    assert script.expected_miss(np.array([-1.0]))[0] == pytest.approx(np.mean(1 / (1 + np.exp(1.0 - noise))), abs=2e-3)
