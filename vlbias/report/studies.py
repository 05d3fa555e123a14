"""What the pages of a simulation and of an architecture search say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vlbias.files import json_records, json_value
from vlbias.pages.page import number, percent, signed
from vlbias.pages.plots import Estimate, Line, Panel, Spot, color_of, curves_plot, front_plot
from vlbias.shown import plural
from vlbias.simulate.statistics import PARITY, contrast

if TYPE_CHECKING:
    from vlbias.search import Front, Study  # needs the extra "search"
    from vlbias.simulate import SimulationResult

__all__ = ["search_numbers", "search_values", "simulation_numbers", "simulation_values"]

#: Drawn for each focal group: F1 of the group itself, and a parity measure of everybody.
_PARITY = "equalized_odds_excess"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(map(str, table.columns), row, strict=True)) for row in table.itertuples(index=False, name=None)]


def _p_value(p: float) -> str:
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else number(p)


def _between(low: float, high: float, scale: float = 1.0) -> str:
    return f"{signed(low * scale)} to {signed(high * scale)}" if math.isfinite(low) and math.isfinite(high) else ""


# -- simulation -------------------------------------------------------------------------------------------------------


def simulation_values(result: SimulationResult) -> dict[str, Any]:
    """All that ``simulation.html.j2`` needs, but for what every page has."""
    plan = result.plan
    focal = [name for name in dict.fromkeys(plan.runs["focal"]) if name]
    sets = [
        {"name": name, "color": color_of(name, place + 1), "text": name} for place, name in enumerate(_names(result))
    ]
    return {
        "asked": plan.describe(),
        "lede": result.verdicts() if focal else ["Whole compositions were given, so there is no curve over one share."],
        "sets": sets,
        "own_plot": _curves(result, focal, "own_f1") if focal else None,
        "parity_plot": _curves(result, focal, _PARITY) if focal else None,
        "parity": _PARITY.replace("_", " "),
        "level": result.level,
        "findings": [_finding(row) for row in _records(result.summary())] if focal else [],
        "compositions": [] if focal else _compositions(result),
        "limits": _simulation_limits(result, bool(focal)),
    }


def simulation_numbers(result: SimulationResult) -> dict[str, Any]:
    """What ``report.json`` of a simulation holds: its slopes, where a share moved, and every run."""
    plan = result.plan
    has_curves = any(plan.runs["focal"])
    return {
        "target": plan.target,
        "protected": plan.protected,
        "classes": list(plan.classes),
        "groups": list(plan.groups),
        "modes": list(plan.settings.modes),
        "fills": list(result.fills),
        "repeats": plan.settings.repeats,
        "num_test": len(plan.test),
        "level": result.level,
        "slopes": json_records(result.summary(), 6) if has_curves else [],
        "runs": json_records(result.table().drop(columns="seconds"), 6),
    }


def _names(result: SimulationResult) -> list[str]:
    modes = result.plan.settings.modes
    return [_name(fill, mode) for fill in result.fills for mode in modes]


def _name(fill: str, mode: str) -> str:
    return fill if mode == "substitute" else f"{fill}, {mode}"


def _curves(result: SimulationResult, focal: list[str], metric: str) -> str:
    """Changes from the smallest share; both sides have the same draws and test people, so the bands are paired."""
    panels = []
    for group in focal:
        wanted = f"f1[{group}]" if metric == "own_f1" else metric
        lines = [
            _line(result, wanted, group, fill, mode) for fill in result.fills for mode in result.plan.settings.modes
        ]
        panels.append(Panel(group, f"share of {group} in training", lines))
    what = "F1 of each group" if metric == "own_f1" else metric.replace("_", " ")
    text = f"Change of {what} with the share of a group in training, with bands; the table below has the slopes"
    return curves_plot(panels, text)


def _line(result: SimulationResult, metric: str, group: str, fill: str, mode: str) -> Line:
    shares, points, resampled = result.points(metric, group, fill=fill, mode=mode)
    found = [
        contrast(points, resampled, one, level=result.level) for one in np.eye(len(shares)) - np.eye(len(shares))[0]
    ]
    value, low, high = (np.array([getattr(one, name) for one in found]) for name in ("value", "low", "high"))
    low[0] = high[0] = 0.0  # the smallest share is what the others are compared with
    return Line(_name(fill, mode), shares.tolist(), value.tolist(), low.tolist(), high.tolist())


def _finding(row: dict[str, Any]) -> dict[str, str]:
    rate = number(row["exchange_rate"], 2)
    return {
        "fill": row["fill"],
        "focal": row["focal"],
        "slope": signed(row["own_slope"] / 10),
        "slope_between": _between(row["own_slope_low"], row["own_slope_high"], 0.1),
        "slope_p": _p_value(row["own_p"]),
        "parity": row["parity"].replace("_", " "),
        "gain": signed(row["parity_gain"]),
        "gain_between": _between(row["parity_gain_low"], row["parity_gain_high"]),
        "gain_p": _p_value(row["parity_p"]),
        "rate": rate,
    }


def _compositions(result: SimulationResult) -> list[dict[str, str]]:
    table = result.table()
    names = [str(name) for name in table.columns if str(name).startswith("n[")]
    rows = []
    for _, runs in table.groupby(["fill", *names, "n"], sort=False, dropna=False):
        first = runs.iloc[0]
        shares = ", ".join(f"{name[2:-1]} {percent(first[name] / first['n'])}" for name in names)
        means = {name: number(float(runs[name].mean())) for name in ("accuracy", "f1", "worst_f1", _PARITY)}
        rows.append({"fill": str(first["fill"]), "shares": shares, "n": f"{int(first['n']):,}", **means})
    return rows


def _simulation_limits(result: SimulationResult, has_curves: bool) -> list[str]:
    plan = result.plan
    repeats = plan.settings.repeats
    limits = [
        f"Each point is the mean of {plural(repeats, 'repeat')}, each with its own draw of training images and its own "
        "seed." + (" One repeat has no interval: its luck cannot be told from an effect." if repeats == 1 else ""),
        "Classifiers are small and trained briefly; a larger one may need a group's images less, or more.",
        f"All are tested on the same {len(plan.test):,} images; smaller cells than {result.min_cell} are left out.",
    ]
    if (noise := plan.settings.label_noise) is not None:
        limits.append(
            f"Groups are labels of a labeller that is right for {noise.describe()}. Its errors are taken off, as if "
            "they did not depend on the class or on what is predicted."
        )
    if has_curves:
        limits.append(
            "P-values are corrected for asking several groups (Holm), not for asking several times with other settings."
        )
        better = "higher" if PARITY[_PARITY] else "lower"
        limits.append(
            f"{_PARITY.replace('_', ' ').capitalize()} is a gap minus what chance alone gives; {better} is better."
        )
    return limits


# -- search -----------------------------------------------------------------------------------------------------------


def search_values(study: Study, front: Front) -> dict[str, Any]:
    """All that ``search.html.j2`` needs, but for what every page has."""
    x, y = front.objectives[:2]
    table = front.table.reset_index()
    plain = int(table.sort_values(f"val_{x}")["trial"].iloc[0])
    spots = [
        Spot(
            f"{row['trial']}" if math.isfinite(row[f"val_{x}"]) else row["label"].split()[0],
            _estimate(row, x),
            _estimate(row, y),
            (row[f"val_{x}"], row[f"val_{y}"]),
            bool(row["on_front"]),
        )
        for row in _records(table)
    ]
    words = [name.replace("_", " ") for name in front.objectives]
    title = f"Candidates by {words[0]} and {words[1]} on {front.split}, with intervals; the table below has the numbers"
    states = study.table()["state"].value_counts()
    return {
        "lede": [front.verdict()],
        "asked": f"{plural(int(states.sum()), 'trial')} ({', '.join(f'{n} {state}' for state, n in states.items())}); "
        f"those on the validation front were trained again and tested on the split “{front.split}”.",
        "plot": front_plot(spots, f"{words[0]} (lower is better)", f"{words[1]} (lower is better)", title),
        "objectives": words,
        "level": front.level,
        "rows": [_candidate(row, front, plain) for row in _records(table)],
        "groups": _groups(front.groups),
        "limits": _search_limits(front),
    }


def search_numbers(study: Study, front: Front) -> dict[str, Any]:
    """What ``report.json`` of a search holds: its candidates on held-out data, all of them and group by group."""
    return {
        "objectives": list(front.objectives),
        "split": front.split,
        "refits": front.refits,
        "level": front.level,
        "look": front.look,
        "verdict": front.verdict(),
        "withheld": front.withheld,
        "trials": {str(state): int(num) for state, num in study.table()["state"].value_counts().items()},
        "flattered": {str(name): json_value(value, 6) for name, value in front.winners_curse().items()},
        "front": json_records(front.table.reset_index(), 6),
        "groups": json_records(front.groups.reset_index(), 6),
    }


def _estimate(row: dict[str, Any], name: str) -> Estimate:
    """An objective with its interval, if that can be known; errors and gaps are never negative."""
    low, high = (float(row[f"{name}_{end}"]) for end in ("low", "high"))
    if math.isnan(low) or math.isnan(high):
        return Estimate(float(row[name]))
    return Estimate(float(row[name]), max(0.0, low), max(0.0, high))


def _candidate(row: dict[str, Any], front: Front, plain: int) -> dict[str, Any]:
    return {
        "trial": int(row["trial"]),
        "label": row["label"],
        "is_baseline": int(row["trial"]) == plain,
        "on_front": bool(row["on_front"]),
        "values": [(_estimate(row, name), float(row[f"val_{name}"])) for name in front.objectives],
        "p_dominated": number(float(row["p_dominated"]), 2),
    }


def _groups(groups: pd.DataFrame) -> dict[str, Any]:
    names = [str(name) for name in groups.columns]
    rows = [
        {
            "trial": trial,
            "group": group,
            "values": [f"{v:,}" if isinstance(v, int) else number(float(v)) for v in values],
        }
        for (trial, group), values in zip(groups.index, groups.astype(object).to_numpy().tolist(), strict=True)
    ]
    return {"columns": [name.replace("_", " ") for name in names], "rows": rows}


def _search_limits(front: Front) -> list[str]:
    flattered = ", ".join(
        f"{str(name).replace('_', ' ')} {signed(float(v))}" for name, v in front.winners_curse().items()
    )
    if not front.is_comparable:
        flattered = "not compared, the galleries have different sizes"
    refits = (
        f"Each candidate was trained {plural(front.refits, 'time')} anew"
        if front.refits
        else "The search's own weights were tested, so nothing is known of the luck of their seed"
    )
    return [
        f"Candidates were chosen on validation data, which flatters them; held-out minus validation, on average: "
        f"{flattered}.",
        f"{refits}. Intervals hold which people are in the test set"
        + (", and the seed of training." if front.refits else "; not the seed."),
        "A front is the best of what was tried in this space with these budgets; something better may exist.",
        f"Nothing is said of which candidate dominates which ({front.withheld})."
        if front.withheld
        else "Who is dominated with a probability of about a half is not distinguished by this test set.",
    ]
