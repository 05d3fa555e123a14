"""Composition simulations: what happens to F1 and parity as the make-up of the training set moves.

``plan`` lays out exact file lists, ``run`` fits the classifiers (resumable, shared by workers), the result has the
table, curves and verdicts; see ``docs/simulate.md``. The question is that of Fan, Xiao and Washington (2023).
"""

from vlbias.simulate.fill import BalancerFill, CounterfactualFill, Fill
from vlbias.simulate.noise import LabelNoise
from vlbias.simulate.plans import PlanSettings, SimulationPlan, plan
from vlbias.simulate.quotas import quotas
from vlbias.simulate.regimes import REGIMES, expression_faces
from vlbias.simulate.result import SimulationResult
from vlbias.simulate.runs import run
from vlbias.simulate.statistics import Contrast, contrast, exchange_rate, holm
from vlbias.simulate.training import TrainingSet

__all__ = [
    "REGIMES",
    "BalancerFill",
    "Contrast",
    "CounterfactualFill",
    "Fill",
    "LabelNoise",
    "PlanSettings",
    "SimulationPlan",
    "SimulationResult",
    "TrainingSet",
    "contrast",
    "exchange_rate",
    "expression_faces",
    "holm",
    "plan",
    "quotas",
    "run",
]
