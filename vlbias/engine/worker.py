"""A worker: opens a job once, then does one piece after another, and answers in plain values.

What crosses to a worker are objects of the program that started it, over a pipe that nobody else holds, or over the
cluster's own network. Nothing is unpickled from a file. What comes back are plain values; an error comes back as its
class and its sentence.
"""

from __future__ import annotations

import builtins
import importlib
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from vlbias import errors
from vlbias.errors import ConfigError, VlbiasError, WorkerError
from vlbias.processors import keep_freed_memory

__all__ = ["Answer", "Work", "Worker", "packed"]

#: What a worker makes of a piece.
Do = Callable[[Any], Any]


class Work(Protocol):
    """A job that can be sent to workers."""

    def open(self) -> Do:
        """Load what all pieces share; what is returned does one piece, and gives plain values.

        A piece may be done twice, where a worker was lost between doing and answering.
        """
        ...


def packed(work: object) -> bytes:
    """A job, or a piece of it, as it is sent.

    Raises:
        ConfigError: a part of it cannot be sent, such as a function without a name.
    """
    try:
        return pickle.dumps(work)
    except Exception as error:
        raise ConfigError(
            f"This job cannot be handed to other processes ({error}). Give scorers as files, and functions and editors "
            "that a module defines, or work in this process: workers=1."
        ) from error


@dataclass(frozen=True)
class Answer:
    """What came of a piece.

    Attributes:
        value: what was made of it.
        error: class and text of what went wrong, and where; ``None`` where nothing did.
    """

    value: Any = None
    error: tuple[str, str, str] | None = None

    @classmethod
    def of(cls, error: BaseException) -> Answer:
        """The answer of a worker that met an error."""
        return cls(error=(type(error).__name__, str(error), "".join(traceback.format_exception(error))))

    def result(self) -> Any:
        """The value.

        Raises:
            Exception: the worker's error again: the library's own of the same class; where it is nobody's, a
                WorkerError.
        """
        if self.error is None:
            return self.value
        name, text, place = self.error
        kind = getattr(errors, name, None) or getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, VlbiasError | OSError | MemoryError | RuntimeError):
            error = kind.__new__(kind)
            error.args = (text,)
        else:
            error = WorkerError(f"A worker failed: {name}: {text}")
        error.add_note(f"In a worker:\n{place}")
        raise error


class Worker:
    """Does the pieces of a job.

    Args:
        environment: variables that must stand before the job's libraries are loaded.
        paths: of modules that the job is made of.
    """

    def __init__(self, environment: Mapping[str, str], paths: Sequence[str] = ()):
        os.environ.update(environment)
        keep_freed_memory()
        sys.path += [path for path in paths if path not in sys.path]
        self._do: Do | None = None

    def run(self, work: bytes, piece: bytes) -> Answer:
        """Do one piece of a job, both of :func:`packed`; the first call opens the job."""
        try:
            if self._do is None:
                self._do = pickle.loads(work).open()  # made by the program that started this worker
            return Answer(self._do(pickle.loads(piece)))
        except Exception as error:
            return Answer.of(error)


def serve(descriptor: int, modules: Sequence[str] = ()) -> None:
    """Do what comes through a pipe until its other end is closed.

    Args:
        descriptor: of the pipe; through it come jobs, and the number and the rest of each of their pieces.
        modules: that are loaded before the first job comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this worker ends it
    with Connection(descriptor) as pipe:
        try:
            worker, work = Worker({}), b""
            for module in modules:
                importlib.import_module(module)
            while True:
                job, number, piece = pipe.recv()  # whatever is wrong with a piece is found, and told, by `run`
                if job is not None:
                    worker, work = Worker({}), job
                pipe.send((number, worker.run(work, piece)))
        except (EOFError, OSError):
            return  # nobody waits for an answer any more
