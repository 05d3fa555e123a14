"""Small stand-ins that tests share: an editor with random weights that edits within milliseconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from vlbias import Dipole, Editor, PathSet
from vlbias.diffae import DiffAE, DiffAEConfig
from vlbias.rendering import RenderSettings

#: The smallest autoencoder that has every kind of block but attention: 16 px, codes of 16 numbers.
TINY = DiffAEConfig(
    image_size=16,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    embed_channels=16,
    attention_resolutions=(),
    enc_channel_mult=(1, 2),
    enc_num_res_blocks=1,
    num_groups=4,
)


def tiny_editor() -> Editor:
    """An editor with random weights, named "tiny", with the paths age and skin_tone."""
    dipoles = {"age": Dipole("old", "young"), "skin_tone": Dipole("dark", "light")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        diffae = DiffAE(TINY)
        paths = PathSet(dipoles, 16, mean=diffae.z_mean, std=diffae.z_std)
    settings = RenderSettings(invert_steps=2, decode_steps=2)
    return Editor(diffae, paths=paths, settings=settings, info={"name": "tiny"})


def people(folder: Path, **columns: object) -> Path:
    """72 pictures of 12 people, a third of the people in each split."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for i in range(72):
        person = i // 6
        split = ("train", "val", "test")[person % 3]
        gender = ("female", "male")[person // 3 % 2]
        pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
        rows.append({"file_name": f"{i:02d}.png", "split": split, "gender": gender, "smile": i % 2, "identity": person})
    pd.DataFrame(rows).assign(**columns).to_csv(folder / "metadata.csv", index=False)
    return folder


def tree_hash(*places: Path) -> dict[str, str]:
    """Every entry below the places: path -> hash of a file, target of a link, or "folder"."""
    found = {}
    for place in places:
        for path in sorted([place, *place.rglob("*")]):
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            else:
                found[str(path)] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found
