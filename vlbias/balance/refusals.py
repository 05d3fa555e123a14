"""What a finished chunk comes to once people refused some of its edits: others take their places.

A refused edit counts as a donor that was turned down, and the next donor of its place is tried. That happens for one
refusal after the other, in their order, and each is committed as a piece of its own: edits that nobody refused stay
the same to the byte, and so do those of an earlier review when a later one refuses more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlbias.balance.attempt import ChunkResult
from vlbias.balance.layout import placing
from vlbias.balance.plan import Plan
from vlbias.balance.review import Review
from vlbias.balance.rows import TableRows
from vlbias.balance.run_folder import RunFolder, donors_of
from vlbias.balance.verification import SCORES, Reason
from vlbias.errors import DatasetError, OutputError
from vlbias.files import sha256_json
from vlbias.settings import Settings

__all__ = ["REJECTED_COLUMNS", "AskedReview", "FinishedChunk", "FinishedChunks", "Refusal", "after_review", "locate"]

#: Columns of ``rejected.csv``.
REJECTED_COLUMNS = (
    *("slot", "split", "target", "donor", "from", "to", "path", "strength", "seed", "reason", "detail"),
    *SCORES,
)


@dataclass(frozen=True)
class Refusal(Settings):
    """One edit that people refused.

    Attributes:
        slot: its place in the plan.
        donor: of the edit; whoever takes its place has another one.
        reason: what they said.
    """

    slot: int
    donor: str
    reason: str


@dataclass(frozen=True)
class AskedReview(Settings):
    """What a review asks of a run, as its state keeps it; reviewers are counted, not named.

    Attributes:
        digest: of the review.
        rule: how it counts votes.
        reviewers, decisions: how many there are.
        refusals: edits that are refused, in their order.
    """

    digest: str = ""
    rule: Literal["any", "majority"] = "any"
    reviewers: int = 0
    decisions: int = 0
    refusals: Sequence[Refusal] = ()

    def summary(self, chunks: Iterable[FinishedChunk]) -> dict[str, Any]:
        """What the report says of it."""
        refused = replaced = 0
        for chunk in chunks if self.refusals else ():
            slots = [record["slot"] for record in chunk.rejected if record["reason"] == Reason.REFUSED]
            refused += len(slots)
            replaced += len(set(slots) & {record["slot"] for record in chunk.kept})
        return {
            "rule": self.rule,
            "reviewers": self.reviewers,
            "decisions": self.decisions,
            "refused": refused,
            "replaced": replaced,
            "not_there": len(self.refusals) - refused,
        }


def locate(review: Review, plan: Plan, layout: str) -> AskedReview:
    """What a review refuses, by places of the plan.

    Raises:
        DatasetError: a decision names no edit that this plan can have led to.
    """
    folder_of, chunks = placing(layout), plan.chunks()
    donors: dict[int, set[str]] = {}
    slots = {}
    named = {one.picture: re.search(r"/edit-(\d{6,18})(?:\.[a-z]+)?$", one.picture) for one in review.decisions}
    numbers = {picture: int(match[1]) for picture, match in named.items() if match}
    rows = plan.table[plan.table["slot"].isin(set(numbers.values()))]
    places = {int(row["slot"]): row for row in TableRows(rows)}
    for decision in review.decisions:
        place = places.get(numbers.get(decision.picture, -1))
        if place is not None and place["chunk"] not in donors:
            donors[place["chunk"]] = {donor for donor, _ in donors_of(chunks[place["chunk"]])}
        stem = re.sub(r"\.[a-z]+$", "", decision.picture)
        if place is None or stem != f"{folder_of(place['split'], place['target'])}/edit-{place['slot']:06d}":
            raise DatasetError(
                f"review: '{decision.picture}' is not an edit of this run. Pictures are named as in the column "
                "file_name of metadata.csv, where origin is edited."
            )
        drawn = place["donor"] == "" and re.fullmatch(r"sample-\d+", decision.donor)
        if decision.donor not in donors[place["chunk"]] and not drawn:
            raise DatasetError(
                f"review: '{decision.picture}' is not an edit of '{decision.donor}'. The donor of each is in the "
                "column source_id of metadata.csv."
            )
        slots[decision.picture] = int(place["slot"])
    refusals = [Refusal(slots[picture], donor, reason) for (picture, donor), reason in review.refused().items()]
    reviewers = {decision.reviewer for decision in review.decisions}
    return AskedReview(review.digest, review.rule, len(reviewers), len(review.decisions), refusals)


@dataclass(frozen=True)
class FinishedChunk:
    """What a chunk came to, people's refusals among it.

    Attributes:
        kept, rejected: records in the order of their slots.
        files: name of a picture => (piece of the state that holds it, its digest).
        unet_evaluations: single-image evaluations of the UNet.
    """

    kept: Sequence[Mapping[str, Any]]
    rejected: Sequence[Mapping[str, Any]]
    files: Mapping[str, tuple[int | str, str]]
    unet_evaluations: int

    @classmethod
    def read(cls, run: RunFolder, key: int | str) -> FinishedChunk:
        """As it was committed."""
        values = run.read_chunk(key)
        files = {name: (key, digest) for name, digest in values["files"].items()}
        return cls(values["kept"], values["rejected"], files, values["unet_evaluations"])

    @property
    def tried(self) -> list[Mapping[str, Any]]:
        """One record for each donor that was tried."""
        return [*self.kept, *(record for record in self.rejected if record["reason"] != Reason.NO_DONOR_LEFT)]

    def without(self, refusal: Refusal, other: FinishedChunk) -> FinishedChunk:
        """The chunk with what was made in place of a refused edit."""
        refused = next(record for record in self.kept if record["slot"] == refusal.slot)
        values = {name: refused.get(name) for name in REJECTED_COLUMNS}
        values |= {"reason": str(Reason.REFUSED), "detail": refusal.reason}
        kept = [record for record in self.kept if record is not refused]
        return replace(
            self,
            kept=sorted([*kept, *other.kept], key=_slot),
            rejected=sorted([*self.rejected, values, *other.rejected], key=_slot),
            files={**self.files, **other.files},
            unet_evaluations=self.unet_evaluations + other.unet_evaluations,
        )


class FinishedChunks(Iterable[FinishedChunk]):
    """The finished chunks of a plan, as they are after a review; each is read when its turn comes.

    Args:
        run: the run's folder.
        chunks: number => rows of the plan.
        refusals: see :func:`after_review`; what they ask for was made.
    """

    def __init__(self, run: RunFolder, chunks: Mapping[int, Sequence[Mapping[str, Any]]], refusals: Sequence[Refusal]):
        self._run, self._chunks, self._refusals = run, chunks, refusals

    def __iter__(self) -> Iterator[FinishedChunk]:
        for number, rows in self._chunks.items():
            chunk = after_review(self._run, number, rows, self._refusals, None)
            if chunk is None:
                raise OutputError(
                    f"{self._run.chunk_dir(number)} is not finished any more. Run the same command again."
                )
            yield chunk


def _slot(record: Mapping[str, Any]) -> int:
    return int(record["slot"])


def after_review(
    run: RunFolder,
    number: int,
    rows: Sequence[Mapping[str, Any]],
    refusals: Sequence[Refusal],
    make: Callable[[Sequence[Mapping[str, Any]], int], ChunkResult] | None,
) -> FinishedChunk | None:
    """A finished chunk with other edits in the places of refused ones.

    Args:
        run: the run's folder.
        number: of the chunk.
        rows: of the plan, those of the chunk.
        refusals: in their order; those of other chunks and of edits that are not there are passed over.
        make: (what was tried, slot) => the next edit of a place; ``None`` makes nothing.

    Returns:
        ``None`` where something is to be made first.
    """
    chunk, done = FinishedChunk.read(run, number), list[tuple[int, str]]()
    while True:
        donors = {record["slot"]: record["donor"] for record in chunk.kept}
        refusal = next((one for one in refusals if donors.get(one.slot) == one.donor), None)
        if refusal is None:
            return chunk
        done.append((refusal.slot, refusal.donor))
        key = f"{number:04d}-{sha256_json(done)[:16]}"
        if not run.has_chunk(key, rows):
            if make is None:
                return None
            run.commit_chunk(key, make(chunk.tried, refusal.slot))
        chunk = chunk.without(refusal, FinishedChunk.read(run, key))
