"""What the page of an editor's paths says: how often a walk arrives, what it takes along, and how it looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from PIL import Image

from vlbias.pages.page import data_uri, number, percent, signed
from vlbias.paths import Dipole, PathReport
from vlbias.shown import plural

__all__ = ["path_values"]

#: A reading that changes sides in more of the faces than this is named above the tables.
MOVED = 0.1


def path_values(
    measured: PathReport, dipoles: Mapping[str, Dipole], strips: Sequence[tuple[str, Image.Image]], strength: float
) -> dict[str, Any]:
    """All that ``paths.html.j2`` needs, but for what every page has.

    Args:
        measured: of these paths.
        dipoles: all that is read, by name.
        strips: (path, one face along it).
        strength: of the walks.
    """
    return {
        "lede": [_arrived(measured), _taken_along(measured)],
        "walks": [_walk(str(name), row, dipoles) for name, row in measured.summary.iterrows()],
        "readings": [str(name) for name in measured.changed.columns],
        "changed": _cells(measured.changed, percent),
        "moved": _cells(measured.moved, lambda value: signed(value, 2)),
        "strips": [
            {"text": f"{path}: one face at strengths from {-strength:+g} to {strength:+g}", "image": _embedded(strip)}
            for path, strip in strips
        ],
        "limits": [
            "The editor's own CLIP reads what it was trained with. It errs, and shares the blind spots of the paths; "
            "evidence needs a scorer that took no part.",
            f"Readings are of {plural(int(measured.summary['faces'].sum()), 'walk')} of these faces at this strength; "
            "other faces, or longer walks, may fare worse.",
            "Identity is the cosine of codes before and after. No face recogniser was asked.",
            "Readings move together where the faces of the training set tied them, whatever the prompt says.",
        ],
    }


def _embedded(strip: Image.Image) -> str:
    return data_uri(strip, max_edge_px=max(strip.size))


def _own(walk: str) -> str:
    """The path of a row such as "age +1"."""
    return walk.rpartition(" ")[0]


def _walk(name: str, row: Any, dipoles: Mapping[str, Dipole]) -> dict[str, str]:
    dipole = dipoles[_own(name)]
    texts = (dipole.positive if name.rpartition(" ")[2].startswith("+") else dipole.negative)[0]
    arrived, faces = round(row["success"] * row["faces"]), int(row["faces"])
    return {
        "name": name,
        "towards": texts,
        "arrived": f"{arrived} of {faces}",
        "share": percent(row["success"]),
        "identity": number(row["identity"], 2),
    }


def _arrived(measured: PathReport) -> str:
    lowest, row = min(measured.summary.iterrows(), key=lambda item: float(item[1]["success"]))
    share, faces = percent(row["success"]), plural(int(row["faces"]), "face")
    return f"The walk that arrives least often is {lowest}: {share} of {faces} read as its pole afterwards."


def _taken_along(measured: PathReport) -> str:
    found = [
        (float(value), f"{name} by {walk} ({percent(float(value))})")
        for walk, row in measured.changed.iterrows()
        for name, value in row.items()
        if name != _own(str(walk)) and value > MOVED
    ]
    worst = ", ".join(text for _, text in sorted(found, reverse=True)[:4])
    if not found:
        return f"No other reading changed sides in more than {percent(MOVED)} of the faces."
    return f"Other readings that changed sides in more than {percent(MOVED)} of the faces: {worst}."


def _heat(value: float) -> int:
    return round(min(abs(value), 1) * 60) if math.isfinite(value) else 0


def _cells(table: pd.DataFrame, shown: Any) -> list[dict[str, Any]]:
    """Rows whose cells know whether they are of the path itself, and how dark their ground is."""
    return [
        {
            "walk": walk,
            "cells": [
                {"text": shown(float(value)), "own": name == _own(str(walk)), "heat": _heat(value)}
                for name, value in row.items()
            ],
        }
        for walk, row in table.iterrows()
    ]
