"""Settings given one by one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vlbias.errors import ConfigError
from vlbias.settings import with_changes


@dataclass(frozen=True)
class Oven:
    degrees: int = 180
    minutes: int = 40

    def __post_init__(self):
        if self.minutes < 1:
            raise ConfigError(f"`minutes` must be >= 1; got {self.minutes}.")


def test_changes_by_name():
    assert with_changes(Oven(degrees=200), {"minutes": 20}) == Oven(200, 20)
    assert with_changes(Oven(), {}) == Oven()
    with pytest.raises(ConfigError, match="Unknown setting 'minute'. Did you mean 'minutes'"):
        with_changes(Oven(), {"minute": 20})
    with pytest.raises(ConfigError, match="must be >= 1"):
        with_changes(Oven(), {"minutes": 0})
