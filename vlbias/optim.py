"""What all training loops share: learning rate, averaged weights, denormal numbers, and a state to go on from."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vlbias.checkpoints import read_foreign_pickle
from vlbias.errors import CheckpointError, ConfigError, TrainingError, VlbiasError
from vlbias.files import AnyPath, new_file

__all__ = [
    "Resumable",
    "TrainingState",
    "WeightAverage",
    "device_of",
    "fits_beside",
    "flush_denormals",
    "held_for",
    "in_bfloat16",
    "in_threads",
    "set_learning_rate",
]

_FORMAT = "vlbias-training-1"
#: Seconds between two saved states: what a kill can cost.
SAVE_INTERVAL_S = 60.0
#: The smallest double above zero; a processor that flushes denormal numbers takes it for zero.
_DENORMAL = 5e-324
#: What reading a damaged file or one of another network raises.
_DAMAGE = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

#: Pictures below this edge may come down to a single place before a convolution with a stride.
_LEAST_BFLOAT16_PX = 32

#: Share of a card's free memory that pictures may take from the network that learns from them.
_HELD_SHARE = 0.25

Module = TypeVar("Module", bound=nn.Module)


def device_of(name: str | torch.device | None) -> torch.device:
    """Where networks live.

    Args:
        name: "cpu", "cuda", "cuda:1", ...; ``None`` takes CUDA where there is one, else the processor.

    Raises:
        ConfigError: no such device, or it is not in this machine.
    """
    has_cuda = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_cuda else "cpu") if name is None else name)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"`device` must be 'cpu', 'cuda', 'cuda:1' or the like; got {name!r:.60}.") from error
    if device.type == "cuda" and not has_cuda:
        raise ConfigError(f"`device` is '{device}', but PyTorch finds no graphics card here. Use 'cpu'.")
    return device


def fits_beside(num_bytes: int, free_bytes: int) -> bool:
    """Whether pictures of so many bytes leave a network room enough on a card with so many bytes free."""
    return num_bytes <= _HELD_SHARE * free_bytes


def held_for(images: Tensor, device: torch.device | str) -> Tensor:
    """Pictures where a training on ``device`` takes batches from: on the card, if they take a quarter of it at most.

    Args:
        images: (n, c, h, w), as a rule uint8.
        device: "cpu", "cuda", ...
    """
    device = torch.device(device)
    is_held = device.type == "cuda" and fits_beside(images.nbytes, torch.cuda.mem_get_info(device)[0])
    return images.to(device) if is_held else images


def in_bfloat16(images: Tensor, wanted: bool) -> torch.autocast:
    """Within it a network computes in bfloat16, if that is wanted.

    On a processor pictures (b, c, h, w) below 32 px stay in float32: with a stride, from a map of one place, oneDNN
    leaves gradients of weights that meet nothing but the border as the memory happened to be, NaN included.
    """
    kind = images.device.type
    is_sound = kind != "cpu" or min(images.shape[-2:]) >= _LEAST_BFLOAT16_PX
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and is_sound)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, peak: float, share: float, *, warmup: float = 1.0, floor: float = 0.0
) -> None:
    """Set the rate of every parameter group: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, eq. 5).

    Args:
        optimizer: a group may hold ``"rate"``, a factor of its own.
        peak: highest learning rate.
        share: of the run that is done, 0..1.
        warmup: share of the warm-up that is done; 1 or more once it is over.
        floor: share of ``peak`` that is left at the end, 0..1.
    """
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, warmup) * cosine * group.get("rate", 1.0)


class WeightAverage(Generic[Module]):
    """Exponential moving average of a network's weights and buffers, quick to forget while it is young.

    Args:
        source: the network that learns; it must be on its device already.
        decay: in [0, 1); after n updates min(decay, n / (n + 9)) is used.

    Attributes:
        module: a network like ``source``, frozen and in evaluation mode, that holds the average.
    """

    def __init__(self, source: Module, decay: float):
        self.module: Module = copy.deepcopy(source).eval().requires_grad_(False)
        self.decay, self.num_updates = decay, 0
        self._source = source
        tensors = zip(self.module.state_dict().values(), source.state_dict().values(), strict=True)
        averaged: list[tuple[Tensor, Tensor]] = [pair for pair in tensors if pair[0].is_floating_point()]
        self._mine, self._theirs = [mine for mine, _ in averaged], [theirs for _, theirs in averaged]

    @torch.no_grad()
    def update(self) -> None:
        """Average <- decay average + (1 - decay) source, all tensors at once; whole numbers stay as they are."""
        self.num_updates += 1
        decay = min(self.decay, self.num_updates / (self.num_updates + 9))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"module": self.module.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.module.load_state_dict(state["module"])
        self.num_updates = int(state["num_updates"])


def is_flushing() -> bool:
    """Whether this thread takes denormal numbers for zero."""
    return _DENORMAL == 0.0


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Within the block the calling thread takes denormal numbers for zero; afterwards what was set before.

    Weights, moments and gradients decay into numbers below 1e-38, on which x86 processors are many times slower.
    """
    before = is_flushing()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def in_threads(number: int) -> Iterator[None]:
    """Within the block PyTorch works with so many threads; with others sums are added up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Resumable(Protocol):
    """A network, optimiser or average: what has a state."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Go on from what :meth:`state_dict` gave."""


class TrainingState:
    """The file that a killed training run goes on from.

    Args:
        path: the file; ``None`` keeps none, and then nothing here does anything.
        identity: what a run must share to go on from it, plain values (settings, seed, size of the data).
        parts: name => what has a state.
    """

    def __init__(self, path: AnyPath | None, identity: Mapping[str, object], parts: Mapping[str, Resumable]):
        self.path = None if path is None else Path(path)
        # through JSON, so that tuples and lists compare equal
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity)))
        self.parts = dict(parts)
        self._last_save = time.monotonic()

    def save(self, **counters: object) -> None:
        """Write the state, whole or not at all, with plain values such as the number of steps.

        Raises:
            OutputError: the place cannot be written.
        """
        if self.path is None:
            return
        states = {name: part.state_dict() for name, part in self.parts.items()}
        with new_file(self.path) as file:
            torch.save({"format": _FORMAT, "identity": self.identity, "counters": counters, "parts": states}, file)
        self._last_save = time.monotonic()

    def save_when_due(self, **counters: object) -> None:
        """:meth:`save` if the last one is a minute ago."""
        if time.monotonic() - self._last_save > SAVE_INTERVAL_S:
            self.save(**counters)

    def load(self, **kinds: type) -> dict[str, Any] | None:
        """Put every part into its saved state and return the counters; ``None`` if there is no file.

        Args:
            kinds: counters that there must be, and of which kind; ``float`` takes whole numbers too.

        Raises:
            CheckpointError: the file is damaged, or no state of training.
            TrainingError: it is the state of another run.
        """
        if self.path is None or not self.path.is_file():
            return None
        remedy = "Delete it to start anew, or name another file."
        try:
            state = _read(self.path)
            if not isinstance(state, dict) or state.get("format") != _FORMAT:
                raise CheckpointError(f"{self.path} is not the state of a training run. {remedy}")
            if changed := _differences(self.identity, state["identity"]):
                raise TrainingError(
                    f"{self.path} is the state of another run: {', '.join(changed)} differ. Use the same. {remedy}"
                )
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
            counters = dict(state["counters"])
            for name, kind in kinds.items():
                if not isinstance(counters[name], (int, float) if kind is float else kind):
                    raise ValueError(f"`{name}` is {counters[name]!r:.40}")
            return counters
        except VlbiasError:
            raise
        except _DAMAGE as error:
            text = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{self.path} is damaged ({text}). {remedy}") from error


def _read(path: Path) -> Any:
    try:
        return read_foreign_pickle(path)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def _differences(mine: object, theirs: object, name: str = "") -> list[str]:
    """Names (``settings.learning_rate``) of what is not the same in two tables of plain values."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        keys = sorted(mine.keys() | theirs.keys())
        inner = [_differences(mine.get(key), theirs.get(key), f"{name}.{key}".lstrip(".")) for key in keys]
        return [difference for found in inner for difference in found]
    return [] if mine == theirs else [name]
