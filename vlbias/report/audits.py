"""What a page says about trained classifiers: sentences, plots and table rows from an AuditResult."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlbias.audit import AuditResult, Composition
from vlbias.fairness import METRICS
from vlbias.pages.page import number, percent, signed
from vlbias.pages.plots import Estimate, Spot, color_of, estimates_plot, front_plot

__all__ = ["audit_limits", "audit_values", "composition_values", "headline", "summary_sentence"]

#: The gap that headlines speak of.
MAIN_GAP = "equalized_odds_difference"
#: Balanced accuracy above guessing, as a share of the way to perfect, below which gaps mean nothing.
MIN_SKILL = 0.2
_DESCRIPTIONS = {
    "baseline": "baseline: the dataset as it is",
    "balanced": "balanced: with edits",
    "oracle": "oracle: with true counterfactuals instead of edits",
}


def _text_of(audit: AuditResult, name: str) -> str:
    return f"{name}: {audit.arms[name].text}" if name in audit.arms else _DESCRIPTIONS.get(name, name)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def audit_values(audit: AuditResult) -> dict[str, Any]:
    """All that ``parts.audit_section`` needs."""
    names = list(audit.predictions)
    rows = []
    for key, metric in METRICS.items():
        values = [audit.summary[name][key] for name in names]
        changes = []
        for row in values[1:]:
            low, high = _known(row["change_low"]), _known(row["change_high"])
            sure = low is not None and high is not None and (low > 0 or high < 0)
            changes.append({"value": _known(row["change"]), "low": low, "high": high, "sure": sure})
        cells = [
            {"mean": _known(row["mean"]), "low": _known(row["low"]), "high": _known(row["high"])} for row in values
        ]
        rows.append({"title": metric.title, "values": cells, "changes": changes})
    protected = " × ".join(audit.protected)
    return {
        "target": audit.target,
        "protected": protected,
        "intro": _intro(audit, protected),
        "findings": _findings(audit),
        "sets": [
            {"name": name, "color": color_of(name, place), "text": _text_of(audit, name)}
            for place, name in enumerate(names)
        ],
        "has_chance": True,
        "gaps_plot": estimates_plot(_plot_rows(audit, better_high=False), "Gaps between groups", limits=_limits(audit)),
        "levels_plot": estimates_plot(_plot_rows(audit, better_high=True), "Accuracy, balanced accuracy and F1"),
        "cells_plot": estimates_plot(_cell_rows(audit), "Accuracy of each cell"),
        "plot_note": "Dots are means over seeds, lines intervals, small ticks single seeds."
        if len(audit.seeds) > 1
        else "Dots are the values, lines intervals.",
        "num_seeds": len(audit.seeds),
        "level": audit.evaluation.level if audit.has_intervals else None,
        "rows": rows,
        "cells": _cells(audit),
        "shares": _shares(audit),
        "oracle_note": "The oracle was trained on the faces that perfect edits would give, which only the embedded "
        "world can draw. The share says how much of what it cuts from each gap the edits cut; 100 % would be as good "
        "as perfect edits. A dash stands where the oracle cuts nothing, “unclear” where it may cut nothing.",
        "method": _method(audit),
        "arms": _arms(audit) if audit.arms else None,
    }


#: What the table of arms shows, beside the gap that it is sorted by.
ARM_METRICS = ("accuracy", "balanced_accuracy", MAIN_GAP, "accuracy_gap", "worst_cell_accuracy")


def _arms(audit: AuditResult) -> dict[str, Any]:
    """The arms by their gap, and where they lie in the plane of error and gap."""
    dominated = audit.dominated(MAIN_GAP)
    first = next(iter(audit.predictions))
    names = sorted(audit.predictions, key=lambda name: audit.summary[name][MAIN_GAP]["mean"])
    rows = []
    for name in names:
        summary, arm = audit.summary[name], audit.arms[name]
        change = summary[MAIN_GAP]
        low, high = _known(change["change_low"]), _known(change["change_high"])
        rows.append(
            {
                "name": name,
                "text": arm.text,
                "values": [
                    {part: _known(summary[key][part]) for part in ("mean", "low", "high")} for key in ARM_METRICS
                ],
                "change": _known(change["change"]),
                "low": low,
                "high": high,
                "sure": low is not None and high is not None and (low > 0 or high < 0),
                "chance": _known(change["chance"]),
                "num_train": f"{audit.training[name].num_images:,}",
                "dominated": _first_of(dominated[name]),
                "chosen": _chosen(arm.chosen),
            }
        )
    return {
        "first": first,
        "titles": [METRICS[key].title for key in ARM_METRICS],
        "gap": METRICS[MAIN_GAP].title,
        "rows": rows,
        "plane": front_plot(
            [_spot(audit, name, not dominated[name]) for name in names],
            "error on the test faces (1 - accuracy)",
            METRICS[MAIN_GAP].title.lower(),
            "Arms by error and gap, with intervals; the table has the same numbers",
        ),
    }


def _first_of(names: Sequence[str], most: int = 2) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _chosen(chosen: Mapping[str, float]) -> str:
    shown = [key for key in chosen if key != "validation_loss"]
    return ", ".join(f"{key.replace('_', ' ')} {chosen[key]:.3g}" for key in shown)


def _spot(audit: AuditResult, name: str, is_front: bool) -> Spot:
    accuracy, gap = audit.summary[name]["accuracy"], audit.summary[name][MAIN_GAP]
    low, high = _known(accuracy["low"]), _known(accuracy["high"])
    error = Estimate(1 - accuracy["mean"], None if high is None else 1 - high, None if low is None else 1 - low)
    return Spot(name, error, _estimate(audit, name, MAIN_GAP), (error.value, gap["mean"]), is_front)


def _intro(audit: AuditResult, protected: str) -> str:
    first = audit.settings
    seeds = len(audit.seeds)
    if audit.arms:
        return (
            f"The same classifier ({first.backbone}, {first.num_steps:,} optimisation steps) was trained to predict "
            f"{audit.target} in {len(audit.arms)} ways, {'once' if seeds == 1 else f'{seeds} times'} each, and tested "
            f"once on the same {len(audit.y_true):,} images, which nothing was chosen by. Groups are the values of "
            f"{protected}. Learning rate, weight decay and the knob of each arm were chosen on validation faces alone. "
            "Every arm that adds pictures adds as many to each cell."
        )
    return (
        f"The same classifier ({first.backbone}, from random weights, {first.num_steps:,} optimisation steps) was "
        f"trained to predict {audit.target} on {_words(list(audit.predictions))}, "
        f"{'once' if seeds == 1 else f'{seeds} times'} each, and tested on the same {len(audit.y_true):,} images, "
        f"which no training set contains and no editor touched. Groups are the values of {protected}."
    )


def _words(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"one training set ({names[0]})"
    return f"{len(names)} training sets ({', '.join(names[:-1])} and {names[-1]})"


def _findings(audit: AuditResult) -> list[str]:
    """Every training set against the first, with intervals."""
    first, *others = list(audit.predictions)
    sentences = [_warning(audit)] if weak_classifiers(audit) else []
    if audit.arms:
        return [*sentences, _front_sentence(audit)]
    for name in others:
        parts = [
            _verdict(audit.summary[name][key], audit.summary[first][key]["mean"], METRICS[key].title.lower())
            for key in (MAIN_GAP, "worst_cell_accuracy", "accuracy")
        ]
        sentences.append(f"{name.capitalize()} against {first}: {'; '.join(parts)}.")
    return sentences


def _front_sentence(audit: AuditResult) -> str:
    dominated = audit.dominated(MAIN_GAP)
    front = sorted((name for name in dominated if not dominated[name]), key=list(dominated).index)
    gap = METRICS[MAIN_GAP].title.lower()
    parts = [
        f"{name} ({gap} {number(audit.summary[name][MAIN_GAP]['mean'], 2)}, accuracy "
        f"{number(audit.summary[name]['accuracy']['mean'], 2)})"
        for name in front
    ]
    return f"No other arm has both a smaller gap and a higher accuracy than {'; '.join(parts)}."


def _main(audit: AuditResult) -> str:
    """The training set that headlines speak of."""
    known = [name for name in ("balanced", "edits") if name in audit.predictions]
    others = [name for name in audit.predictions if name != "oracle"]
    return (known or others[-1:] or list(audit.predictions))[0]


def weak_classifiers(audit: AuditResult) -> list[str]:
    """Training sets whose classifiers hardly beat guessing, so that their gaps mean nothing."""
    guess = 1 / len(audit.classes)
    bar = guess + MIN_SKILL * (1 - guess)
    return [name for name in audit.predictions if not audit.summary[name]["balanced_accuracy"]["mean"] >= bar]


def _warning(audit: AuditResult) -> str:
    weak = weak_classifiers(audit)
    return (
        f"Classifiers trained on {', '.join(map(_set, weak))} are hardly better than guessing, so their gaps mean "
        "little: train longer, or on more images."
    )


def _set(name: str) -> str:
    return {"baseline": "the dataset as it is", "balanced": "the balanced set"}.get(name, name)


def summary_sentence(audit: AuditResult) -> list[str]:
    """The result in plain words, none for a gap that does not exist; says no more than the intervals allow."""
    if weak_classifiers(audit):
        return [_warning(audit)]
    first, name = next(iter(audit.predictions)), _main(audit)
    gap, left = METRICS[MAIN_GAP].title.lower(), audit.summary[name][MAIN_GAP]["mean"]
    chance = audit.chance[name][MAIN_GAP]
    if not (math.isfinite(left) and math.isfinite(chance)):
        return []
    remains = f"Groups that do not differ at all would show an {gap} of {number(chance, 2)} in a test set of this size."
    if name == first:
        worst = audit.summary[name]["worst_cell_accuracy"]["mean"]
        return [
            f"A classifier trained on {_set(name)} has an {gap} of {number(left, 2)}; its worst cell is right in "
            f"{percent(worst)} of cases. {remains}"
        ]
    clauses = []
    for key in (MAIN_GAP, "worst_cell_accuracy", "accuracy"):
        before, row = audit.summary[first][key]["mean"], audit.summary[name][key]
        values = f"from {number(before, 2)} to {number(row['mean'], 2)}"
        verb = "falls" if row["change"] < 0 else "rises"
        known = math.isfinite(row["change_low"])
        unsure = known and row["change_low"] <= 0 <= row["change_high"]
        note = ", no more than chance may explain" if unsure else ""
        clauses.append(f"{METRICS[key].title.lower()} {'goes' if unsure or not known else verb} {values}{note}")
    text = "; ".join(clauses)
    return [f"Trained on {_set(name)} instead of {_set(first)}: {text}. {remains}"]


def _verdict(row: Mapping[str, float], before: float, title: str) -> str:
    mean, change = row["mean"], row["change"]
    text = f"{title} {number(before, 2)} → {number(mean, 2)}"
    low, high = _known(row["change_low"]), _known(row["change_high"])
    if low is None or high is None:
        return text
    if low <= 0 <= high:
        return f"{text} (the interval of the change, {signed(low, 2)} to {signed(high, 2)}, includes zero)"
    return f"{text} ({signed(change, 2)}, interval {signed(low, 2)} to {signed(high, 2)})"


def _estimate(audit: AuditResult, name: str, key: str) -> Estimate:
    row = audit.summary[name][key]
    return Estimate(
        row["mean"],
        _known(row["low"]),
        _known(row["high"]),
        tuple(float(value) for value in audit.per_seed[name][key]),
        _known(row["chance"]),
    )


def _plot_rows(audit: AuditResult, *, better_high: bool) -> list[tuple[str, dict[str, Estimate]]]:
    wanted = [key for key, metric in METRICS.items() if metric.higher_is_better == better_high and "parity" not in key]
    if not better_high:
        wanted.append("demographic_parity_difference")
    return [(METRICS[key].title, {name: _estimate(audit, name, key) for name in audit.predictions}) for key in wanted]


def _limits(audit: AuditResult) -> tuple[float, float]:
    """Gaps: from zero to a round number above all that is drawn."""
    gaps = [key for key, metric in METRICS.items() if not metric.higher_is_better]
    drawn = [rows[key][part] for rows in audit.summary.values() for key in gaps for part in ("mean", "high")]
    top = max([0.1, *(value for value in drawn if math.isfinite(value))])
    return 0.0, min(1.0, math.ceil(top * 10 + 0.2) / 10)


def _cell_rows(audit: AuditResult) -> list[tuple[str, dict[str, Estimate]]]:
    rows = []
    for g, group in enumerate(audit.groups):
        for c, label in enumerate(audit.classes):
            estimates = {}
            for name, metrics in audit.per_seed.items():
                mine = audit.cells[audit.cells["training_set"] == name]
                row = mine[(mine["class"] == label) & (mine["group"] == group)].iloc[0]
                points = tuple(float(value) for value in metrics["cells"][:, g, c])
                estimates[name] = Estimate(float(row["accuracy"]), _known(row["low"]), _known(row["high"]), points)
            rows.append((f"{audit.target} {label}, {group}", estimates))
    return [row for row in rows if all(math.isfinite(estimate.value) for estimate in row[1].values())]


def _cells(audit: AuditResult) -> list[dict[str, Any]]:
    rows = []
    for (label, group), part in audit.cells.groupby(["class", "group"], sort=False):
        values = [
            {
                "accuracy": _known(row["accuracy"]),
                "low": _known(row["low"]),
                "high": _known(row["high"]),
                "num_train": f"{row['num_train']:,}",
            }
            for row in part.to_dict("records")
        ]
        rows.append({"label": label, "group": group, "num_test": f"{part['num_test'].iloc[0]:,}", "values": values})
    return rows


def _shares(audit: AuditResult) -> list[dict[str, Any]]:
    if not {"baseline", "balanced", "oracle"} <= set(audit.predictions):
        return []
    rows = []
    for gap, share in audit.share_of_oracle_cut().items():
        if share["value"] is None:
            text = "–"
        elif share["low"] is None and audit.has_intervals:
            text = "unclear"
        else:
            text = percent(share["value"])
        rows.append({"title": METRICS[gap].title, "text": text, "low": share["low"], "high": share["high"]})
    return rows


def _method(audit: AuditResult) -> str:
    settings = audit.settings
    classes = (
        f"The positive class is {audit.target} = {audit.evaluation.positive}."
        if audit.evaluation.positive is not None
        else f"Rates of all classes are taken one against the rest; the {audit.evaluation.over_classes} is shown."
    )
    drawn = "test images" if audit.persons is None else "people"
    weighted = "" if audit.weights is None else " Each test image counts by its weight in every metric."
    intervals = (
        f" Intervals: {audit.evaluation.bootstrap:,} bootstrap resamples of {drawn} within each group and of seeds; "
        "changes are paired, so both sides meet the same test images."
        if audit.has_intervals
        else ""
    )
    missing = (
        f" {audit.num_test_missing:,} test images lack a label and were left out." if audit.num_test_missing else ""
    )
    shared = sum(training.num_in_test for training in audit.training.values())
    overlap = f" {shared} test images are also in a training set, pixel by pixel." if shared else ""
    return (
        f"Loss: {settings.loss.replace('_', '-')}; {settings.batch_size} images of {settings.image_size} px a step; "
        f"every training set gets the same number of steps. {classes}{weighted}{intervals}{missing}{overlap}"
    )


def audit_limits(audit: AuditResult) -> list[str]:
    """What an audit cannot show, for the list at the end of a page."""
    limits = [
        f"One small classifier ({audit.settings.backbone}) stands for all that people might train; another may lean on "
        "other cues and respond otherwise.",
        "The test images come from the same source as the training images. Elsewhere the gaps may be larger.",
        "A gap of zero does not prove fairness: a classifier that always errs has none. Read gaps beside the accuracy "
        "and the worst cell.",
    ]
    if audit.validation_counts is not None:
        counts = audit.validation_counts.to_numpy()
        limits.append(
            f"Arms were chosen by {int(counts.sum()):,} validation faces, whose smallest cell has {int(counts.min())}: "
            "with so few, what was chosen is partly chance. Where validation faces have the tie of the training faces, "
            "an arm may be chosen that leans on it."
        )
        limits.append("An arm counts as dominated by means over seeds; where intervals overlap, that may be chance.")
    if len(audit.seeds) < 5:
        limits.append(
            f"{len(audit.seeds)} seed{'s' if len(audit.seeds) > 1 else ''} per training set: too few to know well how "
            "much training again would move the numbers."
        )
    smallest = int(audit.cells["num_test"].min())
    if smallest < 100:
        limits.append(f"The smallest cell of the test set has {smallest} images, so its accuracy is rough.")
    return limits


def headline(audit: AuditResult) -> list[dict[str, Any]]:
    """Tiles for the top of a page."""
    names = list(audit.predictions)
    last = _main(audit)
    tiles = []
    for key in (MAIN_GAP, "worst_cell_accuracy", "accuracy"):
        mean = number(audit.summary[last][key]["mean"], 2)
        before = number(audit.summary[names[0]][key]["mean"], 2) if len(names) > 1 else None
        note = METRICS[key].meaning
        if "oracle" in names:
            note = f"with true counterfactuals {number(audit.summary['oracle'][key]['mean'], 2)}"
        tiles.append({"label": METRICS[key].title, "before": before, "value": mean, "note": note})
    return tiles


def composition_values(composition: Composition) -> dict[str, Any]:
    """One dataset's cells as table rows, and what they say."""
    counts = composition.counts
    rows = []
    for label, row in counts.iterrows():
        total = int(row.sum())
        cells = [{"count": int(n), "share": n / total if total else None} for n in row]
        rows.append({"label": label, "cells": cells, "total": total})
    smallest = counts.stack().idxmin()
    label, group = smallest if isinstance(smallest, tuple) else (smallest, "")
    missing = f" {composition.num_missing:,} rows lack one of the labels." if composition.num_missing else ""
    protected = " × ".join(composition.protected)
    return {
        "name": composition.name,
        "target": composition.target,
        "groups": list(counts.columns),
        "rows": rows,
        "caption": f"Images by {composition.target} and {protected}; below each count its share of the class.",
        "text": f"The smallest cell is {composition.target} {label}, {group}, with {int(counts.to_numpy().min()):,} "
        f"images. Within a class the smallest group has {percent(composition.balance)} of the largest, at worst. "
        f"{composition.target.capitalize()} and {protected} are associated with Cramér’s V "
        f"{number(composition.association, 2)} (0 independent, 1 the one tells the other).{missing}",
    }
