"""How much memory a run of many faces takes, from its plan to its last table.

    python benchmarks/large_run.py [--faces 40000]

The editor is the one of formulas that tests use (tests/balance/tiny_editor.py) and the faces have 8 pixels, so that
neither networks nor pictures count: what is left is what a face costs in plan, chunks and tables. The largest resident
size is printed after each step, and what the run added a face.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

sys.path.append(str(Path(__file__).parent.parent / "tests" / "balance"))

CELLS = {("train", 0, "light"): 40, ("train", 0, "dark"): 12, ("train", 1, "light"): 12, ("train", 1, "dark"): 40}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=40_000, metavar="N")
    args = parser.parse_args()
    from tiny_editor import TinyEditor, make_faces

    from vlbias.balance import Balancer
    from vlbias.data import FaceDataset
    from vlbias.leak import LeakSettings

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        few = make_faces(Path(folder) / "few", CELLS)
        many = Path(folder) / "many"
        many.mkdir()
        names = [f"{number // len(few):05d}-{few.ids[number % len(few)]}.png" for number in range(args.faces)]
        for number, name in enumerate(names):
            (many / name).hardlink_to(Path(folder) / "few" / f"{few.ids[number % len(few)]}.png")
        repeated = few.table.iloc[[number % len(few) for number in range(args.faces)]]
        table = repeated.assign(file_name=names).set_axis(pd.Index(names))
        faces = FaceDataset("many faces", table, root=many, license="MIT")
        balancer = Balancer(TinyEditor(), target="smile", protected="skin", leak=LeakSettings(sizes=()))
        tell(f"{len(faces)} faces")
        plan = balancer.plan(faces)
        before = tell(f"plan of {len(plan)} edits")
        result = balancer.run(faces, plan, Path(folder) / "out", show_progress=False)
        after = tell(f"{len(result.table)} pictures in the set")
        print(f"the run added {(after - before) * 1e6 / len(faces):.1f} kB a face")


def tell(what: str) -> float:
    """Print the largest resident size so far, and return it, in GB."""
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {gigabytes:.3f} GB at most so far", flush=True)
    return gigabytes


if __name__ == "__main__":
    main()
