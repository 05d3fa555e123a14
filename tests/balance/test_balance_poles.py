"""Where label values stand on dipoles."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest

from vlbias.balance import Poles, resolve_poles
from vlbias.balance.poles import deciding_columns, stale_columns
from vlbias.errors import PlanError


def test_known_columns_are_found_under_the_editors_names():
    assert resolve_poles("age_group", ["old", "young"], ["age"]) == Poles("age_group", "age", {"young": -1, "old": 1})
    assert resolve_poles("skin", ["dark", "light"], ["skin"]).name == "skin"
    assert resolve_poles("Young", ["0", "1"], ["age"]).strength("1", "0") == 1
    assert resolve_poles("skin", ["dark", "light"], ["age"]) is None
    assert resolve_poles("smile", ["0", "2"], ["smile"]) is None  # a value that the table does not know
    assert resolve_poles("hat", ["0", "1"], ["hat"]) == Poles("hat", "hat", {"0": -1, "1": 1})


def test_a_path_that_runs_the_other_way_is_turned():
    dipole = SimpleNamespace(positive=("a photo of a young person",), negative=("a photo of an old person",))
    assert resolve_poles("age_group", ["old", "young"], {"age": dipole}).positions == {"young": 1, "old": -1}
    woman = SimpleNamespace(positive=("a photo of a woman",), negative=("a photo of a man",))
    assert resolve_poles("gender", ["male", "female"], {"gender": woman}).positions == {"male": -1, "female": 1}


def test_nothing_is_guessed_from_the_words_of_other_prompts():
    """A word such as "dark" says little of hair; the order of the poles says which one is positive."""
    for positive in ("a girl with a boy", "somebody female", "anything"):
        own = SimpleNamespace(positive=(positive,), negative=("a masculine face",))
        assert resolve_poles("gender", ["male", "female"], {"gender": own}).positions == {"male": 1, "female": -1}


def test_man_is_the_positive_pole_whether_or_not_the_prompts_are_known():
    assert resolve_poles("gender", ["male", "female"], ["gender"]).positions == {"male": 1, "female": -1}
    assert resolve_poles("Male", ["0", "1"], ["gender"]).positions == {"1": 1, "0": -1}


def test_columns_of_your_own():
    ordered = resolve_poles("band", ["child", "adult", "senior"], ["age"], ("age", ["child", "adult", "senior"]))
    assert ordered.positions == {"child": -1, "adult": 0, "senior": 1}
    assert ordered.strength("child", "adult") == 0.5 and ordered.strength("senior", "child") == -1
    placed = resolve_poles("race", ["a", "b", "c"], ["skin_tone"], ("skin_tone", {"a": -1, "b": 0.5}))
    assert placed.ordered == ["a", "b"]
    with pytest.raises(PlanError, match="name the path 'agee', which the editor does not have. Available: age"):
        resolve_poles("band", [], ["age"], ("agee", ["a", "b"]))


def test_poles_errors():
    with pytest.raises(PlanError, match="at least two values"):
        Poles("a", "b", {"x": 1})
    with pytest.raises(PlanError, match="must lie in -1..1"):
        Poles("a", "b", {"x": 1, "y": -2})
    with pytest.raises(PlanError, match="'White' and 'Asian' of 'race' stand at the same place"):
        Poles("race", "skin_tone", {"White": -1, "Asian": -1, "Black": 1})


def test_an_edit_makes_these_labels_untrue():
    columns = ["age", "age_group", "skin", "race", "gender", "Young", "smile"]
    labels = pd.DataFrame("x", range(3), columns)
    assert stale_columns([Poles("age_group", "age", {"young": -1, "old": 1})], labels, "smile") == ["Young", "age"]
    assert stale_columns([Poles("skin", "skin_tone", {"light": -1, "dark": 1})], labels, "smile") == ["race"]


def test_so_are_columns_of_your_own_that_say_the_group():
    older = Poles("older", "age", {"no": -1, "yes": 1})
    years = pd.Series([*range(20, 40), *range(55, 75)] * 2, dtype="Int64").mask(lambda years: years == 21)
    labels = pd.DataFrame({"years": years, "older": ["yes" if year >= 50 else "no" for year in years.fillna(20)]})
    labels["decade"] = [f"{int(year) // 10}0s" for year in years.fillna(20)]
    labels["sex"] = ["m", "f"] * 40
    labels["height"] = [150 + i * 7 % 40 for i in range(80)]
    labels["person"] = [f"p{i // 4}" for i in range(80)]  # each of one group; but an edit shows the same person
    assert stale_columns([older], labels, "sex") == ["decade", "years"]
    assert deciding_columns([older], labels, "sex") == {"years": "older", "decade": "older"}
    assert stale_columns([older], labels[:20], "sex") == []  # too few faces to say so
    assert stale_columns([older], labels.assign(years=years.mask(years == 60, 25)), "sex") == ["decade"]
    none = Poles("older", "age", {"never": -1, "ever": 1})
    assert stale_columns([none], labels, "sex") == []
