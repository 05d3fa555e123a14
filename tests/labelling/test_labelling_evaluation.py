"""Labellers scored: tables counted by hand, then scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from vlbias.errors import ConfigError, LabelError
from vlbias.labelling import Labels, evaluate, separation


def labels(found, confidence=None) -> Labels:
    ids = [str(i) for i in range(len(found))]
    table = pd.DataFrame({"label": pd.Series(found, index=ids, dtype=object)})
    table["confidence"] = confidence if confidence is not None else 0.99
    table["reason"] = [None if label is not None else "grey" for label in found]
    return Labels("toy", table)


def series(values) -> pd.Series:
    return pd.Series(values, index=[str(i) for i in range(len(values))], dtype=object)


def test_a_table_counted_by_hand():
    scored = evaluate(labels(["m", "m", "f", "f", None, "m"]), series(["m", "m", "m", "f", "f", None]))
    assert scored.confusion.to_dict("index") == {
        "f": {"f": 1, "m": 0, "(none)": 1},
        "m": {"f": 1, "m": 2, "(none)": 0},
    }
    assert scored.num_compared == 5 and scored.coverage == pytest.approx(0.8)
    assert scored.accuracy == pytest.approx(3 / 4)
    assert scored.recall == {"f": 1.0, "m": pytest.approx(2 / 3)}
    assert scored.precision == {"f": 0.5, "m": 1.0}
    assert scored.balanced_accuracy == pytest.approx(5 / 6)
    # Wilson's interval of 3 in 4, from the published formula
    assert (scored.accuracy_low, scored.accuracy_high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_all_right_and_all_wrong():
    right = evaluate(labels(["a", "b"]), series(["a", "b"]))
    assert (right.accuracy, right.balanced_accuracy, right.kappa) == (1, 1, 1) and right.accuracy_high == 1
    wrong = evaluate(labels(["b", "a"]), series(["a", "b"]))
    assert (wrong.accuracy, wrong.balanced_accuracy, wrong.kappa) == (0, 0, -1) and wrong.accuracy_low == 0


def test_nothing_labelled_is_nan_not_zero():
    scored = evaluate(labels([None, None]), series(["a", "b"]))
    assert scored.coverage == 0 and np.isnan([scored.accuracy, scored.balanced_accuracy, scored.kappa]).all()
    assert json.loads(json.dumps(scored.to_dict()))["accuracy"] is None


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")  # scikit-learn's, on purpose
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=3, max_size=40))
def test_it_agrees_with_scikit_learn(pairs):
    found, truth = zip(*pairs, strict=True)
    if not set(found) & set(truth) or len(set(found) | set(truth)) < 2:
        return
    scored = evaluate(labels(list(found)), series(list(truth)))
    assert scored.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, found))
    assert scored.kappa == pytest.approx(cohen_kappa_score(truth, found), nan_ok=True)
    assert int(scored.confusion.to_numpy().sum()) == len(pairs)
    assert scored.accuracy_low <= scored.accuracy <= scored.accuracy_high


def test_whole_numbers_and_order_of_rows():
    found = labels([0, 1, 1, 0])
    scored = evaluate(found, series([0, 1, 0, 0]).iloc[::-1])
    assert scored.accuracy == pytest.approx(0.75) and scored.recall == {"0": pytest.approx(2 / 3), "1": 1.0}


@pytest.mark.parametrize("given", [[0.0, 1.0], [False, True], ["0", "1"], [0, 1]])
def test_agreement_does_not_hang_on_the_spelling(given):
    scored = evaluate(labels([0, 1] * 4), series(given * 4))
    assert (scored.accuracy, scored.kappa, scored.balanced_accuracy) == (1.0, 1.0, 1.0)
    assert scored.to_dict()["labels"] == ["0", "1"]


def test_kappa_of_one_word_is_not_known():
    assert np.isnan(evaluate(labels(["a", "a"]), series(["a", "a"])).kappa)


def test_accuracy_by_confidence():
    scored = evaluate(labels(["a", "a", "b", "b"], [0.55, 0.65, 1.0, 0.96]), series(["b", "a", "b", "b"]))
    bands = scored.by_confidence
    assert bands["num"].tolist() == [1, 1, 0, 0, 0, 2]
    assert bands["accuracy"].tolist() == pytest.approx([0, 1, np.nan, np.nan, np.nan, 1], nan_ok=True)
    text = str(scored)
    assert "4 faces, 100.0% labelled; accuracy 75.0%" in text and "(none)" in text


def test_the_report_is_plain_json():
    plain = json.loads(json.dumps(evaluate(labels(["a", "b", None]), series(["a", "a", "b"])).to_dict()))
    assert plain["confusion"] == [[1, 1, 0], [0, 0, 1]] and plain["columns"] == ["a", "b", "(none)"]
    assert plain["recall"] == {"a": 0.5, "b": None}


def test_other_ids_or_other_words_are_noticed():
    with pytest.raises(LabelError, match="no face has both a given label and a row of the labeller"):
        evaluate(labels(["a"]), pd.Series(["a"], index=["x"]))
    with pytest.raises(LabelError, match="no face has both"):
        evaluate(labels(["a"]), series([None]))
    with pytest.raises(LabelError, match=r"words \['Male'\] are not among the given \['female', 'male'\]"):
        evaluate(labels(["Male", "Male"]), series(["male", "female"]))


def test_separation_by_hand():
    measured, groups = series([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), series(list("bbbbwwww"))
    apart = separation(measured, groups, upper="w", lower="b", num_resamples=20)
    assert apart.auc == apart.auc_low == apart.auc_high == 1
    # the cut lies between the halves it was chosen on, so one face next to it may fall on the wrong side
    assert 2 <= apart.threshold <= 7 and apart.balanced_accuracy >= 0.75
    assert separation(measured, groups, upper="b", lower="w", num_resamples=20).auc == 0
    # of the 16 pairs, 14 stand in order
    mixed = separation(series([1.0, 2.0, 3.0, 6.0, 5.0, 4.0, 7.0, 8.0]), groups, upper="w", lower="b", num_resamples=20)
    assert mixed.auc == pytest.approx(14 / 16)
    assert (apart.num_upper, apart.num_lower) == (4, 4)


def test_separation_of_overlapping_groups():
    generator = np.random.default_rng(0)
    values = np.concatenate([generator.normal(1, 1, 2000), generator.normal(-1, 1, 2000)])
    groups = series(["w"] * 2000 + ["b"] * 2000)
    found = separation(series(values), groups, upper="w", lower="b", num_resamples=50)
    # two unit normals two apart: AUC is Phi(2 / sqrt 2) = 0.921, the best cut 0 is right in Phi(1) = 0.841
    assert found.auc == pytest.approx(0.921, abs=0.01) and found.auc_low < found.auc < found.auc_high
    assert found.threshold == pytest.approx(0, abs=0.3) and found.balanced_accuracy == pytest.approx(0.841, abs=0.02)
    assert found == separation(series(values), groups, upper="w", lower="b", num_resamples=50)


def test_separation_wants_faces():
    with pytest.raises(LabelError, match="the group 'b' has 1 measured faces; at least 4 are needed"):
        separation(series([1.0] * 6), series(["w"] * 5 + ["b"]), upper="w", lower="b")
    with pytest.raises(ConfigError, match="`num_resamples` must be a whole number"):
        separation(series([1.0]), series(["w"]), upper="w", lower="b", num_resamples=0)


def test_one_label_a_face():
    table = pd.DataFrame({"label": ["a"], "confidence": [0.9], "reason": None}, index=["1"])
    with pytest.raises(LabelError, match="`given` has the id '1' twice"):
        evaluate(Labels("toy", table), pd.Series(["a", "b"], index=["1", "1"]))
    with pytest.raises(ConfigError, match="`given` of evaluate must be a Series"):
        evaluate(Labels("toy", table), ["a"])
