"""How often a simulation says "balance helps" where composition does nothing: with the corrections and without.

Stub classifiers stand in for training: in the null world a run's accuracy depends on its size, its seed and the
difficulty of each test image, never on who is in the training set. 5 % of worlds may give a false claim.

    python benchmarks/simulate_null.py --worlds 200

Prints, per claim, the share of worlds with a false claim and its 95 % interval. About three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from vlbias import simulate
from vlbias.progress import track
from vlbias.simulate.statistics import contrast, slope_weights

GROUPS, CLASSES = list("xyz"), list("abc")


class Labels:
    """A dataset of labels alone: nothing looks at pictures here."""

    name = "null world"

    def __init__(self, seed: int, num_train: int = 900, num_test: int = 600):
        generator = np.random.default_rng([seed, 0])
        n = num_train + num_test
        self.table = pd.DataFrame(
            {
                "split": ["train"] * num_train + ["test"] * num_test,
                "group": generator.choice(GROUPS, n, p=(0.45, 0.3, 0.25)),
                "label": generator.choice(CLASSES, n),
            },
            index=[f"f{i:05d}" for i in range(n)],
        )


def null_records(plan: simulate.SimulationPlan, seed: int) -> dict[str, dict[str, object]]:
    """Predictions of every run: accuracy moves with size and luck, images differ in difficulty, groups do not."""
    generator = np.random.default_rng([seed, 1])
    true = np.asarray([CLASSES.index(plan.labels[item][1]) for item in plan.test])
    difficulty = generator.normal(size=len(true))
    of_repeat = 0.15 * generator.normal(size=plan.settings.repeats)
    records = {}
    for key, run in plan.runs.iterrows():
        logit = 0.9 + 0.8 * np.log(run["n"] / 150) + of_repeat[run["repeat"]] + 0.15 * generator.normal()
        right = generator.random(len(true)) < 1 / (1 + np.exp(-(logit - difficulty)))
        guess = generator.integers(0, len(CLASSES), len(true))
        records[f"real|{key}"] = {"predicted": np.where(right, true, guess)}
    return records


def naive_slope_p(result: simulate.SimulationResult, focal: str, mode: str) -> float:
    """What a plain regression over all runs says: runs as independent, one test per group."""
    from scipy.stats import linregress

    shares, points, _ = result.points(f"f1[{focal}]", focal, mode=mode)
    return float(linregress(np.tile(shares, len(points)), points.ravel(), alternative="greater").pvalue)


def one_world(seed: int, alpha: float, repeats: int) -> dict[str, bool]:
    """Claims made in one null world."""
    data = Labels(seed)
    shares = (0.0, 0.15, 1 / 3, 0.5)
    options = {"target": "label", "protected": "group", "repeats": repeats, "seed": seed, "shares": shares}
    quick = {"num_resamples": 100, "num_permutations": 60}
    claims = {}
    plan = simulate.plan(data, n=180, **options)
    result = simulate.SimulationResult(plan, null_records(plan, seed), ["real"], **quick)
    summary = result.summary()
    claims["substitute: F1 raised or lowered, corrected"] = bool((summary["own_p"] < alpha).any())
    claims["substitute: F1 slope, one test per group"] = any(
        naive_slope_p(result, g, "substitute") < alpha for g in GROUPS
    )
    claims["substitute: parity gain, corrected"] = bool((summary["parity_p"] < alpha).any())
    raw = [result.contrast("equalized_odds_difference", g, "gain").value < 0 for g in GROUPS]
    claims["substitute: parity gain, point estimate"] = any(raw)

    plan = simulate.plan(data, n=240, mode=("add", "control"), **options)
    result = simulate.SimulationResult(plan, null_records(plan, seed), ["real"], **quick)
    summary = result.summary()
    claims["add: F1 raised or lowered, corrected (minus control)"] = bool((summary["own_p"] < alpha).any())
    without = []
    for group in GROUPS:
        shares, points, resampled = result.points(f"f1[{group}]", group, mode="add")
        without.append(contrast(points, resampled, slope_weights(shares)).p_greater)
    claims["add: F1 slope, no control"] = min(without) < alpha
    claims["add: parity gain, corrected"] = bool((summary["parity_p"] < alpha).any())
    gaps = [result.points("equalized_odds_difference", g, mode="add")[1].mean(0) for g in GROUPS]
    claims["add: parity gain, raw gap smaller at the largest share"] = any(gap[-1] < gap[0] for gap in gaps)
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200, metavar="N", help="null worlds, default 200")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first world, default 0")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="repeats of the simulation, default 5")
    parser.add_argument("--alpha", type=float, default=0.05, metavar="A", help="level of a claim, default 0.05")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers as JSON")
    arguments = parser.parse_args()
    found = []
    with track(arguments.worlds, "null worlds", "worlds") as progress:
        for seed in range(arguments.first, arguments.first + arguments.worlds):
            found.append(one_world(seed, arguments.alpha, arguments.repeats))
            progress.update(1)
    table = pd.DataFrame(found)
    rows = {}
    for name in table.columns:
        share = float(table[name].mean())
        half = 1.96 * float(np.sqrt(max(share * (1 - share), 1e-9) / len(table)))
        rows[name] = [share, max(share - half, 0.0), share + half]
        print(f"{share:6.1%}  ({rows[name][1]:.1%} to {rows[name][2]:.1%})  {name}")
    if arguments.out:
        arguments.out.write_text(
            json.dumps(
                {"worlds": len(table), "alpha": arguments.alpha, "repeats": arguments.repeats, "claims": rows}, indent=1
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
