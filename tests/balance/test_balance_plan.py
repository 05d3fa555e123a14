"""Plans: counts come out as wanted for any k groups, m classes and several protected attributes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.balance import EditPlanSettings, Poles, make_plan, resolve_poles, wanted_counts
from vlbias.errors import ConfigError, PlanError
from vlbias.seeds import item_seed

SKIN = Poles("skin", "skin_tone", {"light": -1, "dark": 1})


def planned(table, poles, *, open_groups=False, target_values=(), num_images=None, **settings):
    settings = EditPlanSettings(protected=[pole.column for pole in poles], **settings)
    return make_plan(
        table, settings, poles, open_groups=open_groups, target_values=target_values, num_images=num_images
    )


def table_of(cells, split="train"):
    """cells: (class, group values...) -> number of rows, with columns target, g0, g1, ..."""
    rows = [
        {"file_name": "x.png", "split": split, "target": key[0], **{f"g{i}": v for i, v in enumerate(key[1:])}}
        for key, n in cells.items()
        for _ in range(n)
    ]
    return pd.DataFrame(rows, index=[f"f{i}" for i in range(len(rows))])


def poles_of(*ks):
    return [Poles(f"g{i}", f"path{i}", {f"v{j}": -1 + 2 * j / (k - 1) for j in range(k)}) for i, k in enumerate(ks)]


@st.composite
def tables(draw, max_attributes=2):
    """A table with 2-4 groups in 1-2 attributes and 1-4 classes, every group and class present somewhere."""
    ks = draw(st.lists(st.integers(2, 3), min_size=1, max_size=max_attributes))
    m = draw(st.integers(1, 3))
    cells = {}
    combinations = [()]
    for k in ks:
        combinations = [(*c, f"v{j}") for c in combinations for j in range(k)]
    for klass in range(m):
        for combination in combinations:
            cells[(klass, *combination)] = draw(st.integers(0, 5))
    for combination in combinations:  # every group occurs somewhere
        cells[(0, *combination)] = max(cells[(0, *combination)], 1)
    return table_of(cells), poles_of(*ks), cells


@settings(max_examples=30, deadline=None)
@given(tables(), st.sampled_from(["max", "all"]), st.integers(1, 9), st.integers(0, 3))
def test_planned_counts_come_out_equal(drawn, to, chunk_size, seed):
    table, poles, _ = drawn
    plan = planned(table, target="target", poles=poles, to=to, chunk_size=chunk_size, seed=seed)
    for target, groups in plan.counts_after.items():
        assert len(set(groups.values())) == 1
        before = plan.counts_before[target]
        assert next(iter(groups.values())) == (max if to == "max" else sum)(before.values())
    rows = plan.table
    assert not rows.duplicated(["donor", "to"]).any()  # nobody is edited twice into the same group
    assert rows["slot"].tolist() == list(range(len(rows)))
    assert rows["chunk"].tolist() == [slot // chunk_size for slot in range(len(rows))]
    assert rows["seed"].is_unique
    group_of = {item: " & ".join(row[p.column] for p in poles) for item, row in table.iterrows()}
    for row in rows.to_dict("records"):
        assert group_of[row["donor"]] == row["from"] != row["to"]
        assert str(table.loc[row["donor"], "target"]) == row["target"]
        for item, giver in json.loads(row["reserves"]):
            assert group_of[item] == giver != row["to"] and str(table.loc[item, "target"]) == row["target"]


@settings(max_examples=30, deadline=None)
@given(tables())
def test_meeting_in_the_middle_keeps_the_size_of_each_class(drawn):
    table, poles, _ = drawn
    plan = planned(table, target="target", poles=poles, to="mean")
    for target, groups in plan.counts_after.items():
        assert sum(groups.values()) == sum(plan.counts_before[target].values())
        assert max(groups.values()) - min(groups.values()) <= 1
    assert plan.table["donor"].is_unique  # a donor can be replaced once
    reserves = [item for text in plan.table["reserves"] for item, _ in json.loads(text)]
    assert len(set(reserves)) == len(reserves) and not set(reserves) & set(plan.table["donor"])


@settings(max_examples=15, deadline=None)
@given(tables(max_attributes=1), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(drawn, random):
    table, poles, _ = drawn
    order = list(table.index)
    random.shuffle(order)
    a = planned(table, target="target", poles=poles, seed=5)
    b = planned(table.loc[order], target="target", poles=poles, seed=5)
    assert a.digest() == b.digest()


@settings(max_examples=15, deadline=None)
@given(tables(max_attributes=1))
def test_each_reserve_is_dealt_to_one_edit_of_its_cell(drawn):
    table, poles, _ = drawn
    plan = planned(table, target="target", poles=poles)
    for _, part in plan.table.groupby(["target", "to"]):
        dealt = [item for text in part["reserves"] for item, _ in json.loads(text)]
        assert len(dealt) == len(set(dealt)) and not set(dealt) & set(part["donor"])


def biased():
    return table_of({(0, "light"): 40, (0, "dark"): 4, (1, "light"): 5, (1, "dark"): 30}).rename(columns={"g0": "skin"})


def test_hand_counted_plan():
    plan = planned(biased(), target="target", poles=[SKIN])
    assert plan.counts_before == {"0": {"light": 40, "dark": 4}, "1": {"light": 5, "dark": 30}}
    assert plan.counts_after == {"0": {"light": 40, "dark": 40}, "1": {"light": 30, "dark": 30}}
    assert len(plan) == 36 + 25
    towards_dark = plan.table[plan.table["to"] == "dark"]
    assert set(towards_dark["direction"]) == {"+"} and set(towards_dark["strength"]) == {"1"}
    assert set(plan.table.loc[plan.table["to"] == "light", "strength"]) == {"-1"}


def test_a_table_that_no_run_could_carry_out_is_no_plan():
    plan = planned(biased(), target="target", poles=[SKIN])
    with pytest.raises(PlanError, match="Slot 0 stands in two rows of a plan"):
        replace(plan, table=plan.table.iloc[[0, 1, 0]])
    with pytest.raises(PlanError, match="'chunk' of a plan must be whole numbers >= 0; got \\[-1, -1, -1\\]"):
        replace(plan, table=plan.table.assign(chunk=-1))
    with pytest.raises(PlanError, match="'slot' of a plan must be whole numbers >= 0; got"):
        replace(plan, table=plan.table.assign(slot=plan.table["slot"] + 0.5))
    with pytest.raises(PlanError, match="has no column 'reserves'"):
        replace(plan, table=plan.table.drop(columns="reserves"))
    with pytest.raises(PlanError, match="has no column 'to'"):
        plan.pick(plan.table.drop(columns="to"))


def test_amplify_is_the_opposite():
    plan = planned(biased(), target="target", poles=[SKIN], mode="amplify")
    assert plan.counts_after == {"0": {"light": 44, "dark": 4}, "1": {"light": 5, "dark": 35}}
    replaced = planned(biased(), target="target", poles=[SKIN], mode="amplify", to="mean")
    assert replaced.counts_after == {"0": {"light": 44, "dark": 0}, "1": {"light": 0, "dark": 35}}
    even = table_of({(0, "light"): 3, (0, "dark"): 3}).rename(columns={"g0": "skin"})
    with pytest.raises(PlanError, match="Nothing to amplify"):
        planned(even, target="target", poles=[SKIN], mode="amplify")


def test_a_balanced_table_needs_no_edit():
    even = table_of({(0, "light"): 3, (0, "dark"): 3}).rename(columns={"g0": "skin"})
    plan = planned(even, target="target", poles=[SKIN])
    assert len(plan) == 0 and plan.num_chunks == 0 and plan.counts_after == plan.counts_before


def test_wanted_distributions():
    counts = {"light": 40, "dark": 4}
    assert wanted_counts(counts, to={"light": 0.5, "dark": 0.5}) == {"light": 40, "dark": 40}
    assert wanted_counts(counts, to={"light": 4, "dark": 1}) == {"light": 40, "dark": 10}
    assert wanted_counts(counts, to=50) == {"light": 50, "dark": 50}
    with pytest.raises(PlanError, match="below the 40 faces that 'light' already has"):
        wanted_counts(counts, to=30)
    with pytest.raises(PlanError, match="'medium' does not fit. Groups: dark, light"):
        wanted_counts(counts, to={"light": 1, "dark": 1, "medium": 1})
    with pytest.raises(PlanError, match="gives 'dark' no share, but it has 4 faces"):
        wanted_counts(counts, to={"light": 1, "dark": 0})
    with pytest.raises(PlanError, match="positive sum"):
        wanted_counts(counts, to={"light": -1, "dark": 1})
    with pytest.raises(PlanError, match="`counts` is empty"):
        wanted_counts({})


def test_limit_is_spread_over_the_cells():
    plan = planned(biased(), target="target", poles=[SKIN], limit=10)
    assert len(plan) == 10 and plan.table.groupby("target").size().tolist() == [5, 5]


def test_only_the_wanted_splits_are_balanced():
    table = pd.concat([biased(), biased().assign(split="test").set_index(biased().index + "t")])
    plan = planned(table, target="target", poles=[SKIN])
    assert set(plan.table["split"]) == {"train"} and len(plan) == 61
    both = planned(table, target="target", poles=[SKIN], splits=("train", "test"))
    assert len(both) == 122
    assert all(table.loc[row["donor"], "split"] == row["split"] for row in both.table.to_dict("records"))
    with pytest.raises(PlanError, match="`splits` names 'holdout'.*Available: test, train"):
        planned(table, target="target", poles=[SKIN], splits=("holdout",))


def test_missing_labels_are_left_out():
    table = biased()
    table.loc["f0", "skin"] = None
    plan = planned(table, target="target", poles=[SKIN])
    assert plan.counts_before["0"]["light"] == 39 and "f0" not in set(plan.table["donor"])


def test_seeds_depend_on_the_seed_and_the_item_alone():
    a, b = (planned(biased(), target="target", poles=[SKIN], seed=seed) for seed in (0, 1))
    assert set(a.table["seed"]).isdisjoint(b.table["seed"])
    assert a.table["donor"].tolist() != b.table["donor"].tolist()
    assert max(a.table["seed"]) < 2**53  # whole numbers survive a column of floats
    assert item_seed("a", 1) == item_seed("a", 1) != item_seed("a", 2)


@pytest.mark.parametrize("num_images", [8, 20, 101])
@pytest.mark.parametrize("k", [2, 3])
def test_a_new_dataset_has_equal_cells_with_edits_in_all_of_them(k, num_images):
    poles = poles_of(k)
    if num_images < 4 * k:
        with pytest.raises(PlanError, match="`num_images` must be at least 12"):
            planned(None, target="t", poles=poles, source="prior", target_values=["0", "1"], num_images=num_images)
        return
    plan = planned(None, target="t", poles=poles, source="prior", target_values=["0", "1"], num_images=num_images)
    sizes = {n for groups in plan.counts_after.values() for n in groups.values()}
    assert len(sizes) == 1 and num_images - 4 * k < 2 * k * sizes.pop() <= num_images
    assert plan.table["seed"].is_unique
    received = plan.table.groupby(["target", "to"]).size()
    assert len(received) == 2 * k and received.nunique() == 1


def plan_error(text, table=None, **kwargs):
    settings_ = {"target": "target", "poles": [SKIN]} | kwargs
    with pytest.raises(PlanError, match=text):
        planned(biased() if table is None else table, **settings_)


def test_errors_name_what_is_wrong():
    plan_error("both 'skin'", target="skin")
    plan_error("Unknown attribute 'smil'.*Available: skin, target", target="smil")
    plan_error("Unknown attribute 'skim'.*Did you mean 'skin'", poles=[Poles("skim", "s", {"light": -1, "dark": 1})])
    plan_error("names no attribute", poles=[])
    plan_error("names an attribute twice", poles=[SKIN, SKIN])
    plan_error("share a path", poles=[SKIN, Poles("tone", "skin_tone", {"a": -1, "b": 1})])
    plan_error("`mode` must be one of reduce, amplify; got 'more'", mode="more")
    plan_error("`source` must be one of real, prior", source="web")
    plan_error("`to` must be one of max, mean, all", to="min")
    plan_error("`to` must be one of max, mean for mode 'amplify'", to="all", mode="amplify")
    plan_error("which source='prior' does not have", to="mean", source="prior")
    plan_error("Use source='real'", mode="amplify", source="prior")
    for name in ("chunk_size", "limit"):
        with pytest.raises(ConfigError, match=f"`{name}` of EditPlanSettings must be a whole number >= 1.*; got 0"):
            EditPlanSettings("target", ["skin"], **{name: 0})


def test_a_group_with_no_donor_is_named():
    only_light = table_of({(0, "light"): 5, (1, "light"): 2, (1, "dark"): 3}).rename(columns={"g0": "skin"})
    plan_error("Group 'light' of class '0' needs 4 edits, but split 'train' has 0 donors", table=only_light, to=9)


def test_a_single_group_is_named_with_the_remedy():
    single = table_of({(0, "light"): 5, (1, "light"): 2}).rename(columns={"g0": "skin"})
    plan_error("'skin' has a single group here \\('light'\\).*poles=", table=single)
    opened = planned(single, target="target", poles=[SKIN], open_groups=True)
    assert opened.counts_after == {"0": {"light": 5, "dark": 5}, "1": {"light": 2, "dark": 2}}


def test_a_measurement_is_not_a_grouping():
    table = biased().assign(age=range(len(biased())))
    plan_error("'age' is a measurement with 79 values.*pandas.cut", table=table, target="age")
    plan_error("has no label", table=biased().assign(nothing=None), target="nothing")


def test_new_datasets_need_the_prior_and_a_known_target():
    with pytest.raises(PlanError, match="Give a dataset"):
        planned(None, target="t", poles=[SKIN], num_images=100, target_values=["0", "1"])
    with pytest.raises(PlanError, match="'t' is not"):
        planned(None, target="t", poles=[SKIN], num_images=100, source="prior")


def test_donors_of_edits_beyond_the_limit_step_in_for_the_others():
    table = table_of({("smile", "v0"): 20, ("smile", "v1"): 2})
    plan = planned(table, target="target", poles=poles_of(2), limit=4)
    donors = set(plan.table["donor"])
    reserves = [item for row in plan.table["reserves"] for item, _ in json.loads(row)]
    assert len(plan) == 4 and len(donors) == 4
    assert len(reserves) == len(set(reserves)) == 12 and not donors & set(reserves)


def test_counts_and_places_may_be_numbers_of_numpy():
    table = table_of({("0", "v0"): 4, ("0", "v1"): 9})
    plain = planned(table, poles_of(2), target="target", to={"v0": 1, "v1": 1.0})
    largest = table["g0"].value_counts()
    assert planned(table, poles_of(2), target="target", to=largest.max()).settings["to"] == 9
    shares = planned(table, poles_of(2), target="target", to={"v0": np.int64(1), "v1": np.float32(1)})
    assert shares.digest() == plain.digest() and json.dumps(shares.settings) == json.dumps(plain.settings)
    with pytest.raises(PlanError, match="at least 1 face; got 0"):
        planned(table, poles_of(2), target="target", to=np.int64(0))
    assert resolve_poles("older", ["a", "b"], ["age"], ("age", {"a": np.float32(-1), "b": np.int64(1)})).positions == {
        "a": -1,
        "b": 1,
    }
