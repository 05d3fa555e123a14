"""How much of the differences between trials is the trials, and which trial to take when little of it is.

Validation people are dealt into two halves, the same for all trials. If the trials that have a small gap in one half
have one in the other, the gap tells trials apart; if not, the smallest gap is the luckiest. What a gap shares with the
error (bad networks have both) is taken out first: the error itself is searched for anyway.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["HALF", "choose", "reliabilities", "reliability", "split_name"]

#: Fewer trials say nothing of reliability.
MIN_TRIALS = 6
#: A reliability with which trials can be ranked in earnest, and one below which there is no signal.
GOOD, NONE = 0.8, 0.2
#: Between the name of an objective and the number of its half.
HALF = "@"


def split_name(objective: str, half: int) -> str:
    """Under which name the value in one half (1 or 2) of the validation people stands in a rung's table."""
    return f"{objective}{HALF}{half}"


def reliability(first: np.ndarray, second: np.ndarray, error: np.ndarray | None = None) -> float:
    """Share of the variance between trials that is not the luck of who was in the validation set, 0..1.

    The correlation of the halves, brought to the whole set (Spearman-Brown, 2 r / (1 + r)).

    Args:
        first, second: (n,) an objective of each trial in either half.
        error: (n,) of the trials; its linear part is taken out of both. None takes nothing out.

    Returns:
        NaN with fewer than 6 trials; 0 where the halves do not agree at all.

    Example:
        >>> round(reliability(np.arange(8.0), np.arange(8.0) % 4), 3)
        0.656
    """
    if len(first) < MIN_TRIALS:
        return float("nan")
    halves = np.array([first, second], dtype=float)
    if error is not None and np.ptp(error) > 0:
        halves = np.array([half - np.polyval(np.polyfit(error, half, 1), error) for half in halves])
    halves -= halves.mean(1, keepdims=True)
    length = np.linalg.norm(halves, axis=1)
    if length.min() < 1e-12:
        return 0.0
    r = max(float(halves[0] @ halves[1] / length.prod()), 0.0)
    return 2 * r / (1 + r)


def reliabilities(table: pd.DataFrame, objectives: tuple[str, ...], people: int | None) -> pd.DataFrame:
    """Reliability of each objective and what would mend it; see :meth:`vlbias.search.Study.reliability`.

    Args:
        table: objectives and their halves, one row per trial.
        objectives: names.
        people: in the validation set, if known.
    """
    rows = []
    for name in objectives:
        columns = [split_name(name, half) for half in (1, 2)]
        known = table.dropna(subset=columns) if set(columns) <= set(table.columns) else table.iloc[:0]
        error = known["error"].to_numpy() if name != "error" and len(known) else None
        first, second = (known[column].to_numpy() if len(known) else np.zeros(0) for column in columns)
        value = reliability(first, second, error)
        factor = GOOD * (1 - value) / (value * (1 - GOOD)) if value > 0 else np.inf
        needed = np.nan if people is None or np.isnan(value) else people * max(factor, 1.0)
        rows.append({"objective": name, "trials": len(known), "reliability": value, "people": people or np.nan,
                     "people_needed": needed, "advice": _advice(name, value, needed)})  # fmt: skip
    return pd.DataFrame(rows).set_index("objective")


def _advice(name: str, value: float, needed: float) -> str:
    shown = name.replace("_", " ")
    if np.isnan(value):
        return f"{shown}: fewer than {MIN_TRIALS} finished trials, so its reliability is not known yet"
    if value >= GOOD:
        return f"{shown}: tells these trials apart (reliability {value:.2f})"
    more = f"; about {needed:,.0f} validation people would" if np.isfinite(needed) else ""
    if value < NONE:
        return f"{shown}: no signal among these trials (reliability {value:.2f}), nothing to search for{more}"
    return f"{shown}: hardly tells these trials apart (reliability {value:.2f}){more}"


def choose(error: np.ndarray, gap: np.ndarray, value: float) -> int:
    """Place of the trial to take: of those whose gap may well be the smallest, the one with the lowest error.

    With reliability R, true gaps differ by about R times the observed difference, give or take
    sd sqrt(2 R (1 - R)), with the standard deviation sd of the observed ones. At R = 0 this is the lowest error, at 1
    the smallest gap.

    Args:
        error, gap: (n,) of the trials.
        value: reliability of the gap; NaN counts as 0.
    """
    if not value > 0:
        return int(np.lexsort((gap, error))[0])
    margin = float(gap.std()) * np.sqrt(2 * (1 - value) / value)
    alike = np.flatnonzero(gap <= gap.min() + margin)
    return int(alike[np.lexsort((gap[alike], error[alike]))[0]])
