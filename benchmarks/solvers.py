"""How many evaluations the shipped editors need: to decode, to come back to a picture, and to edit.

    python benchmarks/solvers.py [--editor synthfaces-64] [--utkface UTKFace/] [--photographs-editor NAME] [--faces 8]

Three questions, each with a bar. Decoding from fresh x_T: PSNR against the same codes decoded in 200 steps of DDIM,
where 20 steps of DDIM are the bar for <= 12 evaluations. Round trip: PSNR of invert + decode against the image, where
250 + 100 steps of DDIM are the bar for <= 40 evaluations. Qualities: how far edits of each stand from edits of 60
evaluations a direction, along every path; `exact` is to leave 999 of 1,000 values within half a grey level.
`utkface-64` needs the photographs: without --utkface only `synthfaces-64` is measured. Of an editor with a student
(`vlbias train distill`) a further row shows what its teacher makes of as many evaluations.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vlbias.rendering import Renderer

#: Of the edits that others are compared with, and how far they walk.
REFERENCE_STEPS, STRENGTH = 60, 0.8


def measure(editor_name: str, x_0: torch.Tensor) -> bool:
    """Print both tables for images (b, 3, h, w) in [-1, 1]; True if both bars are met."""
    from vlbias import Editor
    from vlbias.diffae import seeded_noise
    from vlbias.diffae.evaluation import psnr

    model = Editor.from_pretrained(editor_name, device="cpu").renderer.diffae
    z_sem = model.encode(x_0)
    x_T = seeded_noise(range(len(x_0)), x_0.shape[1:])
    print(f"\n{editor_name}, {len(x_0)} faces that it was not trained on; mean PSNR in dB")

    truth = model.decode(z_sem, x_T, 200, "ddim")
    fresh = {("ddim", 20): 0.0, ("dpm++2m", 8): 0.0, ("dpm++2m", 10): 0.0, ("dpm++2m", 12): 0.0}
    for solver, steps in fresh:
        fresh[solver, steps] = float(psnr(model.decode(z_sem, x_T, steps, solver), truth).mean())
        print(
            f"  decode, {solver:8s} {steps:3d} evaluations, against 200 of ddim: {fresh[solver, steps]:6.2f}",
            flush=True,
        )

    trips = {("ddim", 250, 100): 0.0, ("ddim", 20, 20): 0.0, ("dpm++2m", 20, 20): 0.0, ("dpm++2m", 12, 12): 0.0}
    for solver, there, back in trips:
        found = model.invert(x_0, z_sem, there, solver)
        trips[solver, there, back] = float(psnr(model.decode(z_sem, found, back, solver), x_0).mean())
        value = trips[solver, there, back]
        print(
            f"  round trip, {solver:8s} {there:3d} + {back:3d} evaluations, against the image: {value:6.2f}", flush=True
        )

    decode_met = max(v for (solver, _), v in fresh.items() if solver != "ddim") >= fresh["ddim", 20]
    trip_met = max(v for (solver, a, b), v in trips.items() if a + b <= 40) >= trips["ddim", 250, 100]
    print(f"  20-step DDIM in <= 12 evaluations: {_word(decode_met)}; 250 + 100 in <= 40: {_word(trip_met)}")
    return decode_met and trip_met


def measure_qualities(editor_name: str, x_0: torch.Tensor) -> bool:
    """Print how far edits (b, 3, h, w) of each quality stand from those of many evaluations; True if the bar is met."""
    from vlbias import Editor
    from vlbias.diffae.evaluation import psnr
    from vlbias.rendering import Renderer

    renderer = Editor.from_pretrained(editor_name, device="cpu", clip=False).renderer
    steps = {f"{name}_steps": REFERENCE_STEPS for name in ("invert", "decode")} | {"edit_steps": REFERENCE_STEPS + 2}
    reference = edits_of(renderer.changed(settings=replace(renderer.settings, **steps)), x_0)[0]
    print(f"\n{editor_name}, {len(x_0)} unseen faces, {len(reference) // len(x_0)} edits each, strength {STRENGTH:g}")
    print(f"  {'quality':8s}  evaluations  PSNR mean  worst  grey levels: mean  999 of 1,000     max")
    within = 0.0
    rows = {quality: renderer.at_quality(quality) for quality in ("draft", "standard", "exact")}
    if renderer.student is not None:  # what its teacher makes of as many evaluations
        alone = Renderer(renderer.diffae, paths=renderer.paths, probes=renderer.probes, settings=renderer.settings)
        rows = {"teacher": alone, **rows}
    for quality, rendering in rows.items():
        edits, evaluations = edits_of(rendering, x_0)
        levels = (edits - reference).abs() * 127.5
        close = psnr(edits, reference)
        within = float(levels.flatten().sort().values[int(0.999 * levels.numel())])
        print(
            f"  {quality:8s}  {evaluations:11.1f}  {close.mean():9.1f}  {close.min():5.1f}  {levels.mean():17.2f}"
            f"  {within:12.2f}  {levels.max():6.2f}",
            flush=True,
        )
    print(f"  exact within half a grey level: {_word(within <= 0.5)}")
    return within <= 0.5


def edits_of(renderer: Renderer, x_0: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Every path walked both ways: faces (n, 3, h, w), and network evaluations for each."""
    z_sem = renderer.encode(x_0)
    walks = [{name: sign * STRENGTH} for name in renderer.attributes for sign in (-1, 1)]
    before = renderer.evaluations
    edits = torch.cat([renderer.edit(x_0, z_sem, walk) for walk in walks])
    return edits, (renderer.evaluations - before) / len(edits)


def _word(met: bool) -> str:
    return "reached" if met else "NOT reached"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="synthfaces-64", metavar="NAME", help="for faces of the embedded world")
    parser.add_argument("--utkface", metavar="FOLDER", help="photographs; measures utkface-64 too")
    parser.add_argument("--photographs-editor", default="utkface-64", metavar="NAME", help="for photographs")
    parser.add_argument("--faces", type=int, default=8, metavar="N")
    args = parser.parse_args()
    from vlbias import load_dataset

    torch.set_flush_denormal(True)
    print(f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    met = True
    with torch.inference_mode():
        # a seed and a start that no training uses
        drawn = load_dataset("synthfaces", n=args.faces, seed=20_260, start=3_000_000)
        faces = drawn.tensor(drawn.ids, 64)
        met &= measure(args.editor, faces) & measure_qualities(args.editor, faces)
        if args.utkface:
            test = load_dataset("utkface", args.utkface).split("test")
            step = max(1, len(test) // args.faces)
            photographs = test.tensor(test.ids[::step][: args.faces], 64)
            met &= measure(args.photographs_editor, photographs)
            met &= measure_qualities(args.photographs_editor, photographs)
    print("\nall bars met" if met else "\na bar is missed")


if __name__ == "__main__":
    main()
