"""Settings that are given one by one, on top of a frozen dataclass of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import Field
from typing import Any, ClassVar, Protocol, TypeVar

from vlbias.errors import ConfigError, unknown

__all__ = ["with_changes"]


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Settings = TypeVar("Settings", bound=_Dataclass)


def with_changes(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """A copy of ``settings`` with some of them changed by name; its own checks run again.

    Raises:
        ConfigError: no setting of that name (the nearest is named), or a value out of range.
    """
    known = [item.name for item in dataclasses.fields(settings)]
    for name in changes:
        if name not in known:
            raise ConfigError(str(unknown("setting", name, known)))
    return dataclasses.replace(settings, **changes)
