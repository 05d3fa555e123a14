"""Where the processor time of a run's chunks goes, and how near the UNet is to what the machine can do.

    python benchmarks/shares.py [--editor synthfaces-64] [--root UTKFace/] [--edits 96]

Balances with one thread, in one process, and prints the seconds of the processor that each part took while edits were
made (what comes before and after, such as calibration and the page, is not counted). Then the rate of the UNet's
convolutions, as they stand in it, beside that of a product of two 1024 x 1024 matrices. Seconds of the processor are
changed little by other work on the machine, rates by up to a half.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from vlbias import Balancer, Editor, load_dataset
from vlbias.balance import chunk, chunk_work
from vlbias.data import FaceDataset
from vlbias.optim import flush_denormals

BATCH, REPEATS, EDGE = 32, 7, 1024


class Clock:
    """Processor time by part; what a part spends within another one counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.inner: list[float] = []

    def over(self, owner: Any, name: str, part: str) -> None:
        """Count the calls of a function or method."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if not self.inner and part != "the rest":
                return function(*args, **kwargs)  # no chunk is being worked on
            start = time.process_time()
            self.inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                took = time.process_time() - start
                self.seconds[part] += took - self.inner.pop()
                if self.inner:
                    self.inner[-1] += took

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--root", help="UTKFace photographs, every fifth of which is taken; else faces are drawn")
    parser.add_argument("--edits", type=int, default=96)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    flush_denormals()
    editor = Editor.from_pretrained(arguments.editor)
    faces = read(arguments.root)
    target = "smile" if arguments.root is None else "gender"
    clock = Clock()
    renderer = editor.renderer
    clock.over(renderer._editing.unet, "forward", "UNet")
    clock.over(renderer.diffae.encoder, "forward", "encoder")
    clock.over(renderer.need_clip(), "encode_image", "CLIP")
    clock.over(renderer, "walk", "walks")
    clock.over(chunk, "write_edits", "files")
    clock.over(chunk_work, "run_chunk", "the rest")
    balancer = Balancer(editor, target=target, protected="skin", seed=0)
    with tempfile.TemporaryDirectory(prefix="shares-") as out:
        balancer.run(faces, balancer.plan(faces, limit=arguments.edits), out)
    whole = sum(clock.seconds.values())
    print(f"{arguments.editor}, {arguments.edits} planned edits: {whole:.1f} s of the processor in chunks")
    for part, seconds in clock.seconds.most_common():
        print(f"  {part:10} {seconds:6.2f} s  {seconds / whole:4.0%}")
    tell_rates(renderer._editing.unet, renderer.diffae.config)


def read(root: str | None) -> FaceDataset:
    if root is None:
        return load_dataset("synthfaces", n=400, seed=5)
    faces = load_dataset("utkface", root)
    return faces.select(faces.table.index[::5])


def tell_rates(unet: nn.Module, config: Any) -> None:
    """Print how fast the UNet's convolutions are where they stand, and a product of matrices."""
    x = torch.randn(BATCH, config.in_channels, config.image_size, config.image_size)
    z, t = torch.randn(BATCH, config.embed_channels), torch.full((BATCH,), 500)
    convolutions = [module for module in unet.modules() if isinstance(module, nn.Conv2d)]
    spent, operations, started = 0.0, 0, 0.0

    def before(module: nn.Module, inputs: Any) -> None:
        nonlocal started
        started = time.process_time()

    def after(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal spent, operations
        spent += time.process_time() - started
        operations += 2 * module.weight.numel() * output.shape[0] * output.shape[2] * output.shape[3]

    with torch.no_grad():
        unet(x, t, z)
        for module in convolutions:
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
        start = time.process_time()
        for _ in range(REPEATS):
            unet(x, t, z)
        whole = time.process_time() - start
        a = torch.randn(EDGE, EDGE)
        torch.mm(a, a)
        start = time.process_time()
        for _ in range(REPEATS):
            torch.mm(a, a)
        product = 2 * EDGE**3 * REPEATS / (time.process_time() - start)
    print(
        f"UNet: {BATCH * REPEATS / whole:.0f} evaluations a second, convolutions {spent / whole:.0%} of it at "
        f"{operations / spent / 1e9:.0f} GFLOP/s; a product of matrices {product / 1e9:.0f} GFLOP/s"
    )


if __name__ == "__main__":
    main()
