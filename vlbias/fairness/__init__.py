"""Group metrics of a classifier, with bootstrap intervals and a permutation null.

Every number here is a function of one table of counts, n[g, y, p]: how many items of group g and true class y were
predicted p. The definitions are fairlearn's and scikit-learn's, and are tested against both; ``docs/fairness.md`` has
all formulas.
"""

from __future__ import annotations

from vlbias.fairness.counts import tally
from vlbias.fairness.inference import (
    Excess,
    interval,
    permutation_test,
    permuted_counts,
    permuted_groups,
    person_weights,
)
from vlbias.fairness.metrics import METRICS, Metric, metrics_from_counts
from vlbias.fairness.report import (
    FairnessReport,
    accuracy,
    accuracy_gap,
    balanced_accuracy,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
    evaluate,
    macro_f1,
    worst_cell_accuracy,
    worst_group_accuracy,
)
from vlbias.fairness.settings import EvaluationSettings

__all__ = [
    "METRICS",
    "EvaluationSettings",
    "Excess",
    "FairnessReport",
    "Metric",
    "accuracy",
    "accuracy_gap",
    "balanced_accuracy",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "evaluate",
    "interval",
    "macro_f1",
    "metrics_from_counts",
    "permutation_test",
    "permuted_counts",
    "permuted_groups",
    "person_weights",
    "tally",
    "worst_cell_accuracy",
    "worst_group_accuracy",
]
