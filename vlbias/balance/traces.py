"""How well a finished run's edits can be told from the originals beside them: what the report says of the leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.balance.originals import ROUND_TRIP, passed_on, with_face_boxes
from vlbias.data import FaceDataset
from vlbias.data.recognise import packed_set
from vlbias.leak import LeakSettings, leak_lines, leak_of, leak_warning, measure_leak
from vlbias.leak.statistics import Source

__all__ = ["card_lines", "leak_settings", "measured", "needs_measuring", "summary_lines", "warning"]


def leak_settings(leak: str | LeakSettings, seed: int) -> LeakSettings:
    """A probe by name as settings.

    Raises:
        ConfigError: no such probe.
    """
    if isinstance(leak, LeakSettings):
        return leak
    return LeakSettings.from_dict({"probe": leak, "seed": seed})


def measured(
    table: pd.DataFrame,
    out: Path,
    faces: FaceDataset | None,
    *,
    target: str,
    protected: Sequence[str],
    splits: Sequence[str],
    settings: LeakSettings,
    show_progress: bool = False,
) -> dict[str, Any]:
    """The entry ``leak`` of a report.

    Args:
        table: ``metadata.csv``.
        out: the output folder.
        faces: the dataset, which has the originals that the folder lacks; ``None`` where there was none.
        target, protected, splits: of the plan.
        settings: how it is measured.
        show_progress: whether a line on stderr tells how far it is.

    Raises:
        ImageError: a picture cannot be read.
    """

    def original(item: str) -> Source | None:
        assert faces is not None
        if item not in faces.table.index:  # drawn from the prior
            return None
        path, cut = faces.path(item), (faces.alignment or {}).get("write") == "crop"
        if path is not None and not cut:
            return Path(path)
        if not cut and (packed := faces.file(item)) is not None:
            return packed
        found = faces.original(item)
        return found.encode(found.stored)

    packed = packed_set(out)
    leak = measure_leak(
        _with_omitted(table, faces),
        out if packed is None else packed.file,
        target=target,
        protected=protected,
        splits=splits,
        settings=settings,
        original=None if faces is None else original,
        show_progress=show_progress,
    )
    return {"leak": leak.to_dict()}


def _with_omitted(table: pd.DataFrame, faces: FaceDataset | None) -> pd.DataFrame:
    """The table with the originals that were left out of the folder: they are trained on beside it."""
    if faces is None or table["origin"].isin(["real", ROUND_TRIP]).any():
        return table
    rows = passed_on(faces)
    return pd.concat([table, with_face_boxes(faces, rows) if "face_box" in table else rows], ignore_index=True)


def needs_measuring(report: Mapping[str, object], settings: LeakSettings) -> bool:
    """Whether a finished run was measured otherwise than it is asked for now."""
    leak = leak_of(report)
    return leak is None or leak.settings != settings


def warning(report: Mapping[str, object]) -> str | None:
    """What the report's leak warns of; ``None`` for nothing."""
    leak = leak_of(report)
    return None if leak is None else leak_warning(leak, report)


def summary_lines(report: Mapping[str, object]) -> list[str]:
    """The leak for the command line."""
    leak, text = leak_of(report), warning(report)
    return [*([] if leak is None else leak_lines(leak)), *([] if text is None else [f"warning: {text}"])]


def card_lines(report: Mapping[str, object]) -> list[str]:
    """The leak for the dataset card."""
    leak, text = leak_of(report), warning(report)
    if leak is None:
        return []
    lines = ["", "## How well edits can be told from originals", *leak_lines(leak)]
    return lines if text is None else [*lines, "", f"**Warning:** {text}"]
