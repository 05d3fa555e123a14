"""Calls say what they take."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vlbias
from vlbias import audit, fairness, labelling, leak, search, simulate
from vlbias.arguments import checked_call
from vlbias.errors import ConfigError

Kind = TypeVar("Kind")


@checked_call
def bake(
    name: str = "",
    *,
    minutes: int = 1,
    degrees: float | None = None,
    mode: Literal["fan", "grill"] | int = "fan",
    racks: Sequence[int] | pd.Series = (),
    stream: Iterable[Any] = (),
    prices: Mapping[str, float] | None = None,
    then: Callable[[], None] | None = None,
    place: str | Path = "",
    picture: Image.Image | None = None,
    is_open: bool = False,
    anything: Any = None,
    free: Kind | None = None,
    **spices: float,
) -> str:
    return name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": 3}, "`name` of bake must be a text; got 3"),
        ({"minutes": 1.5}, "must be a whole number; got 1.5"),
        ({"minutes": True}, "a whole number"),
        ({"degrees": "hot"}, "`degrees` of bake must be a number or None; got 'hot'"),
        ({"mode": "steam"}, "one of fan, grill or a whole number"),
        ({"racks": "12"}, r"a list \(a whole number each\) or a Series; got '12'"),
        ({"racks": {1: 2}}, "or a Series"),
        ({"racks": [1, None]}, "a whole number each"),
        ({"racks": {1, 2}}, "or a Series"),
        ({"racks": np.zeros((2, 2))}, "or a Series"),
        ({"picture": np.zeros(2)}, "a Image or None"),
        ({"stream": 3}, "a list"),
        ({"prices": [1]}, "a mapping or None"),
        ({"then": 3}, "a function or None"),
        ({"place": 3}, "a text or a path; got 3"),
        ({"picture": "face.png"}, "a Image or None; got 'face.png'"),
        ({"is_open": 1}, "True or False; got 1"),
    ],
)
def test_a_value_of_another_kind_is_named(given, said):
    with pytest.raises(ConfigError, match=said):
        bake(**given)


def test_values_of_other_libraries_are_as_good():
    rows = pd.Series([1])
    assert bake("a", minutes=np.int64(3), degrees=np.float32(2), racks=rows, stream=(i for i in range(2))) == "a"
    assert bake(racks=np.arange(3), is_open=np.bool_(True), place=Path("x"), degrees=3, anything=[], free={}) == ""
    assert bake(mode=5, picture=Image.new("L", (1, 1)), then=print, prices={"a": math.nan}, salt="any") == ""
    assert inspect.signature(bake).parameters["minutes"].default == 1 and bake.__name__ == "bake"


def test_arguments_that_do_not_go_together_name_all_of_them():
    @checked_call
    def walk(path: str, *, num_steps: int = 1) -> None: ...

    for call in (lambda: walk(), lambda: walk("a", 3), lambda: walk("a", path="b")):
        with pytest.raises(ConfigError, match=r"walk: .* It takes: path, num_steps\."):
            call()
    with pytest.raises(ConfigError, match="Unknown argument 'num_step' for .*walk.* Did you mean 'num_steps'"):
        walk("a", num_step=3)


@pytest.mark.parametrize(
    "call",
    [
        vlbias.Balancer, vlbias.Balancer.plan, vlbias.Balancer.run, vlbias.Editor.from_pretrained,
        vlbias.Editor.sample, vlbias.Editor.strip, vlbias.Editor.save_pretrained, vlbias.load_dataset,
        vlbias.open_dataset, audit.composition, simulate.plan, search.run,
        search.open_study, fairness.evaluate, fairness.permutation_test, fairness.accuracy_gap, labelling.evaluate,
        labelling.label_column, labelling.measure_skin_tone, leak.measure_leak, vlbias.classify.fit,
    ],
)  # fmt: skip
def test_front_doors_say_which_names_there_are(call):
    names, passed = inspect.signature(call).parameters, ("kind", "self")
    given = {
        name: "x" if "str" in str(item.annotation) else SimpleNamespace()
        for name, item in names.items()
        if item.default is item.empty and name not in passed
        if item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    extra = {"kind": "folder", "root": "/nosuch"} if call is vlbias.load_dataset else {}
    with pytest.raises(ConfigError, match="nosuch"):
        call(*([SimpleNamespace()] if "self" in names else []), **given, **extra, nosuch=1)


def test_a_path_has_no_nul_and_a_number_64_bits():
    @checked_call
    def keep(place: str | os.PathLike[str], *, count: int = 1) -> None: ...

    for place in ("a\0b", Path("a\0b")):
        with pytest.raises(ConfigError, match="`place` of .*keep contains a character that no path has"):
            keep(place)
    with pytest.raises(ConfigError, match="`count` of .*keep must be a whole number; got 1000"):
        keep("a", count=10**30)
