"""Are flip rates that are measured with edits the true ones? Every pair of the embedded world at .9.

    python benchmarks/flips.py [--faces 400]       # writes benchmarks/results/flips.json; goes on where it stopped

A classifier (the library's own, not tuned) learns from the tied training faces of a benchmark task. Test faces, as many
of each cell, are then shown to it as they are, edited to the other group by the shipped editor, and truly changed.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias import Editor
from vlbias.audit import flips
from vlbias.bench import find_tasks
from vlbias.bench.tasks import WorldTask
from vlbias.classify import FitSettings, fit
from vlbias.files import sha256_json, write_json
from vlbias.images import load_pixels
from vlbias.optim import in_threads

RESULT = Path(__file__).parent / "results" / "flips.json"
TASKS = "world-*-0.9"
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=400, help="test faces of each pair")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    command = f"python benchmarks/flips.py --faces {arguments.faces}"
    known = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    editor = Editor.from_pretrained("synthfaces-64")
    decides = {"command": command, "seed": SEED, "editor": sha256_json(editor.renderer.fingerprint())}
    found = known["tasks"] if decides.items() <= known.items() else {}  # of another editor nothing is kept
    for task in find_tasks(TASKS):
        if task.name not in found:
            with in_threads(1):  # the same figures on a machine of more
                found[task.name] = measured(task, editor, arguments.faces)
            print(task.name, found[task.name], flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(arguments.out, decides | {"date": datetime.date.today().isoformat(), "tasks": found})


def measured(task: WorldTask, editor: Editor, num_faces: int) -> dict[str, Any]:
    """Rates of one pair, the difference with its interval, and how good the classifier is."""
    faces = task.faces()
    training, test = faces.training, faces.test
    pictures = load_pixels(training, training.ids, FitSettings().image_size)
    classifier = fit(pictures, training.table[task.target].tolist(), settings=FitSettings(seed=SEED))
    cells = test.table.groupby([task.target, task.protected], sort=True)
    chosen = pd.concat([part.head(num_faces // cells.ngroups) for _, part in cells]).index
    shown = test.select(list(chosen))
    report = flips(classifier, shown, protected=task.protected, editor=editor, seed=SEED)
    truth = shown.column(task.target).map(str)[report.pairs["donor"]].to_numpy()
    right = (report.pairs["before"].to_numpy() == truth).mean()
    row = report.table.loc["all"]
    names = ("rate", "true_rate", "difference", "difference_low", "difference_high")
    agree = (report.pairs["flipped"] == report.pairs["true_flipped"]).mean()
    return {"num_faces": len(shown), "accuracy": round(float(right), 4), "agree": round(float(agree), 4)} | {
        name: round(float(row[name]), 4) for name in names
    }


if __name__ == "__main__":
    main()
