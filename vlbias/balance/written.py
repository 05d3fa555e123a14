"""Edits as the files that are written: at the donor's own size and in its format, or at the editor's size as PNG.

The judges see what a reader of the file will see, not the float image before it was rounded and compressed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vlbias.alignment import cut
from vlbias.balance.attempts import Attempt, Job, record
from vlbias.balance.looks import Look
from vlbias.balance.provenance import provenance
from vlbias.data import FaceDataset
from vlbias.data.table import StoredSize
from vlbias.errors import ConfigError
from vlbias.images import to_pil, to_pixels, to_tensor
from vlbias.originals import Encoded, Original

__all__ = [
    "SIZES",
    "check_size",
    "look_at_donors",
    "look_at_files",
    "median_bytes",
    "resolution_note",
    "write_donors",
    "write_edits",
]

#: Sizes that edits may be written at: the donor's ``own``, or the ``editor``'s.
SIZES = ("own", "editor")


def check_size(size: str, originals: str = "copy") -> None:
    """Refuse an unknown size, and one that does not go with what happens to the originals.

    Raises:
        ConfigError: says which.
    """
    if size not in SIZES:
        raise ConfigError(f"`size` must be one of {', '.join(SIZES)}; got {size!r}.")
    if originals == "resize" and size == "own":
        raise ConfigError(
            "originals='resize' brings originals to the editor's size, so edits must be written at it too: "
            "size='editor'."
        )


def _some_sizes(faces: FaceDataset, most: int = 64) -> list[StoredSize]:
    """How large some pictures of a dataset are, evenly spaced through its table; none where they are drawn."""
    step = max(1, len(faces.ids) // most)
    sizes = (faces.stored_size(item) for item in faces.ids[::step][:most])
    return [size for size in sizes if size is not None]


def median_bytes(faces: FaceDataset, *, otherwise: float) -> float:
    """Size in bytes of a typical file of the dataset; ``otherwise`` where there are no files."""
    sizes = [size.num_bytes for size in _some_sizes(faces)]
    return float(np.median(sizes)) if sizes else otherwise


def resolution_note(faces: FaceDataset, size: int, *, prior: bool) -> str | None:
    """A warning where the originals are larger than edits of ``size`` pixels; ``None`` where they are not."""
    edges = [min(size.width_px, size.height_px) for size in _some_sizes(faces)]
    typical = int(np.median(edges)) if edges else size
    if typical <= size:
        return None
    remedy = (
        "Faces from the prior have no larger donor: use source='real', or bring the originals to the same size "
        "(originals='resize', size='editor')."
        if prior
        else "Write edits at their donors' size (size='own'), or bring the originals to the same size "
        "(originals='resize')."
    )
    return (
        f"originals are about {typical} pixels wide and edits {size}, so resolution says who was edited, and a "
        f"classifier can learn that in place of the face. {remedy}"
    )


def write_edits(
    job: Job,
    attempts: Sequence[Attempt],
    x_edit: torch.Tensor,
    describe: Callable[[Mapping[str, Any], str], dict[str, str]] = provenance,
) -> tuple[list[Encoded], torch.Tensor, list[bool]]:
    """Edits as files.

    Args:
        job: says at which size.
        attempts: donors, one for each edit.
        x_edit: (b, 3, s, s) in [-1, 1].
        describe: record of an attempt and name of the editor => what the file says of itself.

    Returns:
        (files, what a reader sees in them at the editor's size (b, 3, s, s), which edits were finite).
    """

    def write(attempt: Attempt, x: torch.Tensor) -> Encoded:
        text = describe(record(attempt), job.backend.name)
        if job.size == "editor" or _drawn(attempt):
            return _png(x, text)
        assert attempt.x_0 is not None  # a face of the dataset was opened before it was edited
        original = job.dataset.original(attempt.donor)
        before, after = to_pixels(torch.stack([attempt.x_0.to(x.device), x]))
        raster = original.changed(before, after, job.dataset.placement(attempt.donor))
        return original.encode(raster, text)

    return _write(job, attempts, x_edit, write)


def write_donors(
    job: Job, attempts: Sequence[Attempt], x_0: torch.Tensor
) -> tuple[list[Encoded], torch.Tensor, list[bool]]:
    """Donors that were drawn from the prior, as files: see :func:`write_edits`."""

    def write(attempt: Attempt, x: torch.Tensor) -> Encoded:
        return _png(x, provenance(record(attempt), job.backend.name, donor=True))

    return _write(job, attempts, x_0, write)


def _write(
    job: Job, attempts: Sequence[Attempt], x: torch.Tensor, write: Callable[[Attempt, torch.Tensor], Encoded]
) -> tuple[list[Encoded], torch.Tensor, list[bool]]:
    finite = torch.isfinite(x).flatten(1).all(dim=1).tolist()
    x = torch.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
    files = [write(attempt, face) for attempt, face in zip(attempts, x, strict=True)]
    return files, look_at_files(job, attempts, files)(job.backend.image_size).to(x.device), finite


def look_at_files(job: Job, attempts: Sequence[Attempt], files: Sequence[Encoded]) -> Look:
    """The faces in written files at any size; each size is read once."""
    pairs = list(zip(attempts, files, strict=True))
    return functools.cache(lambda size: torch.cat([_as_read(job, attempt, file, size) for attempt, file in pairs]))


def look_at_donors(job: Job, attempts: Sequence[Attempt]) -> Look:
    """The donors' faces at any size, each size read once: of the dataset's pictures, or of files that were decoded."""

    def one(attempt: Attempt, size: int) -> torch.Tensor:
        if attempt.donor_file is not None:
            return _as_read(job, attempt, attempt.donor_file, size)
        return to_tensor(job.dataset.image(attempt.donor), size)

    return functools.cache(lambda size: torch.cat([one(attempt, size) for attempt in attempts]))


def _as_read(job: Job, attempt: Attempt, file: Encoded, size: int) -> torch.Tensor:
    """The face in a written file (1, 3, size, size)."""
    picture = file.open()
    placement = None if job.size == "editor" or _drawn(attempt) else job.dataset.placement(attempt.donor)
    return to_tensor(picture if placement is None else cut(picture, placement), size)


def _drawn(attempt: Attempt) -> bool:
    """Whether the donor came from the prior, so that there is no larger picture of it."""
    return attempt.row["donor"] == ""


def _png(x: torch.Tensor, text: Mapping[str, str]) -> Encoded:
    return Original.of_picture(picture := to_pil(x[None])[0]).encode(picture, text)
