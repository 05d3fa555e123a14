"""How often the intervals of verification hold the truth, with pairs that share people.

    python benchmarks/search_verification.py [--worlds 300] [--people 100 400] [--pairs 600 6000]

In each world people are drawn: some are told apart well, some are not, and some look like many others. The truth of a
group is its accuracy and true accepts over infinitely many people, found once from a very large draw.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from vlbias.data.pairs import FacePairs
from vlbias.search.verification import verify

FAR = 1e-2
GROUPS = ("a", "b")
SPREAD = 0.5  # of people, beside a spread of 1 of pairs
CENTRES = {"a": 3.0, "b": 2.4}


def draw(num_people: int, num_pairs: int, generator: np.random.Generator) -> tuple[np.ndarray, FacePairs]:
    """Scores of pairs: that of one person follows the person, that of two follows both. Nobody is in two folds."""
    is_same = np.arange(num_pairs) % 2 == 0
    folds = np.arange(num_pairs) // 2 % 10
    per_fold = num_people // 10
    place = generator.integers(per_fold, size=num_pairs)
    step = 2 * generator.integers(1, per_fold // 2, size=num_pairs)  # of the same group: the parity says which
    first = folds * per_fold + place
    second = np.where(is_same, first, folds * per_fold + (place + step) % per_fold)
    groups = np.array(GROUPS, dtype=object)[first % 2]
    quality, likeness = SPREAD * generator.normal(size=(2, num_people))
    noise = generator.normal(size=num_pairs)
    centre = np.array([CENTRES[group] for group in groups])
    genuine = centre + quality[first] + noise
    scores = np.where(is_same, genuine, (likeness[first] + likeness[second]) / np.sqrt(2) + noise)
    pairs = FacePairs(
        "drawn",
        None,  # type: ignore[arg-type]  # embeddings are given, no picture is asked for
        tuple(str(i) for i in range(2 * num_pairs)),
        np.arange(0, 2 * num_pairs, 2),
        np.arange(1, 2 * num_pairs, 2),
        is_same,
        folds,
        groups,
        np.stack([first, second], axis=1).astype(object),
    )
    return scores, pairs


def embeddings(scores: np.ndarray) -> np.ndarray:
    """Unit vectors (2n, 2) whose cosines stand in the order of the scores."""
    angle = np.pi / 2 - np.arctan(scores)
    first = np.stack([np.ones_like(scores), np.zeros_like(scores)], axis=1)
    return np.stack([first, np.stack([np.cos(angle), np.sin(angle)], axis=1)], axis=1).reshape(-1, 2)


def covered(table: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """Whether intervals hold the truth: accuracy, TAR (shares of the groups), gap of accuracy, gap of TAR."""
    keys = ("accuracy", f"tar_{FAR:g}")
    found, gaps = table.attrs["summary"], truth.attrs["summary"]
    shares = [((table[f"{key}_low"] <= truth[key]) & (truth[key] <= table[f"{key}_high"])).mean() for key in keys]
    held = [found[f"{key}_gap_low"] <= gaps[f"{key}_gap"] <= found[f"{key}_gap_high"] for key in keys]
    return np.array([*shares, *held], dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--worlds", type=int, default=300)
    parser.add_argument("--people", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--pairs", type=int, nargs="+", default=[600, 6000])
    given = parser.parse_args()
    generator = np.random.default_rng(0)
    scores, pairs = draw(400_000, 400_000, generator)
    truth = verify(embeddings(scores), pairs, fars=(FAR,))
    print(
        "| people | pairs | folds or people | accuracy | TAR | accuracy gap | TAR gap |\n|---|---|---|---|---|---|---|"
    )
    for num_people in given.people:
        for num_pairs in given.pairs:
            held: dict[str, list[np.ndarray]] = {"people": [], "10 folds": []}
            for _ in range(given.worlds):
                scores, pairs = draw(num_people, num_pairs, generator)
                for people in (pairs.people, None):
                    table = verify(embeddings(scores), _with(pairs, people), fars=(FAR,))
                    held[table.attrs["resampled"]].append(covered(table, truth))
            for kind, rows in held.items():
                mean = np.mean(rows, axis=0)
                error = np.std(rows, axis=0) / np.sqrt(len(rows))
                cells = [f"{100 * m:.1f} % ({100 * e:.1f})" for m, e in zip(mean, error, strict=True)]
                print(f"| {num_people} | {num_pairs} | {kind} | {' | '.join(cells)} |", flush=True)


def _with(pairs: FacePairs, people: np.ndarray | None) -> FacePairs:
    from dataclasses import replace

    return replace(pairs, people=people)


if __name__ == "__main__":
    main()
