"""The table, on results that are counted by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from vlbias.audit.arms import ArmSettings, find_arm
from vlbias.bench import BenchTable, Result, Variant, WorldTask, rank_agreement
from vlbias.bench.results import Entry, key_of, open_store
from vlbias.bench.sets import open_editor
from vlbias.bench.table import COLUMNS, HEADINGS, row_words
from vlbias.errors import ConfigError

#: Ten faces in each of four cells: class 0 and 1 in group 0, then in group 1.
Y, G = np.repeat([0, 1, 0, 1], 10), np.repeat([0, 0, 1, 1], 10)


def result(label: str, wrong: tuple[int, int, int, int], seed: int = 0, task: str = "one") -> Result:
    """Predictions with so many mistakes in each cell."""
    codes = Y.copy()
    for cell, count in enumerate(wrong):
        codes[cell * 10 : cell * 10 + count] ^= 1
    counts = [[10, 10], [10, 10]]
    return Result(task, label, seed, Y, G, codes, ["0", "1"], ["a", "b"], {"learning_rate": 1e-3}, counts)


def test_metrics_are_means_over_seeds_and_tasks():
    table = BenchTable(
        [
            result("erm", (0, 4, 4, 0)),
            result("erm", (0, 2, 2, 0), seed=1),
            result("erm", (0, 0, 0, 8), task="two"),
            result("oracle", (1, 1, 1, 1)),
            result("edits", (0, 2, 1, 0)),
        ]
    ).table
    # On "one": accuracies .8 and .9 and odds .4 and .2; on "two": accuracy .8, odds .8, accuracy gap .4.
    assert table.loc["erm", "accuracy"] == pytest.approx((0.85 + 0.8) / 2)
    assert table.loc["erm", "equalized_odds_difference"] == pytest.approx((0.3 + 0.8) / 2)
    assert table.loc["erm", "accuracy_gap"] == pytest.approx((0 + 0.4) / 2)
    assert table.loc["erm", "worst_cell_accuracy"] == pytest.approx((0.7 + 0.2) / 2)
    assert table.loc["erm", ["tasks", "fits"]].tolist() == [2, 3]
    # Others were entered on "one" alone, and are compared there.
    assert table.loc["edits", "change"] == pytest.approx(0.2 - 0.3)
    assert table.loc["oracle", "change"] == pytest.approx(0.0 - 0.3)


def test_other_metrics_and_what_chance_gives_stand_in_the_table():
    rows = BenchTable([result("erm", (0, 4, 4, 0)), result("oracle", (0, 0, 0, 0))]).table
    assert rows.loc["erm", "equal_opportunity_difference"] == rows.loc["erm", "equalized_odds_difference"] == 0.4
    assert rows.loc["erm", "demographic_parity_difference"] == pytest.approx(0.8 - 0.4 + 0.0)
    assert rows.loc["erm", "macro_f1"] == pytest.approx(0.8)
    # each class has four mistakes among 20 answers, which fall into two groups of ten at random
    shares = hypergeom(20, 4, 10).pmf(np.arange(5))
    gap = np.abs(2 * np.arange(5) - 4) / 10
    expected = (np.outer(shares, shares) * np.maximum.outer(gap, gap)).sum()
    assert rows.loc["erm", "equalized_odds_difference_by_chance"] == pytest.approx(expected, abs=0.03)
    assert rows.loc["oracle", "equalized_odds_difference_by_chance"] == 0
    # mistakes of both classes together: those of one group, less those of the other
    apart = np.abs(np.add.outer(2 * np.arange(5) - 4, 2 * np.arange(5) - 4)) / 20
    expected = (np.outer(shares, shares) * apart).sum()
    assert rows.loc["erm", "accuracy_gap"] == 0
    assert rows.loc["erm", "accuracy_gap_by_chance"] == pytest.approx(expected, abs=0.03)
    assert rows.loc["erm", "demographic_parity_difference_by_chance"] > 0


def test_the_way_is_the_share_of_what_the_oracle_cuts():
    wrong = {"erm": (0, 9, 9, 0), "edits": (0, 3, 3, 0), "oracle": (0, 0, 0, 0)}
    table = BenchTable([result(label, cells, seed) for label, cells in wrong.items() for seed in range(3)]).table
    assert table.loc["edits", "way"] == pytest.approx((0.9 - 0.3) / 0.9)
    assert table.loc["edits", "way_low"] < table.loc["edits", "way"] < table.loc["edits", "way_high"]
    assert np.isnan(table.loc["oracle", "way"]) and np.isnan(table.loc["erm", "way"])
    nothing = {"erm": (1, 1, 1, 1), "edits": (1, 1, 1, 1), "oracle": (1, 1, 1, 1)}
    table = BenchTable([result(label, cells) for label, cells in nothing.items()]).table
    assert np.isnan(table.loc["edits", "way"])  # there is nothing to cut


def test_dominated_means_no_better_in_either_and_worse_in_one():
    table = BenchTable(
        [
            result("erm", (0, 4, 4, 0)),
            result("exact", (0, 2, 1, 0)),
            result("even", (2, 2, 2, 2)),
            result("both", (0, 4, 4, 1)),
            result("oracle", (0, 0, 0, 0)),
        ]
    ).table
    assert table["dominated"].to_dict() == {"erm": 1, "exact": 0, "even": 0, "both": 1, "oracle": 0}
    assert table.loc["erm", "on_average"] == "exact, even" and table.loc["exact", "on_average"] == ""


def test_rounding_decides_nothing():
    """The mean of the same three values in another order is another one in its last digit."""
    orders = dict(zip("abcdef", itertools.permutations((1, 2, 3)), strict=True))
    results = [result(one, (0, n, n, 0), seed) for one, order in orders.items() for seed, n in enumerate(order)]
    table = BenchTable(results)
    assert table.table["accuracy"].nunique() == 2  # in truth it is .9 for all of them
    assert not table.table["dominated"].any() and not table.table["on_average"].any()


def test_how_far_a_method_is_ahead_is_paired_and_told_task_by_task():
    cells = {"erm": (0, 9, 9, 0), "same": (0, 1, 1, 0), "edits": (0, 1, 1, 0)}
    results = [result(label, wrong, seed) for label, wrong in cells.items() for seed in range(2)]
    table = BenchTable([*results, result("erm", (0, 3, 3, 0), task="two"), result("edits", (0, 0, 0, 0), task="two")])
    ahead = table.ahead("edits")
    assert list(ahead.index) == [("one", "erm"), ("one", "same"), ("two", "erm")]
    assert ahead["ahead"].tolist() == pytest.approx([0.8, 0.0, 0.3])
    assert ahead.loc[("one", "same")].tolist() == [0, 0, 0]  # the same faces are drawn for both
    low, high = ahead.loc[("one", "erm"), ["low", "high"]]
    assert 0.3 < low < 0.8 < high < 1.1
    with pytest.raises(ConfigError, match="no method 'nosuch'; it has erm, same, edits"):
        table.ahead("nosuch")


def test_a_method_may_be_ahead_in_any_metric_and_on_average():
    cells = {"erm": (0, 9, 9, 0), "edits": (0, 1, 1, 0)}
    results = [result(label, wrong, seed) for label, wrong in cells.items() for seed in range(2)]
    others = [result("erm", (0, 3, 3, 0), task="two"), result("edits", (0, 0, 0, 0), task="two")]
    table = BenchTable([*results, *others, result("alone", (0, 0, 0, 0), task="three")])
    by_task, on_average = table.ahead("edits", "accuracy"), table.ahead("edits", "accuracy", on_average=True)
    # more is better there: 8 in 10 of the faces in two of four cells, then 3 in 10
    assert by_task["ahead"].tolist() == pytest.approx([0.4, 0.15])
    assert on_average.index.tolist() == ["erm", "alone"]
    assert on_average.loc["erm", "ahead"] == pytest.approx(0.275)
    assert on_average.loc["alone"].isna().all()  # they share no task
    low, high = on_average.loc["erm", ["low", "high"]]
    assert 0 < low < 0.275 < high
    assert table.ahead("edits", on_average=True).loc["erm", "ahead"] == pytest.approx(0.55)
    with pytest.raises(ConfigError, match="no metric 'speed'; it has accuracy"):
        table.ahead("edits", "speed")


def test_intervals_are_paired_and_never_below_nothing():
    cells = {"erm": (0, 5, 5, 0), "same": (0, 5, 5, 0), "edits": (0, 1, 0, 0)}
    table = BenchTable([result(label, wrong, seed) for label, wrong in cells.items() for seed in range(2)]).table
    assert table.loc["same", ["change", "change_low", "change_high"]].tolist() == [0, 0, 0]
    assert table.loc["edits", "change_high"] < 0
    gaps = table[["accuracy_gap_low", "equalized_odds_difference_low"]].to_numpy()
    assert (gaps >= 0).all() and table.loc["edits", "accuracy_high"] <= 1
    again = BenchTable([result(label, wrong, seed) for label, wrong in cells.items() for seed in range(2)]).table
    assert again.equals(table)  # bit for bit


def test_intervals_cover_the_truth():
    """A classifier that is right with known odds, tested anew each time."""
    rng, inside = np.random.default_rng(0), 0
    for repeat in range(100):
        wrong = tuple(rng.binomial(10, p) for p in (0.2, 0.4, 0.3, 0.3))
        row = BenchTable([result("erm", wrong, task=str(repeat))]).table.loc["erm"]
        inside += row["accuracy_low"] <= 0.7 <= row["accuracy_high"]
    assert 0.87 <= inside / 100 <= 1.0


def test_seeds_are_paired_as_well():
    """Fits of a seed are better or worse together: how far ahead a method is does not vary with the seed."""
    wrong = {0: (0, 0, 0, 0), 1: (2, 2, 2, 2), 2: (4, 4, 4, 4)}
    both = [result(label, cells, seed) for seed, cells in wrong.items() for label in ("erm", "edits")]
    apart = [one for one in both if one.label == "erm"] + [
        result("edits", wrong[2 - seed], seed) for seed in wrong
    ]  # good where the other is bad
    paired, crossed = (BenchTable(results).ahead("edits", "accuracy").iloc[0] for results in (both, apart))
    assert paired.tolist() == [0, 0, 0]
    assert crossed["low"] < -0.2 < 0.2 < crossed["high"]


def test_an_interval_does_not_know_who_else_stands_in_the_table():
    rows = {
        label: [result(label, (0, n, 1, n), seed) for seed in range(3)] for n, label in enumerate(["erm", "a", "b"])
    }
    few, many = BenchTable([*rows["b"]]).table, BenchTable([*rows["erm"], *rows["a"], *rows["b"][::-1]]).table
    names = [name for name in few.columns if name.startswith("accuracy")]
    assert many.loc["b", names].tolist() == few.loc["b", names].tolist()


def test_few_seeds_are_known_to_vary_less_than_all():
    """Whole cells are right or wrong, so that drawing other faces changes nothing, but other seeds do."""
    wrong = {0: (0, 0, 0, 0), 1: (10, 0, 0, 10), 2: (10, 10, 10, 10)}
    results = [result("edits", cells, seed) for seed, cells in wrong.items()]
    table = BenchTable([*results, *(result("erm", wrong[2], seed) for seed in wrong)])
    ahead, low, high = table.ahead("edits", "accuracy").iloc[0]
    # Student's interval (2 degrees of freedom) of three fits that are .5 apart
    reach = 4.3027 * 0.5 / 3**0.5
    assert ahead == 0.5 and (low, high) == pytest.approx((0.5 - reach, 0.5 + reach), abs=0.08)


def test_other_test_faces_and_nothing_are_refused():
    other = Result("one", "edits", 0, Y[::-1], G, Y, ["0", "1"], ["a", "b"], {}, [])
    with pytest.raises(ConfigError, match="different test faces"):
        _ = BenchTable([result("erm", (0, 0, 0, 0)), other]).table
    with pytest.raises(ConfigError, match="nothing was measured"):
        BenchTable([])
    with pytest.raises(ConfigError, match="no metric 'speed'"):
        BenchTable([result("erm", (0, 0, 0, 0))]).by_task("speed")


def test_words_are_those_of_the_table():
    table = BenchTable([result("erm", (0, 4, 4, 0)), result("oracle", (0, 0, 0, 0))])
    assert "0.800" in table.describe() and "equalised odds difference" in str(table)
    assert table.to_dict()["tasks"]["one"]["erm"]["accuracy"] == 0.8
    assert table.to_dict()["methods"]["erm"]["way"] is None
    words = dict(zip(HEADINGS, table.words("erm"), strict=True))
    row = table.to_dict()["methods"]["erm"]
    gap, odds = (row[f"{name}_by_chance"] for name in ("accuracy_gap", "equalized_odds_difference"))
    assert words["by chance"] == f"{gap:.3f}, {odds:.3f}"
    assert table.to_dict()["tasks"]["one"]["erm"]["accuracy_gap_by_chance"] == gap
    before = {key: value for key, value in row.items() if key != "accuracy_gap_by_chance"}
    assert dict(zip(HEADINGS, row_words("erm", before), strict=True)) == words | {"by chance": f"{odds:.3f}"}
    before = {key: value for key, value in row.items() if not key.endswith("by_chance")}
    assert dict(zip(HEADINGS, row_words("erm", before), strict=True)) == words | {"by chance": ""}


# -- ranks ------------------------------------------------------------------------------------------------------------


def ranked(order: list[int]) -> BenchTable:
    return BenchTable([result(f"arm {place}", (0, wrong, 0, 0)) for place, wrong in enumerate(order)])


def test_ranks_agree_or_not():
    assert rank_agreement(ranked([1, 2, 3, 4]), ranked([2, 4, 6, 8])).mean == pytest.approx(1)
    found = rank_agreement(ranked([1, 2, 3, 4]), ranked([8, 6, 4, 2]))
    assert (found.mean, found.overall) == (pytest.approx(-1), pytest.approx(-1))
    assert (found.num_methods, found.num_tasks) == (4, 1)
    with pytest.raises(ConfigError, match="2 methods on 1 tasks are common"):
        rank_agreement(ranked([1, 2]), ranked([1, 2]))


# -- the store --------------------------------------------------------------------------------------------------------


def test_results_come_back_from_the_file(tmp_path):
    store = open_store(tmp_path / "results.jsonl")
    store.add("key", result("edits", (1, 0, 2, 0)).to_dict())
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"run": "torn", "task": "one"}\n')
    found = open_store(tmp_path / "results.jsonl").read()
    assert list(found) == ["key"]
    back = Result.from_dict(found["key"])
    assert back.codes.tolist() == result("edits", (1, 0, 2, 0)).codes.tolist() and back.label == "edits"


@pytest.mark.parametrize(
    "damage",
    [{"classes": ["0"]}, {"groups": ["a"]}, {"classes": "01"}, {"seed": "0"}, {"task": None}, {"chosen": []},
     {"counts": [1]}, {"counts": [[1], [2, 3]]}, {"codes": "eJwDAAAAAAE="}, {"codes": 3}],
)  # fmt: skip
def test_a_damaged_result_counts_as_not_written(damage, tmp_path):
    store = open_store(tmp_path / "results.jsonl")
    store.add("key", result("edits", (1, 0, 2, 0)).to_dict())
    store.add("damaged", {**result("edits", (1, 0, 2, 0)).to_dict(), **damage})
    assert list(open_store(tmp_path / "results.jsonl").read()) == ["key"]


def test_a_key_changes_with_all_that_decides_a_result(monkeypatch):
    task = WorldTask("smile", "skin", num_training=40, num_validation=40, num_test=40)
    faces, settings = task.faces(), ArmSettings()
    weaker = WorldTask("smile", "skin", 0.5, num_training=40, num_validation=40, num_test=40)
    entry = Entry(find_arm("edits"), Variant())
    keys = [
        key_of(task, faces, entry, settings, 0),
        key_of(task, faces, entry, settings, 1),
        key_of(weaker, weaker.faces(), entry, settings, 0),
        key_of(task, faces, Entry(find_arm("erm"), Variant()), settings, 0),
        key_of(task, faces, Entry(find_arm("edits"), Variant(share=0.5)), settings, 0),
        key_of(task, faces, entry, ArmSettings(tune=False), 0),
    ]
    assert len(set(keys)) == len(keys) and keys[0] == key_of(task, task.faces(), entry, settings, 0)
    monkeypatch.setattr(open_editor(task.editor).renderer, "varied", 0.5)  # what the editor asks of edits
    assert key_of(task, faces, entry, settings, 0) not in keys


@pytest.mark.parametrize(
    ("names", "shown"),
    [("", ""), ("a, b, c", "a, b, c"), ("a, b, c, d", "a, b and 2 more"), ("a, b, c, d, e", "a, b and 3 more")],
)
def test_a_cell_names_a_few_methods_alone(names, shown):
    row = dict.fromkeys(["way", "way_low", "way_high"]) | {"dominated": 1, "tasks": 1, "on_average": names, "fits": 3}
    row |= {f"{metric}{end}": 0.5 for metric in COLUMNS for end in ("", "_low", "_high")}
    assert row_words("one", row)[-2] == shown
