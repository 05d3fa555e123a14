"""How far each face walks: as far as needed, no further.

A walk along a path and a latent probe cost next to nothing beside one evaluation of the UNet, so the strength of each
face is found in the semantic space before anything is decoded: a scan outwards finds where the face first reads as
far inside the wanted group as asked, bisection sharpens it. Whole batches are walked at once, each face its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Search", "find_strength", "sequential_strengths"]


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
    margin_at: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    *,
    goal: float | torch.Tensor,
    max_strength: float,
    scan_step: float = 0.25,
    bisections: int = 5,
) -> Search:
    """The smallest strength at which each face reads as the wanted group.

    Args:
        margin_at: strengths (b,) => margins (b,) inside the wanted group; pure.
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
    before = margin_at(torch.zeros_like(start)).double()
    low, best, best_margin = torch.zeros_like(start), torch.zeros_like(start), before.clone()
    high = torch.full_like(start, float("nan"))
    found = before >= goal
    num_scans = int((max_strength / step.min().clamp_min(1e-6)).ceil().clamp_max(64)) if len(start) else 0
    for index in range(1, num_scans + 1):
        strength = (index * step).clamp_max(max_strength)
        margin = margin_at(sign * strength).double()
        better = ~found & (margin > best_margin)
        best = torch.where(better, strength, best)
        best_margin = torch.where(better, margin, best_margin)
        crossed = ~found & (margin >= goal)
        high = torch.where(crossed, strength, high)
        found |= crossed
        low = torch.where(found, low, strength)
        if bool(found.all()):
            break
    bracketed = ~high.isnan()
    for _ in range(bisections if bool(bracketed.any()) else 0):
        middle = torch.where(bracketed, (low + high) / 2, best)
        margin = margin_at(sign * middle).double()
        enough = bracketed & (margin >= goal)
        high = torch.where(enough, middle, high)
        best_margin = torch.where(enough, margin, best_margin)
        low = torch.where(bracketed & ~enough, middle, low)
    best = torch.where(bracketed, high, best)
    return Search(sign * best, best_margin, before)


def sequential_strengths(
    walk: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    margin: Callable[[str, torch.Tensor], torch.Tensor],
    starts: Sequence[tuple[str, torch.Tensor]],
    *,
    goals: Mapping[str, torch.Tensor],
    max_strength: float,
) -> dict[str, Search]:
    """Find the strengths of several paths, one after the other, each with the earlier ones already walked.

    Args:
        walk: {path: strengths (b,)} => codes (b, d), all paths composed.
        margin: (path, codes (b, d)) => margins (b,).
        starts: (path, start strengths (b,)); a start of 0 leaves a face alone on that path.
        goals: {path: margins (b,) that are enough}.
        max_strength: see :func:`find_strength`.
    """
    found: dict[str, Search] = {}
    fixed: dict[str, torch.Tensor] = {}
    for name, start in starts:

        def margin_at(strength: torch.Tensor, name: str = name) -> torch.Tensor:
            return margin(name, walk({**fixed, name: strength}))

        moving = start != 0
        # faces that stay still on this path scan along with the others and are put back afterwards
        search = find_strength(
            margin_at, torch.where(moving, start, torch.ones_like(start)), goal=goals[name], max_strength=max_strength
        )
        zero = torch.zeros_like(search.strength)
        fixed[name] = torch.where(moving, search.strength, zero)
        found[name] = Search(fixed[name], search.margin, search.margin_before)
    return found
