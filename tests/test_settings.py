"""Whatever settings are made of, their numbers are numbers of the stated range."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest

import vlbias
from vlbias.balance import Checks
from vlbias.errors import ConfigError
from vlbias.settings import Settings, number, with_changes


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
    trays: Sequence[float] = number((), 0)
    prices: Mapping[str, float] | Literal["free"] = "free"


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
        ({"trays": "12"}, "must be a list; got '12'"),
        ({"trays": [1, -1]}, "a list in which each entry is a number >= 0"),
        ({"prices": {"small": "cheap"}}, "a mapping in which each value is a number or one of free"),
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


def test_numbers_and_lists_of_other_libraries_become_plain():
    oven = Oven(trays=np.float32([1, 2]), degrees=np.float32(99.5))
    assert oven.trays == (1.0, 2.0) and type(oven.degrees) is float
    assert json.loads(json.dumps(oven.to_dict()))["degrees"] == 99.5


def test_more_values_than_settings_are_an_error():
    with pytest.raises(ConfigError, match="Inner has 1 settings, depth; got 2 values"):
        Inner(1, 2)


def test_changes_by_name():
    assert with_changes(Oven, Oven(degrees=200), {"minutes": 20}) == Oven(200, 20)
    assert with_changes(Oven, None, {}) == Oven()
    with pytest.raises(ConfigError, match="Unknown setting 'minute' for Oven. Did you mean 'minutes'"):
        with_changes(Oven, Oven(), {"minute": 20})
    with pytest.raises(ConfigError, match="whole number >= 1"):
        with_changes(Oven, None, {"minutes": 0})
    for wrong in (Inner(), {}, 3):
        with pytest.raises(ConfigError, match=r"`settings` must be Oven\(...\) or None"):
            with_changes(Oven, wrong, {})


SETTINGS_NAMES = ("Settings", "Checks", "Config", "Configuration", "Training", "Options")


def settings_classes() -> list[type]:
    found = set()
    for module in pkgutil.walk_packages(vlbias.__path__, "vlbias."):
        if module.name.endswith("__main__"):
            continue
        try:
            members = vars(importlib.import_module(module.name)).values()
        except ModuleNotFoundError as error:
            if error.name != "gradio":  # the page, which not everybody has
                raise
            continue
        for value in members:
            if dataclasses.is_dataclass(value) and isinstance(value, type) and value.__name__.endswith(SETTINGS_NAMES):
                found.add(value)
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", settings_classes(), ids=lambda kind: kind.__name__)
def test_every_class_of_settings_is_checked(kind: Any):
    assert issubclass(kind, Settings) and kind.__dataclass_params__.frozen
    with pytest.raises(ConfigError, match=f"Unknown setting 'nosuch' for {kind.__name__}"):
        kind(nosuch=1)
    given: dict[str, dict[str, Any]] = {"HalvingSettings": {"objectives": ("a", "b"), "rungs": (1,)}}
    given["DiffAETrainingSettings"] = {"max_images": 9}
    given["_ModelConfig"] = {"embed_dim": 8, "vision_cfg": {"width": 64}, "text_cfg": {}}
    given["Configuration"] = {"backbone": "resnet10t", "head": "arcface", "optimizer": "adam", "learning_rate": 1e-3}
    given["_PathsConfig"] = {"kind": "paths", "network": "rbf", "space": "raw", "dipoles": {}, "calibration": {}}
    given["_PathsConfig"] |= {"dim": 8, "step_size": 0.1}
    given["_ProbesConfig"] = {"kind": "probes", "names": ("age",), "dipoles": {}, "accuracy": {}, "dim": 8}
    given["EditPlanSettings"] = {"target": "smile", "protected": ["skin"]}
    good = kind(**given.get(kind.__name__, {}))
    hints = kind.__init__.__annotations__
    for item in dataclasses.fields(good):
        if set(hints[item.name].replace("|", " ").split()) <= {"int", "float", "bool", "None"}:
            for wrong in ("x", [], math.nan):
                with pytest.raises(ConfigError, match=f"`{item.name}`"):
                    dataclasses.replace(good, **{item.name: wrong})
