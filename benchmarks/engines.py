"""What sharing a run costs: start of the workers, time between two chunks of one worker, and whether the bytes agree.

    python benchmarks/engines.py [--editor synthfaces-64] [--edits 256] [--chunk-size 32] [--workers 1 2 4]

A worker notes when it begins and ends a chunk. What lies between the end of one and the beginning of the next is the
engine's: the answer, the progress line, the next chunk's rows. The bar is 5 % of a chunk's own time. Storing the chunk
is work of every run and counts to the chunk. Exit status 1 where an engine is above it, or where a byte differs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from kill_and_shard import tree

import vlbias.balance.run as runs
from vlbias import Balancer, Editor
from vlbias.balance import Result
from vlbias.balance.chunk_work import Chunk, ChunkWork, Counts
from vlbias.demo import PROTECTED, TARGET, TIED, biased_faces
from vlbias.engine import Engine, run_pieces

BAR = 0.05


@dataclass(frozen=True)
class Timed:
    """A job whose worker says who it is, and when it began and ended a piece."""

    work: ChunkWork

    def open(self) -> Callable[[Chunk], tuple[Counts, int, float, float]]:
        do = self.work.open()

        def timed(chunk: Chunk) -> tuple[Counts, int, float, float]:
            start = time.time()
            counts = do(chunk)
            return counts, os.getpid(), start, time.time()

        return timed


class Notes:
    """When each worker was busy."""

    def __init__(self) -> None:
        self.began = 0.0
        self.times: dict[int, list[tuple[float, float]]] = {}

    def run_pieces(
        self, engine: Engine, work: ChunkWork, pieces: Sequence[Any], *, num_gpus: int = 0
    ) -> Iterator[tuple[int, Counts]]:
        """In the place of ``vlbias.engine.run_pieces``."""
        from engines import Timed as Sent  # what a worker can import; this file may be the main program

        self.began = time.time()
        for place, (counts, worker, start, end) in run_pieces(engine, Sent(work), pieces, num_gpus=num_gpus):
            self.times.setdefault(worker, []).append((start, end))
            yield place, counts

    def line(self) -> tuple[str, float]:
        """What people read, and the share of a chunk's time that is the engine's."""
        spans = [sorted(times) for times in self.times.values()]
        seconds = [end - start for times in spans for start, end in times]
        gaps = [later[0] - earlier[1] for times in spans for earlier, later in itertools.pairwise(times)]
        first = min(times[0][0] for times in spans) - self.began
        gap, chunk = float(np.median(gaps)) if gaps else float("nan"), float(np.median(seconds))
        return f"{first:8.1f} {chunk:10.2f} {1e3 * gap:12.1f} {100 * gap / chunk:9.2f}", gap / chunk


@contextmanager
def noted() -> Iterator[Notes]:
    notes = Notes()
    with mock.patch.object(runs, "run_pieces", notes.run_pieces):
        yield notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--quality", default=None, help="draft, standard or exact")
    parser.add_argument("--faces", type=int, default=400, help="the demo's, whose labels are tied")
    parser.add_argument("--edits", type=int, default=256)
    parser.add_argument("--chunk-size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--kinds", nargs="*", default=["local", "ray"])
    arguments = parser.parse_args()
    faces, editor = biased_faces(arguments.faces, seed=0, tied=TIED), Editor.from_pretrained(arguments.editor)
    options: dict[str, Any] = {} if arguments.quality is None else {"quality": arguments.quality}
    balancer = Balancer(editor, target=TARGET, protected=PROTECTED, chunk_size=arguments.chunk_size, **options)
    plan = balancer.plan(faces, limit=arguments.edits)
    base = Path(tempfile.mkdtemp(prefix="engines-"))

    def balance(name: str, engine: Engine) -> Result:
        return balancer.run(faces, plan, base / name, engine=engine, originals="omit", show_progress=False)

    start = time.perf_counter()
    whole = balance("whole", Engine(workers=1))
    kept = whole.report["edits"]["kept"]
    print(f"one process: {plan.num_chunks} chunks in {time.perf_counter() - start:.1f} s, {kept} edits kept")
    expected, good = tree(base / "whole"), True
    print(f"{'engine':8}{'workers':>8} {'start s':>8} {'chunk s':>10} {'between, ms':>12} {'% of it':>9}  bytes")
    for kind in arguments.kinds:
        if kind == "ray" and find_spec("ray") is None:
            print("ray is not installed: pip install 'vlbias[ray]'")
            continue
        for workers in arguments.workers:
            # a single worker of this machine would be this process: it is asked for as one process of its own
            with noted() as notes, mock.patch.object(Engine, "is_this_process", return_value=False):
                balance(f"{kind}-{workers}", Engine(kind=kind, workers=workers, cores=1))
            text, share = notes.line()
            same = tree(base / f"{kind}-{workers}") == expected
            good &= same and not share > BAR
            print(f"{kind:8}{workers:8} {text}  {'the same' if same else 'DIFFERENT'}", flush=True)
    shutil.rmtree(base)
    sys.exit(not good)


if __name__ == "__main__":
    main()
