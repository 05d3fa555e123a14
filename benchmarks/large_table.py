"""How long a dataset of many rows takes to be read and planned, and how much memory that asks for.

    python benchmarks/large_table.py [--rows 200000]

An image folder is written in which all rows share a few small pictures, then read, and a balance is planned; all in a
process of its own, whose largest resident size is printed. Bars: 30 s and 1.5 GB for 200,000 rows. Seconds are those
of the processor, which other work on the machine does not change much.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SECONDS_BAR, GIGABYTES_BAR = 30.0, 1.5
#: File systems allow so many names of one file, and more.
LINKS = 10_000


def write_folder(root: Path, num_rows: int) -> None:
    """An image folder of hard links to few pictures, with two columns that go together."""
    generator = np.random.default_rng(0)
    smile = generator.random(num_rows) < 0.5
    light = generator.random(num_rows) < np.where(smile, 0.8, 0.2)
    names = [f"{number:07d}.png" for number in range(num_rows)]
    for number, name in enumerate(names):
        if number % LINKS == 0:
            Image.new("RGB", (8, 8), (120, 90, 70)).save(root / name)
        else:
            (root / name).hardlink_to(root / names[number - number % LINKS])
    table = pd.DataFrame({"file_name": names, "smile": smile.astype(int), "skin": np.where(light, "light", "dark")})
    table.to_csv(root / "metadata.csv", index=False)


def read_and_plan(root: str) -> None:
    """Print seconds and the largest resident size after importing, reading and planning."""
    from vlbias import Balancer, Editor, open_dataset

    editor = Editor.from_pretrained("synthfaces-64")
    tell("libraries and editor", time.process_time())
    start = time.process_time()
    faces = open_dataset(root)
    tell(f"read {len(faces)} rows", time.process_time() - start)
    start = time.process_time()
    plan = Balancer(editor, target="smile", protected="skin").plan(faces)
    tell(f"plan of {len(plan)} edits", time.process_time() - start)


def tell(what: str, seconds: float) -> None:
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    met = seconds <= SECONDS_BAR and gigabytes <= GIGABYTES_BAR
    print(f"{what}: {seconds:.1f} s, {gigabytes:.2f} GB at most so far; {'met' if met else 'MISSED'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, metavar="N")
    parser.add_argument("--read", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read_and_plan(args.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), args.rows)
        subprocess.run([sys.executable, __file__, "--read", folder], check=True)


if __name__ == "__main__":
    main()
