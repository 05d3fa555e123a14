"""How long the page takes from a slider to a picture: python benchmarks/app_latency.py [--editor synthfaces-64]

Medians of 20 faces: the first preview after a face was dropped, a later one, and the full render with its readings.
What the browser is sent is encoded as the page does it. The bars are 1 s for the first preview and 4 s for a full
render, on two cores.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vlbias import Editor
from vlbias.app.editing import Bench, Edit, Lookup
from vlbias.images import save_png, to_pil
from vlbias.world import render, sample

BARS_S = {"first preview": 1.0, "full render": 4.0}


def encoded(edit: Edit) -> None:
    """Both pictures as the divided picture gets them."""
    for picture in (edit.before, edit.after):
        picture.save(io.BytesIO(), format="PNG")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(editor: Editor, num_faces: int, folder: Path) -> dict[str, float]:
    """Step => median seconds."""
    took: dict[str, list[float]] = {}
    path = editor.attributes[0]

    def full(bench: Bench) -> None:
        edit = bench.edit({path: 0.9})
        encoded(edit)
        bench.readings(edit)
        bench.identity(edit)

    for number, face in enumerate(to_pil(render(sample(num_faces, seed=5), size=editor.image_size))):
        bench, file = Bench(editor), folder / f"{number}.png"
        save_png(face, file)
        steps: dict[str, Callable[[], object]] = {
            "face dropped": lambda bench=bench, file=file: bench.open(file, Lookup(find="face", check=False)),
            "first preview": lambda bench=bench: encoded(bench.edit({path: 0.5}, preview=True)),
            "later preview": lambda bench=bench: encoded(bench.edit({path: 0.7}, preview=True)),
            "full render": lambda bench=bench: full(bench),
        }
        for name, work in steps.items():
            took.setdefault(name, []).append(seconds(work))
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--faces", type=int, default=20)
    arguments = parser.parse_args()
    editor = Editor.from_pretrained(arguments.editor, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        medians = measure(editor, arguments.faces, Path(folder))
    print(f"{editor.name}, {torch.get_num_threads()} threads, medians of {arguments.faces} faces")
    for name, value in medians.items():
        bar = f"  (bar {BARS_S[name]:g} s)" if name in BARS_S else ""
        print(f"{name:<14} {value:6.3f} s{bar}")
    sys.exit(any(medians[name] > bar for name, bar in BARS_S.items()))


if __name__ == "__main__":
    main()
