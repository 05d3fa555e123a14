"""How often a held-out front says "A dominates B" where it is not true: point estimates against P >= .95.

Candidates are stubs with known miss probabilities per group; a refit shifts them, people differ in how hard they are
to find, and a test set holds a few dozen people. The truth is the expectation over refits and people.

    python benchmarks/search_front.py --worlds 150

Prints claims, false claims and their share, for the means of the refits and for the bootstrap over people with the
noise of refits, and the coverage of the intervals. About three minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vlbias.progress import track
from vlbias.search.evaluation import Evaluation
from vlbias.search.front import compare

OBJECTIVES = ("error", "error_gap")
PEOPLE, IMAGES, CANDIDATES, REFITS = 60, 6, 6, 3
OF_PERSON, OF_REFIT = 0.8, 0.15  # standard deviations on the logit scale


def expected_miss(logits: np.ndarray) -> np.ndarray:
    """E over people and refits of the miss probability, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    spread = np.hypot(OF_PERSON, OF_REFIT)
    return (1 / (1 + np.exp(-(logits[..., None] + spread * nodes)))) @ weights / weights.sum()


def one_world(seed: int, num_resamples: int) -> tuple[np.ndarray, ...]:
    """(k, m) truth, (k, m) means, (k, k) P(dominates), (k, m, 2) intervals."""
    generator = np.random.default_rng([seed, 0])
    base = generator.normal(-1.6, 0.35, size=CANDIDATES)
    tilt = np.abs(generator.normal(0.0, 0.35, size=CANDIDATES))
    logits = np.stack([base, base + tilt], axis=1)  # (k, groups)
    miss = expected_miss(logits)
    truth = np.stack([miss.mean(1), np.abs(miss[:, 0] - miss[:, 1])], axis=1)
    persons = np.repeat(np.arange(PEOPLE), IMAGES)
    groups = persons % 2
    hard = OF_PERSON * generator.normal(size=PEOPLE)
    evaluations = []
    for k in range(CANDIDATES):
        runs = []
        for _ in range(REFITS):
            shift = OF_REFIT * generator.normal(size=2)
            p = 1 / (1 + np.exp(-(logits[k][groups] + shift[groups] + hard[persons])))
            missed = (generator.random(len(p)) < p).astype(float)
            runs.append(Evaluation("identify", ("a", "b"), groups, persons, np.stack([missed, missed]), diversity=1.0))
        evaluations.append(runs)
    mean, interval, dominance = compare(evaluations, OBJECTIVES, num_resamples=num_resamples, seed=seed)
    return truth, mean, dominance[:-1], interval


def pairs(points: np.ndarray) -> np.ndarray:
    """(k, m) => (k, k), whether row dominates column."""
    return (points[:, None] <= points[None]).all(2) & (points[:, None] < points[None]).any(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=150, metavar="N", help="default 150")
    parser.add_argument("--bootstrap", type=int, default=400, metavar="N", help="draws over people, default 400")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the numbers as JSON")
    arguments = parser.parse_args()
    counts = {"point": np.zeros(2), "0.80": np.zeros(2), "0.95": np.zeros(2)}
    covered = []
    with track(arguments.worlds, "worlds", "worlds") as progress:
        for seed in range(arguments.worlds):
            truth, mean, dominance, interval = one_world(seed, arguments.bootstrap)
            real = pairs(truth)
            for name, claims in (("point", pairs(mean)), ("0.80", dominance >= 0.8), ("0.95", dominance >= 0.95)):
                counts[name] += [claims.sum(), (claims & ~real).sum()]
            covered.append((interval[..., 0] <= truth) & (truth <= interval[..., 1]))
            progress.update(1)
    rows = {}
    for name, (claims, false) in counts.items():
        rows[name] = {"claims": int(claims), "false": int(false), "share_false": float(false / max(claims, 1))}
        label = "means of refits" if name == "point" else f"P >= {name}"
        print(f"{label:18} {int(claims):5d} claims, {int(false):4d} false, {false / max(claims, 1):.1%}")
    share = np.mean(covered, axis=(0, 1))
    print("coverage of 95 % intervals: " + ", ".join(f"{n} {s:.1%}" for n, s in zip(OBJECTIVES, share, strict=True)))
    if arguments.out:
        rows["coverage"] = dict(zip(OBJECTIVES, share.tolist(), strict=True))
        arguments.out.write_text(json.dumps({"worlds": arguments.worlds, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
