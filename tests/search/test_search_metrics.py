from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vlbias.errors import LabelError, ShapeError
from vlbias.search import evaluate
from vlbias.search.evaluation import Evaluation
from vlbias.search.metrics import group_table, identification_ranks, published_two_group

sys.path[:0] = [str(Path(__file__).parent.parent / "reference"), str(Path(__file__).parent)]
from identification import naive_ranks  # noqa: E402
from tiny_faces import TinyFaces  # noqa: E402


def _same(ranks, expected):
    by_id, by_image = zip(*expected, strict=True)
    np.testing.assert_array_equal(ranks.by_id, by_id)
    np.testing.assert_array_equal(ranks.by_image, by_image)


def test_hand_counted():
    # a at 0 and 3, b at 1 and 9, c alone at 20. Probe a0: its mate is at 3, b1 is closer. Probe b1: mate at 9, both a
    # are closer.
    ranks = identification_ranks([[0.0], [3.0], [1.0], [9.0], [20.0]], list("aabbc"), normalize=False)
    np.testing.assert_array_equal(ranks.by_id, [1, 1, 1, 1, np.nan])
    np.testing.assert_array_equal(ranks.by_image, [1, 1, 2, 1, np.nan])
    assert ranks.num_singletons == 1


@pytest.mark.parametrize("chunk_size", [7, 600])
def test_equals_the_definition_on_600_unit_vectors(chunk_size):
    generator = np.random.default_rng(0)
    identities = generator.integers(0, 150, 600)
    z = generator.normal(size=(150, 16))[identities] + 0.8 * generator.normal(size=(600, 16))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z[100:140] = z[0:40]  # copies under other names
    assert (np.unique(identities, return_counts=True)[1] == 1).any()
    _same(identification_ranks(z, identities, chunk_size=chunk_size), naive_ranks(z.tolist(), identities.tolist()))


def test_equals_the_definition_with_many_ties():
    generator = np.random.default_rng(1)
    z = generator.integers(-2, 3, size=(200, 2)).astype(float)  # a small lattice: most distances tie
    identities = generator.choice(list("abcdefghij"), 200).tolist()
    _same(identification_ranks(z, identities, normalize=False), naive_ranks(z.tolist(), identities))


def test_rows_in_another_order_give_the_same_ranks():
    generator = np.random.default_rng(2)
    z, identities = torch.from_numpy(generator.normal(size=(60, 5))), generator.integers(0, 9, 60)
    order = generator.permutation(60)
    shuffled = identification_ranks(z[order], identities[order])
    np.testing.assert_array_equal(shuffled.by_id, identification_ranks(z, identities).by_id[order])


def test_two_groups_equal_the_published_formulas():
    generator = np.random.default_rng(3)
    identities = np.repeat(np.arange(40), 5)
    z = generator.normal(size=(40, 4))[identities] + generator.normal(size=(200, 4))
    groups = np.where(identities < 15, "male", "female")
    ranks = identification_ranks(z, identities)
    table = group_table(ranks, groups, identities)
    male, female = ranks.by_id[groups == "male"], ranks.by_id[groups == "female"]
    acc_m, acc_f = (male == 0).mean(), (female == 0).mean()
    published = published_two_group(table, "male", "female")
    assert published == pytest.approx(
        {
            "disparity": abs(acc_m - acc_f),
            "rank_disparity": abs(male.mean() - female.mean()),
            "ratio": abs(1 - acc_m / acc_f),
            "rank_ratio": abs(1 - male.mean() / female.mean()),
            "error_ratio": abs(1 - (1 - acc_m) / (1 - acc_f)),
        }
    )
    outcome = np.stack([ranks.by_id, ranks.by_image])
    codes = (groups == "male").astype(int)
    objectives = Evaluation("identify", ("female", "male"), codes, identities, outcome).objectives()
    assert objectives["rank_gap"] == pytest.approx(published["rank_disparity"])
    assert objectives["error_gap"] == pytest.approx(published["disparity"])
    assert table["identities"].tolist() == [25, 15] and table["probes"].sum() == 200


def test_all_right_and_all_wrong():
    ranks = identification_ranks([[0.0], [0.1], [5.0], [5.1]], list("aabb"), normalize=False)
    assert group_table(ranks, list("xxyy"))["accuracy"].tolist() == [1.0, 1.0]
    crossed = identification_ranks([[0.0], [5.0], [0.1], [5.1]], list("aabb"), normalize=False)
    assert group_table(crossed, list("xxyy"))["error"].tolist() == [1.0, 1.0]
    outcome = np.stack([ranks.by_id, ranks.by_image])
    right = Evaluation("identify", ("x", "y"), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), outcome)
    assert right.objectives()["rank_ratio_gap"] == 0.0


def test_relabelled_groups_keep_the_gap():
    outcome, codes = np.random.default_rng(0).integers(0, 3, (2, 60)).astype(float), np.arange(60) // 4 % 3
    one = Evaluation("identify", tuple("abc"), codes, np.arange(60) // 2, outcome).objectives()
    other = Evaluation("identify", tuple("abc"), 2 - codes, np.arange(60) // 2, outcome).objectives()
    assert one == pytest.approx(other) and one["rank_gap"] > 0


def test_one_group_has_no_gap():
    z, identities, _ = _two_groups()
    alone = TinyFaces(pd.DataFrame({"identity": identities, "group": "a"}))
    table = evaluate(z, alone, "group")
    compared = {name for name in table.attrs["intervals"] if name.endswith("_gap")}
    assert len(compared) == 6
    for name, (low, high) in table.attrs["intervals"].items():
        value = table.attrs["summary"][name]
        assert np.isnan([value, low, high]).all() if name in compared else low <= value <= high, name
    true = np.arange(60) % 2
    predicted = Evaluation("classify", ("a",), np.zeros(60, int), np.arange(60), np.stack([true, true]), 2, 2.0)
    known = {name for name, value in predicted.objectives().items() if not np.isnan(value)}
    assert known == {"error", "worst_error", "f1_error"}


def test_errors_name_what_is_wrong():
    with pytest.raises(ShapeError, match="must be \\(n, d\\)"):
        identification_ranks(np.zeros(3), list("aab"))
    with pytest.raises(ShapeError, match="row 1 is not"):
        identification_ranks([[0.0], [math.nan]], list("aa"))
    with pytest.raises(LabelError, match="missing for 1 of 2"):
        identification_ranks([[0.0], [1.0]], ["a", None])
    with pytest.raises(LabelError, match="must hold 2 values"):
        identification_ranks([[0.0], [1.0]], ["a"])
    ranks = identification_ranks([[0.0], [1.0], [2.0]], list("aab"))
    with pytest.raises(LabelError, match="'y' has no image whose person"):
        group_table(ranks, list("xxy"))
    with pytest.raises(LabelError, match="No group 'z'"):
        published_two_group(pd.DataFrame(index=["x"]), "z", "x")


def _two_groups(seed=4, people=16):
    generator = np.random.default_rng(seed)
    identities = np.repeat(np.arange(people), 4)
    z = generator.normal(size=(people, 8))[identities] + 0.3 * generator.normal(size=(4 * people, 8))
    return z, identities, np.where(identities % 2, "b", "a")


def test_a_group_that_is_one_point_is_served_worst():
    z, identities, groups = _two_groups()
    z[groups == "b"] = [1.0, 2, 3, 4, 5, 6, 7, 8]  # detection failed: one embedding for all
    table = group_table(identification_ranks(z, identities, groups), groups, identities)
    assert table.loc["b", "error"] == 1.0 and table.loc["b", "rank_by_id"] == 7 and table.loc["b", "tied"] == 32
    assert table.loc["a", "error"] < 0.1 and table.loc["a", "tied"] == 0
    z[groups == "b"] = 0.0
    assert group_table(identification_ranks(z, identities), groups)["error"].tolist() == [table.loc["a", "error"], 1.0]


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.float32])
def test_a_collapsed_network_has_error_one(kind):
    generator = np.random.default_rng(5)
    identities = np.repeat(np.arange(10), 3)
    z = generator.normal(size=(1, 64)) * (1 + generator.random(size=(30, 1)))  # one direction, rounded apart
    z = torch.tensor(z, dtype=kind) if kind is torch.float32 else z.astype(kind)
    ranks = identification_ranks(z, identities)
    assert (ranks.by_id == 9).all() and (ranks.by_image == 27).all() and ranks.num_ties == 30


def test_only_directions_count():
    z, identities, _ = _two_groups()
    scaled = z * np.random.default_rng(6).uniform(0.1, 10, size=(len(z), 1))
    np.testing.assert_array_equal(
        identification_ranks(scaled, identities).by_id, identification_ranks(z, identities).by_id
    )
    for factor in (1e-250, 1e250):
        np.testing.assert_array_equal(
            identification_ranks(z * factor, identities).by_id, identification_ranks(z, identities).by_id
        )
    half = torch.tensor(z).to(torch.bfloat16)
    assert identification_ranks(half, identities).by_id.mean() < 1
    far = identification_ranks(scaled, identities, normalize=False)
    assert (far.by_id != identification_ranks(z, identities).by_id).any()


def test_impostors_are_what_a_missing_person_would_change():
    generator = np.random.default_rng(7)
    identities, groups = np.repeat(np.arange(12), 3), np.repeat(np.arange(12) % 2, 3)
    z = generator.normal(size=(12, 3))[identities] + 0.7 * generator.normal(size=(36, 3))
    ranks = identification_ranks(z, identities, groups, chunk_size=10)
    for person in (0, 7):
        left = identities != person
        without = identification_ranks(z[left], identities[left])
        for group in (0, 1):
            here = groups[left] == group
            people = ranks.by_id[left][here].sum() - ranks.impostors.people[group, person]
            images = ranks.by_image[left][here].sum() - ranks.impostors.images[group, person]
            wrong = (ranks.by_id[left][here] > 0).sum() - ranks.impostors.sole[group, person]
            assert without.by_id[here].sum() == people and without.by_image[here].sum() == images
            assert (without.by_id[here] > 0).sum() == wrong
