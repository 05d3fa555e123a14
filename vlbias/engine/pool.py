"""Pieces to workers, answers back."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from typing import Any

from vlbias.engine.cluster import run_on_ray
from vlbias.engine.local import LocalWorkers
from vlbias.engine.settings import Engine
from vlbias.engine.worker import Answer, Work, packed

__all__ = ["run_pieces", "standing_workers"]

#: Workers that stay until their block ends.
_STANDING: ContextVar[LocalWorkers | None] = ContextVar("_STANDING", default=None)


@contextmanager
def standing_workers(engine: Engine, modules: Sequence[str], *, num_gpus: int = 0) -> Iterator[None]:
    """Within the block, all jobs of an engine are done by the same processes of this machine, which start at once.

    Args:
        engine: whose jobs; of one that is the calling process, or a cluster, nothing is started.
        modules: that the jobs need.
        num_gpus: GPUs of this machine that the jobs can use.
    """
    if engine.kind != "local" or engine.is_this_process(num_gpus):
        yield
        return
    with LocalWorkers(engine, num_gpus, modules) as workers:
        token = _STANDING.set(workers)
        try:
            yield
        finally:
            _STANDING.reset(token)


def run_pieces(
    engine: Engine, work: Work, pieces: Sequence[Any] | None, *, num_gpus: int = 0
) -> Generator[tuple[int, Any]]:
    """Do the pieces of a job.

    A worker that is killed loses the piece it is at; another one does it again.

    Args:
        engine: who does them.
        work: what they share.
        pieces: plain values, what ``work.open()`` takes; ``None`` for one for each worker, its number.
        num_gpus: GPUs of this machine that the job can use.

    Yields:
        The place of a piece and what was made of it, in the order in which they are done.

    Raises:
        ConfigError: the job cannot be sent, or there is no such cluster.
        WorkerError: a piece cost several workers.
        VlbiasError: what a worker met, in its own words.
    """
    job = packed(work)
    answers = run_on_ray(engine, job, pieces) if engine.kind == "ray" else _run_here(engine, job, pieces, num_gpus)
    with closing(answers):  # an error ends the other workers too
        for number, answer in answers:
            yield number, answer.result()


def _run_here(
    engine: Engine, work: bytes, pieces: Sequence[Any] | None, num_gpus: int
) -> Generator[tuple[int, Answer]]:
    """By standing workers of the engine, or by some that end with the job."""
    if pieces is None:
        pieces = range(engine.workers or max(num_gpus, 1))
    standing = _STANDING.get()
    if standing is not None and standing.engine == engine:
        yield from standing.run(work, pieces)
        return
    with LocalWorkers(engine, num_gpus) as workers:
        yield from workers.run(work, pieces)
