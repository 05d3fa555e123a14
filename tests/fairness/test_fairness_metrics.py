"""Group metrics: hand-counted tables, agreement with scikit-learn and fairlearn, and laws."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias import fairness
from vlbias.errors import ConfigError, LabelError, ShapeError, UnknownNameError
from vlbias.fairness.intervals import Fits, intervals, resampled_table

GAPS = (
    "accuracy_gap",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "demographic_parity_difference",
)


def expand(cells):
    """{(group, y, p): count} -> y_true, y_pred, groups."""
    rows = [key for key, count in cells.items() for _ in range(count)]
    groups, y_true, y_pred = zip(*rows, strict=True)
    return list(y_true), list(y_pred), list(groups)


# Group a: 10 of class 1, 8 found; 10 of class 0, 1 wrong. Group b: 5 of class 1, 2 found; 20 of class 0, 6 wrong.
PAPER = {
    ("a", 1, 1): 8,
    ("a", 1, 0): 2,
    ("a", 0, 0): 9,
    ("a", 0, 1): 1,
    ("b", 1, 1): 2,
    ("b", 1, 0): 3,
    ("b", 0, 0): 14,
    ("b", 0, 1): 6,
}


def test_a_table_counted_on_paper():
    y_true, y_pred, groups = expand(PAPER)
    report = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0)
    assert dict(report) == pytest.approx(
        {
            "accuracy": 33 / 45,
            "balanced_accuracy": (10 / 15 + 23 / 30) / 2,
            "macro_f1": (2 * 10 / (20 + 7 + 5) + 2 * 23 / (46 + 5 + 7)) / 2,
            "worst_group_accuracy": 16 / 25,
            "worst_cell_accuracy": 0.4,
            "accuracy_gap": 17 / 20 - 16 / 25,
            "equal_opportunity_difference": 0.8 - 0.4,
            "equalized_odds_difference": max(0.8 - 0.4, 0.3 - 0.1),
            "demographic_parity_difference": 9 / 20 - 8 / 25,
            "demographic_parity_ratio": (8 / 25) / (9 / 20),
        }
    )
    assert set(report) == set(fairness.METRICS)
    assert report.groups.loc["b", "count"] == 25
    assert report.cells.loc[("b", 1), "true_positive_rate"] == pytest.approx(0.4)
    assert report.cells.loc[("a", 1), "false_positive_rate"] == pytest.approx(0.1)


def test_false_positives_alone_open_equalized_odds_but_not_equal_opportunity():
    y_true, y_pred, groups = expand({("a", 1, 1): 4, ("a", 0, 0): 4, ("b", 1, 1): 4, ("b", 0, 0): 1, ("b", 0, 1): 3})
    assert fairness.equal_opportunity_difference(y_true, y_pred, groups=groups) == 0
    assert fairness.equalized_odds_difference(y_true, y_pred, groups=groups) == 0.75


def test_all_right_and_all_wrong():
    y_true, groups = [0, 1, 0, 1], ["a", "a", "b", "b"]
    right = fairness.evaluate(y_true, y_true, groups=groups, bootstrap=50)
    wrong = fairness.evaluate(y_true, [1 - y for y in y_true], groups=groups, bootstrap=50)
    for report, level in ((right, 1.0), (wrong, 0.0)):
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "worst_group_accuracy", "worst_cell_accuracy"):
            assert report[name] == level
            low, high = report.intervals[name]
            assert low <= level <= high
        assert np.ptp(report.intervals["accuracy"]) > 0.1, "four items do not make it certain"
        for name in GAPS:
            assert report[name] == 0
        assert report["demographic_parity_ratio"] == 1


def test_three_classes_are_joined_by_the_worst_or_the_mean():
    # Found shares: class x 2/2 and 1/2, y 2/2 and 2/2, z 0/2 and 2/2; what z loses in group a goes to x.
    cells = {
        ("a", "x", "x"): 2,
        ("a", "y", "y"): 2,
        ("a", "z", "x"): 2,
        ("b", "x", "x"): 1,
        ("b", "x", "y"): 1,
        ("b", "y", "y"): 2,
        ("b", "z", "z"): 2,
    }
    y_true, y_pred, groups = expand(cells)
    worst = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0)
    mean = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0, over_classes="mean")
    assert worst["equal_opportunity_difference"] == 1.0
    assert mean["equal_opportunity_difference"] == pytest.approx((0.5 + 0 + 1) / 3)
    # False positive rates: x 2/4 and 0, y 0 and 1/4, z 0 and 0.
    assert mean["equalized_odds_difference"] == pytest.approx((0.5 + 0.25 + 1) / 3)
    # Shares predicted: x 4/6 and 1/6, y 2/6 and 3/6, z 0 and 2/6.
    assert worst["demographic_parity_difference"] == pytest.approx(0.5)
    assert mean["demographic_parity_ratio"] == pytest.approx((1 / 4 + 2 / 3 + 0) / 3)
    assert worst["demographic_parity_ratio"] == 0
    one = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0, positive="y")
    assert one["equal_opportunity_difference"] == 0


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(0)
    groups = rng.choice(["p", "q", "r"], 600)
    y_true = rng.integers(0, 2, 600)
    flip = rng.random(600) < np.where(groups == "p", 0.1, 0.3)
    return y_true, np.where(flip, 1 - y_true, y_true), groups


def test_agrees_with_fairlearn_and_scikit_learn(noisy):
    import fairlearn.metrics as theirs
    import sklearn.metrics as sk

    y_true, y_pred, groups = noisy
    ours = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0)
    kwargs = {"sensitive_features": groups}
    expected = {
        "accuracy": sk.accuracy_score(y_true, y_pred),
        "balanced_accuracy": sk.balanced_accuracy_score(y_true, y_pred),
        "macro_f1": sk.f1_score(y_true, y_pred, average="macro"),
        "accuracy_gap": theirs.MetricFrame(
            metrics=sk.accuracy_score, y_true=y_true, y_pred=y_pred, **kwargs
        ).difference(),
        "equal_opportunity_difference": theirs.equal_opportunity_difference(y_true, y_pred, **kwargs),
        "equalized_odds_difference": theirs.equalized_odds_difference(y_true, y_pred, **kwargs),
        "demographic_parity_difference": theirs.demographic_parity_difference(y_true, y_pred, **kwargs),
        "demographic_parity_ratio": theirs.demographic_parity_ratio(y_true, y_pred, **kwargs),
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected)
    for name in expected:
        short = getattr(fairness, name)
        value = short(y_true, y_pred, groups=groups) if name in GAPS or "ratio" in name else short(y_true, y_pred)
        assert value == pytest.approx(expected[name]), name
    by_group = theirs.MetricFrame(
        metrics={
            "count": theirs.count,
            "accuracy": sk.accuracy_score,
            "balanced_accuracy": sk.balanced_accuracy_score,
            "macro_f1": lambda a, b: sk.f1_score(a, b, average="macro"),
        },
        y_true=y_true,
        y_pred=y_pred,
        **kwargs,
    ).by_group
    pd.testing.assert_frame_equal(
        by_group.astype(float), ours.groups.astype(float), check_names=False, check_index_type=False
    )


binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.sampled_from("abc")), min_size=12, max_size=60)


@settings(max_examples=25, deadline=None)
@given(binary, st.randoms(use_true_random=False))
def test_order_and_names_of_rows_and_groups_do_not_matter(rows, random):
    rows = rows + [(y, y, g) for y in (0, 1) for g in "ab"]  # no class or second group is missing
    y_true, y_pred, groups = zip(*rows, strict=True)
    options = {"min_cell": 1, "bootstrap": 0}
    plain = dict(fairness.evaluate(y_true, y_pred, groups=groups, **options))
    shuffled = list(rows)
    random.shuffle(shuffled)
    y2, p2, g2 = zip(*shuffled, strict=True)
    renamed = [{"a": 9, "b": "old", "c": (1, 2)}[g] for g in g2]
    assert dict(fairness.evaluate(y2, p2, groups=renamed, **options)) == pytest.approx(plain)
    # Swapping the two classes' names keeps what is symmetric in them.
    swapped = fairness.evaluate([1 - y for y in y_true], [1 - p for p in y_pred], groups=groups, **options)
    for name in ("accuracy", "accuracy_gap", "equalized_odds_difference", "worst_cell_accuracy"):
        assert swapped[name] == pytest.approx(plain[name])


def test_labels_of_any_kind_give_the_same_numbers(noisy):
    y_true, y_pred, groups = noisy
    plain = dict(fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0))
    texts = np.array(["frown", "smile"])
    as_text = fairness.evaluate(
        pd.Series(texts[y_true]), pd.Categorical(texts[y_pred]), groups=pd.Series(groups), bootstrap=0, positive="smile"
    )
    as_tensor = fairness.evaluate(torch.tensor(y_true), torch.tensor(y_pred), groups=list(groups), bootstrap=0)
    as_bool = fairness.evaluate(y_true == 1, y_pred == 1, groups=groups, bootstrap=0)
    assert plain == dict(as_text) == dict(as_tensor) == dict(as_bool)


def test_several_protected_columns_mean_their_product():
    y_true, y_pred, groups = expand(PAPER)
    columns = pd.DataFrame({"group": groups, "site": ["s", "t"] * 22 + ["s"]})
    report = fairness.evaluate(y_true, y_pred, groups=columns, bootstrap=0)
    assert list(report.groups.index) == [("a", "s"), ("a", "t"), ("b", "s"), ("b", "t")]
    assert report.groups.index.names == ["group", "site"]
    assert report.cells.loc[("a", "s", 1), "count"] == report.cells.loc["a", "s"].loc[1, "count"]
    assert {row["site"] for row in report.to_dict()["groups"]} == {"s", "t"}
    # the same as tuples
    tuples = fairness.evaluate(y_true, y_pred, groups=list(columns.itertuples(index=False, name=None)), bootstrap=0)
    assert dict(tuples) == dict(report)


def test_values_that_hold_the_joint_stay_apart():
    columns = pd.DataFrame({"x": ["a & b", "a", "c", "c"] * 4, "y": ["c", "b & c", "d", "e"] * 4})
    report = fairness.evaluate([0] * 8 + [1] * 8, [0, 1] * 8, groups=columns, bootstrap=0)
    assert len(report.groups) == 4 and report.groups.loc[("a & b", "c"), "count"] == 4


def test_one_function_decides_what_a_group_is():
    groups = ["light", "light ", "dark", "dark\t"] * 4
    report = fairness.evaluate([0, 1] * 8, [0, 1, 1, 0] * 4, groups=groups, min_cell=1, bootstrap=0)
    assert report.groups.index.tolist() == ["dark", "light"]
    with pytest.raises(LabelError, match="`groups` misses a label at position 1"):
        fairness.evaluate([0, 1], [0, 1], groups=["light", "  "])
    words = fairness.evaluate([0, 1] * 4, [0, 1] * 4, groups=["None", "NA"] * 4, min_cell=1, bootstrap=0)
    assert words.groups.index.tolist() == ["NA", "None"]


@pytest.mark.parametrize(
    ("y_true", "y_pred", "text"),
    [
        (["0", "1"], [0, 1], "`y_pred` contains 0 at position 0.*It reads like '0': give text or numbers on both"),
        ([0, 1], ["0", "1"], "It reads like 0: give text"),
        (["male", "female"], ["Male", "female"], "'Male' at position 0.*Use the words of `y_true`, or name all"),
        ([0, 1], [0, 2], "2 at position 1, not one of .0, 1."),
        (["1", 1], [1, 1], "`y_true` contains 1 and '1', which read the same"),
        ([0.0, 1.0], ["True", "False"], "'True' at position 0"),
    ],
)
def test_a_prediction_that_is_no_class_of_the_truth(y_true, y_pred, text):
    with pytest.raises(LabelError, match=text):
        fairness.evaluate(y_true, y_pred, groups=["a", "b"], min_cell=1)
    with pytest.raises(LabelError, match=text):
        fairness.accuracy(y_true, y_pred)


def test_classes_that_the_truth_lacks_can_be_named():
    report = fairness.evaluate([0, 1] * 4, [0, 2] * 4, groups=list("aabb") * 2, classes=[0, 1, 2], bootstrap=0)
    assert report["accuracy"] == 0.5


def test_numbers_that_cannot_be_known_are_nan():
    """Group b has no positive: nothing compares true positive rates of two groups."""
    y_true, y_pred = [1, 1, 0, 0, 1, 0] * 2 + [0] * 6, [1, 0, 0, 0, 1, 1] * 2 + [0, 1, 0, 0, 1, 0]
    groups = ["a"] * 12 + ["b"] * 6
    report = fairness.evaluate(y_true, y_pred, groups=groups, min_cell=1, bootstrap=40)
    for name in ("equal_opportunity_difference", "equalized_odds_difference"):
        assert np.isnan(report[name]) and np.isnan(report.intervals[name]).all()
        chance = fairness.permutation_test(y_true, y_pred, groups=groups, metric=name, min_cell=1, num_permutations=50)
        assert np.isnan([chance.value, chance.null_mean, chance.excess, chance.p_value]).all()
    assert report["demographic_parity_difference"] == pytest.approx(0.5 - 1 / 3)  # selection rates are known
    # 12 items of a and 6 of b: nothing rests on 10 items in both, so no gap and no ratio is known
    few = fairness.evaluate(y_true, y_pred, groups=groups, min_cell=10, bootstrap=40)
    for name in ("accuracy_gap", "demographic_parity_difference", "demographic_parity_ratio"):
        assert np.isnan(few[name]) and np.isnan(few.intervals[name]).all()
    assert few["worst_group_accuracy"] == pytest.approx(8 / 12)


def test_a_metric_that_does_not_compare_groups_has_no_permutation_test():
    with pytest.raises(ConfigError, match="'macro_f1' does not compare groups.*worst_group_accuracy"):
        fairness.permutation_test([1, 0], [1, 0], groups=["a", "b"], metric="macro_f1")


def test_an_interval_rests_on_nearly_all_resamples():
    draws = np.arange(100.0)
    assert fairness.interval(draws, 0.9) == pytest.approx((4.95, 94.05))
    draws[:5] = np.nan
    assert np.isfinite(fairness.interval(draws)).all()
    draws[5] = np.nan
    assert np.isnan(fairness.interval(draws)).all() and np.isnan(fairness.interval(np.full(3, np.nan))).all()


def test_tally_is_the_count_of_a_plain_loop(noisy):
    y_true, y_pred, names = noisy
    groups = pd.factorize(names)[0]
    wanted = np.zeros((3, 2, 2))
    for g, y, p in zip(groups, y_true, y_pred, strict=True):
        wanted[g, y, p] += 1
    size = {"num_groups": 3, "num_classes": 2}
    assert np.array_equal(fairness.tally(groups, y_true, y_pred, **size), wanted)
    two = fairness.tally(groups, y_true, np.stack([y_pred, y_true]), **size)
    assert np.array_equal(two[0], wanted) and two.shape == (2, 3, 2, 2)
    weights = np.stack([np.ones(len(groups)), np.full(len(groups), 0.5)])
    weighted = fairness.tally(groups, y_true, y_pred, weights=weights, **size)
    assert np.allclose(weighted, np.stack([wanted, wanted / 2]))
    assert np.allclose(fairness.tally(groups, y_true, y_pred, weights=weights[1], **size), wanted / 2)


def test_empty_cells_are_an_error_unless_asked():
    y_true, y_pred, groups = expand({("a", 1, 1): 3, ("a", 0, 0): 3, ("b", 1, 1): 3, ("b", 1, 0): 1})
    with pytest.raises(LabelError, match=r"cell \(0, 'b'\) has no item.*min_cell=1"):
        fairness.evaluate(y_true, y_pred, groups=groups)
    report = fairness.evaluate(y_true, y_pred, groups=groups, min_cell=1, bootstrap=0)
    assert report.num_dropped_cells == 1
    assert report["equal_opportunity_difference"] == 0.25
    with pytest.raises(LabelError, match="group 'c' has no item"):
        fairness.evaluate([1, 0, 1, 0], [1, 0, 1, 0], groups=list("aabb"), group_names=["a", "b", "c"])
    # Cells of fewer than four leave every false positive rate without a second group to compare.
    few = fairness.evaluate(y_true, y_pred, groups=groups, min_cell=4, bootstrap=0)
    assert few.num_dropped_cells == 3
    assert np.isnan(few["equal_opportunity_difference"])
    assert few.to_dict()["equal_opportunity_difference"] is None


def test_intervals_cover_narrow_with_size_and_repeat_by_seed():
    y_true, y_pred, groups = expand(PAPER)
    small = fairness.evaluate(y_true, y_pred, groups=groups, seed=3)
    large = fairness.evaluate(y_true * 20, y_pred * 20, groups=groups * 20, seed=3)
    for name in fairness.METRICS:
        low, high = small.intervals[name]
        assert low <= small[name] <= high, name
        assert large.intervals[name][1] - large.intervals[name][0] < 0.5 * (high - low), name
    again = fairness.evaluate(y_true, y_pred, groups=groups, seed=3)
    other = fairness.evaluate(y_true, y_pred, groups=groups, seed=4)
    assert again.intervals == small.intervals != other.intervals
    # The interval of a plain share agrees with the normal approximation (45 items: wide tolerance).
    low, high = small.intervals["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(33 / 45 * 12 / 45 / 45), rel=0.2)


GROUP_METRICS = [*GAPS, "demographic_parity_ratio", "worst_group_accuracy", "worst_cell_accuracy"]


@pytest.mark.parametrize("num_groups", [2, 5])
def test_intervals_of_gaps_hold_where_nothing_differs(num_groups):
    """Equal groups: nearly all intervals reach 0, and the observed gap lies within; none is below 0."""
    groups = np.repeat(np.arange(num_groups), 60)
    reached = dict.fromkeys(GAPS, 0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y_true = rng.integers(0, 2, len(groups))
        y_pred = np.where(rng.random(len(groups)) < 0.2, 1 - y_true, y_true)
        report = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=200, seed=seed)
        for name in GROUP_METRICS:
            low, high = report.intervals[name]
            assert 0 <= low <= report[name] <= high <= 1, name
        for name in GAPS:
            reached[name] += report.intervals[name][0] == 0
    assert min(reached.values()) >= 33, reached


def test_the_worst_of_many_groups_has_an_interval_that_holds():
    """The worst of seven equal groups lies below them all by chance, so what is true lies mostly above it."""
    groups, held = np.repeat(np.arange(7), 60), {"worst_group_accuracy": 0, "worst_cell_accuracy": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y_true = rng.integers(0, 2, len(groups))
        y_pred = np.where(rng.random(len(groups)) < 0.2, 1 - y_true, y_true)
        report = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=200, seed=seed)
        for name in held:
            low, high = report.intervals[name]
            held[name] += low <= 0.8 <= high
            assert high - low < 0.45
    assert min(held.values()) >= 37, held


def test_intervals_of_large_samples_close_in_on_the_gap():
    sizes, right = [4000, 4000, 4000], [0.9, 0.85, 0.7]
    y_true, groups, y_pred = [], [], []
    for g, (n, share) in enumerate(zip(sizes, right, strict=True)):
        y_true += [0, 1] * (n // 2)
        groups += [g] * n
        y_pred += [y if i // 2 < share * n / 2 else 1 - y for i, y in enumerate([0, 1] * (n // 2))]
    report = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=400)
    low, high = report.intervals["accuracy_gap"]
    error = np.sqrt((0.9 * 0.1 + 0.7 * 0.3) / 4000)
    assert report["accuracy_gap"] == pytest.approx(0.2)
    assert (low, high) == pytest.approx((0.2 - 1.96 * error, 0.2 + 1.96 * error), abs=0.25 * error)


def test_people_and_not_their_images_make_an_interval_narrow():
    rng = np.random.default_rng(1)
    persons = np.repeat(np.arange(60), 8)
    groups, y_true = persons % 2, (persons // 2) % 2
    right = rng.random(480) < rng.beta(1, 0.5, 60)[persons]
    arguments = (y_true, np.where(right, y_true, 1 - y_true))
    by_images = fairness.evaluate(*arguments, groups=groups, bootstrap=300)
    by_people = fairness.evaluate(*arguments, groups=groups, persons=persons, bootstrap=300)
    alone = fairness.evaluate(*arguments, groups=groups, persons=range(480), bootstrap=300)
    assert dict(by_images) == dict(by_people) == dict(alone)

    def width(report, name):
        return report.intervals[name][1] - report.intervals[name][0]

    assert width(by_people, "accuracy") > 1.5 * width(by_images, "accuracy")
    assert width(alone, "accuracy") == pytest.approx(width(by_images, "accuracy"), rel=0.2)


@pytest.mark.parametrize(("num_seeds", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776)])
def test_few_seeds_say_little_of_others(num_seeds, quantile):
    """Many items, so that classifiers differ by their seeds alone: the interval of their mean is Student's."""
    shares = 0.5 + np.linspace(-0.002, 0.002, num_seeds)
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    counts = np.stack([np.stack([10**6 * (share * one + (1 - share) * one[::-1])] * 2) for share in shares]).round()
    resamples = tuple(resampled_table(n, 4000, 0) for n in counts)
    how = fairness.EvaluationSettings().for_counts(["0", "1"])
    found = intervals(Fits.of_seeds(counts, resamples, 0), sizes=counts[0], level=0.95, how=how)
    low, high = found["accuracy"]
    assert (high - low) / 2 == pytest.approx(quantile * shares.std(ddof=1) / num_seeds**0.5, rel=0.2)
    assert low < 0.5 < high


def test_a_group_of_one_person_has_no_interval():
    persons = ["p", "q", "r", "s", "s", "s", "s"]
    groups, y = ["a", "a", "a", "b", "b", "b", "b"], [0, 1, 1, 0, 1, 0, 1]
    report = fairness.evaluate(y, [0, 1, 0, 0, 1, 1, 1], groups=groups, persons=persons, bootstrap=50)
    assert report["accuracy_gap"] == pytest.approx(0.75 - 2 / 3)
    assert np.isnan(list(report.intervals.values())).all()
    # so has a group of one item
    few = fairness.evaluate([0, 1, 0], [0, 1, 0], groups=["a", "a", "b"], min_cell=1, bootstrap=50)
    assert np.isnan(few.intervals["accuracy_gap"]).all()


def test_weights_are_those_of_scikit_learn_and_fairlearn(noisy):
    import fairlearn.metrics as theirs
    import sklearn.metrics as sk

    y_true, y_pred, groups = noisy
    weights = np.random.default_rng(2).uniform(0, 3, len(y_true))
    ours = fairness.evaluate(y_true, y_pred, groups=groups, weights=weights, bootstrap=60)
    options = {"sensitive_features": groups, "sample_weight": weights}
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y_true, y_pred, sample_weight=weights))
    assert ours["macro_f1"] == pytest.approx(sk.f1_score(y_true, y_pred, average="macro", sample_weight=weights))
    assert fairness.accuracy(y_true, y_pred, weights=weights) == pytest.approx(ours["accuracy"])
    for name in ("equal_opportunity_difference", "equalized_odds_difference", "demographic_parity_ratio"):
        assert ours[name] == pytest.approx(getattr(theirs, name)(y_true, y_pred, **options)), name
        assert getattr(fairness, name)(y_true, y_pred, groups=groups, weights=weights) == pytest.approx(ours[name])
    assert ours.groups["count"].sum() == len(y_true)
    assert ours.groups.loc["p", "accuracy"] == pytest.approx(
        np.average((y_true == y_pred)[groups == "p"], weights=weights[groups == "p"])
    )
    once = fairness.evaluate(y_true, y_pred, groups=groups, weights=np.ones(len(y_true)), bootstrap=0)
    assert dict(once) == pytest.approx(dict(fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=0)))
    for wrong in ([1.0] * 3, -weights, np.full(len(weights), np.nan), np.zeros(len(weights))):
        with pytest.raises(ShapeError, match="`weights` must be"):
            fairness.evaluate(y_true, y_pred, groups=groups, weights=wrong)


def test_weights_stay_with_their_items_where_groups_are_permuted(noisy):
    import fairlearn.metrics as theirs

    y_true, y_pred, groups = noisy
    weights = np.random.default_rng(2).uniform(0, 3, len(y_true))
    how = {"groups": groups, "num_permutations": 400}
    found = fairness.permutation_test(y_true, y_pred, weights=weights, **how)
    expected = theirs.equalized_odds_difference(y_true, y_pred, sensitive_features=groups, sample_weight=weights)
    assert found.value == pytest.approx(expected)
    # Items that count for nothing are as if they were not there, up to which of them the others are dealt with.
    kept = np.arange(len(y_true)) % 2 == 0
    halved = fairness.permutation_test(y_true, y_pred, weights=kept.astype(float), **how)
    alone = fairness.permutation_test(y_true[kept], y_pred[kept], groups=groups[kept], num_permutations=400)
    assert halved.value == pytest.approx(alone.value) and halved.null_mean == pytest.approx(alone.null_mean, rel=0.3)
    # Weights of one size say nothing, and unequal ones leave less evidence than equal ones.
    people = fairness.permutation_test(y_true, y_pred, persons=np.arange(len(y_true)), **how)
    assert fairness.permutation_test(y_true, y_pred, weights=np.full(len(y_true), 7.0), **how) == people
    assert found.null_mean > people.null_mean
    with pytest.raises(ShapeError, match="`weights` must be"):
        fairness.permutation_test(y_true, y_pred, weights=[1.0], **how)


def test_report_is_json_and_a_table():
    y_true, y_pred, groups = expand(PAPER)
    report = fairness.evaluate(y_true, y_pred, groups=groups, bootstrap=20)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["accuracy_gap"] == pytest.approx(0.21)
    assert plain["groups"][1] == {
        "group": "b",
        "count": 25,
        "accuracy": 0.64,
        "balanced_accuracy": 0.55,
        "macro_f1": pytest.approx(fairness.macro_f1([1] * 5 + [0] * 20, [1] * 2 + [0] * 17 + [1] * 6)),
    }
    assert list(report.table.columns) == ["value", "low", "high"]
    assert "accuracy_gap=0.210" in repr(report)
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy_gap'"):
        report["acuracy_gap"]


def test_permutation_removes_the_bias_of_small_samples():
    values, excesses = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y_true, groups = rng.integers(0, 2, 200), rng.choice(list("abcde"), 200)
        no_bias = np.where(rng.random(200) < 0.25, 1 - y_true, y_true)
        chance = fairness.permutation_test(y_true, no_bias, groups=groups, num_permutations=100)
        values.append(chance.value)
        excesses.append(chance.excess)
    assert np.mean(values) > 0.2  # five groups of forty: a gap stands there without any bias
    # The spread of one excess is about 0.09; four standard errors of the mean of twenty.
    assert abs(np.mean(excesses)) < 0.08
    planted = np.where((groups == "a") & (y_true == 1), 0, no_bias)
    found = fairness.permutation_test(y_true, planted, groups=groups, num_permutations=500)
    assert found.p_value < 0.01 and found.excess > 0.3
    ratio = fairness.permutation_test(
        y_true, planted, groups=groups, num_permutations=200, metric="demographic_parity_ratio"
    )
    assert ratio.p_value < 0.05 and ratio.excess < 0


def test_permutation_null_equals_a_plain_loop():
    y_true, y_pred, groups = (np.array(x) for x in expand(PAPER))
    fast = fairness.permutation_test(y_true, y_pred, groups=groups, metric="accuracy_gap", num_permutations=4000)
    rng, gaps = np.random.default_rng(5), []
    for _ in range(400):
        shuffled = groups.copy()
        for y in (0, 1):
            shuffled[y_true == y] = rng.permutation(shuffled[y_true == y])
        rates = [np.mean((y_true == y_pred)[shuffled == g]) for g in "ab"]
        gaps.append(abs(rates[0] - rates[1]))
    # Two means of 400 and 4000 draws: four standard errors of the smaller.
    assert fast.null_mean == pytest.approx(np.mean(gaps), abs=4 * np.std(gaps) / 20)
    assert fast.p_value == pytest.approx(np.mean(np.array(gaps) >= fast.value - 1e-12), abs=0.1)


def test_people_are_permuted_with_all_of_their_images():
    groups = np.repeat([0, 0, 1, 1, 2, 2], 3)
    y_true = np.repeat([0, 1, 0, 1, 0, 1], 3)
    persons = np.repeat(np.arange(6), 3)
    dealt = fairness.permuted_groups(groups, y_true, persons, 200, 0)
    assert dealt.shape == (200, 18)
    of_person = dealt.reshape(200, 6, 3)
    assert (of_person == of_person[..., :1]).all(), "all images of a person go together"
    for y in (0, 1):  # within each class every group keeps its one person
        assert (np.sort(of_person[:, y::2, 0], axis=1) == [0, 1, 2]).all()
    assert len(np.unique(dealt, axis=0)) == 36, "3! x 3! arrangements"
    # one image a person: the same null as that of tables with fixed margins
    y_true, y_pred, names = (np.array(x) for x in expand(PAPER))
    options = {"groups": names, "metric": "accuracy_gap", "num_permutations": 3000}
    alone = fairness.permutation_test(y_true, y_pred, **options)
    each = fairness.permutation_test(y_true, y_pred, persons=range(len(names)), **options)
    assert each.null_mean == pytest.approx(alone.null_mean, abs=0.01)
    assert each.p_value == pytest.approx(alone.p_value, abs=0.04)


def test_images_of_one_person_are_not_evidence_of_their_own():
    """People differ in difficulty and groups do not: with images permuted most such worlds look unfair."""
    by_images, by_people = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        persons = np.repeat(np.arange(40), 10)
        groups, y_true = (persons % 2)[:], (persons // 2) % 2
        right = rng.random(400) < rng.beta(1, 0.5, 40)[persons]
        arguments = (y_true, np.where(right, y_true, 1 - y_true))
        options = {"groups": groups, "metric": "accuracy_gap", "num_permutations": 99}
        by_images.append(fairness.permutation_test(*arguments, **options).p_value)
        by_people.append(fairness.permutation_test(*arguments, persons=persons, **options).p_value)
    assert np.mean(np.array(by_images) <= 0.05) > 0.25
    assert np.mean(np.array(by_people) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


def test_people_have_a_name_each():
    options = {"groups": ["a", "b"] * 2, "metric": "accuracy_gap"}
    with pytest.raises(ShapeError, match=r"`persons` must be \(4,\), one per item; got 3"):
        fairness.permutation_test([0, 1, 1, 0], [0, 1, 1, 0], persons=[1, 2, 3], **options)
    with pytest.raises(LabelError, match="`persons` misses a name at position 1"):
        fairness.permutation_test([0, 0, 1, 1], [0, 1, 1, 0], persons=["p", None, "q", "r"], **options)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"y_true": [1, 0], "y_pred": [1], "groups": ["a", "b"]}, ShapeError, "one length; got 2, 1 and 2"),
        ({"y_true": [], "y_pred": [], "groups": []}, ShapeError, "is empty"),
        ({"y_true": [[1, 0]], "y_pred": [1], "groups": ["a"]}, ShapeError, r"must be \(n,\)"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", "a"]}, LabelError, "one group, 'a'; a gap needs two"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", None]}, LabelError, "misses a label at position 1"),
        ({"y_true": [1, 0], "y_pred": [1, 2], "groups": ["a", "b"], "classes": [0, 1]}, LabelError, "2 at position 1"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", "b"], "level": 2}, ConfigError, r"in \(0, 1\)"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", "b"], "over_classes": "x"}, ConfigError, "worst, mean"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", "b"], "min_cell": 0}, ConfigError, ">= 1 or None"),
        ({"y_true": [1, 0], "y_pred": [1, 0], "groups": ["a", "b"], "positive": 7}, UnknownNameError, "class '7'"),
        (
            {"y_true": [1], "y_pred": [1], "groups": pd.DataFrame({"a": ["x"], "b": [None]})},
            LabelError,
            "misses a label",
        ),
    ],
)
def test_bad_input_names_the_argument(arguments, error, text):
    with pytest.raises(error, match=text):
        fairness.evaluate(arguments.pop("y_true"), arguments.pop("y_pred"), **arguments)


def test_permutation_test_rejects_bad_settings():
    with pytest.raises(UnknownNameError, match="Unknown metric 'gap'"):
        fairness.permutation_test([1, 0], [1, 0], groups=["a", "b"], metric="gap")
    with pytest.raises(ConfigError, match="num_permutations"):
        fairness.permutation_test([1, 0], [1, 0], groups=["a", "b"], num_permutations=0)


def test_groups_cannot_be_passed_by_position():
    with pytest.raises(ConfigError):
        fairness.evaluate([1], [1], ["a"])


def test_series_in_another_order_are_not_matched_by_position():
    y = pd.Series([0, 1, 1, 0], index=["a", "b", "c", "d"])
    turned = y[::-1].rename("turned")
    groups = list("xxyy")
    with pytest.raises(LabelError, match=r"`y_true` and `y_pred` have the same index in another order.*reindex"):
        fairness.evaluate(y, turned, groups=groups, bootstrap=0, min_cell=1)
    assert fairness.evaluate(y, turned.reindex(y.index), groups=groups, bootstrap=0, min_cell=1)["accuracy"] == 1
    assert fairness.evaluate(y, y.to_numpy(), groups=groups, bootstrap=0, min_cell=1)["accuracy"] == 1
    with pytest.raises(LabelError, match="`y_true` and `groups` have the same index"):
        fairness.evaluate(y, y.to_list(), groups=pd.Series(groups, index=turned.index), bootstrap=0, min_cell=1)


@pytest.mark.parametrize("wrong", [None, 3])
def test_labels_are_lists(wrong):
    with pytest.raises(ShapeError, match="`y_true` must be a list or an array of labels"):
        fairness.evaluate(wrong, [0, 1], groups=["a", "b"])
    with pytest.raises(ShapeError, match="`y_true` must be a list or an array of labels"):
        fairness.accuracy(wrong, [0, 1])


def test_an_interval_has_a_level_and_arrangements_are_counted():
    assert fairness.interval([1.0, 2.0, 3.0], 1) == (1.0, 3.0)
    for wrong in (2, math.nan, None, True):
        with pytest.raises(ConfigError, match="`level` must be a number in 0..1"):
            fairness.interval(np.arange(3.0), wrong)
    with pytest.raises(ConfigError, match="`num_permutations` of permutation_test must be a whole number"):
        fairness.permutation_test([0, 1, 0, 1], [0, 1, 1, 1], groups=list("aabb"), num_permutations=True)


def test_what_looks_like_a_label_but_is_none_is_named():
    y, groups = [0, 1, 0, 1], list("aabb")
    with pytest.raises(LabelError, match=r"contains 0.9 at position 1.*looks like a probability.*>= 0.5"):
        fairness.evaluate(y, [0.0, 0.9, 0.2, 1.0], groups=groups)
    for weights, got in (
        ([1, 2, -3, 1], "-3 at position 2"),
        ([1, np.nan, 1, 1], "nan at position 1"),
        ([0] * 4, "0 alone"),
    ):
        with pytest.raises(ShapeError, match=f"`weights` must be .*; got {got}"):
            fairness.evaluate(y, y, groups=groups, weights=weights)
