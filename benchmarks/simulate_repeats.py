"""How often a simulation with few repeats claims "raises" or "lowers" where its share does nothing.

Worlds of numbers alone, with known sources of chance: which images and seed a repeat has, which people are in the test
set, and how the two meet. 5 % of worlds may give a claim; 95 % of intervals should hold the truth, 0.

    python benchmarks/simulate_repeats.py --worlds 300

Prints, per number of repeats and mix of sources, the share of false claims with its standard error.
"""

from __future__ import annotations

import argparse

import numpy as np

from vlbias.simulate.statistics import contrast

#: Variances of the test set, of a repeat, and of their meeting.
MIXES = {"test set": (1, 0, 0), "repeats": (0.1, 1, 0.1), "meeting": (0, 0, 1), "all": (1, 1, 1)}


def one_world(mix: tuple[float, float, float], num_repeats: int, rng: np.random.Generator, num_draws: int) -> bool:
    """Whether a contrast that is 0 is claimed at 5 %, in either direction."""
    of_test, of_repeat, of_both = np.sqrt(mix)

    def chance(*shape: int) -> np.ndarray:
        return of_test * rng.normal(size=(*shape, 1)) + of_both * rng.normal(size=(*shape, num_repeats))

    points = chance() + of_repeat * rng.normal(size=num_repeats)
    resampled = points + chance(num_draws)
    return contrast(points[:, None], resampled[..., None], np.ones(1)).p_either < 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=300, metavar="N", help="worlds of each setting, default 300")
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 3, 5], metavar="N", help="default 2 3 5")
    arguments = parser.parse_args()
    for num_repeats in arguments.repeats:
        for name, mix in MIXES.items():
            rng = np.random.default_rng([num_repeats, len(name)])
            share = np.mean([one_world(mix, num_repeats, rng, 200) for _ in range(arguments.worlds)])
            error = np.sqrt(max(share * (1 - share), 1e-4) / arguments.worlds)
            print(f"{num_repeats} repeats, {name:9s} {share:6.1%} (s.e. {error:.1%})", flush=True)


if __name__ == "__main__":
    main()
