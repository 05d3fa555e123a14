"""The dipoles of the world name what it draws."""

from __future__ import annotations

from vlbias import world


def test_dipoles_name_every_attribute() -> None:
    assert set(world.DIPOLES) == {
        "age", "skin_tone", "gender", "smile", "glasses", "beard", "nose_width", "lip_fullness"
    }  # fmt: skip
    for positive, negative in world.DIPOLES.values():
        assert positive and len(positive) == len(negative) and not set(positive) & set(negative)
