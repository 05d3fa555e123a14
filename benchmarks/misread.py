"""Which drawn test faces are read wrong, by their true attributes, from the fits in benchmarks/results.

    python benchmarks/misread.py [standard] [--task world-gender-skin-0.9] [--by skin_tone age glasses]

Nothing is fitted. Rows are the cells in which a method errs most, numbers in fifths, columns methods; means over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from vlbias.bench.results import Result
from vlbias.bench.tasks import find_tasks

RESULTS = Path(__file__).parent / "results"
#: A cell that every method reads better than this is not shown.
LEAST = 0.05


def errors(path: Path, task: str) -> dict[str, np.ndarray]:
    """Method => share of seeds by which each test face is read wrong."""
    wrong = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        del record["run"]
        if record["task"] == task:
            fit = Result.from_dict(record)
            wrong[fit.label].append(fit.codes != fit.y)
    return {label: np.mean(one, axis=0) for label, one in sorted(wrong.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", default="standard", help="a table of docs/evidence.md on drawn faces")
    parser.add_argument("--task", default="world-gender-skin-0.9")
    parser.add_argument("--by", nargs="+", default=["skin_tone", "age", "hair_length", "glasses"], metavar="ATTRIBUTE")
    given = parser.parse_args()
    (task,) = find_tasks(given.task)
    found = errors(RESULTS / f"fits_{given.table}.jsonl", given.task)
    faces = task.faces().test.table.reset_index(drop=True)
    shares = pd.DataFrame(found, index=faces.index)
    print(f"{given.task}, table {given.table}: share read wrong\n")
    print(shares.groupby([faces[task.target], faces[task.protected]]).mean().round(3).to_string())
    for cell, rows in faces.groupby([task.target, task.protected]):
        if shares.loc[rows.index].mean().max() < LEAST:
            continue
        for name in given.by:
            values = rows[name]
            if pd.api.types.is_float_dtype(values):
                values = pd.qcut(values, 5)
            parts = shares.loc[rows.index].groupby(values, observed=True)
            print(f"\n{' '.join(map(str, cell))}\n{parts.mean().round(2).assign(faces=parts.size()).to_string()}")


if __name__ == "__main__":
    main()
