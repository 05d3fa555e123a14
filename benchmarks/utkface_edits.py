"""Ask a classifier that was fitted on real photographs whether it agrees with the edits that the pipeline kept.

    python benchmarks/utkface_edits.py UTKFace/ [--editor utkface-64] [--edits 420] [--steps 2500]

For age and for skin, photographs of the splits val and test (the editor was trained on none of them) are balanced
against gender, for gender against the age group. The classifiers read age group, skin and gender; they are fitted on
the train split alone, and the pipeline never sees them. Their own balanced accuracy on untouched photographs is
printed beside, and their agreement with the unedited donors of the same edits: what must stay cannot be read better
after an edit than before. Intervals: 95 %, Wilson.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import pandas as pd
import torch
from sklearn.metrics import balanced_accuracy_score

from vlbias.balance import Balancer
from vlbias.classify import Classifier, fit
from vlbias.data import load_dataset
from vlbias.editor import Editor
from vlbias.images import open_image, to_tensor

#: Protected => what it is balanced against, and must stay.
AGAINST = {"age_group": "gender", "skin": "gender", "gender": "age_group"}
#: (Edited, read) => least share of edits that the scorers agree with; edits of gender have none.
BARS = {
    ("age_group", "age_group"): 0.85,
    ("age_group", "gender"): 0.93,
    ("skin", "skin"): 0.95,
    ("skin", "gender"): 0.93,
}
KEPT_BAR = 0.75
ADULT = 16  # years; the editor was taught on adults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the UTKFace photographs")
    parser.add_argument("--editor", default="utkface-64")
    parser.add_argument("--edits", type=int, default=420, help="edits planned for each attribute, about")
    parser.add_argument("--steps", type=int, default=2500, help="optimisation steps of each classifier")
    parser.add_argument("--scorers", type=Path, help="keep the fitted classifiers here, and take those that are there")
    parser.add_argument("--scorers-only", action="store_true", help="fit the classifiers, edit nothing")
    parser.add_argument("--out", help="keep the edited photographs here (research only)")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)

    faces = load_dataset("utkface", arguments.root)
    faces = faces.select(faces.table["age"] >= ADULT)
    train, unseen = faces.split("train"), faces.select(faces.table["split"] != "train")
    scorers = {column: scorer_of(column, train, unseen, arguments) for column in AGAINST}
    if arguments.scorers_only:
        return
    editor = Editor.from_pretrained(arguments.editor)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        for protected in AGAINST:
            kept = balanced(editor, unseen, protected, arguments.edits, folder / protected)
            report(protected, kept, unseen, scorers)


def scorer_of(column: str, train, unseen, arguments: argparse.Namespace) -> Classifier:
    """A classifier of one column, and its balanced accuracy on untouched photographs, printed."""
    known = train.select(train.table[column].notna())
    place = None if arguments.scorers is None else arguments.scorers / column
    if place is not None and place.is_dir():
        scorer = Classifier.from_pretrained(place)
    else:
        scorer = fit(known, column, num_steps=arguments.steps, class_weights="balanced")
        if place is not None:
            scorer.save_pretrained(place)
    labelled = unseen.select(unseen.table[column].notna())
    says = scorer.predict(labelled.tensor(labelled.ids, 64))
    accuracy = balanced_accuracy_score(labelled.table[column].tolist(), says)
    print(f"the scorer of {column}: balanced accuracy {accuracy:.3f} on {len(labelled)} photographs", flush=True)
    return scorer


def balanced(editor: Editor, unseen, protected: str, num_edits: int, out: Path) -> pd.DataFrame:
    """Edit photographs of both groups, with up to three donors at hand for each edit; the rows of kept edits."""
    target = AGAINST[protected]
    cells = unseen.table.dropna(subset=[target, protected]).groupby([target, protected])
    # All of one group in one class and of the other in the other: the plan then edits both ways.
    values = [sorted(unseen.table[column].dropna().unique()) for column in (target, protected)]
    chosen = [cells.get_group(cell) for cell in zip(*values, strict=True)]
    parts = [cell.sample(min(3 * num_edits // 2, len(cell)), random_state=0) for cell in chosen]
    faces = unseen.select(pd.concat(parts).index)
    balancer = Balancer(editor, target=target, protected=protected, splits=("val", "test"))
    plan = balancer.plan(faces, limit=num_edits)
    result = balancer.run(faces, plan, out)
    share = result.report["edits"]["kept"] / len(plan)
    print(result.summary())
    cost = result.report["unet_evaluations_per_kept_image"]
    print(f"{protected}: kept {share:.3f} of {len(plan)}   bar {KEPT_BAR}   {cost} evaluations a kept edit", flush=True)
    kept = result.table[result.table["origin"] == "edited"]
    return kept.assign(path=[str(out / name) for name in kept["file_name"]])


def report(protected: str, kept: pd.DataFrame, unseen, scorers: dict[str, Classifier]) -> None:
    """Share of kept edits that the scorers read as what the rows say, and of their donors in what must stay."""
    if kept.empty:
        return
    target = AGAINST[protected]
    edits = torch.cat([to_tensor(open_image(path), 64) for path in kept["path"]])
    donors = unseen.tensor(kept["source_id"].tolist(), 64)
    say(protected, f"the new {protected}", agrees(scorers[protected], edits, kept[protected]), protected)
    before, after = (agrees(scorers[target], x, kept[target]) for x in (donors, edits))
    say(protected, f"the old {target}", after, target)
    say(protected, f"the {target} of the donors", before)
    say(protected, f"the old {target}, if it did before", after[before])


def agrees(scorer: Classifier, x: torch.Tensor, labels: pd.Series) -> pd.Series:
    """Whether a scorer reads pictures as they are labelled."""
    return pd.Series(scorer.predict(x), index=labels.index) == labels


def say(protected: str, what: str, found: pd.Series, column: str = "") -> None:
    """Print a share with its interval, and the bar for edits of ``protected`` read by the scorer of ``column``."""
    share, bar = float(found.mean()), BARS.get((protected, column))
    mark = "" if bar is None else f"bar {bar:.2f}   {'met' if share >= bar else 'MISSED'}"
    low, high = wilson(share, len(found))
    print(
        f"{protected:>10}: agrees on {what:<32} {share:.3f} ({low:.3f} to {high:.3f}) of {len(found)}   {mark}",
        flush=True,
    )


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of n."""
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)


if __name__ == "__main__":
    main()
