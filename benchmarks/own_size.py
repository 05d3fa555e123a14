"""A photograph at its own size through a full-size editor: seconds and memory of every stage.

    python benchmarks/own_size.py [--image-size 256] [--photo 1024] [--wide 10000] [--steps 2] [--threads 2]

The architecture of the published 256 px weights with random weights, so what an edit looks like means nothing; what is
measured is the way of a photograph: read, brought to the editor's size, encoded, inverted, walked, decoded, carried to
the photograph's own pixels and written in its own format. Then `Editor.edit` on the same photograph, a balance run
whose donors are such files, and both ways again for a photograph of 10,000 x 8,000 pixels. Peak memory is the process's
own, so it never falls; what a stage adds is memory that nothing before it needed.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from full_size import full_size_config, randomised
from PIL import Image, ImageChops, ImageStat

#: What an edit may take beyond the networks and the photograph itself, in bytes for each of its pixels: Pillow holds a
#: pixel of the changed copy in four bytes, and the rest is worked on in strips.
MAX_BYTES_PER_PIXEL = 8


def peak_mb() -> float:
    """Largest resident memory of this process so far, in 2**20 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print wall-clock and processor seconds of what is done inside, and by how much it raised the peak."""
    wall, busy, peak = time.perf_counter(), time.process_time(), peak_mb()
    yield
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    print(f"  {name:48s} {wall:7.2f} s {busy:7.2f} processor s   peak {peak_mb():6.0f} MB (+{peak_mb() - peak:.0f})")


class Brightness(torch.nn.Module):
    """In the place of CLIP: how bright a picture is decides every question."""

    def encode_image(self, x):
        return torch.nn.functional.normalize(torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1), dim=1)

    def zero_shot(self, x, classes, temperature=None):
        positive = torch.sigmoid(-3 * x.mean(dim=(1, 2, 3)))
        return torch.stack([positive, 1 - positive], dim=1)


def random_editor(image_size: int, steps: int, x_0: torch.Tensor, labels: dict[str, torch.Tensor]):
    """The published architecture with random weights; probes and a straight path read from the codes of ``x_0``."""
    from vlbias import Dipole, Editor, PathSet
    from vlbias.diffae import DiffAE
    from vlbias.paths import Probes
    from vlbias.rendering import RenderSettings

    torch.manual_seed(0)
    diffae = DiffAE(full_size_config(image_size)).eval().requires_grad_(False)
    randomised(diffae.unet)
    diffae.fit_normalization(((x_0 + 1) * 127.5).byte(), batch_size=1)
    z_sem = torch.cat([diffae.encode(x[None]) for x in x_0])
    dipoles = {"skin_tone": Dipole("dark", "light"), "smile": Dipole("smiling", "not smiling")}
    probes = Probes.fit(z_sem, labels, dipoles=dipoles)
    path = {"skin_tone": dipoles["skin_tone"]}
    paths = PathSet(path, z_sem.shape[1], network="linear", mean=diffae.z_mean[0], std=diffae.z_std[0])
    with torch.no_grad():
        normal = probes.normals(paths.mean, paths.std)[:1]
        for parameter in paths.field.parameters():
            parameter.copy_(normal.reshape(parameter.shape))
    paths.requires_grad_(False)
    render = RenderSettings(edit_steps=steps, batch_size=1, method="difference")
    return Editor(diffae, clip=Brightness(), paths=paths, probes=probes, settings=render, info={"name": "random"})


def photographs(folder: Path, edge: int, number: int):
    """A dataset of drawn faces as JPEG files with the grain of a sensor."""
    from vlbias import load_dataset

    drawn = load_dataset("synthfaces", n=number, seed=5, bias={("smile", "skin"): 0.9}, image_size=edge)
    drawn = drawn.split("train")
    grain = np.random.default_rng(0)
    for item in drawn.ids:
        pixels = np.asarray(drawn.image(item), dtype=np.float32)
        noisy = (pixels + grain.normal(0, 3, pixels.shape).astype(np.float32)).clip(0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{item}.jpg", quality=92)
    table = drawn.table.assign(file_name=[f"{item}.jpg" for item in drawn.ids])
    table.to_csv(folder / "metadata.csv", index=False)
    return load_dataset("folder", folder)


def one_photograph(editor, path: Path) -> bool:
    """The stages of an edit one by one; true if what is written has the photograph's size, format and tables."""
    from vlbias.images import to_pixels, to_tensor
    from vlbias.originals import Original

    with stage("read the file"):
        original = Original.read(path)
    with stage(f"bring it to {editor.image_size} px"):
        x_0 = to_tensor(original.upright, editor.image_size)
    renderer = editor.renderer
    settings = renderer.settings
    with stage("encode"):
        z_sem = renderer.encode(x_0)
    with stage(f"trace, {settings.edit_steps} steps of {settings.solver}"):
        traced = renderer.trace(x_0, z_sem)
    with stage("walk"):
        z_edit = renderer.walk(z_sem, {"skin_tone": 1.0})
    with stage(f"edit along the trace, {settings.edit_steps} steps"):
        edited = renderer.render(x_0, z_sem, z_edit, traced)
    with stage("carry the difference to the photograph's pixels"):
        raster = original.changed(to_pixels(x_0)[0], to_pixels(edited)[0])
    with stage("write"):
        file = original.encode(raster, {"synthetic": "true"})
    written = path.parent / f"written{file.suffix}"
    written.write_bytes(file.data)
    moved = ImageStat.Stat(ImageChops.difference(raster, original.stored)).mean
    with Image.open(path) as old, Image.open(written) as new:
        same = (new.format, new.mode, new.size) == (old.format, old.mode, old.size)
        same &= new.quantization == old.quantization
        size = f"{new.size[0]} x {new.size[1]}"
        print(f"  written as {new.format} of {size}; pixels moved by {np.mean(moved):.1f} levels")
    return same and max(moved) > 0


def editor_edit(editor, picture: Image.Image) -> bool:
    """`Editor.edit` of a picture of any size; true if size and memory are as they should be."""
    megapixels, before = picture.width * picture.height / 1e6, peak_mb()
    with stage(f"Editor.edit, {picture.width} x {picture.height}"):
        edited = editor.edit(picture, skin_tone=1.0)
    added = (peak_mb() - before) * 2**20 / (megapixels * 1e6)
    print(f"  {added:.1f} bytes for each of its {megapixels:.1f} million pixels (bar {MAX_BYTES_PER_PIXEL})")
    unchanged = editor.edit(picture, skin_tone=0.0)
    same = unchanged.tobytes() == picture.tobytes()
    print(f"  strength 0 gives the photograph's own pixels: {'yes' if same else 'NO'}")
    return edited.size == picture.size and same and added <= MAX_BYTES_PER_PIXEL


def balance(editor, faces, out: Path) -> bool:
    """A balance run of one edit that lets every edit pass; true if it has its donor's size."""
    from vlbias import Balancer
    from vlbias.balance import Checks

    # random networks show nothing of what a code says; here edits must be written, not be good
    anything = Checks(reached=-1e6, target=-1e6, identity=-1e6, min_skill=-10.0, donor=1e6, max_strength=3.0)
    balancer = Balancer(editor, target="smile", protected="skin", checks=anything, chunk_size=1)
    plan = balancer.plan(faces, limit=1)
    with stage(f"balance run, {len(faces)} photographs, {len(plan)} edit"):
        result = balancer.run(faces, plan, out, show_progress=False)
    edits = result.table[result.table["origin"] == "edited"]
    for row in edits.to_dict("records"):
        with Image.open(out / row["file_name"]) as new, Image.open(faces.path(row["source_id"])) as old:
            print(f"  {row['file_name']}: {new.format} of {new.size[0]} x {new.size[1]}")
            if (new.format, new.size) != (old.format, old.size):
                return False
    return len(edits) == len(plan) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256, metavar="PX", help="edge of the editor's pictures")
    parser.add_argument("--photo", type=int, default=1024, metavar="PX", help="edge of the photographs")
    parser.add_argument("--wide", type=int, default=10_000, metavar="PX", help="width of the large one; 0: none")
    parser.add_argument("--faces", type=int, default=16, metavar="N", help="photographs of the balance run")
    parser.add_argument("--steps", type=int, default=2, metavar="N", help="steps of each inversion and decoding")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="default: torch's own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, random weights, {args.image_size} px editor")
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        with stage(f"draw {args.faces} photographs of {args.photo} px"):
            faces = photographs(photos, args.photo, args.faces)
        x_0 = faces.tensor(faces.ids, args.image_size)
        table = faces.table
        dark = torch.tensor((table["skin"] == "dark").to_numpy(dtype=np.float32))
        labels = {"skin_tone": dark, "smile": torch.tensor(table["smile"].to_numpy(dtype=np.float32))}
        with stage("build the editor, encode every face"):
            editor = random_editor(args.image_size, args.steps, x_0, labels)
        print("One photograph, stage by stage")
        met = one_photograph(editor, faces.path(faces.ids[0]))
        print("Editor.edit")
        met &= editor_edit(editor, faces.image(faces.ids[0]))
        print("Balance")
        met &= balance(editor, faces, Path(folder) / "out")
        if args.wide:
            print("A large photograph")
            size = (args.wide, args.wide * 4 // 5)
            wide = faces.image(faces.ids[0]).resize(size, Image.Resampling.BILINEAR)
            met &= editor_edit(editor, wide)
            wide.save(Path(folder) / "wide.jpg", quality=92)
            del wide
            met &= one_photograph(editor, Path(folder) / "wide.jpg")
    print("all as it should be" if met else "something is not as it should be")
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
