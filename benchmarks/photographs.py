"""What balancing does for a classifier of real photographs, beside doing nothing, oversampling, and more photographs.

    python benchmarks/photographs.py UTKFace/ WORK --protected skin --size 128 --seeds 0 1 2 [--editor utkface-64]

Gender is tied to skin or to the age group: 360, 40, 40 and 360 adults in the four cells. Then four training sets, each
for the same classifier with the same number of steps: the biased photographs; the short cells oversampled; the edits
that ``Balancer`` kept; as many real photographs added instead. Oversampling and real photographs bring each cell to the
count that the edits brought it to. Tested on photographs that neither the editor nor any classifier was trained on, as
many in every cell. The biased sets are drawn from the photographs that the editor was trained on, because what is left
of the public half is too few for both training and testing.

Finished parts stay in WORK and are not done again. Intervals: 95 %, over test faces within cells, seeds paired.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vlbias import classify
from vlbias.balance import Balancer
from vlbias.data import load_dataset
from vlbias.editor import Editor
from vlbias.images import open_image, to_tensor

ARMS = ("biased", "oversampled", "edits", "real")
MIXED = "edits-and-copies"  #: half edits, half copies of the short cells' own photographs; on request
ROUND_TRIP = "edits-round-trip"  #: edits, and originals that passed through the editor as well; on request
LARGE, SMALL, ADULT = 360, 40, 16
STEPS, BOOTSTRAP = 600, 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the UTKFace photographs")
    parser.add_argument("work", type=Path, help="folder for finished parts; research only, as the photographs are")
    parser.add_argument("--protected", choices=("skin", "age_group"), default="skin")
    parser.add_argument("--size", type=int, default=128, help="edge in pixels that classifiers see")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=(*ARMS, MIXED, ROUND_TRIP), default=list(ARMS))
    parser.add_argument("--editor", default="utkface-64")
    parser.add_argument("--edit-only", action="store_true", help="make the edits, fit nothing")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    faces = load_dataset("utkface", arguments.root)
    faces = faces.select((faces.table["age"] >= ADULT) & faces.table[arguments.protected].notna())
    study = Study(faces, arguments)
    for seed in arguments.seeds:
        if arguments.edit_only:
            study.edits(seed)
        for arm in [] if arguments.edit_only else arguments.arms:
            study.predictions(seed, arm)
    if not arguments.edit_only:
        study.report(arguments.arms)


class Study:
    """One protected attribute, one size."""

    def __init__(self, faces, arguments: argparse.Namespace):
        self.faces, self.arguments = faces, arguments
        self.protected, self.size = arguments.protected, arguments.size
        self.groups = sorted(faces.table[self.protected].unique())
        unseen = faces.table[faces.table["split"] != "train"]
        cells = unseen.groupby(["gender", self.protected])
        share = int(cells.size().min())
        self.test = pd.concat([part.sample(share, random_state=0) for _, part in cells])
        arguments.work.mkdir(parents=True, exist_ok=True)

    def cells(self, seed: int) -> dict[tuple[str, str], list[str]]:
        """Ids of 360 photographs of each cell, in an order drawn by the seed."""
        train = self.faces.table[self.faces.table["split"] == "train"]
        return {
            (str(gender), str(group)): part.sample(LARGE, random_state=seed).index.tolist()
            for (gender, group), part in train.groupby(["gender", self.protected])
        }

    def biased(self, seed: int) -> list[str]:
        """Men of the first group and women of the second are many, the others few."""
        one, other = self.groups
        long = {("male", one), ("female", other)}
        return [i for cell, ids in self.cells(seed).items() for i in ids[: LARGE if cell in long else SMALL]]

    def balanced(self, seed: int, *, round_trip: bool = False) -> pd.DataFrame:
        """The balanced set of a seed, with the path of each picture."""
        out = self.arguments.work / f"{self.protected}-{seed}{'-round-trip' if round_trip else ''}"
        editor = Editor.from_pretrained(self.arguments.editor)
        balancer = Balancer(editor, target="gender", protected=self.protected, seed=seed, round_trip=round_trip)
        chosen = self.faces.select(self.biased(seed))
        result = balancer.run(chosen, balancer.plan(chosen), out)
        cost = result.report["unet_evaluations_per_kept_image"]
        print(f"seed {seed}: {result.summary()}\n{cost} evaluations a kept edit", flush=True)
        return result.table.assign(path=[str(out / name) for name in result.table["file_name"]])

    def edits(self, seed: int) -> pd.DataFrame:
        table = self.balanced(seed)
        return table[table["origin"] == "edited"]

    def training_set(self, seed: int, arm: str) -> tuple[torch.Tensor, list[str]]:
        if arm == ROUND_TRIP:
            table = self.balanced(seed, round_trip=True)
            pictures = [to_tensor(open_image(path), self.size) for path in table["path"]]
            return torch.cat(pictures), table["gender"].tolist()
        base = self.biased(seed)
        kept = pd.DataFrame() if arm == "biased" else self.edits(seed)
        x, y = [self.faces.tensor(base, self.size)], self.faces.table.loc[base, "gender"].tolist()
        if arm in ("edits", MIXED):
            every = 2 if arm == MIXED else 1
            shown = kept.groupby(["gender", self.protected]).nth(slice(None, None, every))
            x += [to_tensor(open_image(path), self.size) for path in shown["path"]]
            y += shown["gender"].tolist()
        if arm not in ("biased", "edits"):
            for (gender, group), part in kept.groupby(["gender", self.protected]):
                ids, count = self.cells(seed)[gender, group], len(part) // 2 if arm == MIXED else len(part)
                more = ids[SMALL : SMALL + count] if arm == "real" else (ids[:SMALL] * count)[:count]
                x.append(self.faces.tensor(more, self.size))
                y += [gender] * len(more)
        return torch.cat(x), y

    def predictions(self, seed: int, arm: str) -> np.ndarray:
        """Whether the classifier calls each test face a man, bool (n,)."""
        place = self.arguments.work / f"{self.protected}-{self.size}-{seed}-{arm}.json"
        if not place.is_file():
            x, y = self.training_set(seed, arm)
            scorer = classify.fit(x, y, image_size=self.size, num_steps=STEPS, seed=seed)
            says = scorer.predict(self.faces.tensor(self.test.index.tolist(), self.size))
            place.write_text(json.dumps([bool(label == "male") for label in says]))
            print(f"  {arm}: {len(y)} pictures, {self.measures(np.array(json.loads(place.read_text())))}", flush=True)
        return np.array(json.loads(place.read_text()))

    def measures(self, says_male: np.ndarray, draw: np.ndarray | None = None) -> dict[str, float]:
        """Accuracy, equalised odds difference, worst cell; ``draw`` are rows of the test set."""
        table = self.test.assign(right=says_male == (self.test["gender"] == "male").to_numpy())
        table = table if draw is None else table.iloc[draw]
        cells = table.groupby(["gender", self.protected])["right"].mean()
        gaps = [abs(cells[gender, self.groups[0]] - cells[gender, self.groups[1]]) for gender in ("female", "male")]
        return {
            "accuracy": round(float(cells.mean()), 4),
            "equalised odds difference": round(float(max(gaps)), 4),
            "worst cell": round(float(cells.min()), 4),
        }

    def report(self, arms: list[str]) -> None:
        says = {arm: [self.predictions(seed, arm) for seed in self.arguments.seeds] for arm in arms}
        print(f"\ngender x {self.protected}, {self.size} px, {len(self.test)} test faces, seeds {self.arguments.seeds}")
        rng = np.random.default_rng(0)
        places = [np.flatnonzero(rows) for rows in self._cell_rows()]
        draws = [np.concatenate([rng.choice(p, len(p)) for p in places]) for _ in range(BOOTSTRAP)]
        odds = {}
        for arm in arms:
            means = pd.DataFrame([self.measures(one) for one in says[arm]]).mean()
            odds[arm] = means["equalised odds difference"]
            print(f"{arm:>12}: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
        if set(ARMS) <= set(arms):
            each = {arm: [[self._odds(one, draw) for draw in draws] for one in says[arm]] for arm in arms}
            resampled = {arm: np.mean(values, axis=0) for arm, values in each.items()}
            way = (odds["biased"] - odds["edits"]) / (odds["biased"] - odds["real"])
            ways = (resampled["biased"] - resampled["edits"]) / (resampled["biased"] - resampled["real"])
            ahead = resampled["oversampled"] - resampled["edits"]
            print(f"way from biased to real photographs: {way:.2f} (95 % {_interval(ways)})")
            print(f"ahead of oversampling by {odds['oversampled'] - odds['edits']:.3f} (95 % {_interval(ahead)})")

    def _cell_rows(self) -> list[np.ndarray]:
        pairs = zip(self.test["gender"], self.test[self.protected], strict=True)
        names = [f"{gender} {group}" for gender, group in pairs]
        return [np.array([name == cell for name in names]) for cell in sorted(set(names))]

    def _odds(self, says_male: np.ndarray, draw: np.ndarray) -> float:
        male = (self.test["gender"] == "male").to_numpy()
        right, male = (says_male == male)[draw], male[draw]
        one = (self.test[self.protected] == self.groups[0]).to_numpy()[draw]
        return max(abs(right[part & one].mean() - right[part & ~one].mean()) for part in (male, ~male))


def _interval(values: np.ndarray) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
