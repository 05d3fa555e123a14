"""Several processes that train one network together: data-parallel training by ``accelerate launch``.

The first process runs the search. The others wait for its orders: train this configuration from this state up to that
epoch. Each of them computes its part of every batch, with batch norms over the whole of it, so that the result is that
of one process up to rounding.
"""

from __future__ import annotations

import atexit
import io
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vlbias.errors import ConfigError

__all__ = ["Order", "Team", "team"]

#: The others wait while the first evaluates, draws and writes.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Order:
    """What is to be trained: ``configuration`` of a seed, from an epoch with its state up to another."""

    configuration: Mapping[str, Any]
    seed: tuple[int, ...]
    epochs: tuple[int, int]
    state: bytes


class Team:
    """Processes that train together; this one alone where it was not started by ``accelerate launch``.

    Args:
        size: processes in all.
        device: "cpu", "cuda" or None, as in the settings of training.

    Attributes:
        rank: number of this process, 0 for the first.
        device: where this process computes; None where it is alone.
    """

    def __init__(self, size: int, device: str | None):
        self.size, self.rank, self.device = size, 0, None
        if size > 1:
            from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

            # Some backbones have weights that no loss reaches.
            handlers = [
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ]
            on_cpu = device == "cpu" or not torch.cuda.is_available()
            self._accelerator = Accelerator(mixed_precision="no", cpu=on_cpu, kwargs_handlers=handlers)
            self.rank, self.device = self._accelerator.process_index, self._accelerator.device

    @property
    def is_first(self) -> bool:
        """Whether this process runs the search."""
        return self.rank == 0

    def part(self, rows: np.ndarray) -> np.ndarray:
        """The rows of a batch that this process computes.

        Raises:
            ConfigError: there are fewer rows than processes.
        """
        if len(rows) < self.size:
            raise ConfigError(f"A batch of {len(rows)} images cannot be shared by {self.size} processes.")
        return np.array_split(rows, self.size)[self.rank]

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module, whose gradients will be the mean over processes."""
        return module if self.size == 1 else self._accelerator.prepare_model(module)

    def whole_batches(self) -> AbstractContextManager[Any]:
        """Within it batch norms see the whole batch."""
        return nullcontext() if self.size == 1 else _WholeBatches()

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        if self.size == 1:
            return values
        total: Tensor = self._accelerator.reduce(values.to(self.device), "sum")
        return total.to(values.device)

    def give(self, order: Order) -> None:
        """Send an order to the others, if there are any."""
        if self.size > 1:
            _send(order)

    def take(self) -> Order | None:
        """Wait for the next order; None when the first process has ended."""
        return _send(None)

    def lead(self) -> None:
        """Let the others go when this process ends.

        Raises:
            ConfigError: they follow another search of this process.
        """
        if self.size > 1 and self.is_first:
            if self._leads:
                raise ConfigError("One start of `accelerate launch` runs one search. Start it again for the next.")
            self._leads = True
            atexit.register(_send, None)

    _leads = False


@cache
def team(device: str | None = None) -> Team:
    """The processes that were started with this one."""
    return Team(int(os.environ.get("WORLD_SIZE", "1")), device)


def _send(order: Order | None) -> Order | None:
    """What the first process sends, in all of them."""
    from accelerate.utils import broadcast_object_list

    found: Order | None = broadcast_object_list([order])[0]
    return found


def packed(states: Mapping[str, Any]) -> bytes:
    """States of networks and optimisers as bytes."""
    buffer = io.BytesIO()
    torch.save(dict(states), buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What :func:`packed` took."""
    found: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return found


class _WholeBatches(TorchFunctionMode):
    """Batch norms in training take mean and variance over the batches of all processes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        values = dict(kwargs or {})
        if func is F.batch_norm and values.get("training"):
            return _batch_norm(*args, **values)
        return func(*args, **values)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    momentum: float,
    eps: float,
    **_: Any,
) -> Tensor:
    """``F.batch_norm`` in training, over all processes."""
    from torch.distributed.nn.functional import all_reduce

    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float()
    count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    torch.distributed.all_reduce(count)
    mean = all_reduce(wide.sum(axes)) / count
    centred = wide - mean.view(shape)
    variance = all_reduce((centred**2).sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    y = centred * torch.rsqrt(variance + eps).view(shape)
    y = y if weight is None else y * weight.view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)
