"""Calls that say what they take: a wrong name or kind of argument is an error that names the right ones.

The annotations of a function say what it takes, so nothing is written twice. What no annotation can say (a range, a
column that must exist) is checked where it is known.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import keyword
import numbers
import os
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from vlbias.errors import ConfigError, unknown

__all__ = ["checked_call", "completed_with"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Where types come from whose values nobody means by an object of another class.
_FOREIGN = frozenset({"builtins", "pathlib", "numpy", "pandas", "torch"})
_WORDS = {
    str: "a text",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    type(None): "None",
    Sequence: "a list",
    Iterable: "a list",
    list: "a list",
    tuple: "a list",
    Mapping: "a mapping",
    dict: "a mapping",
    Callable: "a function",
    Path: "a path",
    os.PathLike: "a path",
}


def checked_call(function: Function) -> Function:
    """Decorator: the arguments of a call have names that there are, and are of the kinds that are annotated.

    Values of classes are told apart from plain ones alone, so that anything that behaves like a dataset may stand for
    one. Arguments annotated as ``Any`` or by a type variable are not looked at, nor are those behind ``**``.

    Raises:
        ConfigError: by the decorated function; names the argument, what it must be and what came.

    Example:
        >>> @checked_call
        ... def walk(*, num_steps: int = 6) -> None: ...
        >>> walk(num_step=3)
        Traceback (most recent call last):
        vlbias.errors.ConfigError: Unknown argument 'num_step' for walk. Did you mean 'num_steps'? Available: num_steps.
        >>> walk(num_steps="3")
        Traceback (most recent call last):
        vlbias.errors.ConfigError: `num_steps` of walk must be a whole number; got '3'.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        signature, hints = _described(function)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise _misfit(function, signature, kwargs, str(error)) from None
        for name, hint in hints.items():
            if name in given and not _fits(given[name], hint):
                words = _words(hint)
                raise ConfigError(f"`{name}` of {_name(function)} must be {words}; got {_shown(given[name])}.")
            if _is_for_paths(hint) and _has_nul(given.get(name)):
                where = f"`{name}` of {_name(function)}"
                raise ConfigError(f"{where} contains a character that no path has; got {given[name]!r}.")
        with _usual_tensors():
            return function(*args, **kwargs)

    return typing.cast(Function, call)


_within = threading.local()


@contextmanager
def _usual_tensors() -> Iterator[None]:
    """Within a call new tensors are float32 and on the CPU unless told otherwise, whatever a program prefers.

    The device is set for the calling thread, the type for the process, and only where a program has set another. A call
    from within a call changes nothing: what is set there is ours, as where networks are laid out on "meta".
    """
    torch: Any = sys.modules.get("torch")
    if getattr(_within, "a_call", False) or not hasattr(torch, "get_default_device"):  # not imported, or just being so
        yield
        return
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    _within.a_call = True
    try:
        if dtype != torch.float32:
            torch.set_default_dtype(torch.float32)
        with nullcontext() if device.type == "cpu" else torch.device("cpu"):
            yield
    finally:
        _within.a_call = False
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)


def completed_with(names: Callable[[Any], Iterable[str]], kind: type) -> Callable[[Function], Function]:
    """Decorator of a method with ``**`` arguments: the signature of each object's own method names those it takes.

    Prompts and notebooks read signatures, so the tab key after ``editor.edit(`` offers ``age=``. What is called is the
    same.

    Args:
        names: object => names behind ``**``.
        kind: of their values.
    """
    return lambda method: typing.cast(Any, _CompletedMethod(method, names, kind))


class _CompletedMethod:
    """The descriptor behind :func:`completed_with`."""

    def __init__(self, method: Callable[..., Any], names: Callable[[Any], Iterable[str]], kind: type):
        functools.update_wrapper(self, method)  # type: ignore[arg-type]
        self.method, self.names, self.kind = method, names, kind

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        if instance is None:
            return self.method
        bound = self.method.__get__(instance, owner)

        @functools.wraps(self.method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return bound(*args, **kwargs)

        signature = inspect.signature(bound)
        *given, rest = signature.parameters.values()
        new = [name for name in self.names(instance) if name.isidentifier() and not keyword.iskeyword(name)]
        own = [inspect.Parameter(name, rest.KEYWORD_ONLY, default=0, annotation=self.kind) for name in new]
        call.__signature__ = signature.replace(parameters=[*given, *own, rest])  # type: ignore[attr-defined]
        return call


def _name(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__init__")


def _misfit(
    function: Callable[..., Any], signature: inspect.Signature, kwargs: Mapping[str, Any], detail: str
) -> ConfigError:
    """The error for arguments that do not go with a signature."""
    known = [name for name, item in signature.parameters.items() if name != "self" and item.kind != item.VAR_KEYWORD]
    for name in kwargs:
        if name not in known:
            return ConfigError(str(unknown("argument", name, known, where=_name(function))))
    return ConfigError(f"{_name(function)}: {detail}. It takes: {', '.join(known)}.")


@functools.cache
def _described(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """The signature, and the annotations that can be told; those of modules not loaded here are left out."""
    signature = inspect.signature(function)
    hints = {}
    for name, item in signature.parameters.items():
        if item.annotation is item.empty or item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL):
            continue
        known = function.__globals__
        if "pd." in item.annotation and "pd" not in known:  # what is given a table works with pandas anyway
            known = {**known, "pd": importlib.import_module("pandas")}
        try:
            hints[name] = eval(item.annotation, known)
        except (NameError, TypeError):  # not loaded here, or replaced by something that is no type
            continue
    return signature, hints


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated kind, as far as that can be told by its type."""
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return True
    origin = typing.get_origin(hint) or hint
    if origin is Annotated:
        return True  # the function itself says more about a wrong one
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if origin is Literal:
        return isinstance(value, str | int | None) and value in typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (int, float):
        kind = numbers.Integral if origin is int else numbers.Real
        good = isinstance(value, kind) and not isinstance(value, bool)
        return good and (origin is float or -(2**63) <= value < 2**63)
    if origin is Callable:
        return callable(value)
    if origin in (Sequence, Iterable, list, tuple):
        return _fits_many(value, origin, typing.get_args(hint))
    if origin in (Path, os.PathLike):
        return isinstance(value, os.PathLike)
    if origin in (str, bool, Mapping, dict):
        return isinstance(value, Mapping if origin is dict else origin) or (origin is bool and _is_numpy_bool(value))
    home = type(value).__module__.partition(".")[0]
    if getattr(origin, "_is_protocol", False):
        is_function = callable(value) and not isinstance(value, type) and "__call__" in vars(origin)
        return is_function or home not in _FOREIGN
    return isinstance(value, origin) or home not in (*_FOREIGN, "vlbias")


@functools.cache
def _is_for_paths(hint: Any) -> bool:
    """Whether an annotation takes paths."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return any((typing.get_origin(part) or part) in (Path, os.PathLike) for part in parts)


def _has_nul(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and "\0" in str(value)


def _fits_many(value: Any, origin: Any, parts: tuple[Any, ...]) -> bool:
    """Whether a value holds several entries in order (for ``Iterable`` in any), each of its kind."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping | type):
        return False
    if getattr(value, "ndim", 1) != 1 or (isinstance(value, set | frozenset) and origin is not Iterable):
        return False
    if not isinstance(value, list | tuple | set | frozenset) or not parts:
        return True
    if origin is tuple and Ellipsis not in parts:
        return len(value) == len(parts) and all(map(_fits, value, parts))
    return all(_fits(entry, parts[0]) for entry in itertools.islice(value, 100))


def _is_numpy_bool(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "bool"


def _words(hint: Any) -> str:
    origin = typing.get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(_words(part) for part in typing.get_args(hint))
        return " or ".join([*(word for word in words if word != "None"), *(["None"] if "None" in words else [])])
    if origin is Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    if _WORDS.get(origin) == "a list" and (kinds := dict.fromkeys(map(_words, typing.get_args(hint)[:1]))):
        return "a list" if "an object" in kinds else f"a list ({', '.join(kinds)} each)"
    if hint in (Any, object):
        return "an object"
    return _WORDS.get(origin) or f"a {getattr(origin, '__name__', origin)}"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:  # whatever somebody's class does when it is shown
        return f"a {type(value).__name__}"
