"""Everything that the scorers read of the faces of a chunk: the donors first, then each edit beside its donor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from vlbias.balance.attempt import Attempt, Job
from vlbias.balance.scoring import Margins, Pair, Seen
from vlbias.balance.verification import Reason, Scores, enough, verdict

__all__ = [
    "identity_of",
    "margins_of",
    "read_classes",
    "read_donors",
    "read_drawn",
    "read_edits",
    "read_reached",
    "see_donors",
]


def see_donors(job: Job, attempts: Sequence[Attempt]) -> Seen:
    """The donors as scorers see them: pictures of the dataset, files that were decoded, or codes alone."""
    z_sem = torch.stack([attempt.z_sem for attempt in attempts])
    if attempts[0].x_0 is None:
        return Seen(job.backend, z_sem)

    def look(size: int) -> torch.Tensor:
        return torch.cat([attempt.look(size) for attempt in attempts if attempt.look is not None])

    return Seen(job.backend, z_sem, torch.stack([attempt.picture for attempt in attempts]), look)


def read_classes(job: Job, attempts: Sequence[Attempt]) -> None:
    """Note how far inside their classes the donors stand."""
    seen = see_donors(job, attempts)
    margins = job.target.margins(seen, [attempt.target for attempt in attempts])
    for index, attempt in enumerate(attempts):
        attempt.target_before = margins.at(index)


def read_drawn(job: Job, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Read drawn donors that were decoded; those that are in the file what their codes said, others are turned down."""
    z_read = job.backend.encode(torch.stack([attempt.picture for attempt in attempts]))
    seen = replace(see_donors(job, attempts), z_sem=z_read)
    target, *others = margins_of(job, attempts, [attempt.giver for attempt in attempts], seen)
    for index, attempt in enumerate(attempts):
        attempt.target_before, attempt.z_read = target.at(index), z_read[index]
        pairs = [attempt.target_before, *(margins.at(index) for margins in others)]
        if not min(value for pair in pairs for value in pair if value is not None) > job.checks.sampled:
            attempt.reason = Reason.DONOR_UNCLEAR
    return [attempt for attempt in attempts if attempt.is_open]


def read_donors(job: Job, attempts: Sequence[Attempt]) -> None:
    """Note where the donors stand in the groups that they are edited to, and what is enough there."""
    seen = see_donors(job, attempts)
    before = _of_groups(job, [attempt.wanted for attempt in attempts], seen)
    for index, attempt in enumerate(attempts):
        ways = zip(job.groups[attempt.giver], job.groups[attempt.wanted], strict=True)
        attempt.moves = [old != new for old, new in ways]
        attempt.margins_before = _arrived(before, attempt.moves, index)
        scorers = [scorer for scorer, moves in zip(job.protected, attempt.moves, strict=True) if moves]
        attempt.floors = (
            max(enough(scorer.latent, job.checks) for scorer in scorers),
            max(enough(scorer.image, job.checks) for scorer in scorers),
        )


def read_reached(job: Job, attempts: Sequence[Attempt]) -> list[float | None]:
    """How many times the change of rendered edits would have to be so that they stand at their goals.

    A picture shows somewhat less than the code that was walked; ``None`` where that cannot be told.
    """
    rendered = torch.stack([attempt.rendered for attempt in attempts if attempt.rendered is not None])
    seen = Seen(job.backend, job.backend.encode(rendered))
    reached = _of_groups(job, [attempt.wanted for attempt in attempts], seen)
    factors: list[float | None] = []
    for index, attempt in enumerate(attempts):
        before, (now, _) = attempt.margins_before[0], _arrived(reached, attempt.moves, index)
        if attempt.goal is None or before is None or now is None or now <= before:
            factors.append(None)
        else:
            factors.append((attempt.goal - before) / (now - before))
    return factors


def read_edits(job: Job, attempts: Sequence[Attempt], seen: Seen, finite: Sequence[bool]) -> list[Reason | None]:
    """Note what every edit reads as: the picture, and the code that the encoder finds in it.

    Returns:
        What is wrong with each; ``None`` where it passes.
    """
    faults: list[Reason | None] = []
    target, *reached = margins_of(job, attempts, [attempt.wanted for attempt in attempts], seen)
    identity = identity_of(job, attempts, seen)
    for index, attempt in enumerate(attempts):
        stayed = [margins.at(index) for margins, moves in zip(reached, attempt.moves, strict=True) if not moves]
        others = _least([value for pair in stayed for value in pair])
        arrived = _arrived(reached, attempt.moves, index)
        attempt.scores = Scores(*arrived, *target.at(index), others, float(identity[index]))
        fault = verdict(attempt.scores, attempt.target_before, job.checks, attempt.floors)
        faults.append(fault if finite[index] else Reason.NOT_FINITE)
    return faults


def margins_of(job: Job, attempts: Sequence[Attempt], groups: Sequence[str], seen: Seen) -> list[Margins]:
    """Margins of faces in their classes, then in each protected attribute's value of their ``groups``."""
    return [job.target.margins(seen, [attempt.target for attempt in attempts]), *_of_groups(job, groups, seen)]


def _of_groups(job: Job, groups: Sequence[str], seen: Seen) -> list[Margins]:
    wanted = zip(*(job.groups[group] for group in groups), strict=True)
    return [scorer.margins(seen, values) for scorer, values in zip(job.protected, wanted, strict=True)]


def _arrived(margins: Sequence[Margins], moved: Sequence[bool], index: int) -> Pair:
    """Least (latent, image) margin of one face in the attributes that were to move."""
    pairs = [margin.at(index) for margin, moves in zip(margins, moved, strict=True) if moves]
    return _least([latent for latent, _ in pairs]), _least([image for _, image in pairs])


def _least(margins: Sequence[float | None]) -> float | None:
    """The least margin that was read; NaN where there is one, so that it is not lost among the others."""
    read = [margin for margin in margins if margin is not None]
    return min(read, key=lambda margin: (not math.isnan(margin), margin), default=None)


def identity_of(job: Job, attempts: Sequence[Attempt], seen: Seen) -> torch.Tensor:
    """Similarity (b,) of each donor and its edit, of which ``seen`` has codes and pictures."""
    assert seen.z_sem is not None and seen.x_0 is not None  # an edit that was written can be read
    donors = see_donors(job, attempts)
    if donors.x_0 is None:
        # the donor was not decoded yet: whether the walk itself leaves the person is seen in the codes
        z_edit = torch.stack([attempt.z_edit for attempt in attempts])
        return job.identity(torch.stack([attempt.z_sem for attempt in attempts]), seen.x_0, z_edit, seen.x_0)
    # a decoded donor is compared through the encoder, as its edit is
    z_donor = torch.stack([a.z_sem if a.z_read is None else a.z_read for a in attempts])
    size = getattr(job.identity, "image_size", None)
    if size is not None and donors.look is not None and seen.look is not None:
        return job.identity(z_donor, donors.look(size), seen.z_sem, seen.look(size))
    return job.identity(z_donor, donors.x_0, seen.z_sem, seen.x_0)
