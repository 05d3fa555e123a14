"""How far each face walks: as far as needed, no further.

A walk along a path and a latent probe cost next to nothing beside one evaluation of the UNet, so the strength of each
face is found in the semantic space before anything is decoded: a scan outwards finds where the face first reads as
far inside the wanted group as asked, bisection sharpens it. Whole batches are walked at once, each face its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from vlbias.balance.attempt import Attempt, Job
from vlbias.balance.plan import walks
from vlbias.balance.scoring import Seen
from vlbias.balance.verification import Reason, enough
from vlbias.seeds import item_seed

__all__ = ["Search", "aim", "aim_at", "find_strength", "sequential_strengths", "usual_walk"]

# A longer walk aims so far beyond the margin that is asked for: readings do not grow quite in step with the walk.
BEYOND = 0.2


@dataclass(frozen=True)
class Search:
    """Where :func:`find_strength` ended for each face of a batch.

    Attributes:
        strength: float64 (b,), signed.
        margin: float64 (b,), what the probe reads there (0 = border of the wanted group, 1 = its typical member).
        margin_before: float64 (b,), what it reads at strength 0.
    """

    strength: torch.Tensor
    margin: torch.Tensor
    margin_before: torch.Tensor


def find_strength(
    margin_at: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    *,
    goal: float | torch.Tensor,
    max_strength: float,
    scan_step: float = 0.25,
    bisections: int = 5,
) -> Search:
    """The smallest strength at which each face reads as the wanted group.

    Args:
        margin_at: strengths (n,) of n faces, and their places in the batch (n,) => margins (n,) inside the wanted
            group; pure. Nobody is asked about who is settled.
        start: (b,) signed strength of a median face; its sign is the direction, its size the scale of the scan.
        goal: margin that is enough, one for all or (b,).
        max_strength: longest walk, > 0.
        scan_step: step of the scan, as a part of ``start``.
        bisections: halvings of the bracket that the scan found.

    Returns:
        The first crossing of ``goal`` in the direction of ``start``; where there is none, the best margin seen.
    """
    start = start.double()
    sign = start.sign()
    step = start.abs() * scan_step
    before = margin_at(torch.zeros_like(start), torch.arange(len(start))).double()
    low, best, best_margin = torch.zeros_like(start), torch.zeros_like(start), before.clone()
    high = torch.full_like(start, float("nan"))
    found = before >= goal
    goal = torch.as_tensor(goal, dtype=before.dtype).expand_as(before)
    num_scans = int((max_strength / step.min().clamp_min(1e-6)).ceil().clamp_max(64)) if len(start) else 0
    for index in range(1, num_scans + 1):
        rows = torch.nonzero(~found & (low < max_strength)).flatten()
        if not len(rows):
            break
        strength = (index * step[rows]).clamp_max(max_strength)
        margin = margin_at(sign[rows] * strength, rows).double()
        crossed = margin >= goal[rows]
        better = margin > best_margin[rows]
        best[rows] = torch.where(better, strength, best[rows])
        best_margin[rows] = torch.where(better, margin, best_margin[rows])
        high[rows] = torch.where(crossed, strength, high[rows])
        found[rows] = crossed
        low[rows] = torch.where(crossed, low[rows], strength)
    bracketed = ~high.isnan()
    rows = torch.nonzero(bracketed).flatten()
    for _ in range(bisections if len(rows) else 0):
        middle = (low[rows] + high[rows]) / 2
        margin = margin_at(sign[rows] * middle, rows).double()
        enough = margin >= goal[rows]
        high[rows] = torch.where(enough, middle, high[rows])
        best_margin[rows] = torch.where(enough, margin, best_margin[rows])
        low[rows] = torch.where(enough, low[rows], middle)
    best = torch.where(bracketed, high, best)
    return Search(sign * best, best_margin, before)


def sequential_strengths(
    walk: Callable[[dict[str, torch.Tensor], torch.Tensor], torch.Tensor],
    margin: Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor],
    starts: Sequence[tuple[str, torch.Tensor]],
    *,
    goals: Mapping[str, torch.Tensor],
    max_strength: float,
) -> dict[str, Search]:
    """Find the strengths of several paths, one after the other, each with the earlier ones already walked.

    Args:
        walk: {path: strengths (n,)}, and the places of these n faces in the batch (n,) => codes (n, d), all paths
            composed.
        margin: path, codes (n, d), places (n,) => margins (n,).
        starts: (path, start strengths (b,)); a start of 0 leaves a face alone on that path.
        goals: {path: margins (b,) that are enough}.
        max_strength: see :func:`find_strength`.

    Returns:
        By path; where a face is left alone, its strength is 0 and its margins are NaN.
    """
    found: dict[str, Search] = {}
    for name, start in starts:
        moving = torch.nonzero(start).flatten()

        def margin_at(
            strength: torch.Tensor, rows: torch.Tensor, name: str = name, moving: torch.Tensor = moving
        ) -> torch.Tensor:
            places = moving[rows]
            before = {other: search.strength[places] for other, search in found.items()}
            return margin(name, walk({**before, name: strength}, places), places)

        search = find_strength(margin_at, start[moving], goal=goals[name][moving], max_strength=max_strength)
        unread = torch.full_like(start, float("nan"), dtype=torch.float64)
        found[name] = Search(
            torch.zeros_like(unread).index_copy(0, moving, search.strength),
            unread.index_copy(0, moving, search.margin),
            unread.index_copy(0, moving, search.margin_before),
        )
    return found


# -- the faces of a chunk ---------------------------------------------------------------------------------------------


def aim(job: Job, attempts: list[Attempt]) -> list[Attempt]:
    """Find each face's strengths in the latent space; turn down the faces that no walk carries there.

    Where the target does not survive the walk, a nearer goal may do.

    Returns:
        The faces that go on.
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
            attempt.reason, attempt.detail = lost[attempt.slot], "in latent space; nothing was decoded"
    return [attempt for attempt in attempts if attempt.is_open]


def aim_at(job: Job, attempts: list[Attempt], far: float = 1.0) -> list[Reason | None]:
    """Set the strengths that carry each face to its goal; ``None`` where they do, else why they do not.

    Args:
        job, attempts: whose.
        far: 1 for the goal itself, 0 for the nearest margin that is enough, or a number between the two.
    """
    if job.checks.random_strength:
        return _draw_strengths(job, attempts)
    z_sem = torch.stack([attempt.z_sem for attempt in attempts])
    plans = [usual_walk(job, attempt) for attempt in attempts]
    names = [pole.name for pole in job.poles if any(pole.name in plan for plan in plans)]
    starts = [(name, torch.tensor([plan.get(name, 0.0) for plan in plans], dtype=torch.float64)) for name in names]
    scorers = {pole.name: scorer for pole, scorer in zip(job.poles, job.protected, strict=True)}
    goals = {pole.name: _goals(job, attempts, place, far) for place, pole in enumerate(job.poles)}
    wanted = {
        pole.name: [job.groups[attempt.wanted][place] for attempt in attempts] for place, pole in enumerate(job.poles)
    }

    everyone = torch.arange(len(attempts))

    def walk(strengths: Mapping[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        codes = z_sem[places.to(z_sem.device)]
        return job.backend.walk(codes, {name: value.float().to(z_sem.device) for name, value in strengths.items()})

    def margin(name: str, codes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        groups = [wanted[name][place] for place in places.tolist()]
        margins = scorers[name].margins(Seen(job.backend, codes), groups).latent
        assert margins is not None  # the run does not start without a latent reading of the protected attributes
        return margins

    found = sequential_strengths(walk, margin, starts, goals=goals, max_strength=job.checks.max_strength)
    codes = walk({name: search.strength for name, search in found.items()}, everyone)
    target = job.target.margins(Seen(job.backend, codes), [attempt.target for attempt in attempts]).latent
    reasons: list[Reason | None] = []
    for index, attempt in enumerate(attempts):
        searches = [found[name] for name in plans[index]]
        floor = min(job.checks.target, (attempt.target_before[0] or 0.0) - job.checks.target_slack)
        attempt.strengths = {name: float(found[name].strength[index]) for name in plans[index]}
        asked = [float(goals[name][index]) for name in plans[index]]
        attempt.goal = asked[0] if len(asked) == 1 else None
        if any(float(search.margin_before[index]) > job.checks.donor for search in searches):
            reasons.append(Reason.ALREADY_THERE)
        elif any(float(found[name].margin[index]) < enough(scorers[name].latent, job.checks) for name in plans[index]):
            reasons.append(Reason.OUT_OF_REACH)
        elif target is not None and float(target[index]) < floor:
            reasons.append(Reason.TARGET_CHANGED)
        else:
            reasons.append(None)
    return reasons


def usual_walk(job: Job, attempt: Attempt) -> dict[str, float]:
    """Path -> signed strength that carries a median face of the donor's group to the wanted one."""
    return walks(job.poles, job.groups[attempt.giver], job.groups[attempt.wanted])


def _draw_strengths(job: Job, attempts: list[Attempt]) -> list[Reason | None]:
    """Set strengths that look at no face, as the published code walks."""
    for attempt in attempts:
        share = item_seed(attempt.seed, "strength") / 2**52
        factor = 1 + job.checks.random_strength * (2 * share - 1)
        attempt.strengths = {name: factor * value for name, value in usual_walk(job, attempt).items()}
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
        goal = checks.goal * (1 + (checks.varied or 0.0) * (drawn - 1))
        # readings of a picture fall short of those of its walked code
        goal = max(goal, min(checks.goal, nearest + BEYOND))
        goals.append(nearest + far * (goal - nearest))
    return torch.tensor(goals, dtype=torch.float64)
