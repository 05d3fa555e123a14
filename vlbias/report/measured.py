"""What the pages of measurements say that are not about training: flips of a classifier, and what edits do."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from vlbias.audit import DriftReport, FlipReport
from vlbias.pages.page import data_uri, number, percent
from vlbias.shown import plural

__all__ = ["drift_values", "flip_values"]


def _cell(row: Any, value: str, low: str, high: str) -> dict[str, str]:
    """A share with its interval."""
    known = math.isfinite(row[low]) and math.isfinite(row[high])
    return {
        "text": percent(row[value], 1),
        "between": f"{percent(row[low], 1)} to {percent(row[high], 1)}" if known else "",
    }


def flip_values(report: FlipReport) -> dict[str, Any]:
    """All that ``measured.html.j2`` needs, but for what every page has."""
    rows = report.table.to_dict("index")
    whole = rows["all"]
    has_truth = math.isfinite(whole["true_rate"])
    columns = [("rate", "low", "high")]
    headings = ["Faces in group", "pairs", "answers that change"]
    if has_truth:
        columns += [("true_rate", "true_low", "true_high"), ("difference", "difference_low", "difference_high")]
        headings += ["by true counterfactuals", "difference"]
    table = {
        "caption": f"Faces by the {report.protected} that they have before the edit, with {percent(report.level)} "
        "intervals below. Pictures of one person are not independent evidence.",
        "headings": headings,
        "rows": [
            {
                "name": str(name),
                "cells": [
                    {"text": f"{int(row['num_pairs']):,}", "between": ""},
                    *(_cell(row, *names) for names in columns),
                ],
            }
            for name, row in rows.items()
        ],
    }
    low, high = (percent(whole[end], 1) for end in ("low", "high"))
    lede = [
        f"{percent(whole['rate'], 1)} of the answers change where only {report.protected} was edited "
        f"({low} to {high}, {plural(int(whole['num_pairs']), 'pair')})."
    ]
    if has_truth:
        lede.append(
            f"With {report.protected} truly changed it is {percent(whole['true_rate'], 1)}; the difference, "
            f"{percent(whole['difference'], 1)}, is what edits change beside it or do not change enough."
        )
    sections = [
        {"anchor": "rates", "title": "How often answers change", "text": [], "tables": [table], "pairs": []},
        {
            "anchor": "faces",
            "title": "Faces whose answer changes",
            "text": ["As it is on the left, edited on the right; the first of each group."]
            if report.examples
            else ["There is none, or no picture of one."],
            "tables": [],
            "pairs": [
                {
                    "donor": data_uri(one.pictures[0]),
                    "donor_alt": f"{one.donor}, {report.protected} {one.group}",
                    "edit": data_uri(one.pictures[1]),
                    "edit_alt": f"the same, {report.protected} {one.to}",
                    "caption": f"{one.group} → {one.to}: {one.before} → {one.after}",
                    "orders": {},
                }
                for one in report.examples
            ],
        },
    ]
    limits = [
        "An edit changes more than the attribute: light, detail, what goes with a group in the editor's training "
        "faces. An answer that follows these changes too.",
        "The classifier is asked about these faces. Ask it about faces that it was not trained on.",
    ]
    return {"lede": lede, "sections": sections, "limits": limits}


def drift_values(report: DriftReport) -> dict[str, Any]:
    """All that ``measured.html.j2`` needs, but for what every page has."""
    first = report.costs.index[0]
    rows = report.at(1.0)
    own = rows[rows["paths"] == first]
    success = own[own["reading"] == "success"]
    worst = success.loc[success["value"].idxmin()]
    strength = f"{own['strength'].iloc[0]:g}"
    lede = [
        f"At strength {strength}, {percent(success['value'].mean())} of the faces read as the value that they were "
        f"edited to; the least, {percent(worst['value'])}, of {worst['walk']}.",
        f"Read by a classifier for each of {plural(len(report.readers), 'label')}, fitted to faces that were not "
        "edited.",
    ]
    sections = [_compared(report)] if len(report.costs) > 1 else []
    sections += [_of_variant(report, str(name), numbered=len(report.costs) > 1) for name in report.costs.index]
    sections.append({"anchor": "readers", "title": "Who reads", "text": [], "tables": [_readers(report)], "pairs": []})
    limits = [
        "A classifier errs on edits as it errs on faces, and edits may mislead it further: what they leave of the "
        "donor's value, and traces of editing, are cues as well.",
        "A reading that changes is drift of the edit where true counterfactuals do not change it, and an error of the "
        "reader where they do."
        if _has_truth(report)
        else "A reading that changes is drift of the edit or an error of its classifier: of a face that it can hardly "
        "tell, any change decides.",
    ]
    return {"lede": lede, "sections": sections, "limits": limits}


def _has_truth(report: DriftReport) -> bool:
    return bool(report.table["truth"].notna().any())


def _between(row: Any, words: Any = percent) -> str:
    known = math.isfinite(row["low"]) and math.isfinite(row["high"])
    return f"{words(row['low'])} to {words(row['high'])}" if known else ""


def _measured(row: Any) -> dict[str, str]:
    """A share, its interval, and what true counterfactuals give."""
    truth = f"; truth {percent(row['truth'])}" if math.isfinite(row["truth"]) else ""
    return {"text": percent(row["value"]), "between": _between(row) + truth}


def _compared(report: DriftReport) -> dict[str, Any]:
    rows = []
    for name, row in report.summary().join(report.costs).iterrows():
        learned = row["training_evaluations"]
        texts = [
            percent(row["success"]),
            number(row["identity"]),
            percent(row["drift"], 1),
            f"{int(learned):,}" if math.isfinite(learned) else "–",
            number(row["edit_evaluations"], 1),
        ]
        rows.append({"name": str(name), "cells": [{"text": text, "between": ""} for text in texts]})
    table = {
        "caption": "Means over walks at strength 1. Drift: share of readings of other labels that change. Evaluations "
        "of the network: all of the training, and of one edited face.",
        "headings": ["Paths", "success", "identity", "drift", "to learn", "an edit"],
        "rows": rows,
    }
    return {"anchor": "compared", "title": "Ways to find paths", "text": [], "tables": [table], "pairs": []}


def _of_variant(report: DriftReport, name: str, *, numbered: bool) -> dict[str, Any]:
    """Success and identity at every strength, and the drift matrix at strength 1."""
    mine = report.table[report.table["paths"] == name]
    strengths = list(mine["strength"].unique())
    beside = ", and the share of true counterfactuals" if _has_truth(report) else ""
    tables = [
        {
            "caption": f"{title}, {percent(report.level)} intervals below.",
            "headings": ["Walk", "faces", *(f"strength {one:g}" for one in strengths)],
            "rows": [_by_strength(walk, part, words) for walk, part in _walks(mine, reading)],
        }
        for reading, title, words in (
            ("success", f"Share that reads as the wanted value{beside}", None),
            ("identity", "Likeness of the person: mean cosine of the encoder's features", number),
        )
    ]
    at = report.at(1.0)
    at = at[(at["paths"] == name) & ~at["reading"].isin(["success", "identity"])]
    columns = [column for column in report.readers.index if column in set(at["reading"])]
    matrix = []
    for walk, part in at.groupby("walk", sort=False):
        cells = {row["reading"]: _measured(row) for row in part.to_dict("records")}
        matrix.append({"name": walk, "cells": [cells.get(one, {"text": "–", "between": ""}) for one in columns]})
    tables.append(
        {
            "caption": f"Drift: share of faces whose reading of another label changes, at strength "
            f"{at['strength'].iloc[0]:g}."
            if len(at)
            else "Drift: no other label is read.",
            "headings": ["Walk", *map(str, columns)],
            "rows": matrix,
        }
    )
    title = f"Paths: {name}" if numbered else "What each path does"
    return {"anchor": f"paths-{list(report.costs.index).index(name) + 1}", "title": title, "text": [], "tables": tables,
            "pairs": []}  # fmt: skip


def _walks(table: pd.DataFrame, reading: str) -> list[tuple[str, pd.DataFrame]]:
    return [(str(walk), part) for walk, part in table[table["reading"] == reading].groupby("walk", sort=False)]


def _by_strength(walk: str, part: pd.DataFrame, words: Any) -> dict[str, Any]:
    records = part.to_dict("records")
    cells = [
        _measured(row) if words is None else {"text": words(row["value"]), "between": _between(row, words)}
        for row in records
    ]
    return {"name": walk, "cells": [{"text": f"{records[0]['num_faces']:,}", "between": ""}, *cells]}


def _readers(report: DriftReport) -> dict[str, Any]:
    rows = [
        {
            "name": str(column),
            "cells": [
                {"text": f"{int(row['num_faces']):,}", "between": ""},
                {"text": percent(row["accuracy"], 1), "between": _between(row)},
            ],
        }
        for column, row in report.readers.iterrows()
    ]
    return {
        "caption": f"How often the classifier of a label is right on unedited faces that it was not fitted to, "
        f"{percent(report.level)} intervals below.",
        "headings": ["Label", "faces", "right"],
        "rows": rows,
    }
