"""Whatever settings are made of, their numbers are numbers of the stated range."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from vlbias.balance import Checks
from vlbias.errors import ConfigError
from vlbias.settings import Settings, number


@dataclass(frozen=True)
class Inner(Settings):
    depth: int = number(1, 1, 9)


@dataclass(frozen=True)
class Oven(Settings):
    degrees: float = number(180.0, 50, 300)
    minutes: int = number(40, 1)
    share: float = number(0.5, 0, below=1)
    step: float | None = number(None, above=0)
    mode: Literal["grill", "fan"] = "fan"
    racks: tuple[int, ...] = number((1, 2), 1, 5)
    size: tuple[int, int] = number((3, 4), 1)
    is_open: bool = False
    name: str | None = None
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"degrees": math.nan}, "`degrees` of Oven must be a number in 50..300; got nan"),
        ({"degrees": True}, "must be a number in 50..300; got True"),
        ({"degrees": "180"}, "must be a number in 50..300; got '180'"),
        ({"degrees": [180]}, "got \\[180\\]"),
        ({"minutes": 0}, "a whole number >= 1; got 0"),
        ({"minutes": 2.0}, "a whole number >= 1; got 2.0"),
        ({"racks": 10**5000}, "a list; got a int"),
        ({"degrees": 10**400}, "got 1000"),
        ({"share": 1}, r"a number in \[0, 1\)"),
        ({"step": 0}, "a number > 0 or None"),
        ({"step": math.inf}, "a number > 0 or None"),
        ({"mode": "steam"}, "one of grill, fan; got 'steam'"),
        ({"mode": None}, "one of grill, fan; got None"),
        ({"mode": []}, "one of grill, fan"),
        ({"racks": 3}, "must be a list; got 3"),
        ({"racks": [1, 9]}, "a list in which each entry is a whole number in 1..5"),
        ({"racks": [1] * 5000}, "at most 1000 entries"),
        ({"size": [1]}, "a list of 2 entries"),
        ({"is_open": 1}, "true or false"),
        ({"name": 3}, "a text or None"),
        ({"inner": 3}, "Inner must be an object"),
        ({"inner": {"depth": 99}}, "`depth` of Inner"),
        ({"minute": 3}, "Unknown setting 'minute' for Oven. Did you mean 'minutes'"),
    ],
)
def test_wrong_values_are_named(change, said):
    with pytest.raises(ConfigError, match=said):
        Oven.from_dict(change)


def test_good_values_come_back_from_json():
    oven = Oven(degrees=200, racks=[1, 3], step=0.5, inner=Inner(2), minutes=np.int64(3), name="a")
    assert oven.racks == (1, 3) and type(oven.minutes) is int
    assert Oven.from_dict(json.loads(json.dumps(oven.to_dict()))) == oven
    for wrong in (None, [], 3, "x"):
        with pytest.raises(ConfigError, match="Oven must be an object with keys"):
            Oven.from_dict(wrong)


def test_what_must_be_given_is_named():
    @dataclass(frozen=True)
    class Point(Settings):
        x: int = number(low=0)

    with pytest.raises(ConfigError, match="Point lacks `x`"):
        Point.from_dict({})


def test_a_misspelt_setting_names_the_right_one():
    with pytest.raises(ConfigError, match=r"Unknown setting 'retry' for Checks\. Did you mean 'retries'\?"):
        Checks(retry=1)
