"""Workers that are processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from vlbias.engine.settings import Engine, threads_here
from vlbias.engine.worker import Answer, packed
from vlbias.errors import WorkerError

__all__ = ["MOST_LOSSES", "lost", "run_local"]

#: A piece that cost so many workers is given up: they will have died of it.
MOST_LOSSES = 3


def lost(number: int) -> WorkerError:
    """The error of a piece whose workers died one after another."""
    return WorkerError(
        f"{MOST_LOSSES} workers died while they did piece {number}, mostly for lack of memory. What is finished is "
        "kept. Give fewer workers or smaller chunks, and run the same command again."
    )


@dataclass
class _Process:
    """A worker, the pipe to it, and which worker it is."""

    index: int
    pipe: Connection
    process: subprocess.Popen[bytes]

    @classmethod
    def start(cls, index: int, work: bytes, environment: dict[str, str]) -> _Process:
        """A fresh interpreter: no thread, lock or GPU of this one goes with it."""
        here, there = Pipe()
        words = [sys.executable, "-c", f"from vlbias.engine.worker import serve; serve({there.fileno()})"]
        process = subprocess.Popen(words, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env=environment)
        there.close()
        worker = cls(index, here, process)
        worker.say_bytes(work)
        return worker

    def say_bytes(self, data: bytes) -> None:
        """Send the job; a worker that is dead already is noticed when it is listened to."""
        with suppress(OSError):
            self.pipe.send_bytes(data)

    def say(self, number: int, piece: Any) -> None:
        """Send a piece."""
        with suppress(OSError):
            self.pipe.send((number, packed(piece)))

    def hear(self) -> tuple[int, Answer] | None:
        """The next answer; ``None`` of a worker that died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.pipe.close()
        self.process.kill()
        self.process.wait()


def run_local(engine: Engine, work: bytes, pieces: Sequence[Any], num_gpus: int) -> Generator[tuple[int, Answer]]:
    """Do pieces in processes of this machine.

    Args:
        engine: how many there are.
        work: of :func:`vlbias.engine.worker.packed`.
        pieces: what each is told.
        num_gpus: GPUs that the job can use; workers take turns with them.

    Yields:
        The place of a piece and its answer, in the order in which they are done.

    Raises:
        WorkerError: a piece cost several workers.
    """
    num_workers = engine.workers or max(num_gpus, 1)
    cores = engine.cores or max(1, threads_here() // num_workers)
    environments = [_environment(index, cores, num_gpus) for index in range(min(num_workers, len(pieces)))]
    waiting, losses = deque(range(len(pieces))), Counter[int]()
    busy: dict[Connection, tuple[_Process, int]] = {}

    def give(worker: _Process) -> None:
        if waiting:
            number = waiting.popleft()
            worker.say(number, pieces[number])
            busy[worker.pipe] = worker, number
        else:
            worker.end()

    try:
        for index, environment in enumerate(environments):
            give(_Process.start(index, work, environment))
        while busy:
            ready = set(wait(list(busy)))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                worker, number = busy.pop(pipe)
                answer = worker.hear()
                if answer is None:
                    worker.end()
                    losses[number] += 1
                    if losses[number] >= MOST_LOSSES:
                        raise lost(number)
                    waiting.appendleft(number)
                    worker = _Process.start(worker.index, work, environments[worker.index])
                give(worker)
                if answer is not None:
                    yield answer
    finally:
        for worker, _ in busy.values():
            worker.end()


def _environment(index: int, cores: int, num_gpus: int) -> dict[str, str]:
    """What a worker finds: its share of the processors, its GPU, and the modules that this process can import."""
    own = {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    own["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if num_gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [str(number) for number in range(num_gpus)] if seen is None else seen.split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[index % len(names)]
    return os.environ | own
