"""Ten-image folders in each published layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlbias.data.celebahq import CELEBA_ATTRIBUTES

UTKFACE_NAMES = [
    "1_0_0_20170109142408075.jpg.chip.jpg",
    "26_1_2_20170116184024662.jpg.chip.jpg",
    "39_0_1_20170116174525125.jpg.chip.jpg",
    "40_1_1_20170116174525126.jpg.chip.jpg",
    "24_0_1_20170116220224657 .jpg.chip.jpg",  # the published set has this space
    "52_0_3_20170116174525128.jpg.chip.jpg",
    "80_1_4_20170116174525129.jpg.chip.jpg",
    "116_1_0_20170116174525130.jpg.chip.jpg",
]
UTKFACE_MALFORMED = ["55_0_0_20170116232725357jpg.chip.jpg", "39_1_20170116174525125.jpg.chip.jpg"]


def paint(path: Path, level: int = 128, size: tuple[int, int] = (20, 20), format: str | None = None) -> None:
    """A small picture of one colour with a corner that tells up from down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), level, dtype=np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 255
    Image.fromarray(pixels).save(path, format=format)


@pytest.fixture
def picture() -> Callable[..., None]:
    return paint


@pytest.fixture
def utkface_root(tmp_path: Path) -> Path:
    root = tmp_path / "UTKFace"
    for level, name in enumerate(UTKFACE_NAMES + UTKFACE_MALFORMED):
        paint(root / name, 20 * level)
    (root / "notes.txt").write_text("no picture")
    return root


def celebahq_texts(num_images: int = 10) -> dict[str, str]:
    """The annotation files as published: double spaces, padded columns, no newline at the end of the partition."""
    lines = [str(num_images), " ".join(CELEBA_ATTRIBUTES) + " "]
    for i in range(num_images):
        values = ["1" if (i + j) % 3 == 0 else "-1" for j in range(len(CELEBA_ATTRIBUTES))]
        lines.append(f"{i}.jpg  " + " ".join(values))
    mapping = ["idx        orig_idx   orig_file"]
    mapping += [f"{i:<10} {7 * i + 3:<10} {7 * i + 4:06d}.jpg" for i in range(num_images)]
    partition = [f"{7 * i + 4:06d}.jpg {0 if i < 7 else i - 7}" for i in range(num_images)]
    return {
        "CelebAMask-HQ-attribute-anno.txt": "\n".join(lines) + "\n",
        "CelebA-HQ-to-CelebA-mapping.txt": "\n".join(mapping) + "\n",
        "list_eval_partition.txt": "\n".join(partition),
    }


@pytest.fixture
def celebahq_root(tmp_path: Path) -> Path:
    root = tmp_path / "CelebAMask-HQ"
    for i in range(10):
        paint(root / "CelebA-HQ-img" / f"{i}.jpg", 20 * i)
    for name, text in celebahq_texts().items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def imagefolder_root(tmp_path: Path) -> Path:
    """A balanced dataset as the pipeline writes it: the whole table at the root, each split's own part beside it."""
    root = tmp_path / "balanced"
    rows = ["file_name,split,smile,skin,age,origin,source_id,path,strength,seed,score_identity"]
    part = [rows[0]]
    for i in range(10):
        paint(root / "train" / f"{i}.png", 20 * i)
        tail = f"real,{i},,,," if i % 2 else f"edited,{i + 1},skin,-0.5,7,0.91"
        rows.append(f"train/{i}.png,train,{i % 2},{'dark' if i < 5 else 'light'},{20.5 + i},{tail}")
        part.append(rows[-1].removeprefix("train/"))
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    (root / "train" / "metadata.csv").write_text("\n".join(part) + "\n")
    return root
