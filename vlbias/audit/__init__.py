"""Experiments: train the same classifier on several training sets, and measure each on one common test set.

``compare`` is the usual one: the set as it is, the set with edits, and, where the truth is known, the set with true
counterfactuals (the *oracle*: what perfect edits would have given). Every set gets the same number of optimisation
steps and the same seeds; edited images are for training, never for testing. With ``arms`` it compares ways to train
(:mod:`vlbias.audit.arms`), each tuned on validation faces.
"""

from vlbias.audit.arms import (
    ARMS,
    Arm,
    ArmRun,
    ArmSettings,
    ArmTask,
    LabelledFaces,
    Recipe,
    Trial,
    register_arm,
    run_arm,
)
from vlbias.audit.artefacts import artefacts
from vlbias.audit.comparison import compare_arms
from vlbias.audit.composition import Composition, composition
from vlbias.audit.experiments import compare, measure
from vlbias.audit.flips import FlipExample, FlipReport, flips
from vlbias.audit.path_drift import DriftReport, DriftSettings, Walks, drift, path_variants, taught_faces
from vlbias.audit.results import ArmSummary, AuditResult, TrainingSummary

__all__ = [
    "ARMS",
    "Arm",
    "ArmRun",
    "ArmSettings",
    "ArmSummary",
    "ArmTask",
    "AuditResult",
    "Composition",
    "DriftReport",
    "DriftSettings",
    "FlipExample",
    "FlipReport",
    "LabelledFaces",
    "Recipe",
    "TrainingSummary",
    "Trial",
    "Walks",
    "artefacts",
    "compare",
    "compare_arms",
    "composition",
    "drift",
    "flips",
    "measure",
    "path_variants",
    "register_arm",
    "run_arm",
    "taught_faces",
]
