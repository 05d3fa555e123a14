"""Arms of a comparison: ways to train on an unfair dataset, each tuned and chosen on validation faces alone.

An arm is a registered function from the task (training faces with class and group) to what a fit gets: faces with
repeats, weights, a change of batches, a loss. All arms have the same number of steps and the same batches; all that add
pictures add as many to each cell. ``docs/arms.md`` shows how to register one's own.
"""

from __future__ import annotations

from vlbias.audit.arms.catalogue import BUILT_IN
from vlbias.audit.arms.fitting import ArmRun, run_arm
from vlbias.audit.arms.registry import ARMS, Arm, Recipe, Trial, find_arm, find_arms, register_arm
from vlbias.audit.arms.task import ArmSettings, ArmTask, LabelledFaces, cell_counts

__all__ = [
    "ARMS",
    "BUILT_IN",
    "Arm",
    "ArmRun",
    "ArmSettings",
    "ArmTask",
    "LabelledFaces",
    "Recipe",
    "Trial",
    "cell_counts",
    "find_arm",
    "find_arms",
    "register_arm",
    "run_arm",
]
