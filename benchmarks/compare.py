"""Quick benchmarks against a stored baseline: what a change makes faster or slower.

    python benchmarks/compare.py              # prints seconds, and their ratio to benchmarks/baseline.json
    python benchmarks/compare.py --update     # stores this machine's seconds as the baseline

Seconds are of the processor, one thread, the best of several rounds. Ratios compare two states of the code on one
machine: on another one, store a baseline of the old state first. The exit status is 1 if a ratio is above --limit.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

BASELINE = Path(__file__).with_name("baseline.json")


def ranks() -> Callable[[], Any]:
    """Identification ranks of 3,000 embeddings of 100 people."""
    from vlbias.search.metrics import identification_ranks

    people = np.repeat(np.arange(100), 30)
    z = np.random.default_rng(0).normal(size=(3000, 64))
    return lambda: identification_ranks(z, people)


def plan() -> Callable[[], Any]:
    """A simulation's plan: three focal groups, six shares, five repeats over 20,000 labelled rows."""
    from vlbias import simulate

    class Table:
        name = "table"

    faces, generator = Table(), np.random.default_rng(0)
    columns = {"race": generator.choice(list("xyz"), 20_000), "smile": generator.choice(list("01"), 20_000)}
    faces.table = pd.DataFrame({"split": ["train"] * 16_000 + ["test"] * 4_000, **columns})  # type: ignore[attr-defined]
    return lambda: simulate.plan(faces, target="smile", protected="race")


def metrics() -> Callable[[], Any]:
    """Fairness metrics of 2,000 predictions with 500 bootstrap draws."""
    from vlbias.fairness import evaluate

    generator = np.random.default_rng(0)
    true, predicted, groups = (generator.integers(0, 2, 2000).astype(str) for _ in range(3))
    return lambda: evaluate(true, predicted, groups=groups)


def draw() -> Callable[[], Any]:
    """100 faces of the embedded world at 64 px."""
    from vlbias import load_dataset

    faces = load_dataset("synthfaces", n=100, seed=0)
    return lambda: faces.tensor(faces.ids, 64)


def edit() -> Callable[[], Any]:
    """Four faces edited by the shipped editor."""
    from vlbias import Editor, load_dataset

    editor, faces = Editor.from_pretrained("synthfaces-64"), load_dataset("synthfaces", n=4, seed=0)
    pictures = [faces.image(item) for item in faces.ids]
    return lambda: editor.edit(pictures, age=1.0)


BENCHMARKS: dict[str, Callable[[], Callable[[], Any]]] = {
    "ranks": ranks,
    "plan": plan,
    "metrics": metrics,
    "draw": draw,
    "edit": edit,
}


def seconds_of(prepare: Callable[[], Callable[[], Any]], rounds: int) -> float:
    """Processor seconds of the fastest round; what is prepared, and a first round, do not count."""
    work = prepare()
    work()
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def machine() -> str:
    """What the seconds depend on."""
    return f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--limit", type=float, default=1.5, metavar="RATIO", help="slower than this fails, default 1.5")
    parser.add_argument("--update", action="store_true", help="store the seconds as the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help=f"default {BASELINE.name}")
    arguments = parser.parse_args()
    if wrong := [name for name in arguments.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark '{wrong[0]}'; there are {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    stored = json.loads(arguments.baseline.read_text()) if arguments.baseline.is_file() else {"seconds": {}}
    if not arguments.update:
        print(f"baseline: {stored.get('machine', 'none')}\nhere:     {machine()}")
    found: dict[str, float] = {}
    for name in arguments.names or BENCHMARKS:
        found[name] = round(seconds_of(BENCHMARKS[name], arguments.rounds), 4)
        ratio = found[name] / stored["seconds"][name] if name in stored["seconds"] else float("nan")
        print(f"{name:10} {found[name]:8.3f} s   {ratio:5.2f} x")
    if arguments.update:
        values = {"machine": machine(), "seconds": {**stored["seconds"], **found}}
        arguments.baseline.write_text(json.dumps(values, indent=1) + "\n")
        return
    slower = [name for name in found if found[name] > arguments.limit * stored["seconds"].get(name, float("inf"))]
    if slower:
        raise SystemExit(f"slower than {arguments.limit:g} times the baseline: {', '.join(slower)}")


if __name__ == "__main__":
    main()
