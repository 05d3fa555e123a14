"""Does balancing the training set make emotion recognition fairer? The published question, asked in the drawn world.

Fan, Xiao and Washington (2023) found that moving a small posed set towards balance raised F1 and parity, and that on
a large varied set balance alone did not. Both kinds of data are planted here, so the answers are known:

    python examples/expression_balance.py OUT                  # both regimes, about three minutes on one core
    python examples/expression_balance.py OUT --regime posed --fill
    python examples/expression_balance.py OUT --model gradients                  # nothing learned beforehand
    python examples/expression_balance.py OUT --model resnet10t --repeats 4      # a network: about an hour on one core

The recogniser is that of both regimes: detectors of facial actions (brows raised, mouth corners down, ...), learned
once from other faces in which skin and ways of showing are balanced, and a linear classifier of what they read. So it
can read a cue alike on every skin, as a pretrained recogniser should, but has to learn from the run's own training set
which actions mean what. "gradients" leaves the detectors out and learns from edges: there the same brow stands out less
from dark skin, and a group's own share matters even where cues are shared.

"Slope about 0" means that the whole 95 % interval lies within +-MARGIN. Writes, per regime, runs.csv,
summary.csv, curves.png and plan.json into OUT/<regime>, and prints the verdicts. A run that was interrupted goes on
where it stopped; several processes with the same OUT share the work.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vlbias import simulate
from vlbias.classify import FitSettings
from vlbias.data import drawn_dataset
from vlbias.images import to_uint8
from vlbias.world import EXPRESSIONS, sample
from vlbias.world.actions import actions

#: Regime -> (images drawn, training images of each run).
SIZES = {"posed": (2000, 400), "varied": (6000, 2000)}
IMAGE_SIZE = 48
#: A slope within this, in F1 per 10 points of share, counts as none: from a share of .05 to .5 it moves F1 by at most
#: .0225, one and a half standard errors of a group's F1 on 900 test images, a tenth of what the posed regime shows.
MARGIN = 0.005
#: Faces that the detectors of facial actions learn from, and the seed of their world.
DETECTOR_FACES, DETECTOR_SEED = 8000, 77
_CELL_PX, _BINS = 6, 8


def oriented_gradients(images: np.ndarray) -> np.ndarray:
    """uint8 (n, 3, s, s) => histograms of oriented gradients (n, f).

    Of log brightness, in the colour where it is strongest, without its sign (lips are darker than light skin and
    lighter than dark skin); blocks of 2 x 2 cells overlap, each normalised. Source: Dalal and Triggs, CVPR 2005.
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
    blocks = np.concatenate(
        [histogram[:, i : rows - 1 + i, j : columns - 1 + j] for j in (0, 1) for i in (0, 1)], axis=-1
    )
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + 0.01)
    # No single edge may speak for a block.
    blocks = np.minimum(blocks, 0.2)
    blocks /= np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-3)
    return blocks.reshape(n, -1)


class GradientModel:
    """A simulation's ``model``: training set => labels of the test images. Features of an image are made once."""

    __name__ = "oriented gradients, logistic regression C=0.01"
    strength = 0.01

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], np.ndarray] = {}
        self._test: np.ndarray | None = None

    def features(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, 3, s, s) => (n, f)."""
        return oriented_gradients(images)

    def __call__(self, training: simulate.TrainingSet) -> np.ndarray:
        if self._test is None:
            self._test = self.features(training.test_images.numpy())
        # An edit has its donor's name; within one regime of two groups it can only lead to the other group.
        names = list(zip(training.ids, training.edited.tolist(), strict=True))
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            self._known |= zip([names[i] for i in new], self.features(training.images[new].numpy()), strict=True)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=300)).fit(
            np.stack([self._known[name] for name in names]), training.labels.astype(str)
        )
        return fitted.predict(self._test)


class ActionModel(GradientModel):
    """The same with what detectors of facial actions read in the gradients in place of the gradients themselves.

    Source: the facial action units of Ekman and Friesen, 1978, which recognisers of expressions commonly stand on.
    """

    __name__ = "pattern of facial actions, by ridge regression of oriented gradients; logistic regression C=1"
    strength = 1.0

    def __init__(self) -> None:
        super().__init__()
        # Every way of showing an expression on every skin equally often: the detectors must not favour a regime.
        cells = {(way, skin): 1 / 6 for way in ("whole", "mouth", "eyes") for skin in ("dark", "light")}
        faces = sample(DETECTOR_FACES, cells={("dialect", "skin"): cells}, expressions=EXPRESSIONS, seed=DETECTOR_SEED)
        drawn = drawn_dataset(
            faces, [f"detector-{i:05d}" for i in range(len(faces))], image_size=IMAGE_SIZE, name="detectors"
        )
        images = to_uint8(drawn.tensor(list(drawn.table.index), IMAGE_SIZE)).numpy()
        strength = faces.nuisance_of("expression_strength")
        amounts = actions(faces.expression, faces.dialect, faces.smile_intensity, strength)
        self.names = tuple(amounts)
        gradients = oriented_gradients(images)
        self._detectors = make_pipeline(StandardScaler(), Ridge(alpha=1000.0)).fit(
            gradients, np.stack([amount.numpy() for amount in amounts.values()], axis=1)
        )
        self._middle = self._detectors.predict(gradients).mean(0)

    def features(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, 3, s, s) => pattern of the actions in ``names``: estimates less their mean, unit length (n, a).

        How strongly a face is read depends on how its skin contrasts with brows and lips; the pattern does less.
        """
        read = self._detectors.predict(oriented_gradients(images)) - self._middle
        return read / (np.linalg.norm(read, axis=1, keepdims=True) + 1e-6)


#: Name -> recogniser without a network.
CLASSICAL = {"actions": ActionModel, "gradients": GradientModel}


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
    if model in CLASSICAL:
        result = simulate.run(
            plan, faces, model=CLASSICAL[model](), storage=out / "sim.log", fill=fills,
            settings=FitSettings(image_size=IMAGE_SIZE),
        )  # fmt: skip
    else:
        result = simulate.run(
            plan, faces, model=model, storage=out / "sim.log", fill=fills, num_steps=num_steps,
            image_size=IMAGE_SIZE, learning_rate=3e-3,
        )  # fmt: skip
    result.write(out)
    for row in result.summary().to_dict("records"):
        print("  " + row["verdict"])
        if regime == "varied":
            low, high = row["own_slope_low"] / 10, row["own_slope_high"] / 10
            within = "within" if low > -MARGIN and high < MARGIN else "not within"
            print(f"    slope about 0: its interval is {within} +-{MARGIN:g} F1 per 10 points")
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
        "--model", default="actions", metavar="NAME", help="actions (default), gradients, or a timm backbone"
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
