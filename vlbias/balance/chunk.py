"""One chunk of a plan, from donors to verified edits; the unit of work that is committed whole.

What happens here depends on the chunk's rows alone: donors, reserves, seeds and batches are fixed by the plan, and
retries stay inside the chunk. So a chunk gives the same bytes whoever computes it, and whenever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlbias.balance.attempt import ChunkResult, Job
from vlbias.balance.donors import Donors, PriorDonors, RealDonors
from vlbias.balance.next_try import settle
from vlbias.balance.pictures import write_edits
from vlbias.balance.readings import read_edits
from vlbias.balance.strength import aim

__all__ = ["run_chunk"]


def run_chunk(
    job: Job, rows: Sequence[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]] = (), slot: int | None = None
) -> ChunkResult:
    """Find donors for the rows of one chunk, edit and verify them, and go on until each is kept or out of donors.

    Args:
        job: shared by all chunks.
        rows: the chunk's rows of ``Plan.table``.
        tried: records of what was tried before; none of these donors is taken again.
        slot: the only place that waits for an edit; ``None`` for all.
    """
    result = ChunkResult()
    if not rows:  # all were left out of the plan
        return result
    start = job.backend.evaluations
    donors: Donors = (PriorDonors if rows[0]["donor"] == "" else RealDonors)(job, rows, tried)
    waiting = [row for row in rows if slot in (None, row["slot"])]
    while waiting:
        attempts = donors.next_donors(waiting)
        trying = donors.prepare(aim(job, [attempt for attempt in attempts if attempt.is_open]))
        for tries_left in reversed(range(job.checks.retries + 1)):
            if trying:
                finite, seen = write_edits(job, trying, donors.edited(trying))
                faults = read_edits(job, trying, seen, finite)
                trying = settle(job, trying, faults, seen, donors if tries_left else None)
        waiting = result.take(attempts)
    return result.finish(job.backend.evaluations - start)
