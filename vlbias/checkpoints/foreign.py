"""Foreign ``torch.save`` files, read without importing or calling anything that they name.

A pickle is a program for a small stack machine. :class:`_Machine` is such a machine with the few instructions that
tensors and plain containers need: nothing in it can reach a module or a function, and what it may build is bounded.
``torch.load(weights_only=True)`` refuses the same programs, but also the published checkpoints, which name callbacks of
the training framework; and it neither bounds memory nor survives a key that is nested a hundred thousand deep.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from vlbias.arguments import checked_call
from vlbias.checkpoints.tensors import aligned, check_finite, fill, load_tensors
from vlbias.errors import CheckpointError, CheckpointNotFoundError, UnsafeCheckpointError
from vlbias.files import AnyPath

__all__ = [
    "ForeignArray",
    "ForeignReference",
    "load_weights",
    "read_foreign_pickle",
    "read_plain_pickle",
    "read_weights",
]

#: Largest program that is run; it builds up to sixty times as much. The published ones stay below 1 MB.
MAX_PROGRAM_BYTES = 8 * 2**20
#: Largest pickle of plain values; those of verification hold some 100 MB of encoded pictures.
MAX_PLAIN_BYTES = 2**30
#: Most instructions of any program: each builds a small object at most, beside the bytes that stand in the file.
MAX_INSTRUCTIONS = 8 * 2**20
#: All tensors together may be so many times the file: some share their values.
MAX_SHARING = 8

_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class ForeignReference:
    """Stands for a class or function that a pickle names; it is never imported, and calling it is refused."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, not loaded>"

    def __hash__(self) -> int:
        return hash((self.module, self.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForeignReference) and (self.module, self.name) == (other.module, other.name)


class ForeignArray:
    """Stands for a NumPy array of numbers in a pickle.

    Attributes:
        values: the array, read-only.
    """

    def __init__(self) -> None:
        self.values: np.ndarray = np.empty(0)

    def fill(self, raw: object, dtype: object, shape: object, *, is_fortran: bool) -> ForeignArray:
        """Take the values; the bytes that stand in the file are all that is used."""
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # protocol 2 of Python 2
        sizes = shape if isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) else None
        if not (isinstance(raw, bytes | bytearray) and isinstance(dtype, _Dtype) and dtype.dtype and sizes is not None):
            raise _Refused("a NumPy array is malformed")
        if math.prod(sizes) * dtype.dtype.itemsize != len(raw):
            raise _Refused(f"a NumPy array of the shape {sizes} has {len(raw)} bytes")
        self.values = np.frombuffer(bytes(raw), dtype.dtype).reshape(sizes, order="F" if is_fortran else "C")
        return self


class _Refused(Exception):
    """Raised by the machine; turned into UnsafeCheckpointError with the file's name."""


@checked_call
def read_foreign_pickle(path: AnyPath) -> Any:
    """Read a ``torch.save`` file (PyTorch >= 1.6) without importing or calling anything that it names.

    Tensors, dictionaries, lists, tuples, numbers and texts are built; a reference to any other class (Lightning keeps
    one as a dictionary key) becomes an inert :class:`ForeignReference`; a wish to *call* one is refused.

    Returns:
        What was saved, tensors on the CPU in their own dtype.

    Raises:
        CheckpointError: the file is missing, truncated, or of another format.
        UnsafeCheckpointError: the pickle asks for code to be run, or for more memory than its size explains; nothing
            was run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} does not exist or is not a file.")
    if not _is_archive(path):
        raise CheckpointError(
            f"{path} is not a complete torch.save file (a zip archive, PyTorch >= 1.6): truncated download, or an "
            "older format. Fetch it again, or save it anew with a current PyTorch."
        )
    with _refusals(path), zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"{path} is a zip archive, but not one of torch.save (no data.pkl in it).")
        storages = _Storages(archive, pickles[0].split("/")[0], path.stat().st_size)
        return _Machine(storages).run(storages.read(pickles[0], MAX_PROGRAM_BYTES))


@checked_call
def read_plain_pickle(path: AnyPath) -> Any:
    """Read a pickle of lists, tuples, dictionaries, numbers, texts, bytes and arrays; nothing that it names is called.

    Returns:
        What was pickled. Bytes that Python 2 wrote are text in latin1; arrays are :class:`ForeignArray`.

    Raises:
        CheckpointError: the file is missing, too large, or cut off.
        UnsafeCheckpointError: the pickle asks for code to be run; nothing was run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} does not exist or is not a file.")
    if (num_bytes := path.stat().st_size) > MAX_PLAIN_BYTES:
        raise CheckpointError(f"{path} has {num_bytes:,} bytes; at most {MAX_PLAIN_BYTES:,} are read.")
    with _refusals(path):
        return _Machine(None).run(path.read_bytes())


@checked_call
def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Fill a module from a file of tensors; entries of the file that the module lacks (a head) are passed over.

    Args:
        model: the module.
        path: ``.safetensors``, or a ``torch.save`` file of tensors, which is read without running anything in it.
        name: of the architecture, for the message.

    Raises:
        CheckpointError: the file is missing, damaged, or of another architecture.
        UnsafeCheckpointError: a pickle that asks for code to be run; nothing was run.
    """
    tensors = read_weights(path)
    fill(model, {key: tensors[key] for key in model.state_dict() if key in tensors}, f"{path} as {name}")


@checked_call
def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of weights; what else stands in it is passed over. See :func:`load_weights`."""
    state = load_tensors(path) if path.suffix == ".safetensors" else read_foreign_pickle(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} has no state dict.")
    tensors = {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    check_finite(tensors, str(path))
    return tensors


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What goes wrong while a pickle is read => errors that name the file."""
    try:
        yield
    except CheckpointError:
        raise
    except _Refused as error:
        raise UnsafeCheckpointError(
            f"{path} was refused: {error}. Such files need no code; nothing of it was run. Do not open it with "
            "torch.load or pickle."
        ) from error
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Fetch it again.") from error
    except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise UnsafeCheckpointError(f"{path} was refused: its pickle is malformed ({error}).") from error


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one of several disks, say
        return False


class _Storages:
    """The values of all tensors: entries of the archive, each read once."""

    def __init__(self, archive: zipfile.ZipFile, root: str, file_bytes: int):
        self.archive, self.root = archive, root
        self.unread, self.unshared = file_bytes, MAX_SHARING * file_bytes
        self.found: dict[str, torch.Tensor] = {}

    def read(self, name: str, at_most: int) -> bytes:
        """An entry, which torch.save never compresses; entries that lie on top of each other are found by their sum."""
        entry = self.archive.getinfo(name)
        self.unread -= entry.file_size
        # zipfile sets aside what an entry says to take in the file, however short the file is
        is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        if not is_stored or entry.file_size > at_most or self.unread < 0:
            raise _Refused(f"'{name}' is compressed or larger than it may be ({entry.file_size:,} bytes)")
        return self.archive.read(entry)

    def load(self, description: object) -> torch.Tensor:
        """``("storage", type, key, place, count)`` => the values, (count,)."""
        match description:
            case ("storage", ForeignReference(module="torch", name=name), str(key), _, int(count)) if (
                name in _STORAGE_DTYPES and count >= 0
            ):
                dtype = _STORAGE_DTYPES[name]
            case _:
                raise _Refused(f"it contains an unknown kind of stored object, {description!r:.80}")
        if key not in self.found:
            raw = self.read(f"{self.root}/data/{key}", self.unread)
            if len(raw) < count * dtype.itemsize:
                raise _Refused(f"storage {key} has {len(raw)} bytes where {count * dtype.itemsize} are needed")
            values = torch.frombuffer(bytearray(raw), dtype=dtype, count=count) if count else torch.empty(0).to(dtype)
            self.found[key] = aligned(values)
        if self.found[key].dtype != dtype:
            raise _Refused(f"storage {key} is of two types")
        return self.found[key]

    def tensor(self, storage: object, offset: int, size: object, stride: object, *_: object) -> torch.Tensor:
        """``torch._utils._rebuild_tensor_v2``: a view of a storage that stays within it."""
        if not (isinstance(storage, torch.Tensor) and isinstance(size, tuple) and isinstance(stride, tuple)):
            raise _Refused("a tensor's description is malformed")
        if any(type(n) is not int or not 0 <= n < 2**40 for n in (offset, *size, *stride)):
            raise _Refused("a tensor's description contains something other than whole numbers >= 0")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
        if last >= max(storage.numel(), 1):
            raise _Refused("a tensor reaches beyond its stored values")
        self.unshared -= count * storage.element_size()
        if count > storage.numel() or self.unshared < 0:
            raise _Refused("its tensors are larger than its stored values")
        return torch.as_strided(storage, size, stride, offset)


class _Dtype:
    """A NumPy number type; ``BUILD`` gives its byte order."""

    def __init__(self, name: object, *_: object):
        self.dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 4 else None
        if self.dtype is None or self.dtype.kind not in "biufc" or self.dtype.itemsize > 16:
            raise _Refused(f"it contains a NumPy value of type {name!r:.40}")


def _numpy_scalar(dtype: object, raw: object) -> object:
    if not (isinstance(dtype, _Dtype) and dtype.dtype and isinstance(raw, bytes) and len(raw) == dtype.dtype.itemsize):
        raise _Refused("a NumPy number is malformed")
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _empty_array(kind: object, *_: object) -> ForeignArray:
    if kind != ForeignReference("numpy", "ndarray"):
        raise _Refused("it contains an array of a kind of its own")
    return ForeignArray()


def _array_of_buffer(raw: object, dtype: object, shape: object, order: object) -> ForeignArray:
    return ForeignArray().fill(raw, dtype, shape, is_fortran=order == "F")


def _encode(text: object, encoding: object = "latin1") -> bytes:
    # Protocol 2 writes bytes as text that _codecs.encode turns back; only that one encoding is used for it.
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("it asks to call _codecs.encode with something other than text in latin1")
    return text.encode("latin1")


# What the machine "calls": the same results as the functions of these names, without them.
_CALLS: dict[tuple[str, str], Callable[..., object]] = {
    ("collections", "OrderedDict"): dict,
    ("argparse", "Namespace"): dict,
    ("pytorch_lightning.utilities.parsing", "AttributeDict"): dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("numpy._core.numeric", "_frombuffer"): _array_of_buffer,
    ("_codecs", "encode"): _encode,
}
_REBUILD_TENSOR = ForeignReference("torch._utils", "_rebuild_tensor_v2")

# Instructions that push what stands behind them.
_VALUES = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    }
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], object]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})
# The same instruction in its longer forms.
_SAME = {"BINPUT": "PUT", "LONG_BINPUT": "PUT", "BINGET": "GET", "LONG_BINGET": "GET"}


class _Machine:
    """Runs the program of a pickle; ``pickletools`` of the standard library describes the instructions."""

    def __init__(self, storages: _Storages | None):
        self.storages = storages
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies under each mark
        self.memo: dict[int, object] = {}

    def run(self, program: bytes) -> Any:
        """The value that the program builds."""
        for count, (instruction, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_INSTRUCTIONS:
                raise _Refused(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            name = _SAME.get(instruction.name, instruction.name)
            if name == "STOP":
                return self.stack.pop()
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack.append(tuple([self.stack.pop() for _ in range(_TUPLES[name])][::-1]))
            elif name not in _IGNORED:
                self._step(name, argument)
        raise EOFError("the pickle has no end")

    def _step(self, name: str, argument: object) -> None:
        method: Callable[[Any], None] | None = getattr(self, f"do_{name.lower()}", None)
        if method is None:
            raise _Refused(f"it uses the instruction {name}, which weights do not need")
        method(argument)

    def _since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    # -- containers ---------------------------------------------------------------------------------------------------
    def do_mark(self, _: object) -> None:
        self.below.append(self.stack)
        self.stack = []

    def do_tuple(self, _: object) -> None:
        values = self._since_mark()
        self.stack.append(tuple(values))

    def do_list(self, _: object) -> None:
        values = self._since_mark()
        self.stack.append(values)

    def do_dict(self, _: object) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set_items(values)

    def do_append(self, _: object) -> None:
        self._extend([self.stack.pop()])

    def do_appends(self, _: object) -> None:
        self._extend(self._since_mark())

    def do_setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def do_setitems(self, _: object) -> None:
        self._set_items(self._since_mark())

    def do_additems(self, _: object) -> None:
        values = self._since_mark()
        self._top(set).update(_key(value) for value in values)

    def _extend(self, values: list[object]) -> None:
        self._top(list).extend(values)

    def _set_items(self, values: list[object]) -> None:
        table = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            table[_key(key)] = value

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise _Refused(f"it takes a {type(self.stack[-1]).__name__} for a {kind.__name__}")
        return self.stack[-1]

    # -- memory -------------------------------------------------------------------------------------------------------
    def do_put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def do_memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    # -- what others would look up and call ---------------------------------------------------------------------------
    def do_global(self, names: str) -> None:
        self.stack.append(ForeignReference(*names.split(" ", 1)))

    def do_stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise _Refused("it names something that is not text")
        self.stack.append(ForeignReference(module, name))

    def do_binpersid(self, _: object) -> None:
        self.stack.append(self._tensors().load(self.stack.pop()))

    def do_reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not (isinstance(function, ForeignReference) and isinstance(arguments, tuple)):
            raise _Refused("it asks to call something that is not a function")
        if function == _REBUILD_TENSOR:
            self.stack.append(self._tensors().tensor(*arguments))
        elif call := _CALLS.get((function.module, function.name)):
            self.stack.append(call(*arguments))
        else:
            _refuse_call(function)

    def _tensors(self) -> _Storages:
        if self.storages is None:
            raise _Refused("it contains a tensor, where plain values are expected")
        return self.storages

    def do_newobj(self, _: object) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, ForeignReference) or _CALLS.get((kind.module, kind.name)) is not dict or arguments:
            _refuse_call(kind)
        self.stack.append({})

    def do_build(self, _: object) -> None:
        state = self.stack.pop()
        match self.stack[-1], state:
            case _Dtype(), (3, "<" | "|", *_):
                pass
            case ForeignArray() as array, (int(), shape, dtype, bool(is_fortran), raw):
                array.fill(raw, dtype, shape, is_fortran=is_fortran)
            case dict() as table, dict() if "_metadata" not in state:  # the fields of a Namespace
                table.update({_key(key): value for key, value in state.items()})
            case dict(), dict():  # versions of the modules of a state dict
                pass
            case built, _:
                raise _Refused(f"it sets the state of a {type(built).__name__}")


def _refuse_call(function: object) -> NoReturn:
    name = f"{function.module}.{function.name}" if isinstance(function, ForeignReference) else repr(function)[:80]
    raise _Refused(f"it asks to call {name}")


def _key(value: object) -> object:
    """A key whose hash is quick: a text, a number, a reference, or a flat tuple of these."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(part is None or isinstance(part, str | bytes | int | float | ForeignReference) for part in parts):
        raise _Refused(f"it uses a {type(value).__name__} as a key")
    return value
