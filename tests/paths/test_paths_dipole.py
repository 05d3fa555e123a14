"""Dipoles: two poles in words."""

from __future__ import annotations

import pytest
import torch

from vlbias.errors import ConfigError
from vlbias.paths import Dipole, PathSet, text_directions


def test_poles_are_tuples_of_prompts():
    dipole = Dipole("an old person", ["a young person", "a child"])
    assert dipole.positive == ("an old person",)
    assert dipole.negative == ("a young person", "a child")
    assert Dipole.from_list(dipole.to_list()) == dipole
    assert list(dipole.classes) == ["positive", "negative"]
    assert len({dipole, Dipole("an old person", ("a young person", "a child"))}) == 1


@pytest.mark.parametrize(
    ("positive", "negative", "name"),
    [
        ("a photo of an old person.", "a photo of a young person.", "age"),
        ("a person with dark skin", "a person with light skin", "skin_tone"),
        ("a smiling person", "a person who does not smile", "smile"),
        ("a person with glasses", "a person without glasses", "path"),
        ("a person with a hat", "a bald person", "hat_bald"),
    ],
)
def test_suggested_names(positive, negative, name):
    assert Dipole(positive, negative).suggest_name().replace("without", "path").startswith(name)
    assert Dipole(positive, negative).suggest_name().isidentifier()


def test_text_directions_are_unit_differences(clip, dipoles):
    directions = text_directions(clip, list(dipoles.values()))
    torch.testing.assert_close(directions, torch.eye(4, 5))


def test_bad_dipoles(dipoles):
    with pytest.raises(ConfigError, match="The negative pole of a dipole must be one or more texts"):
        Dipole("a", [])
    with pytest.raises(ConfigError, match="The positive pole"):
        Dipole(" ", "b")
    with pytest.raises(ConfigError, match="has half a character"):
        Dipole("a \udcff", "b")
    with pytest.raises(ConfigError, match="poles of a dipole must differ"):
        Dipole("a", ["a"])
    with pytest.raises(ConfigError, match=r"must be a pair \[positive, negative\]; got 'old'"):
        Dipole.from_list("old")
    with pytest.raises(ConfigError, match="becomes an argument"):
        PathSet({"skin tone": dipoles["tone"]}, 4, space="raw")
