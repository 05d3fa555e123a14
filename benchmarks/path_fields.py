"""How near a walk comes to the true change of a face: paths of every kind, learned anew, on drawn faces.

    python benchmarks/path_fields.py [--faces 4000] [--steps 0 150]

Paths of age and skin tone are learned on the same faces, with the shipped probes and CLIP of `synthfaces-64`, and
walked by strength 1 or -1 on unseen faces of the other pole. The codes of their true counterfactuals say what the walk
should have been: cosine, and distance as a share of its length, both in normalised space, means over faces.
"""

from __future__ import annotations

import argparse

import torch

from vlbias import Editor
from vlbias.data import load_dataset
from vlbias.data.synthfaces import SynthFaces
from vlbias.images import load_pixels, to_float
from vlbias.paths import PathSet, PathTrainingSettings, train_paths
from vlbias.rendering import Renderer

#: Of the world, far from those of the editor and of the benchmark.
TRAINING_SEED, UNSEEN_SEED, NUM_UNSEEN = 910_001, 920_001, 400
#: Column, pole, path, strength.
ENDS = (
    ("age_group", "old", "age", 1.0),
    ("age_group", "young", "age", -1.0),
    ("skin", "dark", "skin_tone", 1.0),
    ("skin", "light", "skin_tone", -1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=4000)
    parser.add_argument("--steps", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", nargs="+", default=["rbf", "linear", "affine"])
    arguments = parser.parse_args()
    renderer = Editor.from_pretrained("synthfaces-64").renderer
    faces = load_dataset("synthfaces", n=arguments.faces, seed=TRAINING_SEED)
    pictures = load_pixels(faces, faces.ids, renderer.image_size)
    true = true_changes(renderer)
    print(f"{'':24}" + "".join(f"{pole:>16}" for _, pole, _, _ in ENDS))
    assert renderer.paths is not None and renderer.probes is not None
    report("as shipped", renderer, renderer.paths, true)
    dipoles = dict(renderer.paths.dipoles)
    guards = {name: dipole for name, dipole in renderer.probes.dipoles.items() if name not in dipoles}
    for network in arguments.networks:
        for steps in arguments.steps:
            paths = train_paths(
                renderer.diffae,
                renderer.need_clip(),
                dipoles,
                pictures,
                guards=guards,
                probes=renderer.probes,
                settings=PathTrainingSettings.from_dict({"network": network, "steps": steps}),
            )
            report(f"{network}, {steps} steps", renderer, paths, true)


@torch.inference_mode()
def true_changes(renderer: Renderer) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pole => codes of unseen faces of the other one, and the true change of each in normalised space."""
    faces = load_dataset("synthfaces", n=NUM_UNSEEN, seed=UNSEEN_SEED)
    assert isinstance(faces, SynthFaces)
    found = {}
    for column, pole, _, _ in ENDS:
        others = faces.select(faces.table[column].notna() & (faces.table[column] != pole))
        before, after = codes(renderer, others), codes(renderer, others.counterfactual(**{column: pole}))
        found[pole] = before, renderer.normalize(after) - renderer.normalize(before)
    return found


def codes(renderer: Renderer, faces: SynthFaces) -> torch.Tensor:
    return renderer.encode(to_float(load_pixels(faces, faces.ids, renderer.image_size)))


def report(name: str, renderer: Renderer, paths: PathSet, true: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    cells = []
    for _, pole, path, strength in ENDS:
        z_sem, wanted = true[pole]
        made = renderer.normalize(paths.walk(z_sem, {path: strength})) - renderer.normalize(z_sem)
        cosine = torch.nn.functional.cosine_similarity(made, wanted).mean()
        off = ((made - wanted).norm(dim=1) / wanted.norm(dim=1)).mean()
        cells.append(f"{float(cosine):9.3f}, {float(off):.3f}")
    print(f"{name:24}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
