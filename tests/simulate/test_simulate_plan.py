from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias import simulate
from vlbias.errors import ConfigError, DatasetError, LabelError, PlanError, UnknownNameError
from vlbias.simulate.quotas import quotas

OPTIONS = {"target": "emotion", "protected": "race"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=6), st.integers(0, 60))
def test_quotas_sum_and_never_shrink(weights, total):
    shares = {f"c{i}": weight for i, weight in enumerate(weights)}
    now, next_one = quotas(total, shares), quotas(total + 1, shares)
    assert sum(now.values()) == total and all(now[name] <= next_one[name] for name in shares)
    fair = {name: weight / sum(weights) * total for name, weight in shares.items()}
    assert all(abs(now[name] - fair[name]) < len(shares) for name in shares)


def _check(plan, table, n, shares, repeats):
    groups, labels = table["race"], table["emotion"]
    frequencies = labels[table["split"] == "train"].value_counts(normalize=True)
    for key, run in plan.runs.iterrows():
        files = plan.files(key)
        assert len(files) == len(set(files)) == run["n"], "exact and without repetition"
        assert not set(files) & set(plan.test), "train and test apart"
        counts = Counter(groups[files])
        assert all(counts[group] == run[f"n[{group}]"] for group in plan.groups)
        if run["mode"] == "substitute":
            assert run["n"] == n and counts[run["focal"]] == round(run["share"] * n)
        for group in plan.groups:  # label frequencies in every group
            inside = Counter(labels[[item for item in files if groups[item] == group]])
            for label, frequency in frequencies.items():
                assert abs(inside[label] - frequency * counts[group]) < len(frequencies)
    for (focal, _, mode), rows in plan.runs.groupby(["focal", "repeat", "mode"]):
        own = [{item for item in plan.files(key) if groups[item] == focal} for key in rows.sort_values("share").index]
        assert all(a <= b for a, b in itertools.pairwise(own)), "nested"
        rest = [set(plan.files(key)) - one for key, one in zip(rows.sort_values("share").index, own, strict=True)]
        pairs = list(itertools.pairwise(rest))
        assert all(a >= b if mode == "substitute" else a <= b for a, b in pairs)
    assert len(plan) == plan.runs["focal"].nunique() * plan.runs["mode"].nunique() * len(shares) * repeats


@settings(max_examples=8, deadline=None)
@given(
    n=st.sampled_from([30, 77, 120, "max"]),
    shares=st.lists(st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5]), min_size=2, max_size=4, unique=True),
    mode=st.sampled_from(["substitute", "add", "control", ("add", "control")]),
    rest=st.sampled_from(["natural", "uniform"]),
    seed=st.integers(0, 3),
)
def test_plan_invariants(n, shares, mode, rest, seed):
    from tests_simulate_faces import TableFaces, face_table

    table = face_table()
    plan = simulate.plan(TableFaces(table), **OPTIONS, n=n, shares=shares, mode=mode, rest=rest, repeats=2, seed=seed)
    _check(plan, table, plan.settings.n, shares, 2)
    if rest == "uniform":
        for _, run in plan.runs.iterrows():
            others = [run[f"n[{group}]"] for group in plan.groups if group != run["focal"]]
            assert max(others) - min(others) <= 1
    again = simulate.plan(TableFaces(table), **OPTIONS, n=n, shares=shares, mode=mode, rest=rest, repeats=2, seed=seed)
    assert again.digest() == plan.digest()
    shuffled = table.sample(frac=1, random_state=1)
    test_order = simulate.plan(
        TableFaces(shuffled), **OPTIONS, n=n, shares=shares, mode=mode, rest=rest, repeats=2, seed=seed
    )
    assert all(test_order.files(key) == plan.files(key) for key in plan.runs.index), "row order does not matter"


def test_control_has_the_sizes_of_add_and_the_focal_group_of_the_smallest_share(faces):
    plan = simulate.plan(faces, **OPTIONS, mode=("add", "control"), shares=(0.1, 0.3, 0.5), focal="z", repeats=1)
    add, control = (plan.runs[plan.runs["mode"] == mode] for mode in ("add", "control"))
    assert add["n"].tolist() == control["n"].tolist() and add["n"].is_monotonic_increasing
    assert control["n[z]"].nunique() == 1 and add["own_share"].tolist() == pytest.approx([0.1, 0.3, 0.5], abs=0.01)
    assert (add["n"] - add["n[z]"]).nunique() == 1


def test_subjects_never_stand_on_both_sides_and_stay_together(faces):
    plan = simulate.plan(faces, **OPTIONS, subject="person", repeats=1, focal="x", shares=(0.0, 0.5))
    people = faces.table["person"]
    for key in plan.runs.index:
        assert not set(people[plan.files(key)]) & set(people[list(plan.test)])
    # The first third of a group's images covers about a third of its people, not all of them.
    files = [item for item in plan.files("substitute|x|0.5|r0") if plan.labels[item][0] == "x"]
    assert people[files].nunique() < 0.9 * len(files)


def test_a_group_of_one_person_is_refused(faces):
    """Three images of one person look like a group, and tell nothing of how people differ."""
    table = faces.table
    table.loc[(table["split"] == "test") & (table["race"] == "z"), "person"] = "somebody"
    with pytest.raises(LabelError, match="Group 'z' of `race` has one person in split 'test'"):
        simulate.plan(faces, **OPTIONS, subject="person", repeats=1)


def test_unnested_draws_differ_but_keep_the_counts(faces):
    nested = simulate.plan(faces, **OPTIONS, n=60, repeats=1, focal="z")
    loose = simulate.plan(faces, **OPTIONS, n=60, repeats=1, focal="z", nested=False)
    pd.testing.assert_frame_equal(nested.runs, loose.runs)
    small, large = (set(loose.files(f"substitute|z|{share}|r0")) for share in ("0.4", "0.5"))
    own = {item for item in small if loose.labels[item][0] == "z"}
    assert not own <= large


def test_the_largest_n_is_feasible_and_one_more_is_not(faces):
    plan = simulate.plan(faces, **OPTIONS, repeats=1)
    n = plan.settings.n
    with pytest.raises(
        PlanError, match=rf"n={n + 1} is not feasible: group '.' has .* The largest feasible n is {n}\."
    ):
        simulate.plan(faces, **OPTIONS, repeats=1, n=n + 1)
    message = r"group '.' has \d+ training images labelled '.' and at share [\d.]+ of 'z' needs \d+"
    with pytest.raises(PlanError, match=message):
        simulate.plan(faces, **OPTIONS, n=5000, focal="z", rest="natural")


def test_numbers_of_other_kinds(faces):
    plan = simulate.plan(faces, **OPTIONS, n=np.int64(40), shares=(0.0, 0.5), repeats=1)
    assert plan.settings.n == 40 and type(plan.settings.n) is int
    for n in (True, 12.5, 1, "many"):
        with pytest.raises(ConfigError, match="`n` of PlanSettings must be a whole number >= 2 or one of max"):
            simulate.plan(faces, **OPTIONS, n=n)
    with pytest.raises(ConfigError, match="`seed` of PlanSettings must be a whole number >= 0; got -1"):
        simulate.plan(faces, **OPTIONS, seed=-1)
    with pytest.raises(ConfigError, match="each entry is a number or a mapping; got"):
        simulate.plan(faces, **OPTIONS, shares=(0.0, float("nan")))


def test_compositions(faces):
    plan = simulate.plan(
        faces, **OPTIONS, shares=[{"x": 0.5, "y": 0.5}, {"x": 0.2, "y": 0.3, "z": 0.5}], n=40, repeats=2
    )
    assert plan.runs["n[z]"].tolist() == [0, 0, 20, 20] and len(plan) == 4
    with pytest.raises(ConfigError, match="sums to 0.9"):
        simulate.plan(faces, **OPTIONS, shares=[{"x": 0.5, "y": 0.4}])
    with pytest.raises(UnknownNameError, match="Unknown group 'w'"):
        simulate.plan(faces, **OPTIONS, shares=[{"w": 1.0}])


def test_save_and_check(faces, tmp_path):
    plan = simulate.plan(faces, **OPTIONS, n=30, repeats=1, shares=(0.0, 0.4))
    path = plan.save(tmp_path / "plan.json")
    plan.check(path)
    other = simulate.plan(faces, **OPTIONS, n=30, repeats=1, shares=(0.0, 0.4), seed=1)
    with pytest.raises(PlanError, match="another plan"):
        other.check(path)
    table = plan.table()
    assert len(table) == plan.runs["n"].sum() and "6 runs" in str(plan) and next(iter(table.columns)) == "run"
    with pytest.raises(UnknownNameError, match="run"):
        plan.files("nothing")


def test_bad_input(faces, make_faces):
    def call(**options):
        simulate.plan(faces, **{**OPTIONS, **options})

    with pytest.raises(UnknownNameError, match="Did you mean 'emotion'"):
        call(target="emotions")
    with pytest.raises(UnknownNameError, match="mode"):
        call(mode="replace")
    with pytest.raises(ConfigError, match="`rest` of PlanSettings must be one of natural, uniform"):
        call(rest="equal")
    with pytest.raises(UnknownNameError, match="Unknown group 'w'"):
        call(focal="w")
    with pytest.raises(ConfigError, match="below 1; got 1.5"):
        call(shares=(0.5, 1.5))
    with pytest.raises(ConfigError, match="at least two shares"):
        call(shares=(0.5,))
    with pytest.raises(ConfigError, match="`n` of PlanSettings must be"):
        call(n="all")
    with pytest.raises(ConfigError, match="must differ"):
        call(target="race")
    with pytest.raises(ConfigError, match="`repeats`"):
        call(repeats=0)
    table = faces.table
    faces.table = table.assign(race=table["race"].where(table.index != "f0003"))
    with pytest.raises(LabelError, match="`race` is missing for 1 of 1500"):
        call()
    faces.table = table.assign(race=table["race"].where(table.index != "f0003", "w"))
    with pytest.raises(LabelError, match="Group 'w' of `race` has 1 image"):
        call()
    faces.table = table[table["split"] == "train"]
    with pytest.raises(LabelError, match="splits 'train' and 'test'"):
        call()


def test_a_column_origin_of_ones_own_is_no_provenance(faces):
    faces.table = faces.table.assign(origin="flickr")
    plan = simulate.plan(faces, **OPTIONS, n=60, repeats=1, focal="z")
    assert len(plan.test) == 600
    faces.table = faces.table.assign(origin=["edited", "real"] * 750)
    assert len(simulate.plan(faces, **OPTIONS, n=60, repeats=1, focal="z").test) == 300
    faces.table = faces.table.assign(origin=["edited", "flickr"] * 750)
    with pytest.raises(DatasetError, match="Column `origin` contains 'flickr' beside 'edited'"):
        simulate.plan(faces, **OPTIONS)


def test_labels_are_what_they_are_everywhere(faces):
    table = faces.table
    faces.table = table.assign(emotion=table["emotion"].map({"a": "1", "b": "1 ", "c": 0}), race=table["race"] == "x")
    plan = simulate.plan(faces, **OPTIONS, n=60, repeats=1, focal="1")
    assert plan.classes == ("0", "1") and plan.groups == ("0", "1")


def test_unknown_settings_are_named(faces):
    with pytest.raises(ConfigError, match="Unknown setting 'repeat' for PlanSettings. Did you mean 'repeats'"):
        simulate.plan(faces, **OPTIONS, repeat=3)
    given = simulate.PlanSettings(n=60, repeats=1, focal="z")
    assert simulate.plan(faces, **OPTIONS, settings=given, seed=4).settings.seed == 4
