"""AUCs that can be counted by hand, folds that keep faces together, intervals that hold what they promise."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from vlbias.leak.probe import (
    Pairs,
    cross_fitted,
    even_weights,
    folds_of,
    interval,
    repeated_folds,
    resampled_faces,
    single_aucs,
)


def sample(num_edits, num_originals, shift=0.0, seed=0, num_statistics=6):
    rng = np.random.default_rng(seed)
    is_edit = np.arange(num_edits + num_originals) < num_edits
    cells = rng.integers(0, 2, len(is_edit))
    # the cells differ widely, which must not tell edits from originals
    x = rng.normal(size=(len(is_edit), num_statistics)) + 5 * cells[:, None]
    x[is_edit, 0] += shift
    faces = np.array([f"face{i}" for i in range(len(is_edit))])
    return x, is_edit, cells, faces


def fitted(x, is_edit, cells, faces, seed=0, apart=False):
    return cross_fitted(x, is_edit, cells, repeated_folds(is_edit, cells, faces, seed=seed), apart=apart)


def test_pairs_are_counted_inside_strata():
    scores = np.array([3.0, 1.0, 2.0, 2.0, 9.0])
    is_edit = np.array([True, True, False, True, False])
    # stratum 0: (3, 1) against 2: one win of two. stratum 1: 2 against 9: none of one
    pairs = Pairs(scores, is_edit, np.array([0, 0, 0, 1, 1]))
    assert pairs.auc()[0] == pytest.approx((1 / 3 + 0) / (2 / 3 + 1 / 2))
    assert Pairs(np.ones(4), np.array([True, False, True, False]), np.zeros(4)).auc()[0] == 0.5
    assert np.isnan(Pairs(scores[:1], is_edit[:1], np.zeros(1)).auc()[0])


def test_one_stratum_is_the_auc_of_scikit_learn():
    x, is_edit, _, _ = sample(30, 50, shift=0.8)
    pairs = Pairs(x[:, 0], is_edit, np.zeros(80))
    assert pairs.auc()[0] == pytest.approx(roc_auc_score(is_edit, x[:, 0]))
    drawn = np.random.default_rng(0).integers(0, 3, (5, 80))
    for weights, auc in zip(drawn, pairs.auc(drawn), strict=True):
        assert auc == pytest.approx(roc_auc_score(is_edit, x[:, 0], sample_weight=weights))


def test_single_statistics_are_told_either_way_round():
    is_edit = np.array([True, True, False, False])
    table = pd.DataFrame({"none": [1, 4, 2, 3], "down": [1, 2, 3, 4], "blank": [np.nan] * 4})
    found = single_aucs(table, is_edit, np.zeros(4))
    assert found.index[0] == "down" and found.to_dict() == {"down": 1.0, "none": 0.5, "blank": 0.5}


def test_faces_stay_in_one_fold_and_cells_are_spread():
    rng = np.random.default_rng(0)
    faces = np.array([f"f{i}" for i in rng.integers(0, 60, 200)])
    is_edit, cells = rng.random(200) < 0.5, rng.integers(0, 2, 200)
    folds = folds_of(is_edit, cells, faces, num_folds=5, seed=0)
    assert all(len(set(folds[faces == face])) == 1 for face in set(faces))
    for cell in (0, 1):
        for kind in (False, True):
            assert np.ptp(np.bincount(folds[(cells == cell) & (is_edit == kind)], minlength=5)) <= 6


def test_cells_and_kinds_weigh_alike():
    is_edit = np.array([True] * 6 + [False] * 2 + [True])
    cells = np.array([0] * 8 + [1])
    weights = even_weights(is_edit, cells)
    assert weights[:6].sum() == pytest.approx(weights[6:8].sum()) == pytest.approx(4.5)
    assert weights[8] == 0  # nothing to compare it with


@pytest.mark.parametrize("num_edits", [40, 160])
def test_nothing_to_tell_is_told_with_chance(num_edits):
    holds = []
    for seed in range(10):
        x, is_edit, cells, faces = sample(num_edits, 40, seed=seed)
        pairs = fitted(x, is_edit, cells, faces, seed)
        draws = resampled_faces(faces, 150, seed=seed)[faces].to_numpy()
        found = interval(pairs.auc()[0], pairs.auc(draws))
        holds.append(found.low <= 0.5 <= found.high)
    assert sum(holds) >= 8  # of 10 intervals of 95 %


def test_a_planted_shift_is_found_at_its_size():
    x, is_edit, cells, faces = sample(300, 300, shift=1.0)
    pairs = fitted(x, is_edit, cells, faces)
    draws = resampled_faces(faces, 150)[faces].to_numpy()
    found = interval(pairs.auc()[0], pairs.auc(draws))
    # two normals one deviation apart: Phi(1 / sqrt 2)
    assert found.low < 0.760 < found.high and 0.03 < found.high - found.low < 0.15


def test_the_seed_decides():
    data = sample(40, 40, shift=0.5)
    first, again, other = (fitted(*data, seed).auc()[0] for seed in (3, 3, 4))
    assert first == again != other


def test_missing_and_constant_statistics_are_borne():
    x, is_edit, cells, faces = sample(30, 30, shift=2.0)
    x = np.column_stack([x, np.full(60, np.nan), np.ones(60)])
    x[::7, 1] = np.nan
    assert fitted(x, is_edit, cells, faces).auc()[0] > 0.8
    assert fitted(x[:, -2:], is_edit, cells, faces).auc()[0] == 0.5


def test_intervals_are_widened_and_end_at_their_bounds():
    draws = np.linspace(0.4, 0.6, 2001)
    found = interval(0.5, draws)
    assert (found.low, found.high) == pytest.approx((0.5 - 2**0.5 * 0.095, 0.5 + 2**0.5 * 0.095))
    assert interval(0.99, draws + 0.45).high == 1.0
    assert interval(-0.9, draws - 1.4, bounds=(-1, 1)).low == -1.0


def test_traces_that_go_opposite_ways_in_two_cells_are_found_apart():
    x, is_edit, cells, faces = sample(100, 100)
    x[is_edit, 0] += np.where(cells[is_edit] == 1, 2.0, -2.0)
    assert fitted(x, is_edit, cells, faces, apart=True).auc()[0] > 0.85
    assert fitted(x, is_edit, cells, faces).auc()[0] < 0.65  # nothing that both cells have in common
    table = pd.DataFrame(x, columns=[f"s{i}" for i in range(6)])
    assert single_aucs(table, is_edit, cells).index[0] == "s0"
