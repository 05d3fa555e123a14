"""A pilot: a few edits of a plan, made and thrown away, tell what all of them will cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from vlbias.balance.calibration import calibrated_scorers
from vlbias.balance.chunk import run_chunk
from vlbias.balance.chunk_work import job_of
from vlbias.balance.cost import opened_before
from vlbias.balance.plan import Plan
from vlbias.balance.round_trip import evaluations_of, trips_of
from vlbias.balance.run import check_can_read
from vlbias.balance.task import Task
from vlbias.progress import track

__all__ = ["priced_by_pilot"]

# Edits that are made together; their costs are what the range is drawn from.
TOGETHER = 4
NUM_RESAMPLES = 2000
# Chance that the range holds what all edits come to, as far as the pilot's are like the others.
LEVEL = 0.9


def priced_by_pilot(task: Task, plan: Plan, num_edits: int, *, show_progress: bool) -> Plan:
    """The same plan, its price extrapolated from some of its edits.

    Args:
        task: what is to be balanced.
        plan: its plan.
        num_edits: how many are made, spread evenly over the plan; nothing is written.
        show_progress: a progress line on stderr.
    """
    assert plan.cost is not None  # every plan of a balancer has a price to begin with
    chosen = np.unique(np.linspace(0, len(plan) - 1, min(num_edits, len(plan))).round().astype(int))
    rows: list[dict[str, Any]] = plan.table.iloc[chosen].to_dict("records")  # type: ignore[assignment]
    check_can_read(task)
    scorers = calibrated_scorers(task)
    job = job_of(task, plan.groups, scorers)
    evaluations, seconds = [], []
    opens = task.backend.evaluations_to_open if plan.settings["source"] == "real" else 0
    with track(len(rows), "trying some edits", "edits", show=show_progress) as bar:
        # a group of every so many rows, so that each is spread over the plan
        groups = [rows[first :: -(-len(rows) // TOGETHER)] for first in range(-(-len(rows) // TOGETHER))]
        for group in groups:
            start = time.perf_counter()
            # drawn donors are sought for a chunk, which a group stands for
            result = run_chunk(job, [row | {"chunk": group[0]["chunk"]} for row in group])
            # as if each donor were opened: how many are not is known of the whole plan
            shared = len(group) - len({row["donor"] for row in group}) if opens else 0
            evaluations.append((result.unet_evaluations + shared * opens) / len(group))
            seconds.append((time.perf_counter() - start) / len(group))
            bar.update(len(group))
    drawn = np.random.default_rng(plan.settings["seed"]).choice(evaluations, (NUM_RESAMPLES, len(evaluations)))
    low, high = np.quantile(drawn.mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) * len(plan)
    besides = scorers.unet_evaluations + _of_trips(task, plan) - opens * opened_before(plan)
    cost = replace(
        plan.cost,
        unet_evaluations=round(float(np.mean(evaluations)) * len(plan)) + besides,
        minutes=round(float(np.mean(seconds)) * len(plan) / 60, 2),
        evaluations_range=(round(low) + besides, round(high) + besides),
        pilot=len(rows),
    )
    return replace(plan, cost=cost)


def _of_trips(task: Task, plan: Plan) -> int:
    """Evaluations of the originals that pass through the editor as well."""
    if not task.settings.round_trip or task.faces is None:
        return 0
    trips = trips_of(task.faces.table, plan, task.poles, task.settings.chunk_size)
    return evaluations_of(sum(map(len, trips)), task.backend)
