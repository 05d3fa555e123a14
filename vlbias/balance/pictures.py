"""Edits as the files that are written: at the donor's own size and in its format, or at the editor's size as PNG.

Scorers see what a reader of the file will see, not the float image before it was rounded and compressed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from vlbias.alignment import cut
from vlbias.balance.attempt import Attempt, Job
from vlbias.balance.scoring import Seen
from vlbias.data import FaceDataset
from vlbias.data.table import StoredSize
from vlbias.errors import ConfigError
from vlbias.images import to_pil, to_pixels, to_tensor
from vlbias.originals import Encoded, Original
from vlbias.provenance import COMPOSITE, TRAINED

__all__ = [
    "SIZES",
    "Written",
    "check_size",
    "median_bytes",
    "resolution_note",
    "write_donors",
    "write_edits",
]

#: Sizes that edits may be written at: the donor's ``own``, or the ``editor``'s.
SIZES = ("own", "editor")
# kind of a made picture -> how it was made, and what of the attempt its file says
_MADE = {
    "edit": ("a face edited along a learned path", ("source", "seed", "made_by", "path", "strength", "from", "to")),
    "donor": ("a face sampled from the latent prior", ("source", "seed", "made_by")),
    "round-trip": ("an original that passed through the editor", ("source", "made_by", "path", "strength")),
}


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


# -- writing ----------------------------------------------------------------------------------------------------------


class Written(NamedTuple):
    """Faces as files.

    Attributes:
        files: one for each.
        x: what a reader sees in them at the editor's size (b, 3, s, s).
        finite: which faces were finite before they were written.
    """

    files: list[Encoded]
    x: torch.Tensor
    finite: list[bool]


def write_edits(
    job: Job, attempts: Sequence[Attempt], x_edit: torch.Tensor, made: str = "edit"
) -> tuple[list[bool], Seen]:
    """Give attempts their edits as files.

    Args:
        job: says at which size.
        attempts: donors, one for each edit.
        x_edit: (b, 3, s, s) in [-1, 1].
        made: ``edit`` or ``round-trip``, for their provenance.

    Returns:
        Which edits were finite, and what scorers see in their files.
    """

    def write(attempt: Attempt, x: torch.Tensor) -> Encoded:
        text = _provenance(job, attempt, made)
        if job.size == "editor" or attempt.is_drawn:
            return _png(x, text)
        original = job.dataset.original(attempt.donor)
        before, after = to_pixels(torch.stack([attempt.picture.to(x.device), x]))
        raster = original.changed(before, after, job.dataset.placement(attempt.donor))
        return original.encode(raster, text)

    written = _write(job, attempts, x_edit, write)
    pairs = list(zip(attempts, written.files, strict=True))
    for attempt, file in pairs:
        attempt.file = file
    look = functools.cache(lambda size: torch.cat([_as_read(job, attempt, file, size) for attempt, file in pairs]))
    return written.finite, Seen(job.backend, job.backend.encode(written.x), written.x, look)


def write_donors(job: Job, attempts: Sequence[Attempt], x_0: torch.Tensor) -> Written:
    """Donors that were drawn from the prior, as files."""
    return _write(job, attempts, x_0, lambda attempt, x: _png(x, _provenance(job, attempt, "donor")))


def _write(
    job: Job, attempts: Sequence[Attempt], x: torch.Tensor, write: Callable[[Attempt, torch.Tensor], Encoded]
) -> Written:
    finite = torch.isfinite(x).flatten(1).all(dim=1).tolist()
    x = torch.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
    files = [write(attempt, face) for attempt, face in zip(attempts, x, strict=True)]
    size = job.backend.image_size
    read = [_as_read(job, attempt, file, size) for attempt, file in zip(attempts, files, strict=True)]
    return Written(files, torch.cat(read).to(x.device), finite)


def _provenance(job: Job, attempt: Attempt, made: str) -> dict[str, str]:
    """What a made picture says of itself, as texts for its file."""
    how, names = _MADE[made]
    known = attempt.record() | {"source": attempt.donor, "made_by": f"vlbias balance: {how}"}
    kind = TRAINED if attempt.is_drawn else COMPOSITE
    said = {"synthetic": "true", "editor": job.backend.name, "digital_source_type": kind}
    return said | {name: str(known[name]) for name in names}


def _png(x: torch.Tensor, text: Mapping[str, str]) -> Encoded:
    return Original.of_picture(picture := to_pil(x[None])[0]).encode(picture, text)


def _as_read(job: Job, attempt: Attempt, file: Encoded, size: int) -> torch.Tensor:
    """The face in a written file (1, 3, size, size)."""
    picture = file.open()
    placement = None if job.size == "editor" or attempt.is_drawn else job.dataset.placement(attempt.donor)
    return to_tensor(picture if placement is None else cut(picture, placement), size)
