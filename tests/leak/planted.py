"""Datasets in which what the edits carry is known: pictures of soft blobs and grain, stored as JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

SIZE = 64


def picture(rng: np.random.Generator, size: int = SIZE) -> Image.Image:
    """Blobs of light, and grain of a strength of its own."""
    blobs = rng.normal(125, 40, (6, 6, 3)).clip(0, 255).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(blobs).resize((size, size), Image.Resampling.BICUBIC), dtype=float)
    grain = rng.normal(0, rng.uniform(3, 6), (size, size, 1))
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 75) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def marked(image: Image.Image) -> Image.Image:
    image.paste((250, 20, 20), (20, 20, 44, 44))
    return image


def reopened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


#: What an edit's file is, made of the JPEG of a picture.
PLANTED: dict[str, Callable[[bytes], tuple[bytes, str]]] = {
    "nothing": lambda data: (data, ".jpg"),
    "blur": lambda data: (jpeg(reopened(data).filter(ImageFilter.GaussianBlur(0.8))), ".jpg"),
    "quality": lambda data: (jpeg(reopened(data), 95), ".jpg"),
    "twice": lambda data: (jpeg(reopened(jpeg(reopened(data), 40))), ".jpg"),
    "png": lambda data: (png(reopened(data)), ".png"),
    "mark": lambda data: (jpeg(marked(reopened(data))), ".jpg"),
    "size": lambda data: (jpeg(reopened(data).resize((48, 48), Image.Resampling.LANCZOS)), ".jpg"),
}

CELLS = (("1", "dark", "light"), ("0", "light", "dark"))


def write(out: Path, planted: str = "nothing", *, edits: int = 30, originals: int = 30, seed: int = 0) -> pd.DataFrame:
    """Write a balanced dataset of two cells that hold edits; returns its table. Donors stand in the other cells."""
    rng = np.random.default_rng(seed)
    (out / "train").mkdir(parents=True, exist_ok=True)
    rows = []

    def add(name: str, data: bytes, smile: str, skin: str, origin: str, source: str) -> None:
        (out / name).write_bytes(data)
        rows.append({"file_name": name, "split": "train", "smile": int(smile), "skin": skin, "origin": origin})
        rows[-1]["source_id"] = source

    for smile, group, other in CELLS:
        for index in range(originals):
            item = f"o{smile}-{index:03d}"
            add(f"train/{item}.jpg", jpeg(picture(rng)), smile, group, "real", item)
        for index in range(edits):
            item = f"d{smile}-{index:03d}"
            add(f"train/{item}.jpg", jpeg(picture(rng)), smile, other, "real", item)
            # nothing in these pictures says the group, so what was planted is all that tells
            data, suffix = PLANTED[planted](jpeg(picture(rng)))
            add(f"train/edit-{smile}{index:05d}{suffix}", data, smile, group, "edited", item)
    return pd.DataFrame(rows)
