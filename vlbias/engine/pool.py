"""Pieces to workers, answers back."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from vlbias.engine.cluster import run_on_ray
from vlbias.engine.local import run_local
from vlbias.engine.settings import Engine
from vlbias.engine.worker import Work, packed

__all__ = ["run_pieces"]


def run_pieces(engine: Engine, work: Work, pieces: Sequence[Any], *, num_gpus: int = 0) -> Generator[tuple[int, Any]]:
    """Do the pieces of a job.

    A worker that is killed loses the piece it is at; another one does it again.

    Args:
        engine: who does them.
        work: what they share.
        pieces: plain values, what ``work.open()`` takes.
        num_gpus: GPUs of this machine that the job can use.

    Yields:
        The place of a piece and what was made of it, in the order in which they are done.

    Raises:
        ConfigError: the job cannot be sent, or there is no such cluster.
        WorkerError: a piece cost several workers.
        VlbiasError: what a worker met, in its own words.
    """
    job = packed(work)
    answers = run_on_ray(engine, job, pieces) if engine.kind == "ray" else run_local(engine, job, pieces, num_gpus)
    with closing(answers):  # an error ends the other workers too
        for number, answer in answers:
            yield number, answer.result()
