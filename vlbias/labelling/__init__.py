"""Labels that nobody gave: CLIP zero-shot, any classifier, measured skin tone; each scored against given labels."""

from __future__ import annotations

from vlbias.labelling.classifier import ClassifierLabeller, zero_shot
from vlbias.labelling.columns import ColumnReport, label_column, labeller_of, layout_of, read_reports, write_reports
from vlbias.labelling.evaluation import LabelEvaluation, Separation, evaluate, separation
from vlbias.labelling.labels import Labeller, Labels
from vlbias.labelling.skin_tone import LAYOUTS, SkinTone, SkinToneLabeller, measure_skin_tone

__all__ = [
    "LAYOUTS",
    "ClassifierLabeller",
    "ColumnReport",
    "LabelEvaluation",
    "Labeller",
    "Labels",
    "Separation",
    "SkinTone",
    "SkinToneLabeller",
    "evaluate",
    "label_column",
    "labeller_of",
    "layout_of",
    "measure_skin_tone",
    "read_reports",
    "separation",
    "write_reports",
    "zero_shot",
]
