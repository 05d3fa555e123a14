"""One chunk of a plan, from donors to verified edits; the unit of work that is committed whole.

What happens here depends on the chunk's rows alone: donors, reserves, seeds and batches are fixed by the plan, and
retries stay inside the chunk. So a chunk gives the same bytes whoever computes it, and whenever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlbias.balance.attempt import Attempt, ChunkResult, Job, stack
from vlbias.balance.donors import Donors, PriorDonors, RealDonors
from vlbias.balance.pictures import see_donors, write_edits
from vlbias.balance.plan import item_seed
from vlbias.balance.scoring import Margins, Seen
from vlbias.balance.strength import sequential_strengths
from vlbias.balance.verification import Reason, Scores, enough, verdict

__all__ = ["aim_at", "identity_of", "run_chunk"]

# A walk that must go further goes so much further where nothing says how far, and never further than FURTHEST; one that
# went too far comes so much back.
LONGER, FURTHEST, SHORTER = 1.3, 2.0, 0.8
# The change of a picture may be made smaller or larger by such factors before the face is walked again.
GAINS = (0.6, 1.6)
# A longer walk aims so far beyond the margin that is asked for: readings do not grow quite in step with the walk.
BEYOND = 0.2
# Factors closer than this have nothing left between them.
NARROWEST = 1.07


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
    start = job.backend.evaluations
    donors: Donors = (PriorDonors if rows[0]["donor"] == "" else RealDonors)(job, rows, result, tried)
    waiting = [row for row in rows if slot in (None, row["slot"])]
    while waiting:
        attempts = []
        for row in waiting:
            attempt = donors.next_donor(row)
            if attempt is None:
                result.reject(Attempt(row, "", str(row["from"]), int(row["seed"])), Reason.NO_DONOR_LEFT)
            else:
                attempts.append(attempt)
        filled = _edit(job, donors.load(attempts), donors, result)
        waiting = [attempt.row for attempt in attempts if attempt.slot not in filled]
    return result.finish(job.backend.evaluations - start)


def _edit(job: Job, attempts: list[Attempt], donors: Donors, result: ChunkResult) -> set[int]:
    """Carry donors through aiming, decoding and verifying; the slots that were filled."""
    attempts = _aim(job, attempts, result) if attempts else []
    attempts = donors.prepare(attempts) if attempts else []
    if attempts:
        _read_donors(job, attempts)
    filled: set[int] = set()
    for retry in range(job.checks.retries + 1):
        if not attempts:
            break
        _render(job, attempts, donors)
        written, seen = write_edits(job, attempts, torch.stack([_amplified(a) for a in attempts]))
        assert seen.z_sem is not None  # an edit that was written can be read
        scores = _scores(job, attempts, seen)
        corrections = _corrections(job, attempts, seen.z_sem) if retry < job.checks.retries else None
        again = []
        for index, attempt in enumerate(attempts):
            score = scores[index]
            reason: Reason | None = Reason.NOT_FINITE
            if written.finite[index]:
                reason = verdict(score, attempt.target_before, job.checks, attempt.floors)
            can_go_on = retry < job.checks.retries and reason is not None and donors.may_walk_again(reason)
            if reason is None:
                result.keep(attempt, written.files[index], score.rounded())
                filled.add(attempt.slot)
            elif can_go_on and _adjust(job, attempt, reason, score, corrections is not None):
                if attempt.rendered is None and corrections is not None:
                    change = corrections[index]
                    attempt.correction = change if attempt.correction is None else attempt.correction + change
                again.append(attempt)
            else:
                result.reject(attempt, reason, scores=score)
        attempts = again
    return filled


# -- aiming: how far each face walks, found in the codes --------------------------------------------------------------


def _aim(job: Job, attempts: list[Attempt], result: ChunkResult) -> list[Attempt]:
    """Find each face's strengths in the latent space; turn down the faces no walk carries there.

    Where the target does not survive the walk, a nearer goal may do.
    """
    lost: dict[int, Reason] = {}
    waiting = list(attempts)
    for far in (1.0, 0.5, 0.0):
        if not waiting:
            break
        for attempt, reason in zip(waiting, aim_at(job, waiting, far), strict=True):
            lost.pop(attempt.slot, None)
            if reason is not None:
                lost[attempt.slot] = reason
        waiting = [attempt for attempt in waiting if lost.get(attempt.slot) is Reason.TARGET_CHANGED]
    for attempt in attempts:
        if attempt.slot in lost:
            result.reject(attempt, lost[attempt.slot], detail="in latent space; nothing was decoded")
    return [attempt for attempt in attempts if attempt.slot not in lost]


def aim_at(job: Job, attempts: list[Attempt], far: float = 1.0) -> list[Reason | None]:
    """Set the strengths that carry each face to its goal; ``None`` where they do, else why they do not.

    Args:
        job, attempts: whose.
        far: 1 for the goal itself, 0 for the nearest margin that is enough, or a number between the two.
    """
    if job.checks.random_strength:
        return _draw_strengths(job, attempts)
    z_sem = stack(attempts, "z_sem")
    plans = [job.usual_walk(attempt) for attempt in attempts]
    names = [pole.name for pole in job.poles if any(pole.name in plan for plan in plans)]
    starts = [(name, torch.tensor([plan.get(name, 0.0) for plan in plans], dtype=torch.float64)) for name in names]
    scorers = {pole.name: scorer for pole, scorer in zip(job.poles, job.protected, strict=True)}
    goals = {pole.name: _goals(job, attempts, place, far) for place, pole in enumerate(job.poles)}
    wanted = {
        pole.name: [job.groups[attempt.wanted][place] for attempt in attempts] for place, pole in enumerate(job.poles)
    }

    def walk(strengths: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return job.backend.walk(z_sem, {name: value.float().to(z_sem.device) for name, value in strengths.items()})

    def margin(name: str, codes: torch.Tensor) -> torch.Tensor:
        margins = scorers[name].margins(Seen(job.backend, codes), wanted[name]).latent
        assert margins is not None  # the run does not start without a latent reading of the protected attributes
        return margins

    found = sequential_strengths(walk, margin, starts, goals=goals, max_strength=job.checks.max_strength)
    codes = walk({name: search.strength for name, search in found.items()})
    target = job.target_margins(attempts, Seen(job.backend, codes)).latent
    reasons: list[Reason | None] = []
    for index, attempt in enumerate(attempts):
        searches = [found[name] for name in plans[index]]
        floor = min(job.checks.target, (attempt.target_before[0] or 0.0) - job.checks.target_slack)
        attempt.strengths = {name: float(found[name].strength[index]) for name in plans[index]}
        if any(float(search.margin_before[index]) > job.checks.donor for search in searches):
            reasons.append(Reason.ALREADY_THERE)
        elif any(float(found[name].margin[index]) < enough(scorers[name].latent, job.checks) for name in plans[index]):
            reasons.append(Reason.OUT_OF_REACH)
        elif target is not None and float(target[index]) < floor:
            reasons.append(Reason.TARGET_CHANGED)
        else:
            reasons.append(None)
    return reasons


def _draw_strengths(job: Job, attempts: list[Attempt]) -> list[Reason | None]:
    """Set strengths that look at no face, as the published code walks."""
    for attempt in attempts:
        share = item_seed(attempt.seed, "strength") / 2**52
        factor = 1 + job.checks.random_strength * (2 * share - 1)
        attempt.strengths = {name: factor * value for name, value in job.usual_walk(attempt).items()}
    return [None] * len(attempts)


def _goals(job: Job, attempts: list[Attempt], place: int, far: float) -> torch.Tensor:
    """Latent margins (b,) at which walks along one attribute stop: those of members of the group, drawn by the seeds.

    Edits that all stopped where the typical member stands would leave the group's ends to the originals, and what is
    tied to the group would stay tied to these.
    """
    scorer, checks = job.protected[place], job.checks
    nearest = enough(scorer.latent, checks)
    goals = []
    for attempt in attempts:
        share = item_seed(attempt.seed, "goal", scorer.column) / 2**52
        drawn = scorer.latent.member_margin(job.groups[attempt.wanted][place], share) if scorer.latent else 1.0
        goal = checks.goal * (1 + checks.varied * (drawn - 1))
        # readings of a picture fall short of those of its walked code
        goal = max(goal, min(checks.goal, nearest + BEYOND))
        goals.append(nearest + far * (goal - nearest))
    return torch.tensor(goals, dtype=torch.float64)


# -- rendering --------------------------------------------------------------------------------------------------------


def _render(job: Job, attempts: list[Attempt], donors: Donors) -> None:
    """Walk and render the faces that have no picture of their walk."""
    missing = [attempt for attempt in attempts if attempt.rendered is None]
    if missing:
        z_edit = _walk(job, missing)
        for attempt, code, x in zip(missing, z_edit, donors.render(missing, z_edit), strict=True):
            attempt.z_edit, attempt.rendered = code, x


def _walk(job: Job, attempts: list[Attempt]) -> torch.Tensor:
    z_sem = stack(attempts, "z_sem")
    names = [pole.name for pole in job.poles if any(pole.name in attempt.strengths for attempt in attempts)]
    strengths = {
        name: torch.tensor([a.strengths.get(name, 0.0) * a.factor for a in attempts], device=z_sem.device)
        for name in names
    }
    changes = [torch.zeros_like(z_sem[0]) if a.correction is None else a.correction.to(z_sem.device) for a in attempts]
    return job.backend.walk(z_sem, strengths) + torch.stack(changes)


def _amplified(attempt: Attempt) -> torch.Tensor:
    """The rendered edit (3, h, w) with its change from the donor times the gain."""
    assert attempt.rendered is not None
    if attempt.gain == 1.0 or attempt.x_0 is None:
        return attempt.rendered
    return (attempt.x_0 + attempt.gain * (attempt.rendered - attempt.x_0)).clamp(-1, 1)


def _corrections(job: Job, attempts: list[Attempt], z_found: torch.Tensor) -> torch.Tensor | None:
    """What brings the attributes that were not to move back to where the donor had them, (b, d)."""
    z_sem, z_edit = stack(attempts, "z_sem"), stack(attempts, "z_edit")
    return job.backend.correction(z_sem, z_edit, z_found, [attempt.strengths.keys() for attempt in attempts])


# -- the next try -----------------------------------------------------------------------------------------------------


def _adjust(job: Job, attempt: Attempt, reason: Reason, scores: Scores, can_correct: bool) -> bool:
    """Say what the next try is to amount to; False where nothing else can help."""
    before, moved_others = attempt.total, reason in (Reason.TARGET_CHANGED, Reason.OTHER_CHANGED)
    if reason is Reason.PROTECTED_NOT_REACHED:
        attempt.low = before
        total = before * _further(attempt, scores)
    elif moved_others and attempt.correction is None and can_correct:
        attempt.rendered = None  # the same walk once more, now with what keeps the others in place
        return True
    elif moved_others or reason is Reason.IDENTITY_LOST:
        attempt.high = before
        total = before * SHORTER
    else:
        return False
    if attempt.low > 0 and attempt.high < float("inf"):
        total = (attempt.low * attempt.high) ** 0.5
    _amount_to(job, attempt, total)
    return max(attempt.total, before) / min(attempt.total, before) > NARROWEST


def _further(attempt: Attempt, scores: Scores) -> float:
    """How much further a walk must go that did not arrive, if margins grow on as they have grown so far."""
    factors = []
    seen = (scores.protected_latent, scores.protected_image)
    for before, now, floor in zip(attempt.margins_before, seen, attempt.floors, strict=True):
        if before is None or now is None or now >= floor:
            continue
        gained = now - before
        factors.append((floor + BEYOND - before) / gained if gained > 0 else FURTHEST)
    return min(max(factors, default=LONGER), FURTHEST)


def _amount_to(job: Job, attempt: Attempt, total: float) -> None:
    """By a gain of what is rendered already, which costs no evaluation, else by another walk."""
    longest = job.checks.max_strength / max(abs(strength) for strength in attempt.strengths.values())
    gains = GAINS if job.backend.adds_difference and attempt.x_0 is not None else (1.0, 1.0)
    gain = total / attempt.factor
    if not gains[0] <= gain <= gains[1] or gains == (1.0, 1.0):
        attempt.factor = min(total, longest)
        attempt.rendered = None
        gain = min(max(total / attempt.factor, gains[0]), gains[1])
    attempt.gain = gain


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_donors(job: Job, attempts: list[Attempt]) -> None:
    """Note where the donors stand in the groups that they are edited to, and what is enough there."""
    before = job.group_margins([attempt.wanted for attempt in attempts], see_donors(job, attempts))
    for index, attempt in enumerate(attempts):
        moved = job.moved(attempt)
        attempt.margins_before = _arrived(before, moved, index)
        scorers = [scorer for scorer, moves in zip(job.protected, moved, strict=True) if moves]
        attempt.floors = (
            max(enough(scorer.latent, job.checks) for scorer in scorers),
            max(enough(scorer.image, job.checks) for scorer in scorers),
        )


def _scores(job: Job, attempts: list[Attempt], seen: Seen) -> list[Scores]:
    """Read every edit: the picture, and the code that the encoder finds in it."""
    target = job.target_margins(attempts, seen)
    reached = job.group_margins([attempt.wanted for attempt in attempts], seen)
    identity = identity_of(job, attempts, seen)
    scores = []
    for index, attempt in enumerate(attempts):
        moved = job.moved(attempt)
        stayed = [margins.at(index) for margins, moves in zip(reached, moved, strict=True) if not moves]
        others = _least([value for pair in stayed for value in pair])
        scores.append(Scores(*_arrived(reached, moved, index), *target.at(index), others, float(identity[index])))
    return scores


def _arrived(margins: Sequence[Margins], moved: Sequence[bool], index: int) -> tuple[float | None, float | None]:
    """Least (latent, image) margin of one face in the attributes that were to move."""
    pairs = [margin.at(index) for margin, moves in zip(margins, moved, strict=True) if moves]
    return _least([latent for latent, _ in pairs]), _least([image for _, image in pairs])


def identity_of(job: Job, attempts: list[Attempt], seen: Seen) -> torch.Tensor:
    """Similarity (b,) of each donor and its edit, of which ``seen`` has codes and pictures."""
    donors = see_donors(job, attempts)
    z_donor, x_donor, z_edit, x_edit = donors.z_sem, donors.x_0, seen.z_sem, seen.x_0
    assert z_donor is not None and z_edit is not None and x_edit is not None
    if x_donor is None:
        # the donor was not decoded yet: whether the walk itself leaves the person is seen in the codes
        return job.identity(z_donor, x_edit, stack(attempts, "z_edit"), x_edit)
    if attempts[0].donor_file is not None:
        # a decoded donor is compared through the encoder, as its edit is
        z_donor = job.backend.encode(x_donor)
    size = getattr(job.identity, "image_size", None)
    if size is not None and donors.look is not None and seen.look is not None:
        x_donor, x_edit = donors.look(size), seen.look(size)
    return job.identity(z_donor, x_donor, z_edit, x_edit)


def _least(margins: Sequence[float | None]) -> float | None:
    """The least margin that was read; NaN where there is one, so that it is not lost among the others."""
    read = [margin for margin in margins if margin is not None]
    return min(read, key=lambda margin: (not math.isnan(margin), margin), default=None)
