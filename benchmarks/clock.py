"""How much faster a run of edits of photographs is than the same command of an older state of the code, by the clock.

    git worktree add --detach older COMMIT
    python benchmarks/clock.py UTKFace/ --against older [--edits 160] [--repeats 1]

Gender is tied to skin: 360, 40, 40 and 360 adults of the training split, linked or copied into one folder. Both states
run ``vlbias balance`` on it with ``utkface-64``, from an empty folder to the finished dataset, with what they choose by
themselves: threads, workers, network evaluations. Nothing else may run meanwhile. The bar is 3.5. Exit status 1 below.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from vlbias.data import load_dataset

BAR = 3.5
HERE = Path(__file__).resolve().parent.parent
#: Photographs of a cell: men of the first group and women of the second are many.
LARGE, SMALL, ADULT = 360, 40, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the UTKFace photographs")
    parser.add_argument("--against", type=Path, required=True, help="a checkout of the older state")
    parser.add_argument("--edits", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each state, in turn")
    arguments = parser.parse_args()
    states = {"older": arguments.against.resolve(), "this": HERE}
    seconds: dict[str, list[float]] = {name: [] for name in states}
    with tempfile.TemporaryDirectory(prefix="clock-") as scratch:
        photographs = Path(scratch, "UTKFace")
        write_photographs(arguments.root, photographs)
        for _ in range(arguments.repeats):
            for name, tree in states.items():
                took, report = balance(tree, photographs, Path(scratch, name), arguments.edits)
                seconds[name].append(took)
                kept, cost = report["edits"]["kept"], report["unet_evaluations_per_kept_image"]
                print(f"{name}: {took:.1f} s, {kept} of {arguments.edits} kept, {cost} evaluations each", flush=True)
    ratio = median(seconds["older"]) / median(seconds["this"])
    print(f"{ratio:.2f} times faster   bar {BAR}   {'met' if ratio >= BAR else 'MISSED'}")
    sys.exit(ratio < BAR)


def write_photographs(root: str, out: Path) -> None:
    """The tied set as a folder that every state of the code reads."""
    faces = load_dataset("utkface", root)
    known = faces.select((faces.table["age"] >= ADULT) & faces.table["skin"].notna()).split("train")
    light, dark = sorted(known.table["skin"].unique())[::-1]
    out.mkdir()
    for cell, part in known.table.groupby(["gender", "skin"]):
        number = LARGE if cell in {("male", light), ("female", dark)} else SMALL
        for item in part.sample(min(number, len(part)), random_state=0).index:
            path = known.path(item)
            assert path is not None  # photographs are files
            shutil.copy(path, out / path.name)


def balance(tree: Path, photographs: Path, out: Path, num_edits: int) -> tuple[float, dict]:
    """Seconds that a state of the code takes from the command to its end, and the report that it wrote."""
    shutil.rmtree(out, ignore_errors=True)
    words = [str(photographs), str(out), "--target", "gender", "--protected", "skin", "--editor", "utkface-64"]
    command = [sys.executable, "-m", "vlbias.cli", "balance", *words, "--limit", str(num_edits)]
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, json.loads((out / "report.json").read_text())


if __name__ == "__main__":
    main()
