"""Intervals and claims of the search, and the galleries they rest on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vlbias import search
from vlbias.errors import LabelError, ShapeError
from vlbias.search import front, inference
from vlbias.search.evaluation import Evaluation
from vlbias.search.gallery import balanced_gallery
from vlbias.search.inference import compare, intervals
from vlbias.search.metrics import identification_ranks
from vlbias.search.trainer import Recipe, TrainSettings

OBJECTIVES = ("error", "error_gap", "rank_gap")


def _world(seed, num_groups=4, people=40, noise=0.75):
    generator = np.random.default_rng([3, seed])
    persons = np.repeat(np.arange(people), 3)
    groups = persons % num_groups
    z = generator.normal(size=(people, 10))[persons] + noise * generator.normal(size=(len(persons), 10))
    ranks = identification_ranks(z, persons, groups)
    names = tuple("abcdefg"[:num_groups])
    outcome = np.stack([ranks.by_id, ranks.by_image])
    return Evaluation("identify", names, groups, persons, outcome, 0, 1.0, ranks.impostors)


def test_equal_groups_have_a_gap_of_zero_in_the_interval():
    held = [intervals(_world(seed), num_resamples=300) for seed in range(25)]
    for name in ("error_gap", "rank_gap", "error_ratio_gap"):
        lows = np.array([one[name][0] for one in held])
        assert (lows >= 0).all() and (lows == 0).sum() >= 22, name
        assert all(one[name][1] > 0 for one in held)


def test_intervals_hold_their_value_and_lie_where_values_can():
    one = _world(0, num_groups=2)
    found = intervals(one, num_resamples=300)
    assert set(found) == set(one.objectives())
    for name, (low, high) in found.items():
        assert 0 <= low <= one.objectives()[name] <= high, name
        assert "rank" in name or high <= 1, name
    wider = intervals(one, num_resamples=300, level=0.99)
    assert wider["error"][0] < found["error"][0] and wider["error"][1] > found["error"][1]


def test_the_gallery_makes_intervals_wider():
    one = _world(1, num_groups=2)
    alone = dataclasses.replace(one, impostors=None)
    with_gallery, without = (intervals(each, num_resamples=500)["rank"] for each in (one, alone))
    assert with_gallery[1] - with_gallery[0] > without[1] - without[0]


def test_a_gap_between_groups_that_differ_is_found():
    generator = np.random.default_rng(0)
    persons = np.repeat(np.arange(80), 4)
    groups = persons % 2
    missed = (generator.random(320) < np.where(groups, 0.7, 0.1)).astype(float)
    low, high = intervals(Evaluation("identify", ("a", "b"), groups, persons, np.stack([missed, missed])))["error_gap"]
    assert 0.35 < low < 0.6 < high < 0.8


def test_nobody_was_mistaken_is_not_certainty():
    persons = np.repeat(np.arange(20), 3)
    right = Evaluation("identify", ("a", "b"), persons % 2, persons, np.zeros((2, 60)))
    found = intervals(right, num_resamples=500)
    assert found["error"][0] == 0 and 0.02 < found["error"][1] < 0.3
    assert found["error_gap"][0] == 0 and found["error_gap"][1] > 0.02


def test_a_gap_at_the_end_of_its_range_has_an_interval():
    persons = np.repeat(np.arange(20), 3)
    missed = (persons % 2).astype(float)  # all of one group, none of the other
    found = intervals(Evaluation("identify", ("a", "b"), persons % 2, persons, np.stack([missed, missed])))
    for name in ("error_gap", "accuracy_ratio_gap", "error_ratio_gap"):
        assert 0.3 < found[name][0] < found[name][1] == 1.0, name


def test_one_person_in_a_group_has_no_uncertainty_to_speak_of():
    one = _world(2, num_groups=2, people=20)
    groups = np.where(one.persons == 0, 1, 0)
    lonely = dataclasses.replace(one, groups=groups, impostors=None)
    found = compare([[lonely, lonely], [lonely, lonely]], OBJECTIVES)
    assert np.isnan(found.interval).all() and np.isnan(found.dominance).all() and "'b' has one person" in found.withheld
    assert np.isfinite(found.mean).all()


def test_one_training_says_nothing_of_dominance():
    found = compare([[_world(0)], [_world(0, noise=2.0)]], OBJECTIVES, num_resamples=200)
    assert np.isnan(found.dominance).all() and "two refits" in found.withheld and np.isfinite(found.interval).all()


def test_a_classifier_has_intervals_too():
    generator = np.random.default_rng(2)
    groups, true = generator.integers(0, 4, 400), generator.integers(0, 2, 400)
    predicted = np.where(generator.random(400) < 0.2, 1 - true, true)
    one = Evaluation("classify", tuple("abcd"), groups, np.arange(400), np.stack([true, predicted]), 2, 2.0)
    for name, (low, high) in intervals(one, num_resamples=300).items():
        assert 0 <= low <= one.objectives()[name] <= high <= 1, name
    assert intervals(one, num_resamples=300)["equalized_odds_gap"][0] == 0


def test_refits_of_other_images_are_refused():
    with pytest.raises(ShapeError, match="same images"):
        compare([[_world(0), _world(0, people=44)]], OBJECTIVES)
    with pytest.raises(ShapeError, match="needs 2 refits; one has 1"):
        compare([[_world(0), _world(1)], [_world(2)]], OBJECTIVES)


def test_people_with_one_picture_stand_in_the_way_of_their_own_group():
    generator = np.random.default_rng(5)
    persons = np.r_[np.repeat(np.arange(20), 3), np.arange(20, 40)]  # the last twenty have one picture each
    groups = (persons >= 10) & (persons < 20) | (persons >= 30)
    z = generator.normal(size=(40, 4))[persons] + 0.8 * generator.normal(size=(80, 4))
    ranks = identification_ranks(z, persons, groups)
    outcome = np.stack([ranks.by_id, ranks.by_image])
    one = Evaluation("identify", ("a", "b"), groups.astype(int), persons, outcome, 0, 1.0, ranks.impostors)
    assert one.home.tolist() == [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10 and one.num_singletons == 20
    low, high = intervals(one, num_resamples=200)["rank"]
    assert 0 < low < one.objectives()["rank"] < high < 40


def test_what_is_not_known_is_not_claimed():
    groups, true = np.repeat([0, 1], 40), np.zeros(80, dtype=int)
    true[:20] = 1  # group b has no item of class 1
    runs = [
        [Evaluation("classify", ("a", "b"), groups, np.arange(80), np.stack([true, predicted]), 2, 2.0)] * 2
        for predicted in (true, 1 - true)
    ]
    found = compare(runs, ("error", "equalized_odds_gap"), num_resamples=100)
    assert np.isnan(found.mean[:, 1]).all() and np.isnan(found.interval[:, 1]).all()
    assert (found.dominance == 0).all() and np.isfinite(found.interval[:, 0]).all()


# Galleries


def _unbalanced(make_tiny):
    """24 people, a quarter of them of group "few", with one image more each."""
    faces = make_tiny()
    table = faces.table.copy()
    table["kind"] = np.where(table["identity"] % 4 == 0, "few", "many")
    drop = table[(table["kind"] == "many") & ~table["identity"].duplicated()].index
    return make_tiny(table.drop(drop))


def test_a_balanced_gallery_by_hand():
    persons, groups = list("aaaabbccdde"), list("xxxxxxyyyyy")
    kept = balanced_gallery(range(11), persons, groups)
    counts = {person: int(kept[[p == person for p in persons]].sum()) for person in "abcde"}
    assert counts == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 0}
    order = np.random.default_rng(0).permutation(11)
    again = balanced_gallery(list(order), [persons[i] for i in order], [groups[i] for i in order])
    np.testing.assert_array_equal(again, kept[order])
    with pytest.raises(LabelError, match="Group 'y' has no person with two images"):
        balanced_gallery(range(4), list("aabc"), list("xxyy"))


def test_equal_encoders_have_equal_groups_on_a_balanced_gallery(make_tiny):
    generator = np.random.default_rng(1)
    people = 200
    identity = np.repeat(np.arange(people), 4)
    table = make_tiny().table.iloc[:1].reindex([f"image_{i}" for i in range(len(identity))])
    table["identity"], table["kind"] = identity, np.where(identity < 50, "few", "many")
    # Each group lives in dimensions of its own, so that impostors come from within.
    z = np.zeros((len(identity), 16))
    own = generator.normal(size=(people, 8))[identity] + 1.0 * generator.normal(size=(len(identity), 8))
    few = table["kind"].to_numpy() == "few"
    z[few, :8], z[~few, 8:] = own[few], own[~few]
    faces = make_tiny(table)
    natural = search.evaluate(z, faces, "kind", balance_gallery=False).attrs["summary"]
    balanced = search.evaluate(z, faces, "kind")
    assert balanced["identities"].tolist() == [50, 50] and balanced["images"].tolist() == [200, 200]
    assert balanced.attrs["summary"]["num_left_out"] == 400 and natural["num_left_out"] == 0
    assert natural["rank_gap"] > 3 * balanced.attrs["summary"]["rank_gap"]
    assert balanced.attrs["intervals"]["rank_gap"][0] == 0


def test_splits_of_a_task_have_equal_galleries(make_tiny):
    faces = _unbalanced(make_tiny)
    task = search.make_task(faces, protected="kind", image_size=16)
    sizes = task.table[task.table["split"] != "train"].groupby(["split", "group", "person"]).size()
    assert sizes.groupby(["split", "group"]).apply(lambda each: sorted(each)).map(tuple).nunique() == 1
    natural = search.make_task(faces, protected="kind", image_size=16, balance_gallery=False)
    assert len(natural.val) > len(task.val) and len(natural.train) == len(task.train)
    both = search.make_task(faces, protected=["kind", "gender"], image_size=16, balance_gallery=False)
    assert "few & male" in both.groups and both.protected == "kind & gender"


@pytest.mark.parametrize("is_balanced", [True, False])
def test_held_out_minus_validation_compares_galleries_of_one_size(make_tiny, small_space, is_balanced):
    task = search.make_task(make_tiny(), protected="gender", image_size=16, balance_gallery=is_balanced)
    recipe = Recipe(task, small_space, 1, 0.0, TrainSettings(device="cpu"), 0)
    assert front._are_comparable(front.Refits(recipe, 1, "test", None)) == is_balanced
    table = pd.DataFrame({"label": ["x"], "error": [0.3], "val_error": [0.1], "error_low": 0.2, "error_high": 0.4})
    table = table.assign(on_front=True, p_dominated=0.0)
    found = front.Front(table, pd.DataFrame(), ("error",), 0.95, 1, "test", pd.DataFrame(), "", is_balanced)
    assert found.winners_curse()["error"] == pytest.approx(0.2 if is_balanced else np.nan, nan_ok=True)
    assert ("not compared, the galleries have different sizes" in found.verdict()) != is_balanced
    assert found.brief().iloc[0].to_dict() == {
        "label": "x",
        "error": "0.300 (0.200 to 0.400)",
        "on_front": "yes",
        "p_dominated": 0.0,
    }


def test_a_group_called_nan_is_a_group_and_a_missing_one_is_not(make_tiny):
    faces = make_tiny()
    z = np.random.default_rng(0).normal(size=(len(faces.table), 8))
    named = make_tiny(faces.table.assign(gender=faces.table["gender"].replace("male", "nan")))
    assert list(search.evaluate(z, named, "gender").index) == ["female", "nan"]
    missing = make_tiny(faces.table.assign(gender=faces.table["gender"].where(faces.table["gender"] != "male")))
    with pytest.raises(LabelError, match="`gender` is missing for 48 of 96"):
        search.evaluate(z, missing, "gender")


def _seven_groups(sigma=0.1, apart=0.6):
    """Six groups that are alike, observed as such groups typically are, and one that is harder."""
    alike = stats.norm.ppf((np.arange(6) + 0.625) / 6.25)  # about the expected places of six normal numbers
    observed = np.append(sigma * alike, apart)
    place = np.repeat(observed[:, None], 3, axis=1)
    noise = sigma * np.random.default_rng(0).normal(size=(2000, 7, 3))
    scale = inference._Scale(is_identify=True)

    class Like:
        kind, group_names, mass = "identify", tuple("abcdefg"), np.full(7, 1e6)
        objectives_of = Evaluation.objectives_of

    return inference._World(Like(), scale.backward(place), place, noise, scale)


def test_groups_that_are_alike_do_not_widen_the_gap_of_one_that_is_harder():
    sigma, apart = 0.1, 0.6
    world = _seven_groups(sigma, apart)
    found = np.ptp(world._apart("rank_gap")[:, 1])
    # The observed gap is too large by 1.27 errors; 1.24 were left where the groups kept their differences.
    assert apart < found < apart + 1.1 * sigma
    low, high = world.interval("rank_gap", 0.95)
    assert low < np.exp(apart - sigma) - 1 < np.exp(apart + sigma) - 1 < high


def test_places_within_a_width_are_the_nearest():
    generator = np.random.default_rng(1)
    place, weight = generator.normal(size=(5, 2)), generator.uniform(0.5, 2, (5, 2))
    widths = np.array([[0.0, 0.0], [0.4, 0.9], [9.0, 9.0]])
    found = inference._within(place, weight, widths)
    np.testing.assert_allclose(found[0], np.broadcast_to((weight * place).sum(0) / weight.sum(0), (5, 2)))
    np.testing.assert_allclose(found[2], place)
    assert (np.ptp(found, axis=1) <= widths + 1e-9).all()

    def cost(start, column, width):
        return (weight[:, column] * (np.clip(place[:, column], start, start + width) - place[:, column]) ** 2).sum()

    for column in range(2):
        starts = np.linspace(-3, 3, 6001)
        best = min(cost(start, column, widths[1, column]) for start in starts)
        mine = (weight[:, column] * (found[1, :, column] - place[:, column]) ** 2).sum()
        assert mine <= best + 1e-9
