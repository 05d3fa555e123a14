"""Peak memory of one step of path training at full size, with random weights.

    python benchmarks/path_memory.py --image-size 256 --clip ViT-B-32 --faces 2

Builds the published 256 px autoencoder (or a smaller one) and an open_clip model without weights, takes one step of
`train_paths` forward and backward, and prints the peak resident memory and seconds, in this order: whole batch,
micro-batches of one face, micro-batches with recomputed activations. Each runs in a process of its own, as peak memory
never falls.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch

WAYS = {"whole": {}, "micro": {"micro_batch": 1}, "checkpointing": {"micro_batch": 1, "checkpointing": True}}


def autoencoder(image_size: int):
    from vlbias.diffae import DiffAE, DiffAEConfig

    # ffhq256_autoenc; fewer levels below 128 px
    levels = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4)}.get(image_size, (1, 2, 4))
    config = DiffAEConfig(
        image_size=image_size,
        model_channels=128,
        channel_mult=levels,
        num_res_blocks=2,
        embed_channels=512,
        enc_channel_mult=(*levels, levels[-1]),
    )
    return DiffAE(config).eval().requires_grad_(False)


def one_step(way: str, image_size: int, clip_name: str, faces: int) -> None:
    import open_clip

    from vlbias.clip import Preprocess, create
    from vlbias.paths import Dipole, PathTrainingSettings
    from vlbias.paths.training import _Faces, _new_paths, _Trainer

    torch.manual_seed(0)
    diffae = autoencoder(image_size)
    config = open_clip.get_model_config(clip_name)
    side = config["vision_cfg"]["image_size"]
    clip = create(config, Preprocess(size=(side, side)), name=clip_name)
    dipoles = {"age": Dipole("an old person", "a young person"), "tone": Dipole("dark skin", "light skin")}
    images = torch.rand(faces, 3, image_size, image_size) * 2 - 1
    z = torch.randn(faces, 512)
    with torch.no_grad():
        features = torch.cat([clip.encode_image(x[None]) for x in images])
    settings = PathTrainingSettings(batch_size=faces, walk_steps=4, identity=0.0, perceptual=0.0, **WAYS[way])
    paths = _new_paths(diffae, dipoles, settings).requires_grad_(True)
    known = _Faces(images, z, z, features, None)
    trainer = _Trainer(diffae, clip, paths, known, dipoles, torch.ones(2), settings, None)
    start = time.perf_counter()
    trainer.accumulate(trainer.draw(torch.Generator().manual_seed(0)))
    seconds = time.perf_counter() - start
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{way:14s} {faces} faces of {image_size} px, {clip_name}: peak {peak_gb:.2f} GB, {seconds:.0f} s", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=256, metavar="PX")
    parser.add_argument("--clip", default="ViT-B-32", metavar="NAME", help="an architecture of open_clip")
    parser.add_argument("--faces", type=int, default=2, metavar="N")
    parser.add_argument("--way", choices=list(WAYS), help="one way only, in this process")
    args = parser.parse_args()
    if args.way:
        one_step(args.way, args.image_size, args.clip, args.faces)
        return
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way, "--image-size", str(args.image_size), "--clip", args.clip]
        subprocess.run([*command, "--faces", str(args.faces)], check=True)


if __name__ == "__main__":
    main()
