"""Slopes where group labels are a labeller's, some of them wrong: their bias, and how often intervals hold.

Worlds of labels alone: people have several images and differ, a group's accuracy grows with its true share of the
training images, and a little with that of the next group. Labels of both splits are wrong at some rate, mostly in one
direction; it is not told but measured on further people. Truth: the slope of the planned shares, were labels right.

    python benchmarks/simulate_noise.py --worlds 300

Prints, per share of wrong labels, bias in per cent of the true slope and the share of 95 % intervals that hold it, each
with its standard error: with the correction, and as labels have it.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from vlbias import simulate
from vlbias.progress import track
from vlbias.simulate.statistics import slope_weights

GROUPS, CLASSES = list("xyz"), list("abc")
OWN, NEXT = 0.5, 0.15  # what the own share and that of the next group add to the accuracy
IMAGES = 3  # of a person


class Labels:
    """A dataset of labels alone: true groups, and estimated ones in the column "group"."""

    name = "noisy world"

    def __init__(self, seed: int, rates: np.ndarray, num_train: int, num_test: int):
        rng = np.random.default_rng([seed, 0])
        people = num_train + num_test
        true = np.repeat(rng.choice(3, people, p=(0.4, 0.35, 0.25)), IMAGES)
        split = np.repeat(["train"] * num_train + ["test"] * num_test, IMAGES)
        self.true = pd.Series(true, [f"f{i:05d}" for i in range(len(true))])
        self.table = pd.DataFrame(
            {
                "split": split,
                "group": np.asarray(GROUPS)[labelled(true, rates, rng)],
                "label": rng.choice(CLASSES, len(true)),
                "person": np.repeat(np.arange(people), IMAGES).astype(str),
            },
            index=self.true.index,
        )


def labelled(true: np.ndarray, rates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a labeller with these rates says."""
    return np.asarray((rng.random((len(true), 1)) > rates.cumsum(1)[true]).sum(1))


def confusion(wrong: float) -> np.ndarray:
    """P(labelled | true): two thirds of the wrong labels go to the next group."""
    return (1 - wrong) * np.eye(3) + wrong * (2 * np.roll(np.eye(3), 1, axis=1) + np.roll(np.eye(3), 2, axis=1)) / 3


def records(plan: simulate.SimulationPlan, data: Labels, seed: int) -> dict[str, dict[str, object]]:
    """Predictions of every run, whose accuracies follow true shares."""
    rng = np.random.default_rng([seed, 1])
    group = data.true[list(plan.test)].to_numpy()
    right = np.asarray([CLASSES.index(plan.labels[item][1]) for item in plan.test])
    _, person = np.unique([plan.subjects[item] for item in plan.test], return_inverse=True)
    of_person = rng.uniform(-0.15, 0.15, person.max() + 1)[person]
    of_repeat = rng.uniform(-0.05, 0.05, (plan.settings.repeats, 3))
    found = {}
    for key, run in plan.runs.iterrows():
        shares = np.bincount(data.true[plan.files(str(key))], minlength=3) / run["n"]
        accuracy = 0.25 + OWN * shares + NEXT * np.roll(shares, -1) + of_repeat[run["repeat"]]
        is_right = rng.random(len(group)) < accuracy[group] + of_person
        guess = rng.integers(0, 3, len(group))
        found[f"real|{key}"] = {"predicted": np.where(is_right, right, guess)}
    return found


def one_world(seed: int, wrong: float, repeats: int) -> list[tuple[float, ...]]:
    """Per group: true slope, then value, low, high with the correction and without."""
    rates = confusion(wrong)
    data = Labels(seed, rates, 400, 300)
    rng = np.random.default_rng([seed, 2])
    given = np.repeat(rng.choice(3, 300), IMAGES)
    persons = np.repeat(np.arange(300), IMAGES)
    said = np.asarray(GROUPS)[labelled(given, rates, rng)]
    noise = simulate.LabelNoise.from_labels(np.asarray(GROUPS)[given], said, persons=persons)
    asked = {"target": "label", "protected": "group", "subject": "person", "n": 300, "repeats": repeats, "seed": seed}
    rows = []
    for label_noise in (noise, None):
        plan = simulate.plan(data, **asked, shares=(0.0, 0.2, 0.4, 0.6), label_noise=label_noise)
        quick = {"num_resamples": 200, "num_permutations": 2}
        result = simulate.SimulationResult(plan, records(plan, data, seed), ["real"], **quick)
        rows.append([result.contrast(f"f1[{group}]", group, "slope") for group in GROUPS])
    truth = [true_slope(plan, group) for group in range(3)]
    return [
        (true, *(getattr(one, name) for one in pair for name in ("value", "low", "high")))
        for true, *pair in zip(truth, *rows, strict=True)
    ]


def true_slope(plan: simulate.SimulationPlan, group: int) -> float:
    """Of macro F1, where a third of the guesses is right and classes are equally frequent."""
    runs = plan.runs[(plan.runs["focal"] == GROUPS[group]) & (plan.runs["repeat"] == 0)].sort_values("share")
    shares = np.stack([runs[f"n[{name}]"] / runs["n"] for name in GROUPS], axis=1)
    accuracy = OWN * shares[:, group] + NEXT * shares[:, (group + 1) % 3]
    return float(2 / 3 * slope_weights(runs["share"].to_numpy()) @ accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="worlds of each setting, default 300")
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.0, 0.1, 0.3], metavar="P", help="default 0 .1 .3")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of a simulation, default 5")
    arguments = parser.parse_args()
    for wrong in arguments.wrong:
        found = []
        with track(arguments.worlds, f"{wrong:.0%} wrong", "worlds") as progress:
            for seed in range(arguments.worlds):
                found.append(one_world(seed, wrong, arguments.repeats))
                progress.update(1)
        worlds = np.asarray(found)  # (worlds, groups, 7)
        truth = worlds[..., 0]
        for name, at in (("corrected", 1), ("as labelled", 4)):
            value, low, high = np.moveaxis(worlds[..., at : at + 3], -1, 0)
            bias, held = value / truth - 1, (low <= truth) & (truth <= high)
            error = [part.mean(1).std() / np.sqrt(len(part)) for part in (bias, held)]
            print(
                f"{wrong:4.0%} wrong, {name:11s} bias {bias.mean():+6.1%} (s.e. {error[0]:.1%}), "
                f"coverage {held.mean():6.1%} (s.e. {error[1]:.1%})",
                flush=True,
            )


if __name__ == "__main__":
    main()
