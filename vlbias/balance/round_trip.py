"""Originals that pass through the editor as edits do, and end where they began.

Where every picture of the balanced splits carries what editing leaves behind, it says nothing about the cell. An editor
that takes decoded pictures as they are (``method="decode"``) decodes the original's own codes. One that adds what an
edit changed (``"difference"``) would leave nothing behind at strength 0, so the face is walked to another group, as far
as an edit goes, and what comes out is walked back; what the two walks did not undo is what is left behind. It is added
to the original's own pixels, and the file is written again, both as for an edit.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from vlbias.balance.attempt import Attempt, ChunkResult, Job
from vlbias.balance.donors import open_donors
from vlbias.balance.originals import ROUND_TRIP, Remade
from vlbias.balance.pictures import write_edits
from vlbias.balance.plan import Plan
from vlbias.balance.poles import Poles
from vlbias.balance.readings import identity_of, margins_of, see_donors
from vlbias.balance.rows import TableRows, gathered
from vlbias.balance.scoring import Pair, Seen
from vlbias.balance.strength import aim_at, usual_walk
from vlbias.balance.verification import Checks, Reason
from vlbias.errors import ConfigError
from vlbias.labels import label_text
from vlbias.seeds import item_seed
from vlbias.types import Backend

__all__ = ["check_round_trip", "evaluations_of", "remade_of", "run_trips", "summary_of", "trips_of"]


def check_round_trip(round_trip: bool, *, source: str, originals: str = "copy") -> None:
    """Refuse settings that a round trip does not go with.

    Raises:
        ConfigError: says which.
    """
    if round_trip and source == "prior":
        raise ConfigError(
            "`round_trip` makes originals like edits of originals, and edits of faces from the prior are none. Use "
            "source='real'."
        )
    if round_trip and originals == "omit":
        raise ConfigError("`round_trip` writes originals anew, and originals='omit' leaves them out. Use 'copy'.")


def trips_of(table: pd.DataFrame, plan: Plan, poles: Sequence[Poles], chunk_size: int) -> list[TableRows]:
    """Chunks of originals: all labelled faces of the balanced splits whose group edits leave or come to.

    Args:
        table: the dataset's.
        plan: says between which groups edits go.
        poles: one for each protected attribute.
        chunk_size: faces in a chunk.

    Returns:
        For each face a row like those of ``Plan.table``: where it is walked, it goes ``from`` its group ``to`` another
        one and back.
    """
    rows = gathered(_trips(table, plan, poles), _TRIP_COLUMNS)
    return [TableRows(rows, start, start + chunk_size) for start in range(0, len(rows), chunk_size)]


_TRIP_COLUMNS = ("slot", "split", "target", "donor", "seed", "from", "to", "path")


def _trips(table: pd.DataFrame, plan: Plan, poles: Sequence[Poles]) -> Iterator[dict[str, Any]]:
    """The rows of :func:`trips_of`, one after another."""
    names = {values: name for name, values in plan.groups.items()}
    away, slots = _ways(plan), itertools.count()
    for item, labels in table.iterrows():
        target = label_text(labels[plan.settings["target"]])
        group = names.get(tuple(label_text(labels[pole.column]) or "" for pole in poles))
        if labels["split"] not in plan.settings["splits"] or target not in plan.counts_before or group not in away:
            continue
        seed = item_seed(plan.settings["seed"], ROUND_TRIP, item)
        others = away[group]
        row = {"slot": next(slots), "split": labels["split"], "target": target, "donor": str(item), "seed": seed}
        yield row | {"from": group, "to": others[seed % len(others)], "path": ""}


def _ways(plan: Plan) -> dict[str, list[str]]:
    """Group -> the groups that edits come from into it; where none do, those that they go to."""
    pairs = sorted(set(zip(plan.table["from"], plan.table["to"], strict=True)))
    coming: dict[str, list[str]] = {}
    going: dict[str, list[str]] = {}
    for old, new in pairs:
        coming.setdefault(str(new), []).append(str(old))
        going.setdefault(str(old), []).append(str(new))
    return going | coming


def run_trips(job: Job, rows: Sequence[Mapping[str, Any]]) -> ChunkResult:
    """Let some originals pass through the editor.

    Args:
        job: shared by all chunks.
        rows: of :func:`trips_of`.

    Returns:
        Those that came back as themselves are kept (file ``trip-000012``); the others stay as they are, with the reason
        among ``rejected``.
    """
    result, start = ChunkResult(), job.backend.evaluations
    attempts = [Attempt(row, str(row["donor"]), str(row["from"]), int(row["seed"])) for row in rows]
    sound = open_donors(job, attempts)
    if sound:
        _write(job, sound, _passed(job, sound), result)
    result.take([attempt for attempt in attempts if attempt.reason is not None])
    return result.finish(job.backend.evaluations - start)


def _passed(job: Job, attempts: list[Attempt]) -> torch.Tensor:
    """Faces that passed through the editor, (b, 3, s, s)."""
    backend = job.backend
    x_0, z_sem = torch.stack([a.picture for a in attempts]), torch.stack([a.z_sem for a in attempts])
    if not backend.adds_difference:
        return backend.decode(z_sem, backend.trace(x_0, z_sem).x_T)
    aim_at(job, attempts)
    for attempt in attempts:
        # a face that reads as the other group already would not move at all
        usual = usual_walk(job, attempt)
        attempt.strengths = {name: attempt.strengths[name] or strength for name, strength in usual.items()}
    away = _walked(job, attempts, x_0, z_sem, 1)
    return _walked(job, attempts, away, backend.encode(away), -1)


def _walked(job: Job, attempts: list[Attempt], x_0: torch.Tensor, z_sem: torch.Tensor, sign: int) -> torch.Tensor:
    names = sorted({name for attempt in attempts for name in attempt.strengths})
    strengths = {
        name: torch.tensor([sign * attempt.strengths.get(name, 0.0) for attempt in attempts], device=z_sem.device)
        for name in names
    }
    traced = job.backend.trace(x_0, z_sem)
    return job.backend.render(x_0, z_sem, job.backend.walk(z_sem, strengths), traced)


def _write(job: Job, attempts: list[Attempt], x_back: torch.Tensor, result: ChunkResult) -> None:
    """Keep the faces whose file still shows the same person of the same groups."""
    finite, seen = write_edits(job, attempts, x_back, made=ROUND_TRIP)
    identity = identity_of(job, attempts, seen).tolist()
    moved = _moved(job, attempts, see_donors(job, attempts), seen)
    for index, attempt in enumerate(attempts):
        reason = moved[index]
        if not finite[index]:
            reason = Reason.NOT_FINITE
        elif identity[index] < job.checks.identity:
            reason = Reason.IDENTITY_LOST
        if reason is None:
            result.keep(attempt, {"identity": round(identity[index], 4)}, stem="trip")
        attempt.reason = reason


def _moved(job: Job, attempts: list[Attempt], before: Seen, after: Seen) -> list[Reason | None]:
    """Why a face does not read as its own class and groups any more; ``None`` where it does."""
    own = [attempt.giver for attempt in attempts]
    pairs = list(zip(*(margins_of(job, attempts, own, seen) for seen in (before, after)), strict=True))
    found: list[Reason | None] = []
    for index in range(len(attempts)):
        lost = [place for place, (old, new) in enumerate(pairs) if _fell(job.checks, old.at(index), new.at(index))]
        reason = Reason.PROTECTED_NOT_REACHED if lost and lost[0] > 0 else Reason.TARGET_CHANGED
        found.append(reason if lost else None)
    return found


def _fell(checks: Checks, before: Pair, after: Pair) -> bool:
    """Whether a margin fell below what is asked of the target of an edit."""
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    return any(new < min(checks.target, old - checks.target_slack) for old, new in pairs)


def evaluations_of(num_trips: int, backend: Backend) -> int:
    """Network evaluations of so many round trips."""
    once = backend.evaluations_to_open + backend.evaluations_to_render
    return num_trips * once * (2 if backend.adds_difference else 1)


def remade_of(chunks: Mapping[int, Mapping[str, Any]]) -> dict[str, Remade]:
    """Item -> its new file, from finished chunks of :func:`run_trips` by their number."""
    return {
        record["donor"]: Remade(number, name, record["suffix"], chunk["files"][name])
        for number, chunk in chunks.items()
        for record in chunk["kept"]
        for name in [f"trip-{record['slot']:06d}{record['suffix']}"]
    }


def summary_of(chunks: Mapping[int, Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the report says of the round trip; ``None`` where there was none."""
    if not chunks:
        return None
    kept = sum(len(chunk["kept"]) for chunk in chunks.values())
    left = Counter(record["reason"] for chunk in chunks.values() for record in chunk["rejected"])
    return {
        "planned": kept + left.total(),
        "passed": kept,
        "left_as_they_were": dict(sorted(left.items())),
        "unet_evaluations": sum(chunk["unet_evaluations"] for chunk in chunks.values()),
    }
