"""Which machines do a job, and how much of them a worker gets."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Literal

from vlbias.errors import ConfigError
from vlbias.processors import usable_memory, usable_processors
from vlbias.settings import Settings, number

__all__ = ["Engine", "checked_engine", "chosen_workers", "gpus_here", "threads_here"]

#: What a worker may need: 1 GB before its first piece, and room for the piece.
WORKER_BYTES = 1.5e9


@dataclass(frozen=True)
class Engine(Settings):
    """Who does the pieces of a job.

    Attributes:
        kind: ``local``, processes of this machine, or ``ray``, actors of a Ray cluster (extra ``ray``).
        workers: how many work at once. ``None`` for one a GPU; without a GPU, one on this machine (it uses all
            processors), and as many on a cluster as have room there.
        cores: processors of each worker; ``None`` shares them out.
        auto: choose ``workers``, where they are ``None`` and there is no GPU, by the processors and the memory of this
            machine and by how much there is to do. Understood by runs of a balance, audits and the demo.
        address: of a running cluster, such as ``auto`` or ``head:6379``; ``None`` starts one on this machine, which
            listens to this machine alone.

    Raises:
        ConfigError: a value out of range, or an ``address`` without ``kind="ray"``.
    """

    kind: Literal["local", "ray"] = "local"
    workers: int | None = number(None, 1, 100_000)
    cores: int | None = number(None, 1, 4096)
    auto: bool = False
    address: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.kind != "ray":
            raise ConfigError("`address` is that of a Ray cluster; it needs kind='ray' (--engine ray).")

    def is_this_process(self, num_gpus: int) -> bool:
        """Whether nobody but the calling process is to work.

        Args:
            num_gpus: GPUs of this machine that the job can use.
        """
        return self.kind == "local" and (self.workers or max(num_gpus, 1)) == 1

    def sized(self, num_pieces: int, num_gpus: int, *, least: int) -> Engine:
        """This engine with the workers that it chooses for a job; itself unless it is ``auto``.

        Args:
            num_pieces: of the job.
            num_gpus: GPUs of this machine that the job can use.
            least: pieces that pay for the start of a worker.
        """
        if not self.auto or self.workers is not None or self.kind != "local" or num_gpus:
            return self
        processors = min(threads_here(), usable_processors()) // (self.cores or 1)
        number = chosen_workers(num_pieces, processors=processors, memory_bytes=usable_memory(), least=least)
        return replace(self, workers=number)


def chosen_workers(num_pieces: int, *, processors: int, memory_bytes: float, least: int) -> int:
    """How many workers are worth their start: one a processor, as far as there are memory and enough pieces for each.

    Example:
        >>> chosen_workers(11, processors=2, memory_bytes=16e9, least=4)
        2
        >>> chosen_workers(7, processors=2, memory_bytes=16e9, least=4)  # the calling process
        1
    """
    return max(1, int(min(processors, memory_bytes / WORKER_BYTES, num_pieces / least)))


def checked_engine(value: object) -> Engine | None:
    """An engine that somebody gave, or none.

    Raises:
        ConfigError: it is something else.
    """
    if value is None or isinstance(value, Engine):
        return value
    raise ConfigError(f"`engine` must be a vlbias.engine.Engine, such as Engine(workers=4); got {value!r:.60}.")


def threads_here() -> int:
    """Threads that this process was given: what ``OMP_NUM_THREADS`` says, else all processors that it may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else usable_processors()


def gpus_here(device: str | None) -> int:
    """GPUs of this machine that a job can use.

    Args:
        device: what it works on; ``None`` for CUDA where there is one.
    """
    import torch

    return torch.cuda.device_count() if device is None or device.startswith("cuda") else 0
