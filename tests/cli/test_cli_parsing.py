"""Words of options: what is read, and what is refused with the value and the right form."""

from __future__ import annotations

import re

import pytest
import typer

from vlbias.balance import Checks
from vlbias.cli.parsing import (
    checks_of,
    columns_of,
    files_of,
    names_of,
    numbers_of,
    pairs_of,
    places_of,
    poles_of,
    shard_of,
    to_of,
)
from vlbias.errors import ConfigError


def refused(text, reader, *words):
    with pytest.raises(typer.BadParameter, match=re.escape(text)):
        reader(*words)


def test_names_stand_apart_by_commas():
    assert names_of("train, val", "--splits") == ["train", "val"]
    assert names_of('"White, other",Black', "--poles") == ["White, other", "Black"]
    for text in ("", " ", "a,,b", "a,", "a\nb"):
        refused(f"expected names separated by commas; got '{text}'", names_of, text, "--splits")


def test_files_belong_to_columns():
    assert files_of(["gender = a=b.onnx", "age=x"], "--scorer") == {"gender": "a=b.onnx", "age": "x"}
    for text in ("gender.onnx", "=a.onnx", "gender="):
        refused(f"expected COLUMN=FILE such as gender=gender.onnx; got '{text}'", files_of, [text], "--scorer")
    refused("'age' is given twice", files_of, ["age=a", "age=b"], "--scorer")


def test_protected_columns_are_repeated_or_listed():
    assert columns_of(["skin"]) == "skin"
    assert columns_of(["skin", "age_group"]) == columns_of(["skin,age_group"]) == ["skin", "age_group"]
    assert columns_of(["a,b", "c"]) == ["a", "b", "c"]


def test_numbers():
    assert numbers_of("0,.25", "--shares") == [0, 0.25]
    refused("expected numbers separated by commas; got '0,half'", numbers_of, "0,half", "--shares")


def test_poles_name_column_path_and_values():
    assert poles_of([]) is None
    assert poles_of(["older:age=no,yes"]) == {"older": ("age", ["no", "yes"])}
    assert poles_of(["sex:gender=m:-1,f:1", "race:skin_tone=A, B"]) == {
        "sex": ("gender", {"m": -1.0, "f": 1.0}),
        "race": ("skin_tone", ["A", "B"]),
    }
    assert poles_of(["no,yes"], "age") == ["no", "yes"]
    assert poles_of(["no:-1,yes:.5"], "age") == {"no": -1.0, "yes": 0.5}
    # the last colon of a value counts, the last one before "=" ends the column
    assert places_of('18:30:-1,"30:60, or more":1') == {"18:30": -1.0, "30:60, or more": 1.0}
    assert poles_of(["a:b:age=x,y"]) == {"a:b": ("age", ["x", "y"])}


@pytest.mark.parametrize("text", ["older", "older=no,yes", "older:age", "older:age=", ":age=no,yes", "older:=no,yes"])
def test_poles_of_another_form_are_refused(text):
    refused(f"such as older:age=no,yes; got '{text}'", poles_of, [text])


def test_places_that_cannot_be_are_refused():
    refused("such as m:-1,f:1; got 'f'", poles_of, ["sex:gender=m:-1,f"])
    refused("such as m:-1,f:1; got 'm:left'", poles_of, ["sex:gender=m:left,f:right"])
    refused("'m' stands twice in 'm:-1,m:1'", poles_of, ["sex:gender=m:-1,m:1"])
    refused("column 'sex' is given twice", poles_of, ["sex:gender=m,f", "sex:gender=f,m"])
    refused("--path age --poles no,yes", poles_of, [], "age")
    refused("--path age --poles no,yes", poles_of, ["no,yes", "f,m"], "age")
    refused(
        "expected values alone beside --path, such as no,yes; got 'older:age=no,yes'",
        poles_of,
        ["older:age=no,yes"],
        "age",
    )


def test_levels():
    assert [to_of(text) for text in ("max", "mean", "all", " 200 ")] == ["max", "mean", "all", 200]
    assert to_of("light=.5,dark=.5") == {"light": 0.5, "dark": 0.5}
    assert to_of("light & young=1, dark & old=2") == {"light & young": 1, "dark & old": 2}
    for text in ("equal", "-5", "2.5", "", "light:.5"):
        refused(f"such as light=.5,dark=.5; got '{text}'", to_of, text)
    refused("got 'dark=much'", to_of, "light=1,dark=much")
    refused("got '=1'", to_of, "light=1,=1")
    refused("'light' stands twice", pairs_of, "light=1,light=2", "--to", "shares")


def test_checks():
    assert checks_of(None) == Checks()
    assert checks_of("goal=.8,reached=.3,retries=1") == Checks(goal=0.8, reached=0.3, retries=1)
    assert isinstance(checks_of("retries=1").retries, int)
    refused("Unknown check 'gaol'. Did you mean 'goal'?", checks_of, "gaol=.8")
    refused("such as goal=.8,sure=.9; got 'goal'", checks_of, "goal")
    refused("such as goal=.8,sure=.9; got 'goal=far'", checks_of, "goal=far")
    refused("expected a whole number for retries; got '1.5'", checks_of, "retries=1.5")
    with pytest.raises(ConfigError, match="must not exceed `checks.goal`"):
        checks_of("reached=2")


def test_shards_are_counted_from_one():
    assert shard_of(None) is None and shard_of("2/3") == (1, 3)
    refused("expected I/N such as 1/4; got '3'", shard_of, "3")
    refused("I must lie in 1..N, got '4/3'", shard_of, "4/3")
