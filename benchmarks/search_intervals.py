"""How often 95 % intervals of identification hold the truth: error, rank and their gaps, for K groups.

People are points in space, their images noisy copies, the noise differs between people; embeddings are those images.
Worlds are drawn anew with other people; the truth of a group is the mean of its observed rate over 1,000 worlds (leave-
one-out rates are unbiased), computed here without the library. In "equal" worlds groups do not differ and gaps are 0;
in "apart" worlds one group is noisier.

    python benchmarks/search_intervals.py --worlds 300 --people 30,70,200 --groups 2,4,7

Prints the share of intervals that hold the truth with its standard error; some minutes a line on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from vlbias.progress import track
from vlbias.search.evaluation import Evaluation
from vlbias.search.inference import compare
from vlbias.search.metrics import identification_ranks

OBJECTIVES = ("error", "rank", "worst_error", "error_gap", "rank_gap")
IMAGES, SIZE, OF_PERSON = 4, 12, 0.35  # images a person, dimensions, standard deviation of a person's log noise
NOISE = {"equal": (0.75, 0.75), "apart": (0.70, 0.95)}  # of all groups but the last, and of the last
TRUTH_WORLDS = 1000


def embeddings(generator: np.random.Generator, people: int, groups: int, shape: str) -> tuple[np.ndarray, ...]:
    """(n, d) embeddings, (n,) persons, (n,) groups."""
    usual, last = NOISE[shape]
    group = np.arange(people) % groups
    noise = np.where(group == groups - 1, last, usual) * np.exp(OF_PERSON * generator.normal(size=people))
    person = np.repeat(np.arange(people), IMAGES)
    z = generator.normal(size=(people, SIZE))[person] + noise[person, None] * generator.normal(size=(len(person), SIZE))
    return z / np.linalg.norm(z, axis=1, keepdims=True), person, group[person]


def group_rates(z: np.ndarray, person: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Error and rank of each group (g, 2) by their definition."""
    cosine = z @ z.T
    np.fill_diagonal(cosine, -np.inf)
    nearest = cosine.reshape(len(z), -1, IMAGES).max(2)
    mate = nearest[np.arange(len(z)), person]
    rank = (nearest >= mate[:, None]).sum(1) - 1
    return np.array([[np.mean(rank[group == g] > 0), np.mean(rank[group == g])] for g in range(group.max() + 1)])


def truth(people: int, groups: int, shape: str) -> dict[str, float]:
    """Expected objectives of one setting."""
    generator = np.random.default_rng([1, people, groups])
    error, rank = np.mean([group_rates(*embeddings(generator, people, groups, shape))
                           for _ in range(TRUTH_WORLDS)], axis=0).T  # fmt: skip
    share = np.bincount(np.arange(people) % groups) / people
    found = {"error": error @ share, "rank": rank @ share, "worst_error": error.max()}
    # Groups that do not differ have a gap of 0, and what is left in the means is chance.
    apart = shape != "equal"
    return found | {"error_gap": np.ptp(error) * apart, "rank_gap": np.ptp(rank) * apart}


def holds(seed: int, people: int, groups: int, shape: str, right: dict[str, float], draws: int) -> list[bool]:
    """Whether the interval of each objective holds the truth in one world."""
    z, person, group = embeddings(np.random.default_rng([2, seed]), people, groups, shape)
    ranks = identification_ranks(z, person, group)
    names = tuple(map(str, range(groups)))
    outcome = np.stack([ranks.by_id, ranks.by_image])
    one = Evaluation("identify", names, group, person, outcome, diversity=1.0, impostors=ranks.impostors)
    interval = compare([[one]], OBJECTIVES, num_resamples=draws, seed=seed).interval[0]
    return [bool(low <= right[name] <= high) for name, (low, high) in zip(OBJECTIVES, interval, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="default 300")
    parser.add_argument("--people", default="30,70,200", metavar="N,...", help="in all groups, default 30,70,200")
    parser.add_argument("--groups", default="2,4,7", metavar="K,...", help="default 2,4,7")
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="of the noise, default 1000")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the shares as JSON")
    arguments = parser.parse_args()
    settings = [(int(people), int(groups), shape) for people in arguments.people.split(",")
                for groups in arguments.groups.split(",") for shape in NOISE]  # fmt: skip
    rows = {}
    with track(len(settings) * arguments.worlds, "worlds", "worlds") as progress:
        for people, groups, shape in settings:
            right = truth(people, groups, shape)
            held = []
            for seed in range(arguments.worlds):
                held.append(holds(seed, people, groups, shape, right, arguments.draws))
                progress.update(1)
            share = np.mean(held, axis=0)
            error = np.sqrt(share * (1 - share) / arguments.worlds)
            text = ", ".join(f"{n} {s:.3f} ({e:.3f})" for n, s, e in zip(OBJECTIVES, share, error, strict=True))
            print(f"{people} people, {groups} groups, {shape}: {text}", flush=True)
            rows[f"{people}/{groups}/{shape}"] = dict(zip(OBJECTIVES, share.tolist(), strict=True))
    if arguments.out:
        arguments.out.write_text(json.dumps({"worlds": arguments.worlds, "coverage": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
