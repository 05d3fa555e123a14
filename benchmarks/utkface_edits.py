"""Ask a classifier that was fitted on real photographs whether it agrees with the edits that the pipeline kept.

    python benchmarks/utkface_edits.py UTKFace/ [--editor utkface-64] [--edits 60] [--steps 2500]

For age and for skin, photographs of the test split (the editor was trained on none of them) are balanced against
gender. The classifier reads age group, skin and gender; it is fitted on the train split alone, the pipeline never sees
it. Its own balanced accuracy on untouched test photographs is printed beside: no agreement can be expected above it.
"""

from __future__ import annotations

import argparse
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

COLUMNS = ("age_group", "skin", "gender")
BARS = {"new group": 0.70, "gender": 0.85}
ADULT = 16  # years; the editor was taught on adults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the UTKFace photographs")
    parser.add_argument("--editor", default="utkface-64")
    parser.add_argument("--edits", type=int, default=60, help="edits planned for each attribute, about")
    parser.add_argument("--steps", type=int, default=2500, help="optimisation steps of each classifier")
    parser.add_argument("--out", help="keep the edited photographs here (research only)")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)

    faces = load_dataset("utkface", arguments.root)
    faces = faces.select(faces.table["age"] >= ADULT)
    train, test = faces.split("train"), faces.split("test")
    judges = {column: judge_of(column, train, test, arguments.steps) for column in COLUMNS}
    editor = Editor.from_pretrained(arguments.editor)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments.out or scratch)
        for protected in ("age_group", "skin"):
            report(protected, balanced(editor, test, protected, arguments.edits, folder / protected), judges)


def judge_of(column: str, train, test, steps: int) -> Classifier:
    """A classifier of one column, and its balanced accuracy on untouched photographs, printed."""
    known = train.select(train.table[column].notna())
    judge = fit(known, column, num_steps=steps, class_weights="balanced")
    labelled = test.select(test.table[column].notna())
    says = judge.predict(labelled.tensor(labelled.ids, 64))
    accuracy = balanced_accuracy_score(labelled.table[column].tolist(), says)
    print(f"the judge of {column}: balanced accuracy {accuracy:.3f} on {len(labelled)} photographs", flush=True)
    return judge


def balanced(editor: Editor, test, protected: str, num_edits: int, out: Path) -> pd.DataFrame:
    """Edit photographs of both groups, with three donors at hand for each edit; returns the rows of kept edits."""
    cells = test.table.dropna(subset=["gender", protected]).groupby(["gender", protected])
    one, other = sorted(test.table[protected].dropna().unique())
    # All of one group in one class and of the other in the other: the plan then edits both ways.
    chosen = [cells.get_group(cell) for cell in (("female", one), ("male", other))]
    share = min(3 * num_edits // 2, *map(len, chosen))
    faces = test.select(pd.concat([cell.sample(share, random_state=0) for cell in chosen]).index)
    balancer = Balancer(editor, target="gender", protected=protected, splits=("test",))
    result = balancer.run(faces, balancer.plan(faces, limit=num_edits), out)
    print(result.summary())
    kept = result.table[result.table["origin"] == "edited"]
    return kept.assign(path=[str(out / name) for name in kept["file_name"]])


def report(protected: str, kept: pd.DataFrame, judges: dict[str, Classifier]) -> None:
    """Share of kept edits that the judges read as what the rows say."""
    x = torch.cat([to_tensor(open_image(path), 64) for path in kept["path"]])
    for name, column in (("new group", protected), ("gender", "gender")):
        agrees = (pd.Series(judges[column].predict(x), index=kept.index) == kept[column]).mean()
        mark = "met" if agrees >= BARS[name] else "MISSED"
        print(f"{protected:>10}: agrees on the {name:<9} {agrees:.3f} of {len(kept)}   bar {BARS[name]:.2f}   {mark}")


if __name__ == "__main__":
    main()
