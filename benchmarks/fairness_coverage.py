"""How often the intervals of gaps hold the true gap, and how often a permutation test of equal groups rejects.

Worlds are drawn here, with true rates of each group: groups that are all alike, one that is worse, and groups in even
steps; one image a person, or several that resemble each other.

    python benchmarks/fairness_coverage.py --worlds 300

Prints, per setting, the share of intervals at 95 % that hold the truth with its standard error, and the share of
permutation tests at 5 % that reject where groups are alike.
"""

from __future__ import annotations

import argparse
import itertools
import zlib

import numpy as np

from vlbias import fairness

METRICS = ("accuracy_gap", "equal_opportunity_difference", "worst_group_accuracy")
SHAPES = ("equal", "one", "steps")


def true_rates(shape: str, num_groups: int) -> np.ndarray:
    """True accuracy of each group, the same in both classes."""
    away = {"equal": np.zeros(num_groups), "one": np.eye(num_groups)[0], "steps": np.linspace(0, 1, num_groups)}
    return 0.85 - 0.15 * away[shape]


def one_world(
    rates: np.ndarray, num_people: int, num_images: int, rng: np.random.Generator, num_resamples: int
) -> tuple[dict[str, bool], float]:
    """Whether each interval holds the truth, and the p-value of the accuracy gap."""
    groups = np.repeat(np.arange(len(rates)), num_people)
    own = rates[groups]
    if num_images > 1:  # people differ: a beta distribution of the group's mean
        own = rng.beta(2 * own, 2 * (1 - own))
    persons = np.repeat(np.arange(len(groups)), num_images)
    y_true = np.repeat(rng.integers(0, 2, len(groups)), num_images)
    y_pred = np.where(rng.random(len(persons)) < own[persons], y_true, 1 - y_true)
    seed = int(rng.integers(2**31))
    options = {"groups": groups[persons], "persons": persons if num_images > 1 else None, "seed": seed, "min_cell": 1}
    report = fairness.evaluate(y_true, y_pred, **options, bootstrap=num_resamples)
    truth = {"accuracy_gap": np.ptp(rates), "equal_opportunity_difference": np.ptp(rates)}
    truth["worst_group_accuracy"] = rates.min()
    held = {name: report.intervals[name][0] <= truth[name] <= report.intervals[name][1] for name in METRICS}
    test = fairness.permutation_test(y_true, y_pred, **options, metric="accuracy_gap", num_permutations=99)
    return held, test.p_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="worlds of each setting, default 300")
    parser.add_argument("--groups", type=int, nargs="+", default=[2, 4, 7], metavar="K", help="numbers of groups")
    parser.add_argument("--people", type=int, nargs="+", default=[30, 70, 200], metavar="N", help="people of a group")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 5], metavar="N", help="images of a person")
    parser.add_argument("--resamples", type=int, default=400, metavar="N", help="bootstrap draws, default 400")
    arguments = parser.parse_args()
    print("groups people images shape  " + " ".join(METRICS) + "  rejected")
    settings = itertools.product(arguments.groups, arguments.people, arguments.images, SHAPES)
    for num_groups, num_people, num_images, shape in settings:
        rng = np.random.default_rng([num_groups, num_people, num_images, zlib.crc32(shape.encode())])
        rates = true_rates(shape, num_groups)
        found = [one_world(rates, num_people, num_images, rng, arguments.resamples) for _ in range(arguments.worlds)]
        cells = [_share([held[name] for held, _ in found]) for name in METRICS]
        if shape == "equal":
            cells.append(_share([p <= 0.05 for _, p in found]))
        print(f"{num_groups:6d} {num_people:6d} {num_images:6d} {shape:6s}", *cells, flush=True)


def _share(hits: list[bool]) -> str:
    share = float(np.mean(hits))
    return f"{share:6.1%} (s.e. {np.sqrt(max(share * (1 - share), 1e-4) / len(hits)):.1%})"


if __name__ == "__main__":
    main()
