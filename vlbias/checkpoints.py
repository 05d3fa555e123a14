"""Find, read and write checkpoints: safetensors and JSON of our own, foreign pickles without running them.

A checkpoint is a folder: every module of it has a ``config.json`` and a ``*.safetensors``. Nothing here unpickles
freely: :func:`read_foreign_pickle` walks the pickle of a ``torch.save`` file and builds tensors and plain containers
only.
"""

from __future__ import annotations

import collections
import difflib
import math
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlbias.errors import CheckpointError, CheckpointNotFoundError, UnsafeCheckpointError
from vlbias.files import write_file

__all__ = [
    "ForeignReference",
    "aligned",
    "cache_folder",
    "checkpoint_folders",
    "find_checkpoint",
    "list_checkpoints",
    "load_tensors",
    "read_foreign_pickle",
    "save_tensors",
]

#: Environment variable that names a further folder of checkpoints.
CHECKPOINTS_VARIABLE = "VLBIAS_CHECKPOINTS"
#: Environment variable that names the folder of all that may be made or fetched again.
CACHE_VARIABLE = "VLBIAS_CACHE"


def cache_folder() -> Path:
    """Folder of what may be made or fetched again: ``$VLBIAS_CACHE``, else ``vlbias`` in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlbias"

#: Where PyTorch's own CPU tensors begin, in bytes; kernels for the CPU round otherwise where a tensor does not.
ALIGNMENT = 64


def checkpoint_folders() -> list[Path]:
    """The folders where a checkpoint name is looked up, in order (house plan, section 4)."""
    package = Path(__file__).resolve().parent
    folders = []
    if named := os.environ.get(CHECKPOINTS_VARIABLE):
        folders.append(Path(named).expanduser())
    if (package.parent / "setup.cfg").is_file():
        folders.append(package.parent / "checkpoints")
    folders.append(package / "_checkpoints")
    folders.append(cache_folder() / "checkpoints")
    return folders


def list_checkpoints() -> list[str]:
    """Names of the checkpoints that are present, sorted."""
    names = set()
    for folder in checkpoint_folders():
        if folder.is_dir():
            names |= {entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()}
    return sorted(names)


def find_checkpoint(name_or_path: str | os.PathLike[str]) -> Path:
    """Find a checkpoint: an existing path first, then its name in each of :func:`checkpoint_folders`.

    Raises:
        CheckpointNotFoundError: nowhere there; the message lists the places and the names that exist.
    """
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    folders = checkpoint_folders()
    if len(path.parts) == 1:
        for folder in folders:
            if (folder / path / "config.json").is_file():
                return folder / path
    known = list_checkpoints()
    close = difflib.get_close_matches(str(name_or_path), known, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    names = ", ".join(known) or "none"
    places = ", ".join(str(folder) for folder in folders)
    raise CheckpointNotFoundError(
        f"No checkpoint '{name_or_path}'. {hint}Available: {names}. Looked for the path itself and in {places}; "
        f"set ${CHECKPOINTS_VARIABLE} to add a folder."
    )


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None
) -> None:
    """Write tensors as safetensors.

    Args:
        path: the file.
        tensors: by name; they may share memory (each is written for itself).
        dtype: floating tensors are cast to it; ``None`` keeps each as it is.

    Raises:
        CheckpointError: a value does not fit ``dtype`` (it would become infinite).
        OutputError: the place cannot be written.
    """
    from safetensors.torch import save

    out = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if dtype is not None and value.is_floating_point():
            cast = value.to(dtype)
            if torch.isinf(cast).any() and not torch.isinf(value).any():
                raise CheckpointError(f"'{name}' holds values beyond the range of {dtype}; save it in float32.")
            value = cast
        out[name] = value.clone(memory_format=torch.contiguous_format)
    write_file(path, save(out))


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if it begins where PyTorch's own CPU tensors do, at a multiple of 64 bytes; else a copy.

    A tensor that lies in the buffer of a file begins anywhere. Some kernels then add in another order, so that a loaded
    network would not do exactly what the saved one did.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def load_tensors(path: str | os.PathLike[str], *, float32: bool = True) -> dict[str, torch.Tensor]:
    """Read a safetensors file; half-precision values become float32 unless ``float32=False``.

    Each tensor begins at a multiple of 64 bytes, see :func:`aligned`.

    Raises:
        CheckpointError: the file is missing, truncated, or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}). Fetch it again.") from error
    if float32:
        tensors = {k: v.float() if v.dtype in (torch.float16, torch.bfloat16) else v for k, v in tensors.items()}
    return {name: aligned(tensor) for name, tensor in tensors.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Foreign pickles


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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise _Refused(f"it asks to call {self.module}.{self.name}")


class _Refused(Exception):
    """Raised inside the unpickler; turned into UnsafeCheckpointError with the file's name."""


class _Namespace(dict):
    """What argparse.Namespace and Lightning's AttributeDict become: a plain dictionary that accepts pickled state."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


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
# Containers that are plain data; anything else that a pickle wants to *call* is refused.
_CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): _Namespace,
    ("pytorch_lightning.utilities.parsing", "AttributeDict"): _Namespace,
}
# Naming one of these at all has no place in a file of weights.
_HOSTILE_MODULES = frozenset(
    # fmt: off
    {
        "__builtin__",
        "asyncio",
        "bdb",
        "builtins",
        "code",
        "codeop",
        "commands",
        "ctypes",
        "functools",
        "importlib",
        "marshal",
        "multiprocessing",
        "nt",
        "operator",
        "os",
        "pdb",
        "pickle",
        "pip",
        "platform",
        "popen2",
        "posix",
        "pty",
        "pydoc",
        "runpy",
        "shutil",
        "signal",
        "socket",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "timeit",
        "types",
        "urllib",
        "webbrowser",
    }
    # fmt: on
)
# Data types of builtins that old pickles name; they are only ever references here, never called.
_HARMLESS_BUILTINS = frozenset({"int", "float", "bool", "str", "bytes", "list", "tuple", "dict", "set", "complex"})


class _TensorUnpickler(pickle.Unpickler):
    """Builds tensors and containers of plain data; every other global becomes an inert ForeignReference."""

    def __init__(self, data: Any, archive: zipfile.ZipFile, root: str):
        super().__init__(data, encoding="utf-8")
        self.archive, self.root = archive, root
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        if (module, name) in _NUMPY:
            return _NUMPY[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if module == "torch" and name == "Size":
            return tuple
        if module.split(".")[0] in _HOSTILE_MODULES and name not in _HARMLESS_BUILTINS:
            raise _Refused(f"it names {module}.{name}")
        return ForeignReference(module, name)

    def persistent_load(self, pid: Any) -> torch.Tensor:
        match pid:
            case ("storage", ForeignReference(module="torch", name=name), str(key), _, int(numel)) if (
                name in _STORAGE_DTYPES
            ):
                pass
            case _:
                raise _Refused(f"it holds an unknown kind of stored object, {pid!r:.80}")
        if key not in self.storages:
            dtype = _STORAGE_DTYPES[name]
            entry = self.archive.getinfo(f"{self.root}/data/{key}")
            expected = numel * dtype.itemsize
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size < expected:
                raise _Refused(f"storage {key} has {entry.file_size} bytes where {expected} are needed")
            raw = bytearray(self.archive.read(entry))
            self.storages[key] = (
                aligned(torch.frombuffer(raw, dtype=dtype, count=numel)) if numel else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if not (isinstance(storage, torch.Tensor) and isinstance(offset, int) and len(size) == len(stride)):
        raise _Refused("a tensor's description is malformed")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *size, *stride)):
        raise _Refused("a tensor's description holds something else than whole numbers >= 0")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if math.prod(size) else 0
    if last >= max(storage.numel(), 1):
        raise _Refused("a tensor reaches beyond its stored values")
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _numpy_dtype(name: Any, *_: Any) -> np.dtype:
    dtype = np.dtype(name) if isinstance(name, str) else None
    if dtype is None or dtype.kind not in "biufc":
        raise _Refused(f"it holds a NumPy value of type {name!r:.40}")
    return dtype


def _numpy_scalar(dtype: Any, raw: Any) -> Any:
    if not (isinstance(dtype, np.dtype) and isinstance(raw, bytes) and len(raw) == dtype.itemsize):
        raise _Refused("a NumPy number is malformed")
    return np.frombuffer(raw, dtype)[0].item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    # Protocol 2 writes bytes as text that _codecs.encode turns back; only that one encoding is used for it.
    if not isinstance(text, str) or encoding != "latin1":
        raise _Refused("it asks to call _codecs.encode with something else than text in latin1")
    return text.encode("latin1")


_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}


def _rebuild_parameter(data: Any, *_: Any) -> torch.Tensor:
    return data


def read_foreign_pickle(path: str | os.PathLike[str]) -> Any:
    """Read a ``torch.save`` file (PyTorch >= 1.6) without importing or calling anything that it names.

    Tensors, dictionaries, lists, tuples, numbers and texts are built; a reference to any other class (Lightning keeps
    one as a dictionary key) becomes an inert :class:`ForeignReference`; a wish to *call* one is refused.

    Returns:
        What was saved, tensors on the CPU in their own dtype.

    Raises:
        CheckpointError: the file is missing, truncated, or of another format.
        UnsafeCheckpointError: the pickle asks for code to be run; nothing was run.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointNotFoundError(f"{path} does not exist or is not a file.")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a complete torch.save file (a zip archive, PyTorch >= 1.6): truncated download, or an "
            "older format. Fetch it again, or save it anew with a current PyTorch."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise CheckpointError(f"{path} is a zip archive, but not one of torch.save (no data.pkl in it).")
            root = pickles[0].split("/")[0]
            with archive.open(pickles[0]) as data:
                return _TensorUnpickler(data, archive, root).load()
    except _Refused as error:
        raise UnsafeCheckpointError(
            f"{path} was refused: {error}. Weights need no code; nothing of the file was run. Do not open it with "
            "torch.load."
        ) from error
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). Fetch it again.") from error
    except (
        pickle.UnpicklingError,
        TypeError,
        AttributeError,
        ValueError,
        IndexError,
        ImportError,
        RecursionError,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        raise UnsafeCheckpointError(
            f"{path} was refused: its pickle builds objects that weights do not need ({error}). Nothing of it was run."
        ) from error
