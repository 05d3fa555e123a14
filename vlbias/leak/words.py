"""The leak in words: what a command line, a card and a page say of it."""

from __future__ import annotations

from collections.abc import Mapping

from vlbias.leak.measure import MAX_AUC, MIN_IN_ALL, MIN_OF_CELL, Leak, Reading
from vlbias.leak.probe import Auc
from vlbias.leak.statistics import describe, is_of_file
from vlbias.shown import plural

__all__ = ["auc_text", "leak_lines", "leak_warning", "size_text", "why_no_figure"]

#: Edits that are told no better than this above their unedited donors owe it to who the donors are.
_SAME_AS_DONORS = 0.05


def auc_text(auc: Auc) -> str:
    """An AUC with its interval.

    Example:
        >>> auc_text(Auc(0.912, 0.87, 0.951))
        '.91 (.87 to .95)'
    """
    return f"{_short(auc.value)} ({_short(auc.low)} to {_short(auc.high)})"


def _short(value: float) -> str:
    text = f"{value:.2f}"
    return text if text.startswith("1") else text.replace("0.", ".", 1)


def size_text(size: int | None) -> str:
    """At which size a reading was made."""
    return "as written" if size is None else f"at {size} px"


def why_no_figure(leak: Leak) -> str | None:
    """Why there is no reading; ``None`` where there is one."""
    if leak.readings:
        return None
    if not leak.cells:
        return "There is no edit to tell from an original."
    small = ", ".join(
        f"{cell.target} {cell.group} ({plural(cell.edits, 'edit')}, {plural(cell.originals, 'original')})"
        for cell in leak.cells
    )
    return (
        f"Too few pictures to tell how well edits can be told from originals of the same cell: {small}. It takes "
        f"{MIN_OF_CELL} of both in a cell and {MIN_IN_ALL} of both in all."
    )


def leak_lines(leak: Leak) -> list[str]:
    """The measurement in a few lines."""
    why = why_no_figure(leak)
    if why is not None:
        return [why]
    readings = "; ".join(
        f"{size_text(row.size)} {auc_text(row.edits)}"
        + (f", unedited donors {_short(row.donors.value)}" if row.donors is not None else "")
        for row in leak.readings
    )
    lines = [
        f"Edits told from originals of the same cell by low-level traces, AUC of {leak.num_edits} against "
        f"{leak.num_originals}: {readings}."
    ]
    worst = leak.worst
    assert worst is not None  # there are readings
    lines.append(f"Most is given away {size_text(worst.size)} by {_told_by(worst)}.")
    if worst.apart is not None and worst.apart.value > worst.edits.value:
        donors = f", unedited donors {_short(worst.donors_apart.value)}" if worst.donors_apart is not None else ""
        lines.append(f"Each cell read in its own way, {size_text(worst.size)}: {auc_text(worst.apart)}{donors}.")
    if leak.network is not None:
        row = leak.network
        lines.append(
            f"By a small network at {row.size} px: {auc_text(row.edits)}, unedited donors {auc_text(row.donors)}; "
            f"editing adds {row.excess.value:+.2f} ({row.excess.low:+.2f} to {row.excess.high:+.2f})."
        )
    return lines


def _told_by(reading: Reading) -> str:
    return f"{describe(reading.statistic)} (alone {_short(reading.statistic_auc)})"


def leak_warning(leak: Leak, report: Mapping[str, object]) -> str | None:
    """What to warn of, with the remedy; ``None`` where every AUC is at most :data:`MAX_AUC`.

    Args:
        leak: what was measured.
        report: of the run: its ``size``, ``source``, ``originals`` and ``round_trip``.
    """
    worst = leak.worst
    if worst is None or not leak.is_warned_of:
        return None
    doubt = "" if worst.edits.low > 0.5 else " The interval includes chance: more pictures would say whether it is so."
    return (
        f"low-level traces tell edits from originals of the same cell with an AUC of {auc_text(worst.edits)} "
        f"{size_text(worst.size)} (above {_short(MAX_AUC)}), most by {describe(worst.statistic)}, so a classifier can "
        f"learn who was edited in place of the face.{doubt} {_remedy(worst, report)}"
    )


def _remedy(worst: Reading, report: Mapping[str, object]) -> str:
    if worst.donors is not None and worst.donors.value >= worst.edits.value - _SAME_AS_DONORS:
        return (
            f"Their unedited donors are told as well ({_short(worst.donors.value)}): the groups' photographs differ, "
            "and editing adds little."
        )
    if report.get("source") == "prior":
        return (
            "Edit the dataset's own faces (--source real), or bring the originals to the same size (--size editor "
            "--originals resize)."
        )
    if report.get("size") == "editor" and report.get("originals") != "resize":
        return "Write edits at their donors' size and in their format (--size own)."
    if is_of_file(worst.statistic):
        return "Bring originals and edits to one file format and quality before you train on them."
    if not report.get("round_trip"):
        return (
            "Let the originals pass through the editor as well, so that they carry some of the same traces "
            "(--round-trip), or train at a smaller size."
        )
    return "The originals passed through the editor already: train at a smaller size, or with blur and JPEG noise."
