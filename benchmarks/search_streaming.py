"""Memory that training on an identification set takes, whatever its size.

    python benchmarks/search_streaming.py [--images 2000 20000] [--size 112] [--workers 2] [--steps 100]

Writes small JPEG files of people, opens them as a dataset, trains one epoch of a small network with all images on disk
(or its first steps alone: the table, the order of all images and the evaluation stay whole), evaluates it, and prints
the highest memory of the process and its workers together (their proportional share of pages, sampled from /proc), the
slope per image, and what that makes of 200,000.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

BAR_IMAGES, BAR_BYTES = 200_000, 8 * 10**9
PER_PERSON = 20


def write_people(root: Path, num_images: int, size: int) -> None:
    """JPEG files in folders of 20; a number behind the end of each makes its bytes its own."""
    from PIL import Image

    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(50):
        pixels = np.kron(generator.integers(0, 256, (8, 8, 3)), np.ones((size // 8, size // 8, 1)))
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="JPEG")
        encoded.append(buffer.getvalue())
    rows = ["identity,gender,split"]
    for person in range(num_images // PER_PERSON):
        folder = root / f"p{person:06d}"
        folder.mkdir()
        split = ("train", "train", "train", "val", "test")[person % 5]
        rows.append(f"{folder.name},{'fm'[person % 2]},{split}")
        for i in range(PER_PERSON):
            own = encoded[(person * 7 + i) % 50] + (person * PER_PERSON + i).to_bytes(4, "big")
            (folder / f"{i}.jpg").write_bytes(own)
    (root / "identities.csv").write_text("\n".join(rows) + "\n")


def tree_bytes() -> int:
    """Memory of this process and its workers: shared pages are counted once."""
    total = 0
    waiting = ["self"]
    while waiting:
        place = Path("/proc") / waiting.pop()
        try:
            lines = (place / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
            children = [task / "children" for task in (place / "task").iterdir()]
            waiting += [child for file in children for child in file.read_text().split()]
        except OSError:  # a worker that has just ended
            continue
    return total


def train_once(root: Path, size: int, workers: int, steps: int | None) -> dict[str, float]:
    """Train one epoch with every image on disk; bytes at the start and at their highest, and seconds."""
    from vlbias.data import open_dataset
    from vlbias.search import Configuration, Skeleton, Trainer, TrainSettings, make_task, space

    before, highest, done = tree_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.3):
            highest = max(highest, tree_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    faces = open_dataset(root)
    task = replace(make_task(faces, protected="gender", image_size=size), in_memory_bytes=0)
    small = Skeleton(num_init_features=8, k_r=8, groups=4, inc_sec=(4, 4, 4, 4), small=True)
    chosen = space(["dpn-cell"], ["cosface"], ["adamw"], skeleton=small, embedding_size=32)
    configuration = Configuration("dpn-cell", "cosface", "adamw", 1e-3, cell=(1, 0, 1))
    settings = TrainSettings(device="cpu", num_workers=workers)

    class FirstSteps(Trainer):
        def _draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            most = None if steps is None else steps * self.settings.batch_size
            order, from_edits = super()._draw(generator)
            return order[:most], from_edits[:most]

    trainer = FirstSteps(task, configuration, chosen, max_epochs=1, warmup_epochs=0, seed=(0,), settings=settings)
    trainer.advance(1)
    trainer.evaluate("val").objectives()
    done.set()
    watcher.join()
    return {"images": len(faces), "before": before, "highest": highest, "seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--size", type=int, default=112, help="edge in pixels")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of the epoch; all of them where not given")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*train_once(given.one, given.size, given.workers, given.steps).values())
        return
    found = []
    for num_images in given.images:
        with tempfile.TemporaryDirectory() as folder:
            write_people(Path(folder), num_images, given.size)
            options = ["--one", folder, "--size", str(given.size), "--workers", str(given.workers)]
            options += [] if given.steps is None else ["--steps", str(given.steps)]
            # a process of its own, so that nothing is left of the run before
            out = subprocess.run(
                [sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            images, before, highest, seconds = map(float, out.split())
        found.append((images, highest))
        pixels = images * 3 * given.size**2
        print(
            f"{images:,.0f} images: {highest / 1e6:,.0f} MB at the highest, {before / 1e6:,.0f} MB before, "
            f"{seconds:.0f} s; the pixels alone are {pixels / 1e6:,.0f} MB",
            flush=True,
        )
    if len(found) > 1:
        (few, low), (many, high) = found[0], found[-1]
        slope = (high - low) / (many - few)
        at_bar = high + slope * (BAR_IMAGES - many)
        verdict = "within" if at_bar < BAR_BYTES else "above"
        print(f"{slope / 1e3:.1f} kB an image; {at_bar / 1e6:,.0f} MB for {BAR_IMAGES:,} images, {verdict} 8 GB")


if __name__ == "__main__":
    main()
