"""How many evaluations the second-order solver saves on the shipped editors.

    python benchmarks/solvers.py [--editor synthfaces-64] [--utkface UTKFace/] [--faces 8]

Two questions, each with a bar. Decoding from fresh x_T: PSNR against the same codes decoded in 200 steps of DDIM, where
20 steps of DDIM are the bar for <= 12 evaluations. Round trip: PSNR of invert + decode against the image, where 250 +
100 steps of DDIM are the bar for <= 40 evaluations. `utkface-64` needs the photographs: without --utkface only
`synthfaces-64` is measured.
"""

from __future__ import annotations

import argparse
import os

import torch


def measure(editor_name: str, x_0: torch.Tensor) -> bool:
    """Print both tables for images (b, 3, h, w) in [-1, 1]; True if both bars are met."""
    from vlbias import Editor
    from vlbias.diffae import seeded_noise
    from vlbias.diffae.evaluation import psnr

    model = Editor.from_pretrained(editor_name, device="cpu").diffae
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


def _word(met: bool) -> str:
    return "reached" if met else "NOT reached"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--editor", default="synthfaces-64", metavar="NAME", help="for faces of the embedded world")
    parser.add_argument("--utkface", metavar="FOLDER", help="photographs; measures utkface-64 too")
    parser.add_argument("--faces", type=int, default=8, metavar="N")
    args = parser.parse_args()
    from vlbias import load_dataset

    torch.set_flush_denormal(True)
    print(f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    met = True
    with torch.inference_mode():
        # a seed and a start that no training uses
        drawn = load_dataset("synthfaces", n=args.faces, seed=20_260, start=3_000_000)
        met &= measure(args.editor, drawn.tensor(drawn.ids, 64))
        if args.utkface:
            test = load_dataset("utkface", args.utkface).split("test")
            step = max(1, len(test) // args.faces)
            met &= measure("utkface-64", test.tensor(test.ids[::step][: args.faces], 64))
    print("\nall bars met" if met else "\na bar is missed")


if __name__ == "__main__":
    main()
