"""Settings that are checked once, when they are made: frozen dataclasses whose values are what they say.

A class states for each value its type, as an annotation, and its range, by :func:`number`. Whatever is made of it (by
hand, or from a JSON file that somebody else wrote) has numbers that are numbers, not NaN, true or a list.

Example:
    >>> from dataclasses import dataclass
    >>> from typing import Literal
    >>> @dataclass(frozen=True)
    ... class Walk(Settings):
    ...     num_steps: int = number(6, 1, 100)
    ...     step_size: float = number(0.5, above=0)
    ...     direction: Literal["+", "-"] = "+"
    >>> Walk(num_steps=0)
    Traceback (most recent call last):
    vlbias.errors.ConfigError: `num_steps` of Walk must be a whole number in 1..100; got 0.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import numbers
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar, Union

from vlbias.errors import ConfigError, unknown

__all__ = ["MAX_DRAWS", "MAX_RUNS", "Settings", "checked_number", "number", "plain_numbers", "with_changes"]

Own = TypeVar("Own", bound="Settings")

#: Most draws of a bootstrap or a permutation test, and most repeats of a training: what is beyond needs a machine's
#: whole memory before anything is done.
MAX_DRAWS, MAX_RUNS = 1_000_000, 10_000


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    low_is_open: bool
    high_is_open: bool

    def holds(self, value: float) -> bool:
        above = self.low < value if self.low_is_open else self.low <= value
        return above and (value < self.high if self.high_is_open else value <= self.high)

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return ""
        if self.high == math.inf:
            return f" {'>' if self.low_is_open else '>='} {_bound(self.low)}"
        if self.low == -math.inf:
            return f" {'<' if self.high_is_open else '<='} {_bound(self.high)}"
        if not (self.low_is_open or self.high_is_open):
            return f" in {_bound(self.low)}..{_bound(self.high)}"
        first, last = "(" if self.low_is_open else "[", ")" if self.high_is_open else "]"
        return f" in {first}{_bound(self.low)}, {_bound(self.high)}{last}"


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and 10**4 <= abs(value) < 10**12 else f"{value:g}"


_ANY_NUMBER = _Range(-math.inf, math.inf, False, False)


def number(
    default: object = dataclasses.MISSING,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A field that holds a number, or a tuple of numbers, of a range.

    Args:
        default: none if it must be given.
        low, high: bounds that belong to the range.
        above, below: bounds that do not.
    """
    bounds = _Range(
        low if above is None else above, high if below is None else below, above is not None, below is not None
    )
    return dataclasses.field(default=default, metadata={"range": bounds})


class Settings:
    """Base of frozen dataclasses; checks every value by its annotation and range.

    Understood are ``int``, ``float`` (finite), ``bool``, ``str``, ``Literal``, tuples and sequences of these (a list
    will do), mappings, other settings (a dictionary will do) and ``| None``; what else is annotated is not looked at.
    A class that checks more does so in ``__post_init__``, after ``super().__post_init__()``.

    Raises:
        ConfigError: a value of another type, or out of its range, or of a name that there is not; it is named with the
            class.
    """

    def __new__(cls, *given: object, **values: object) -> Self:
        """A misspelt name is an error like any other: it says which names there are."""
        known = [item.name for item in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in known:
                raise ConfigError(str(unknown("setting", name, known, where=cls.__name__)))
        if len(given) > len(known):
            raise ConfigError(f"{cls.__name__} has {len(known)} settings, {', '.join(known)}; got {len(given)} values.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        kind: Any = type(self)
        hints = _hints(kind)
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            bounds = item.metadata.get("range", _ANY_NUMBER)
            value = getattr(self, item.name)
            try:
                checked = _checked(value, hints[item.name], bounds)
            except _WrongError as wrong:
                owner = type(self).__name__
                raise ConfigError(f"`{item.name}` of {owner} must be {wrong}; got {_shown(value)}.") from None
            object.__setattr__(self, item.name, checked)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[Own], values: Mapping[str, object]) -> Own:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: not a dictionary, an unknown or a missing key, or a value that does not belong.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__} must be an object with keys; got {_shown(values)}.")
        known = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
        for key in values:
            if key not in known:
                raise ConfigError(str(unknown("setting", str(key)[:80], known, where=cls.__name__)))
        for name, item in known.items():
            if name not in values and item.default is item.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{cls.__name__} lacks `{name}`.")
        return cls(**values)


class _WrongError(Exception):
    """What a value should have been."""


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _checked(value: Any, hint: Any, bounds: _Range) -> Any:
    """The value as its hint wants it (a list becomes a tuple)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, bounds)
    if origin is Literal:
        if not isinstance(value, str | int | None) or isinstance(value, bool) or value not in arguments:
            raise _WrongError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _tuple(value, arguments, bounds)
    if origin is Sequence:
        return tuple(_each(_items(value), itertools.repeat(arguments[0]), bounds))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _WrongError("a mapping")
        _each(value.values(), itertools.repeat(arguments[1]), bounds, "mapping", "value")
        return value
    if hint in (int, float):
        return _number(value, hint, bounds)
    if hint in (bool, str, type(None)):
        if not isinstance(value, hint):
            raise _WrongError({bool: "true or false", str: "a text"}.get(hint, "None"))
        return value
    if isinstance(hint, type) and issubclass(hint, Settings):
        return value if isinstance(value, hint) else hint.from_dict(value)
    return value


def checked_number(
    name: str, value: object, kind: type = int, *, low: float = -math.inf, high: float = math.inf
) -> Any:
    """One argument that is a number, as :class:`Settings` would check it.

    Args:
        name: of the argument, for the message.
        value: what was given.
        kind: ``int`` or ``float``.
        low, high: its range; both belong to it.

    Raises:
        ConfigError: another type, NaN, true or false, or out of range.

    Example:
        >>> checked_number("limit", 3.5, low=1)
        Traceback (most recent call last):
        vlbias.errors.ConfigError: `limit` must be a whole number >= 1; got 3.5.
    """
    try:
        return _number(value, kind, _Range(low, high, False, False))
    except _WrongError as wrong:
        raise ConfigError(f"`{name}` must be {wrong}; got {_shown(value)}.") from None


def plain_numbers(value: Any) -> Any:
    """A value, or the values of a mapping, with numbers of NumPy, say the largest of a column, as Python's own.

    Example:
        >>> import numpy as np
        >>> plain_numbers({"light": np.int64(3), "dark": np.float32(0.5), "all": True})
        {'light': 3, 'dark': 0.5, 'all': True}
    """
    if isinstance(value, Mapping):
        return {name: plain_numbers(one) for name, one in value.items()}
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def _number(value: Any, kind: type, bounds: _Range) -> int | float:
    accepted = numbers.Integral if kind is int else numbers.Real
    good = isinstance(value, accepted) and not isinstance(value, bool)
    if good and kind is int and abs(value) >= 2**63:
        raise _WrongError(f"a whole number of 64 bits{bounds}")
    if not good or (kind is float and not _is_finite(value)) or not bounds.holds(value):
        raise _WrongError(f"{'a whole number' if kind is int else 'a number'}{bounds}")
    if kind is int:
        return int(value)
    return value if type(value) in (int, float) else float(value)  # a NumPy number has no place in JSON


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _shown(value: object) -> str:
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no number of more than 4300 digits
        return f"a {type(value).__name__}"


def _tuple(value: object, arguments: tuple[object, ...], bounds: _Range) -> tuple[Any, ...]:
    value = _items(value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        if len(value) > MAX_ITEMS:
            raise _WrongError(f"a list of at most {MAX_ITEMS} entries")
        arguments = arguments[:1] * len(value)
    if len(value) != len(arguments):
        raise _WrongError(f"a list of {len(arguments)} entries")
    return tuple(_each(value, arguments, bounds))


def _items(value: object) -> Sequence[Any]:
    """The entries of a list, a tuple, a range or an array."""
    entries = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(entries, str | bytes) or not isinstance(entries, Sequence):
        raise _WrongError("a list")
    return entries


def _each(
    entries: Iterable[object], hints: Iterable[object], bounds: _Range, kind: str = "list", one: str = "entry"
) -> list[Any]:
    try:
        return [_checked(entry, hint, bounds) for entry, hint in zip(entries, hints, strict=False)]
    except _WrongError as wrong:
        raise _WrongError(f"a {kind} in which each {one} is {wrong}") from None


#: Longest list of fixed type in settings.
MAX_ITEMS = 1000


def _one_of(value: object, hints: tuple[object, ...], bounds: _Range) -> Any:
    if value is None and type(None) in hints:
        return None
    wanted = []
    for hint in hints:
        if hint is not type(None):
            try:
                return _checked(value, hint, bounds)
            except _WrongError as wrong:
                wanted.append(str(wrong))
    raise _WrongError(" or ".join([*wanted, *(["None"] if type(None) in hints else [])]))


def with_changes(kind: type[Own], settings: Own | None, changes: Mapping[str, object]) -> Own:
    """Settings with some of them changed by name; what they check is checked again.

    Args:
        kind: the class that is wanted.
        settings: where to start; ``None`` for the defaults.
        changes: name -> value.

    Raises:
        ConfigError: ``settings`` of another class, no setting of that name (the nearest is named), or a value out of
            range.
    """
    if settings is None:
        return kind(**changes)
    if not isinstance(settings, kind):
        raise ConfigError(f"`settings` must be {kind.__name__}(...) or None; got {_shown(settings)}.")
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
