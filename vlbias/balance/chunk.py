"""One chunk of a plan, from donors to verified edits; the unit of work that is committed whole.

What happens here depends on the chunk's rows alone: donors, reserves, seeds and batches are fixed by the plan, and
retries stay inside the chunk. So a chunk gives the same bytes whoever computes it, and whenever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlbias.balance.attempts import Attempt, ChunkResult, Job, Passed, record, reject, stack, target_margins
from vlbias.balance.donors import PriorDonors, RealDonors
from vlbias.balance.edit import sequential_strengths
from vlbias.balance.looks import Look
from vlbias.balance.plan import walks
from vlbias.balance.verify import Margins, Reason, Scores, enough, read_margins, verdict
from vlbias.balance.written import look_at_donors, look_at_files, write_edits
from vlbias.originals import Encoded

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


def run_chunk(job: Job, rows: Sequence[Mapping[str, Any]]) -> ChunkResult:
    """Find donors for the rows of one chunk, edit and verify them, and go on until each is kept or out of donors.

    Args:
        job: shared by all chunks.
        rows: the chunk's rows of ``Plan.table``.
    """
    result = ChunkResult()
    start = job.backend.evaluations
    donors = (PriorDonors if rows[0]["donor"] == "" else RealDonors)(job, rows, result)
    waiting = list(rows)
    while waiting:
        attempts = []
        for row in waiting:
            attempt = donors.next_donor(row)
            if attempt is None:
                reject(result, Attempt(row, "", str(row["from"]), int(row["seed"])), Reason.NO_DONOR_LEFT)
            else:
                attempts.append(attempt)
        filled = _edit(job, donors.load(attempts), donors, result)
        waiting = [attempt.row for attempt in attempts if attempt.row["slot"] not in filled]
    result.kept.sort(key=lambda record: record["slot"])
    result.rejected.sort(key=lambda record: record["slot"])
    result.unet_evaluations = job.backend.evaluations - start
    return result


def _file_facts(file: Encoded) -> dict[str, str]:
    return {"suffix": file.suffix, "note": " ".join(file.notes)}


def _edit(job: Job, attempts: list[Attempt], donors: RealDonors | PriorDonors, result: ChunkResult) -> set[int]:
    """Carry donors through aiming, decoding and verifying; the slots that were filled."""
    attempts = _aim(job, attempts, result) if attempts else []
    attempts = donors.prepare(attempts) if attempts else []
    if attempts:
        x_0 = None if attempts[0].x_0 is None else stack(attempts, "x_0")
        look = None if x_0 is None else look_at_donors(job, attempts)
        before = _readings(job, attempts, stack(attempts, "z_sem"), x_0, look)
        for index, attempt in enumerate(attempts):
            attempt.margins_before = _arrived(before, index)
            attempt.floors = _floors(job, attempt)
    passed: list[Passed] = []
    for retry in range(job.checks.retries + 1):
        if not attempts:
            break
        _render(job, attempts, donors)
        files, x_edit, finite = write_edits(job, attempts, torch.stack([_amplified(a) for a in attempts]))
        z_found = job.backend.encode(x_edit)
        scores = _scores(job, attempts, x_edit, z_found, look_at_files(job, attempts, files))
        mends = _mends(job, attempts, z_found) if retry < job.checks.retries else None
        again = []
        for index, attempt in enumerate(attempts):
            reason = _verdict(job, attempt, scores[index]) if finite[index] else Reason.NOT_FINITE
            can_go_on = retry < job.checks.retries and reason is not None and donors.may_walk_again(reason)
            if reason is None:
                passed.append(Passed(attempt, files[index], x_edit[index], z_found[index], scores[index]))
            elif can_go_on and _adjust(job, attempt, reason, scores[index], mends is not None):
                if attempt.rendered is None and mends is not None:
                    attempt.mend = mends[index] if attempt.mend is None else attempt.mend + mends[index]
                again.append(attempt)
            else:
                reject(result, attempt, reason, scores=scores[index])
        attempts = again
    passed = donors.confirm(passed) if passed else []
    for item in passed:
        stem = f"{item.attempt.row['slot']:06d}"
        result.kept.append(record(item.attempt) | _file_facts(item.file) | item.scores.rounded())
        result.files[f"edit-{stem}"] = item.file
        if item.attempt.donor_file is not None:
            result.files[f"face-{stem}"] = item.attempt.donor_file
    return {item.attempt.row["slot"] for item in passed}


def _aim(job: Job, attempts: list[Attempt], result: ChunkResult) -> list[Attempt]:
    """Find each face's strengths in the latent space; turn down the faces no walk carries there.

    Where the target does not survive the walk to the typical member, a nearer goal may do.
    """
    goal = job.checks.goal
    reached = max(enough(judge.latent, job.checks) for judge in job.protected)
    aimed: dict[int, Attempt] = {}
    lost: dict[int, Reason] = {}
    waiting = list(attempts)
    for nearer in (goal, (goal + reached) / 2, reached):
        if waiting:
            reasons = aim_at(job, waiting, nearer)
            aimed |= {a.row["slot"]: a for a, reason in zip(waiting, reasons, strict=True) if reason is None}
            lost |= {a.row["slot"]: reason for a, reason in zip(waiting, reasons, strict=True) if reason is not None}
            waiting = [a for a, reason in zip(waiting, reasons, strict=True) if reason is Reason.TARGET_CHANGED]
    for attempt in attempts:
        if attempt.row["slot"] not in aimed:
            reject(result, attempt, lost[attempt.row["slot"]], detail="in latent space; nothing was decoded")
    return [attempt for attempt in attempts if attempt.row["slot"] in aimed]


def aim_at(job: Job, attempts: list[Attempt], goal: float) -> list[Reason | None]:
    """Set the strengths that carry each face to ``goal``; ``None`` where they do, else why they do not."""
    z_sem = stack(attempts, "z_sem")
    plans = [walks(job.poles, job.groups[a.giver], job.groups[a.row["to"]]) for a in attempts]
    names = [pole.name for pole in job.poles if any(pole.name in plan for plan in plans)]
    starts = [(name, torch.tensor([plan.get(name, 0.0) for plan in plans], dtype=torch.float64)) for name in names]
    judges = {pole.name: judge for pole, judge in zip(job.poles, job.protected, strict=True)}
    wanted = {
        pole.name: [job.groups[attempt.row["to"]][place] for attempt in attempts]
        for place, pole in enumerate(job.poles)
    }

    def walk(strengths: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return job.backend.walk(z_sem, {name: value.float().to(z_sem.device) for name, value in strengths.items()})

    def margin(name: str, codes: torch.Tensor) -> torch.Tensor:
        margins = read_margins(job.backend, judges[name], wanted[name], z_sem=codes).latent
        assert margins is not None  # the run does not start without a latent reading of the protected attributes
        return margins

    found = sequential_strengths(walk, margin, starts, goal=goal, max_strength=job.checks.max_strength)
    codes = walk({name: search.strength for name, search in found.items()})
    target = target_margins(job, attempts, codes, None).latent
    reasons: list[Reason | None] = []
    for index, attempt in enumerate(attempts):
        searches = [found[name] for name in plans[index]]
        floor = min(job.checks.target, (attempt.target_margins[0] or 0.0) - job.checks.target_slack)
        attempt.strengths = {name: float(found[name].strength[index]) for name in plans[index]}
        if any(float(search.margin_before[index]) > job.checks.donor for search in searches):
            reasons.append(Reason.ALREADY_THERE)
        elif any(float(found[name].margin[index]) < enough(judges[name].latent, job.checks) for name in plans[index]):
            reasons.append(Reason.OUT_OF_REACH)
        elif target is not None and float(target[index]) < floor:
            reasons.append(Reason.TARGET_CHANGED)
        else:
            reasons.append(None)
    return reasons


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


def _adjust(job: Job, attempt: Attempt, reason: Reason, scores: Scores, can_correct: bool) -> bool:
    """Say what the next try is to amount to; False where nothing else can help."""
    before, moved_others = attempt.total, reason in (Reason.TARGET_CHANGED, Reason.OTHER_CHANGED)
    if reason is Reason.PROTECTED_NOT_REACHED:
        attempt.low = before
        total = before * _further(attempt, scores)
    elif moved_others and attempt.mend is None and can_correct:
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


def _render(job: Job, attempts: list[Attempt], donors: RealDonors | PriorDonors) -> None:
    """Walk and render the faces that have no picture of their walk."""
    missing = [attempt for attempt in attempts if attempt.rendered is None]
    if missing:
        z_edit = _walk(job, missing)
        for attempt, code, x in zip(missing, z_edit, donors.render(missing, z_edit), strict=True):
            attempt.z_edit, attempt.rendered = code, x


def _amplified(attempt: Attempt) -> torch.Tensor:
    """The rendered edit (3, h, w) with its change from the donor times the gain."""
    assert attempt.rendered is not None
    if attempt.gain == 1.0 or attempt.x_0 is None:
        return attempt.rendered
    return (attempt.x_0 + attempt.gain * (attempt.rendered - attempt.x_0)).clamp(-1, 1)


def _walk(job: Job, attempts: list[Attempt]) -> torch.Tensor:
    z_sem = stack(attempts, "z_sem")
    names = [pole.name for pole in job.poles if any(pole.name in attempt.strengths for attempt in attempts)]
    strengths = {
        name: torch.tensor([a.strengths.get(name, 0.0) * a.factor for a in attempts], device=z_sem.device)
        for name in names
    }
    z_edit = job.backend.walk(z_sem, strengths)
    mends = [torch.zeros_like(z_sem[0]) if a.mend is None else a.mend.to(z_sem.device) for a in attempts]
    return z_edit + torch.stack(mends)


def _mends(job: Job, attempts: list[Attempt], z_found: torch.Tensor) -> torch.Tensor | None:
    """What brings the attributes that were not to move back to where the donor had them, (b, d).

    ``None`` for an editor without probes. The attributes that were to move are left to the length of the walk.
    """
    z_sem, z_edit = stack(attempts, "z_sem"), stack(attempts, "z_edit")
    return job.backend.correction(z_sem, z_edit, z_found, [attempt.strengths.keys() for attempt in attempts])


def _scores(
    job: Job, attempts: list[Attempt], x_edit: torch.Tensor, z_found: torch.Tensor, look: Look
) -> list[Scores]:
    """Read every edit: the picture, and the code that the encoder finds in it."""
    target = target_margins(job, attempts, z_found, x_edit, look)
    reached = _readings(job, attempts, z_found, x_edit, look)
    identity = identity_of(job, attempts, x_edit, z_found, look)
    scores = []
    for index in range(len(attempts)):
        stayed = [margins.at(index) for margins, moved in reached if not moved[index]]
        others = _least([value for pair in stayed for value in pair])
        scores.append(Scores(*_arrived(reached, index), *target.at(index), others, float(identity[index])))
    return scores


#: For each protected attribute: the margins in the wanted groups, and which faces are to move in it.
Readings = list[tuple[Margins, list[bool]]]


def _readings(
    job: Job, attempts: list[Attempt], z_sem: torch.Tensor, x_0: torch.Tensor | None, look: Look | None = None
) -> Readings:
    found: Readings = []
    for place, judge in enumerate(job.protected):
        wanted = [job.groups[attempt.row["to"]][place] for attempt in attempts]
        moved = [job.groups[a.giver][place] != job.groups[a.row["to"]][place] for a in attempts]
        found.append((read_margins(job.backend, judge, wanted, z_sem=z_sem, x_0=x_0, look=look), moved))
    return found


def _arrived(readings: Readings, index: int) -> tuple[float | None, float | None]:
    """Least (latent, image) margin of one face in the attributes that were to move."""
    latents, images = zip(*(margins.at(index) for margins, moved in readings if moved[index]), strict=True)
    return _least(latents), _least(images)


def _floors(job: Job, attempt: Attempt) -> tuple[float, float]:
    """(latent, image) margins that are enough in the attributes that were to move, the strictest of each."""
    pairs = zip(job.protected, job.groups[attempt.giver], job.groups[attempt.row["to"]], strict=True)
    moved = [judge for judge, old, new in pairs if old != new]
    latent, image = ([enough(getattr(judge, kind), job.checks) for judge in moved] for kind in ("latent", "image"))
    return max(latent), max(image)


def _verdict(job: Job, attempt: Attempt, scores: Scores) -> Reason | None:
    return verdict(scores, attempt.target_margins, job.checks, attempt.floors)


def identity_of(
    job: Job, attempts: list[Attempt], x_edit: torch.Tensor, z_found: torch.Tensor, look: Look
) -> torch.Tensor:
    """Similarity of each edit and its donor (b,)."""
    z_donor = stack(attempts, "z_sem")
    if attempts[0].x_0 is None:
        # the donor was not decoded yet: whether the walk itself leaves the person is seen in the codes
        return job.identity(z_donor, x_edit, stack(attempts, "z_edit"), x_edit)
    x_donor = stack(attempts, "x_0")
    if attempts[0].donor_file is not None:
        # a decoded donor is compared through the encoder, as its edit is
        z_donor = job.backend.encode(x_donor)
    size = getattr(job.identity, "image_size", None)
    if size is not None:
        x_donor, x_edit = look_at_donors(job, attempts)(size), look(size)
    return job.identity(z_donor, x_donor, z_found, x_edit)


def _least(margins: Sequence[float | None]) -> float | None:
    """The least margin that was read; NaN where there is one, so that it is not lost among the others."""
    read = [margin for margin in margins if margin is not None]
    return min(read, key=lambda margin: (not math.isnan(margin), margin), default=None)
