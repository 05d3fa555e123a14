"""How often the intervals of the benchmark's table hold the truth.

Fits are drawn here. In each cell of class and group a method is right at a rate that differs from seed to seed; what is
hard for one fit is hard for the others. The truth is the mean of a metric over the rates of all seeds that could be.

    python benchmarks/table_coverage.py [--worlds 300]

Prints, per setting, the share of intervals at 95 % that hold the truth: of a method's metrics, and of how far it is
ahead of another one.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy.stats import norm

from vlbias.bench import BenchTable, Result

#: Rates in the cells (class, group): of the one method, of the other.
RATES = {"edits": (0.93, 0.80, 0.84, 0.94), "oversample": (0.95, 0.72, 0.78, 0.96)}
#: How much of what makes a face hard is the same for all fits.
SHARED = 0.5
METRICS = ("accuracy", "equalized_odds_difference", "worst_cell_accuracy")
AHEAD = METRICS[:2]


def rates_of(method: str, seed_sd: float, rng: np.random.Generator, size: int) -> np.ndarray:
    """Rates (size, 4) of fits, with the deviation ``seed_sd`` between them."""
    return np.clip(np.array(RATES[method]) + seed_sd * rng.standard_normal((size, 4)), 0.01, 0.99)


def metrics(rates: np.ndarray) -> dict[str, float]:
    """Means over fits of what their rates come to."""
    odds = np.maximum(np.abs(rates[:, 0] - rates[:, 1]), np.abs(rates[:, 2] - rates[:, 3]))
    return dict(zip(METRICS, (float(one.mean()) for one in (rates, odds, rates.min(axis=1))), strict=True))


def results(num_faces: int, num_seeds: int, seed_sd: float, rng: np.random.Generator) -> list[Result]:
    """Fits of both methods on the same test faces, a quarter of them in each cell."""
    cells = np.arange(num_faces) % 4
    hard = np.sqrt(SHARED) * rng.standard_normal(num_faces)
    found = []
    for method in RATES:
        for seed, rates in enumerate(rates_of(method, seed_sd, rng, num_seeds)):
            own = np.sqrt(1 - SHARED) * rng.standard_normal(num_faces)
            is_right = norm.cdf(hard + own) < rates[cells]
            y, group = cells // 2, cells % 2
            codes = np.where(is_right, y, 1 - y)
            found.append(Result("drawn", method, seed, y, group, codes, ["0", "1"], ["a", "b"], {}, [[1, 1], [1, 1]]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="worlds of each setting, default 300")
    parser.add_argument("--faces", type=int, nargs="+", default=[800, 4000], metavar="N", help="test faces")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5], metavar="N", help="fits of a method")
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[0.02, 0.06], metavar="SD")
    arguments = parser.parse_args()
    names = [*METRICS, *(f"ahead in {metric}" for metric in AHEAD)]
    print("faces seeds seed-sd  " + ", ".join(names))
    for faces, seeds, seed_sd in itertools.product(arguments.faces, arguments.seeds, arguments.seed_sd):
        rng = np.random.default_rng([faces, seeds, round(1000 * seed_sd)])
        truth = {method: metrics(rates_of(method, seed_sd, rng, 200_000)) for method in RATES}
        held = []
        for _ in range(arguments.worlds):
            table = BenchTable(results(faces, seeds, seed_sd, rng))
            row = table.table.loc["edits"]
            hits = [row[f"{one}_low"] <= truth["edits"][one] <= row[f"{one}_high"] for one in METRICS]
            for one in AHEAD:
                sign = 1 if one == "accuracy" else -1
                ahead = table.ahead("edits", one).iloc[0]
                by = sign * (truth["edits"][one] - truth["oversample"][one])
                hits.append(ahead["low"] <= by <= ahead["high"])
            held.append(hits)
        shares = np.mean(held, axis=0)
        print(f"{faces:5d} {seeds:5d} {seed_sd:7.2f}  " + "  ".join(f"{share:.1%}" for share in shares), flush=True)


if __name__ == "__main__":
    main()
