"""Does balancing the training set make emotion recognition fairer? The published question, asked in the drawn world.

Fan, Xiao and Washington (2023) found that moving a small posed set towards balance raised F1 and parity, and that on
a large varied set balance alone did not. Both kinds of data are planted here, so the answers are known:

    python examples/expression_balance.py OUT                  # both regimes, about two minutes on one core
    python examples/expression_balance.py OUT --regime posed --fill
    python examples/expression_balance.py OUT --model resnet10t --repeats 4      # a network: about an hour on one core

The recogniser is a classical one, oriented gradients and a linear classifier: it learns an expression from two dozen
faces, which no network does from nothing, and a fit takes a fraction of a second. Writes, per regime, runs.csv,
summary.csv, curves.png and plan.json into OUT/<regime>, and prints the verdicts. A run that was interrupted goes on
where it stopped; several processes with the same OUT share the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlbias import simulate
from vlbias.classify import FitSettings

#: Regime -> (images drawn, training images of each run).
SIZES = {"posed": (2000, 400), "varied": (6000, 2000)}
IMAGE_SIZE = 48
_CELL_PX, _BINS = 6, 8


def oriented_gradients(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 3, s, s) => histograms of oriented gradients (n, f).

    Of log brightness, in the colour where it is strongest, without its sign (lips are darker than light skin and
    lighter than dark skin), normalised in each cell. Source: Dalal and Triggs, CVPR 2005, without overlapping blocks.
    """
    log_x = np.log(images.astype(np.float32) / 255.0 + 0.03)
    d_y, d_x = np.zeros_like(log_x), np.zeros_like(log_x)
    d_y[:, :, 1:-1] = log_x[:, :, 2:] - log_x[:, :, :-2]
    d_x[..., 1:-1] = log_x[..., 2:] - log_x[..., :-2]
    strongest = np.hypot(d_y, d_x).argmax(1)[:, None]
    d_y, d_x = (np.take_along_axis(d, strongest, axis=1)[:, 0] for d in (d_y, d_x))
    strength, angle = np.hypot(d_y, d_x), np.arctan2(d_y, d_x) % np.pi / np.pi * _BINS
    below = np.floor(angle).astype(int) % _BINS
    part = angle - np.floor(angle)
    n, rows, columns = len(images), images.shape[2] // _CELL_PX, images.shape[3] // _CELL_PX
    histogram = np.zeros((n, rows, columns, _BINS), dtype=np.float32)
    for b in range(_BINS):
        share = np.where(below == b, 1 - part, 0) + np.where((below + 1) % _BINS == b, part, 0)
        cells = (strength * share)[:, : rows * _CELL_PX, : columns * _CELL_PX]
        histogram[..., b] = cells.reshape(n, rows, _CELL_PX, columns, _CELL_PX).sum((2, 4))
    histogram /= np.sqrt((histogram**2).sum(-1, keepdims=True)) + 0.1
    return histogram.reshape(n, -1)


class GradientModel:
    """A simulation's ``model``: training set => labels of the test images. Features of an image are made once."""

    __name__ = "oriented gradients, logistic regression C=0.01"

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], np.ndarray] = {}
        self._test: np.ndarray | None = None

    def __call__(self, training: simulate.TrainingSet) -> np.ndarray:
        if self._test is None:
            self._test = oriented_gradients(training.test_images.numpy())
        # An edit has its donor's name; within one regime of two groups it can only lead to the other group.
        names = list(zip(training.ids, training.edited.tolist(), strict=True))
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            self._known |= zip([names[i] for i in new], oriented_gradients(training.images[new].numpy()), strict=True)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(
            np.stack([self._known[name] for name in names]), training.labels.astype(str)
        )
        return fitted.predict(self._test)


def study(
    regime: str, out: Path, *, repeats: int, shares: list[float], model: str, num_steps: int, fill: bool
) -> simulate.SimulationResult:
    """Plan, run, write and print one regime."""
    drawn, n = SIZES[regime]
    faces = simulate.expression_faces(regime, drawn, image_size=IMAGE_SIZE)
    plan = simulate.plan(
        faces, target="expression", protected="skin", shares=shares, n=n, repeats=repeats, rest="uniform"
    )
    print(f"{regime}: {plan}")
    # A perfect edit of the skin keeps the face's way of showing expressions: the drawn world tells both apart.
    fills = {"real": None, "edited": simulate.CounterfactualFill("skin")} if fill else None
    if model == "gradients":
        result = simulate.run(
            plan, faces, model=GradientModel(), storage=out / "sim.log", fill=fills,
            settings=FitSettings(image_size=IMAGE_SIZE),
        )  # fmt: skip
    else:
        result = simulate.run(
            plan, faces, model=model, storage=out / "sim.log", fill=fills, num_steps=num_steps,
            image_size=IMAGE_SIZE, learning_rate=3e-3,
        )  # fmt: skip
    result.write(out)
    for line in result.verdicts():
        print("  " + line)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for results")
    parser.add_argument(
        "--regime", choices=sorted(simulate.REGIMES), action="append", help="one regime; both by default"
    )
    parser.add_argument("--repeats", type=int, default=6, metavar="N", help="independent draws, default 6")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.05, 0.2, 0.35, 0.5], metavar="P", help="focal shares"
    )
    parser.add_argument(
        "--model", default="gradients", metavar="NAME", help="a timm backbone in place of oriented gradients"
    )
    parser.add_argument("--num-steps", type=int, default=400, metavar="N", help="steps of a backbone, default 400")
    parser.add_argument(
        "--fill", action="store_true", help="also reach the shares with perfect edits of the other group"
    )
    arguments = parser.parse_args()
    for regime in arguments.regime or sorted(simulate.REGIMES):
        study(
            regime,
            arguments.out / regime,
            repeats=arguments.repeats,
            shares=arguments.shares,
            model=arguments.model,
            num_steps=arguments.num_steps,
            fill=arguments.fill,
        )


if __name__ == "__main__":
    main()
