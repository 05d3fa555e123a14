"""The leak: how well edits can be told from originals of the same cell, by what the editing left in the files.

A classifier that is trained on a balanced set can learn "was edited" in place of the face, since edits stand in the
short cells alone. So it is measured: by low-level statistics that see nothing of the face, and, where asked for, by a
small network, beside the same on unedited donors.
"""

from __future__ import annotations

from vlbias.leak.measure import MAX_AUC, Cell, Leak, LeakSettings, NetworkReading, Reading, leak_of, measure_leak
from vlbias.leak.probe import Auc
from vlbias.leak.statistics import describe, low_level_statistics
from vlbias.leak.words import auc_text, leak_lines, leak_warning, size_text, why_no_figure

__all__ = [
    "MAX_AUC",
    "Auc",
    "Cell",
    "Leak",
    "LeakSettings",
    "NetworkReading",
    "Reading",
    "auc_text",
    "describe",
    "leak_lines",
    "leak_of",
    "leak_warning",
    "low_level_statistics",
    "measure_leak",
    "size_text",
    "why_no_figure",
]
