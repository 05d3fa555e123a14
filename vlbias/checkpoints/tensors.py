"""Tensors in safetensors files, and modules that are filled with them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vlbias.arguments import checked_call
from vlbias.errors import CheckpointError
from vlbias.files import AnyPath, open_plain, parse_json, write_file

__all__ = [
    "aligned",
    "build_filled",
    "check_finite",
    "check_shapes",
    "check_tensors",
    "fill",
    "load_tensors",
    "save_tensors",
    "weights_digest",
]

Built = TypeVar("Built", bound=nn.Module)

#: Where PyTorch's own CPU tensors begin, in bytes; kernels for the CPU round otherwise where a tensor does not.
ALIGNMENT = 64


@checked_call
def save_tensors(path: AnyPath, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors as safetensors.

    Args:
        path: the file.
        tensors: by name; they may share memory (each is written for itself).
        dtype: floating tensors are cast to it; ``None`` keeps each as it is.

    Raises:
        CheckpointError: a value does not fit ``dtype`` (it would become infinite).
        OutputError: the place cannot be written.
    """
    out = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu()
        if dtype is not None and value.is_floating_point():
            cast = value.to(dtype)
            if torch.isinf(cast).any() and not torch.isinf(value).any():
                raise CheckpointError(f"'{name}' contains values beyond the range of {dtype}; save it in float32.")
            value = cast
        out[name] = value.clone(memory_format=torch.contiguous_format)
    write_file(path, save(out))


def aligned(tensor: Tensor) -> Tensor:
    """The tensor itself if it begins where PyTorch's own CPU tensors do, at a multiple of 64 bytes; else a copy.

    A tensor that lies in the buffer of a file begins anywhere. Some kernels then add in another order, so that a loaded
    network would not do exactly what the saved one did.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


#: Of some 40,000 tensors; a hundred times as many empty ones would take minutes.
MAX_HEADER_BYTES = 4 * 2**20


@checked_call
def load_tensors(path: AnyPath) -> dict[str, Tensor]:
    """Read a safetensors file; numbers of any floating type become float32.

    Each tensor begins at a multiple of 64 bytes, see :func:`aligned`.

    Raises:
        CheckpointError: the file is missing, truncated, or not safetensors, or a value is NaN or infinite.
    """
    try:
        with open_plain(path) as file:  # the library maps whatever is there, and waits for a pipe
            num_bytes = int.from_bytes(file.read(8), "little")
            if num_bytes > MAX_HEADER_BYTES:
                raise ValueError(f"its header has {num_bytes:,} bytes, at most {MAX_HEADER_BYTES:,} are read")
            parse_json(file.read(num_bytes))  # of a name that stands twice, the library takes one
        tensors = load_file(str(path))
        check_finite(tensors, str(path))
        return {name: aligned(value.float() if value.is_floating_point() else value) for name, value in tensors.items()}
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if "allocate" in str(error):
            raise
        # of shapes that PyTorch cannot have, too
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}). Fetch it again.") from error


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are not numbers; tensors on the meta device are passed over.

    Raises:
        CheckpointError: a value is NaN or infinite; ``source`` names the file.
    """
    for name, tensor in tensors.items():
        if tensor.device.type != "meta" and not torch.isfinite(tensor).all():
            raise CheckpointError(f"'{name}' in {source} contains NaN or infinite values. Fetch the file again.")


#: Keys that a message names; another architecture differs in hundreds.
MAX_SHOWN = 20

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(wanted: Shapes, found: Shapes, source: str) -> None:
    """Compare two tables of names and shapes.

    Raises:
        CheckpointError: lists the keys that are unexpected, missing, or of another shape; ``source`` names the file.
    """
    problems = [f"unexpected: {name} {found[name]}" for name in sorted(found.keys() - wanted.keys())]
    problems += [f"missing: {name} {wanted[name]}" for name in sorted(wanted.keys() - found.keys())]
    problems += [
        f"mis-shaped: {name} is {found[name]}, the architecture needs {wanted[name]}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]
    if problems:
        shown = "; ".join(problems[:MAX_SHOWN])
        more = f"; and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        raise CheckpointError(f"{source} does not fit its architecture, {len(problems)} keys: {shown}{more}.")


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compare two tables of tensors by names, shapes and kinds of number.

    Args:
        wanted: what the architecture needs; tensors on the meta device will do.
        found: what was read.
        source: names the file or folder in the message.

    Raises:
        CheckpointError: see :func:`check_shapes`; or whole numbers stand where weights belong.
    """
    check_shapes(_shapes(wanted), _shapes(found), source)
    for name, value in wanted.items():
        if value.is_floating_point() != found[name].is_floating_point():
            raise CheckpointError(f"'{name}' in {source} is of {found[name].dtype}; {value.dtype} is expected.")


def build_filled(
    build: Callable[[], Built], tensors: Mapping[str, Tensor], source: str, *, pass_over: bool = False
) -> Built:
    """A module with the weights of a file, built only once they are known to fit it.

    A short config can ask for any number of layers of any width. So the module is built on the meta device first, where
    it takes no memory, and no further than the file has tensors for.

    Args:
        build: makes the module with random weights.
        tensors: by the module's own names.
        source: names the file or folder in the message.
        pass_over: whether the file may hold tensors that the module lacks (those of a head).

    Raises:
        CheckpointError: see :func:`check_tensors`.
    """

    def of_module(module: nn.Module) -> Mapping[str, Tensor]:
        return {name: tensors[name] for name in module.state_dict() if name in tensors} if pass_over else tensors

    with _no_more_parameters(2 * len(tensors) + 1000, source):
        # A family that cannot be built on the meta device is checked once it is filled.
        with contextlib.suppress(NotImplementedError), torch.device("meta"):
            empty = build()
            check_tensors(empty.state_dict(), of_module(empty), source)
        module = build()
    fill(module, of_module(module), source)
    return module


@contextlib.contextmanager
def _no_more_parameters(limit: int, source: str) -> Iterator[None]:
    """Within the block no more parameters are made, whatever a config says."""
    made = itertools.count(1)

    def count(*_: object) -> None:
        if next(made) > limit:
            raise CheckpointError(f"{source}: its config asks for many more layers than there are weights.")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str, *, assign: bool = False) -> None:
    """Put tensors into a module, all or none.

    Args:
        module: what is filled; on the meta device with ``assign``.
        tensors: by the module's own names.
        source: names the file or folder in the message.
        assign: take the tensors themselves in place of copies.

    Raises:
        CheckpointError: see :func:`check_tensors`.
    """
    check_tensors(module.state_dict(), tensors, source)
    module.load_state_dict(dict(tensors), assign=assign)


def weights_digest(*parts: nn.Module | None) -> str:
    """A hash of all weights of modules, those that are ``None`` passed over."""
    hashed = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            for name, value in sorted(part.state_dict().items()):
                hashed.update(name.encode())
                hashed.update(value.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
