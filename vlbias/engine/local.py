"""Workers that are processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, Self

from vlbias.engine.settings import Engine, threads_here
from vlbias.engine.worker import Answer, packed
from vlbias.errors import WorkerError

__all__ = ["MOST_LOSSES", "LocalWorkers", "lost"]

#: A piece that cost so many workers is given up: they will have died of it.
MOST_LOSSES = 3


def lost(number: int) -> WorkerError:
    """The error of a piece whose workers died one after another."""
    return WorkerError(
        f"{MOST_LOSSES} workers died while they did piece {number}, mostly for lack of memory. What is finished is "
        "kept. Give fewer workers or smaller chunks, and run the same command again."
    )


class _Process:
    """A worker: a fresh interpreter, with no thread, lock or GPU of this one.

    Args:
        index: which of the workers it is.
        environment: what it finds.
        modules: that it loads at once.
    """

    def __init__(self, index: int, environment: dict[str, str], modules: Sequence[str] = ()):
        self.index, self._work = index, b""
        self.pipe, there = Pipe()
        code = f"from vlbias.engine.worker import serve; serve({there.fileno()}, {tuple(modules)!r})"
        words = [sys.executable, "-c", code]
        self.process = subprocess.Popen(words, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL, env=environment)
        there.close()

    def say(self, work: bytes, number: int, piece: Any) -> None:
        """Send a piece, and its job before the first one; that it is dead already is noticed by who listens."""
        job, self._work = None if work is self._work else work, work
        with suppress(OSError):
            self.pipe.send((job, number, packed(piece)))

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


class LocalWorkers:
    """Processes of this machine, ended with the block; one job after another is done by the same ones.

    Args:
        engine: how many there are.
        num_gpus: GPUs that the jobs can use; workers take turns with them.
        modules: that jobs will need; with them, workers start at once and load them.
    """

    def __init__(self, engine: Engine, num_gpus: int, modules: Sequence[str] = ()):
        self.engine = engine
        num_workers = engine.workers or max(num_gpus, 1)
        cores = engine.cores or max(1, threads_here() // num_workers)
        self._environments = [_environment(index, cores, num_gpus) for index in range(num_workers)]
        self._idle: dict[int, _Process] = {}
        if modules:
            self._idle = {index: _Process(index, own, modules) for index, own in enumerate(self._environments)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._idle:
            self._idle.popitem()[1].end()

    def run(self, work: bytes, pieces: Sequence[Any]) -> Generator[tuple[int, Answer]]:
        """Do the pieces of a job.

        Args:
            work: of :func:`vlbias.engine.worker.packed`.
            pieces: what each is told.

        Yields:
            The place of a piece and its answer, in the order in which they are done.

        Raises:
            WorkerError: a piece cost several workers.
        """
        waiting, losses = deque(range(len(pieces))), Counter[int]()
        busy: dict[Connection, tuple[_Process, int]] = {}

        def give(worker: _Process) -> None:
            if waiting:
                number = waiting.popleft()
                worker.say(work, number, pieces[number])
                busy[worker.pipe] = worker, number
            else:
                self._idle[worker.index] = worker

        try:
            for index in range(min(len(self._environments), len(pieces))):
                give(self._worker(index))
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
                        worker = self._worker(worker.index)
                    give(worker)
                    if answer is not None:
                        yield answer
        finally:
            for worker, _ in busy.values():
                worker.end()

    def _worker(self, index: int) -> _Process:
        return self._idle.pop(index, None) or _Process(index, self._environments[index])


def _environment(index: int, cores: int, num_gpus: int) -> dict[str, str]:
    """What a worker finds: its share of the processors, its GPU, and the modules that this process can import."""
    own = {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    own["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if num_gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [str(number) for number in range(num_gpus)] if seen is None else seen.split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[index % len(names)]
    return os.environ | own
