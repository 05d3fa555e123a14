"""Fronts of several objectives, all minimised, and the rule that stops a trial early.

The rule is asynchronous successive halving for several objectives: nobody waits for a rung to fill. A trial that
reaches a rung is stopped if at least 1/eta of the peers that reached it lie on a strictly better non-dominated front.
Sources: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (ASHA); Schmucker et al.,
"Multi-objective Asynchronous Successive Halving", 2021 (the front rank in place of the loss); Deb et al., 2002,
section VI (constraints before objectives).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vlbias.errors import ConfigError, ShapeError

__all__ = ["dominates", "front_ranks", "hypervolume", "rungs", "should_stop"]


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Whether point ``a`` (m,) is nowhere worse and somewhere better than ``b`` (m,).

    Example:
        >>> dominates([1, 2], [1, 3]), dominates([1, 2], [1, 2]), dominates([0, 9], [1, 2])
        (True, False, False)
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    return bool((first <= second).all() and (first < second).any())


def front_ranks(values: ArrayLike, violations: ArrayLike | None = None) -> np.ndarray:
    """Rank of the non-dominated front each point lies on, 0 the best.

    Args:
        values: (n, m) objectives, minimised.
        violations: (n,) how far a constraint is broken; <= 0 is feasible. Every feasible point comes before every
            infeasible one, and infeasible points are ordered by their violation alone: a collapsed network with a gap
            of zero therefore ranks last, not on the front.

    Raises:
        ShapeError: not (n, m), NaN inside, or another number of violations.
    """
    points = np.asarray(values, dtype=float)
    if points.size == 0:
        return np.zeros(0, dtype=int)
    if points.ndim != 2 or np.isnan(points).any():
        raise ShapeError(f"`values` must be (n, m) without NaN; got shape {points.shape}.")
    broken = np.zeros(len(points)) if violations is None else np.maximum(np.asarray(violations, float), 0.0)
    if broken.shape != (len(points),):
        raise ShapeError(f"`violations` must hold {len(points)} numbers; got shape {broken.shape}.")
    ranks = np.full(len(points), -1)
    left = np.flatnonzero(broken == 0)
    rank = 0
    while left.size:
        inside = points[left]
        not_worse = (inside[:, None] <= inside[None]).all(2)
        better = (inside[:, None] < inside[None]).any(2)
        front = ~(not_worse & better).any(0)
        ranks[left[front]] = rank
        left = left[~front]
        rank += 1
    for amount in np.unique(broken[broken > 0]):
        ranks[broken == amount] = rank
        rank += 1
    return ranks


def should_stop(
    own: Sequence[float],
    peers: ArrayLike,
    *,
    eta: float,
    own_violation: float = 0.0,
    peer_violations: ArrayLike | None = None,
    min_peers: int = 1,
) -> bool:
    """Whether a trial that has just reached a rung is stopped there.

    Args:
        own: (m,) its objectives at the rung.
        peers: (n, m) objectives of the other trials that reached the rung, stopped there or not.
        eta: a trial goes on unless at least ``1 / eta`` of the peers lie on a strictly better front.
        own_violation, peer_violations: see :func:`front_ranks`.
        min_peers: nothing is stopped before this many peers are known.
    """
    if not eta > 1:
        raise ConfigError(f"`eta` must be above 1; got {eta}.")
    others = np.asarray(peers, dtype=float).reshape(-1, len(own))
    if len(others) < max(min_peers, 1):
        return False
    broken = np.zeros(len(others)) if peer_violations is None else np.asarray(peer_violations, float)
    ranks = front_ranks(np.vstack([np.asarray(own, float)[None], others]), np.r_[own_violation, broken])
    return bool((ranks[1:] < ranks[0]).mean() >= 1.0 / eta)


def rungs(low: int, high: int, eta: float) -> list[int]:
    """Budgets at which trials are compared: low, low * eta, ... and always high, the full budget.

    Example:
        >>> rungs(1, 9, 3), rungs(2, 9, 2)
        ([1, 3, 9], [2, 4, 8, 9])
    """
    if not (0 < low <= high) or not eta > 1:
        raise ConfigError(f"Budgets need 0 < low <= high and eta > 1; got low {low}, high {high}, eta {eta}.")
    found, budget = [], float(low)
    while round(budget) < high:
        if round(budget) not in found:
            found.append(round(budget))
        budget *= eta
    return [*found, high]


def hypervolume(values: ArrayLike, reference: Sequence[float]) -> float:
    """Area (two objectives) that the points dominate below the reference point; points beyond it count nothing.

    Example:
        >>> hypervolume([[0.0, 0.5], [0.5, 0.0], [0.9, 0.9]], (1.0, 1.0))
        0.75
    """
    points = np.asarray(values, dtype=float).reshape(-1, len(reference))
    if len(reference) != 2:
        raise ConfigError(f"The hypervolume here is of two objectives; got {len(reference)}.")
    points = points[(points < np.asarray(reference, float)).all(1)]
    area, floor = 0.0, float(reference[1])
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))]:
        if y < floor:
            area += (float(reference[0]) - x) * (floor - y)
            floor = y
    return float(area)
