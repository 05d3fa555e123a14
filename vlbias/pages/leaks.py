"""What a page says of the leak: how well edits can be told from the originals beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlbias.leak import MAX_AUC, Auc, Leak, describe, leak_of, leak_warning, size_text, why_no_figure
from vlbias.pages.page import number, signed
from vlbias.shown import plural

__all__ = ["leak_values", "leak_warnings"]


def leak_warnings(report: Mapping[str, object]) -> list[str]:
    """What the top of the page must say of it; nothing where there is nothing to warn of."""
    leak = leak_of(report)
    text = None if leak is None else leak_warning(leak, report)
    return [] if text is None else [f"Warning: {text}"]


def leak_values(report: Mapping[str, object]) -> dict[str, Any] | None:
    """The section: a sentence, a table of readings, and a note on how it was measured."""
    leak = leak_of(report)
    if leak is None:
        return None
    rows = [
        {
            "probe": "low-level traces",
            "size": size_text(reading.size),
            "edits": _estimate(reading.edits),
            "donors": _estimate(reading.donors),
            "excess": _estimate(reading.excess, signed),
            "apart": _estimate(reading.apart),
            "donors_apart": _estimate(reading.donors_apart),
            "told_by": f"{describe(reading.statistic)}: alone {number(reading.statistic_auc, 2)}",
            "high": reading.edits.value > MAX_AUC,
        }
        for reading in leak.readings
    ]
    if leak.network is not None:
        network = leak.network
        rows.append(
            {
                "probe": "a small network",
                "size": size_text(network.size),
                "edits": _estimate(network.edits),
                "donors": _estimate(network.donors),
                "excess": _estimate(network.excess, signed),
                "apart": None,
                "donors_apart": None,
                "told_by": "",
                "high": False,
            }
        )
    return {"intro": _intro(leak), "rows": rows, "note": _note(leak) if rows else None, "bar": number(MAX_AUC, 2)}


def _estimate(auc: Auc | None, show: Any = number) -> dict[str, str] | None:
    return None if auc is None else {"value": show(auc.value, 2), "low": show(auc.low, 2), "high": show(auc.high, 2)}


def _intro(leak: Leak) -> str:
    why = why_no_figure(leak)
    if why is not None:
        return why
    edits, originals = plural(leak.num_edits, "edit"), plural(leak.num_originals, "original")
    return (
        "Edits stand in the short cells alone. Where they can be told from originals of the same cell, a classifier "
        f"can learn that in place of the face. {edits} and {originals} were compared; 0.5 is chance, 1 is always. "
        "Donors come from another group and differ a little without any editing, so what counts is how much more than "
        "its unedited donor an edit is told."
    )


def _note(leak: Leak) -> str:
    small = ", ".join(f"{cell.target} {cell.group}" for cell in leak.cells if not cell.is_enough)
    left_out = f" Left out for too few pictures: {small}." if small else ""
    return (
        "Area under the ROC curve over pairs of one cell, for faces that the probe was not fitted on, with 95 % "
        "intervals (bootstrap over faces, widened for folds that share training faces). The low-level probe is a "
        "logistic regression on the spectrum, the high-pass residual, the JPEG grid and quantisation, and size and "
        "format of the file; at a size in pixels only on what resizing leaves. It finds what edits into all cells have "
        "in common; cell by cell it may read each in its own way, and so finds also what photographs of the donors’ "
        f"group are like.{left_out}"
    )
