"""How often the intervals of an audit hold what is true, for several seeds on the same test faces.

    python benchmarks/audit_coverage.py --worlds 300 [--seeds 3] [--seed-sd .08]

In each world groups have true accuracies, the same for all classifiers on average; each seed's classifier is off by a
little of its own, and seeds err on the same hard faces more often than not. Printed is the share of worlds in which the
interval of the accuracy gap holds the true one, with its standard error, and how wide it is.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from vlbias import audit, classify, fairness

#: True accuracies: all alike, or evenly between two ends.
SHAPES = {"level": (0.8, 0.8), "apart": (0.7, 0.9)}
#: How often a seed errs on its own.
OWN_ERRORS = 0.3


def world(
    rng: np.random.Generator, shares: np.ndarray, group_size: int, num_seeds: int, seed_sd: float
) -> audit.AuditResult:
    """An audit of one training set whose classifiers are right in these shares of groups."""
    group = np.repeat(np.arange(len(shares)), group_size)
    y_true = np.arange(len(group)) % 2
    own = np.clip(shares + seed_sd * rng.standard_normal((num_seeds, len(shares))), 0, 1)[:, group]
    hard, luck = rng.random(len(group)), rng.random((num_seeds, len(group)))
    is_right = np.where(rng.random(luck.shape) < OWN_ERRORS, luck, hard) < own
    counts = pd.DataFrame(1, index=["0", "1"], columns=[f"g{k}" for k in range(len(shares))])
    return audit.AuditResult(
        "target",
        ["group"],
        ["0", "1"],
        list(counts.columns),
        y_true,
        group,
        {"only": np.where(is_right, y_true, 1 - y_true)},
        {"only": audit.TrainingSummary(1, 0, 0, 0, counts)},
        list(range(num_seeds)),
        classify.FitSettings(),
        fairness.EvaluationSettings(positive="1", bootstrap=300),
        0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed-sd", type=float, default=0.02, help="how much a seed's accuracy in a group differs")
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 4, 7])
    parser.add_argument("--sizes", type=int, nargs="+", default=[30, 70, 200], help="people in each group")
    options = parser.parse_args()
    print(f"{'groups':>6} {'people':>6} {'truth':>6} {'held':>6} {'± se':>6} {'width':>6}")
    for num_groups in options.groups:
        for size in options.sizes:
            for name, ends in SHAPES.items():
                shares = np.linspace(*ends, num_groups)
                held, width = [], []
                for number in range(options.worlds):
                    rng = np.random.default_rng([num_groups, size, number])
                    row = world(rng, shares, size, options.seeds, options.seed_sd).summary["only"]["accuracy_gap"]
                    low, high = row["low"], row["high"]
                    held.append(low <= np.ptp(shares) + 1e-12 <= high + 1e-12)
                    width.append(high - low)
                share = float(np.mean(held))
                error = np.sqrt(share * (1 - share) / len(held))
                print(
                    f"{num_groups:>6} {size:>6} {name:>6} {share:6.3f} {error:6.3f} {np.mean(width):6.3f}", flush=True
                )


if __name__ == "__main__":
    main()
