"""How often a held-out front says "A dominates B" where it is not true: point estimates against P >= .95.

Candidates are stubs with known miss probabilities per group; a refit shifts them, people differ in how hard they are
to find, and a test set holds a few dozen people. The truth is the expectation over refits and people.

    python benchmarks/search_front.py --worlds 300 --groups 4 --refits 3

Prints claims, false claims and their share, for the means of the refits and for how sure the library is; the share of
worlds with any false claim; and the coverage of the intervals. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vlbias.progress import track
from vlbias.search.evaluation import Evaluation
from vlbias.search.inference import Comparison, compare

OBJECTIVES = ("error", "error_gap")
PEOPLE, IMAGES, CANDIDATES = 60, 6, 6
OF_PERSON, OF_REFIT = 0.8, 0.15  # standard deviations on the logit scale


def expected_miss(logits: np.ndarray) -> np.ndarray:
    """E over people and refits of the miss probability, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    deviation = np.hypot(OF_PERSON, OF_REFIT)
    return (1 / (1 + np.exp(-(logits[..., None] + deviation * nodes)))) @ weights / weights.sum()


def one_world(seed: int, num_resamples: int, num_groups: int = 2, refits: int = 3) -> tuple[np.ndarray, Comparison]:
    """(k, m) truth and what the library finds."""
    generator = np.random.default_rng([seed, 0])
    base = generator.normal(-1.6, 0.35, size=CANDIDATES)
    tilt = np.abs(generator.normal(0.0, 0.35, size=(CANDIDATES, num_groups - 1)))
    logits = base[:, None] + np.c_[np.zeros(CANDIDATES), tilt]  # (k, groups)
    miss = expected_miss(logits)
    persons = np.repeat(np.arange(PEOPLE), IMAGES)
    groups = persons % num_groups
    share = np.bincount(groups) / len(groups)
    truth = np.stack([miss @ share, np.ptp(miss, axis=1)], axis=1)
    hard = OF_PERSON * generator.normal(size=PEOPLE)
    names = tuple(map(str, range(num_groups)))
    evaluations = []
    for k in range(CANDIDATES):
        runs = []
        for _ in range(refits):
            shift = OF_REFIT * generator.normal(size=num_groups)
            p = 1 / (1 + np.exp(-(logits[k][groups] + shift[groups] + hard[persons])))
            missed = (generator.random(len(p)) < p).astype(float)
            runs.append(Evaluation("identify", names, groups, persons, np.stack([missed, missed]), diversity=1.0))
        evaluations.append(runs)
    return truth, compare(evaluations, OBJECTIVES, num_resamples=num_resamples, seed=seed)


def pairs(points: np.ndarray) -> np.ndarray:
    """(k, m) => (k, k), whether row dominates column."""
    return (points[:, None] <= points[None]).all(2) & (points[:, None] < points[None]).any(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="default 300")
    parser.add_argument("--groups", type=int, default=2, metavar="K", help="default 2")
    parser.add_argument("--refits", type=int, default=3, metavar="N", help="of each candidate, default 3")
    parser.add_argument("--draws", type=int, default=2000, metavar="N", help="of the noise, default 2000")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers as JSON")
    arguments = parser.parse_args()
    counts = {"point": np.zeros(3), "0.80": np.zeros(3), "0.95": np.zeros(3)}
    covered, withheld = [], ""
    with track(arguments.worlds, "worlds", "worlds") as progress:
        for seed in range(arguments.worlds):
            truth, found = one_world(seed, arguments.draws, arguments.groups, arguments.refits)
            real, sure, interval = pairs(truth), found.dominance[:-1], found.interval
            withheld = found.withheld
            for name, claims in (("point", pairs(found.mean)), ("0.80", sure >= 0.8), ("0.95", sure >= 0.95)):
                false = claims & ~real
                counts[name] += [claims.sum(), false.sum(), false.any()]
            covered.append((interval[..., 0] <= truth) & (truth <= interval[..., 1]))
            progress.update(1)
    rows = {}
    if withheld:
        print(f"No claims: {withheld}.")
    for name, (claims, false, worlds) in counts.items():
        share = float(false / max(claims, 1))
        rows[name] = {"claims": int(claims), "false": int(false), "share_false": share}
        label = "means of refits" if name == "point" else f"P >= {name}"
        any_false, error = worlds / arguments.worlds, np.sqrt(share * (1 - share) / max(claims, 1))
        print(f"{label:18} {int(claims):5d} claims, {int(false):4d} false, {share:.1%} ({error:.1%}); "
              f"any in {any_false:.1%} of worlds")  # fmt: skip
    share = np.mean(covered, axis=(0, 1))
    print("coverage of 95 % intervals: " + ", ".join(f"{n} {s:.1%}" for n, s in zip(OBJECTIVES, share, strict=True)))
    if arguments.out:
        rows["coverage"] = dict(zip(OBJECTIVES, share.tolist(), strict=True))
        arguments.out.write_text(json.dumps({"worlds": arguments.worlds, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
