"""Photographs as people have them => a dataset of the faces in them, each cut as an editor was trained on it.

Faces are searched for once and kept (:mod:`vlbias.data.landmarks`). A photograph that does not show one usable face
leaves the table and is listed among the problems, as any other file that cannot be used.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from vlbias.alignment import (
    LAYOUTS,
    MIN_FACE_PX,
    FaceDetector,
    Similarity,
    choose_face,
    cut,
    default_detector,
    face_transform,
)
from vlbias.arguments import checked_call
from vlbias.data.landmarks import Found, LandmarkCache, landmarks_file, rounded
from vlbias.data.table import FaceDataset, Problem, StoredSize
from vlbias.errors import ConfigError, DatasetError, FaceError, ImageError, unknown
from vlbias.files import sha256_file
from vlbias.originals import Encoded, Original
from vlbias.progress import track

__all__ = ["FACES", "WRITE", "AlignedDataset", "align_dataset"]

#: What becomes of an edit: put back into the whole photograph, or written as an aligned crop, as originals then are.
WRITE = ("whole", "crop")
#: Which face of a photograph is taken: the only one (several are a problem), or the largest.
FACES = ("only", "largest")

# Photographs that are in memory at once (12 megapixels take 36 MB), and threads that read them.
_NUM_OPEN, _NUM_THREADS = 8, 4


@dataclass(frozen=True, repr=False, eq=False)
class AlignedDataset(FaceDataset):
    """The faces in photographs; made by :func:`align_dataset`.

    Attributes:
        photos: the photographs; those that show no usable face are in there too.
        places: where each face's crop lies in its upright photograph.
        write: ``"whole"`` or ``"crop"``.
    """

    photos: FaceDataset = None  # type: ignore[assignment]  # always given; fields behind defaults need one
    places: Mapping[str, Similarity] = field(default_factory=dict)
    write: str = "whole"

    def path(self, item: str) -> Path | None:
        """The photograph's file; ``None`` with ``write="crop"``: crops are made, not stored."""
        self._require([item])
        return self.photos.path(item) if self.write == "whole" else None

    def file(self, item: str) -> Encoded | None:
        """The photograph's file, byte by byte; ``None`` with ``write="crop"``."""
        self._require([item])
        return self.photos.file(item) if self.write == "whole" else None

    def image(self, item: str) -> Image.Image:
        """One face, aligned, upright RGB in the resolution of its photograph.

        Raises:
            UnknownNameError: no such id.
            ImageError: the photograph is missing or cannot be read.
        """
        self._require([item])
        return cut(self.photos.image(item), self.places[item])

    def placement(self, item: str) -> Similarity | None:
        """Where the crop lies in its photograph; None where crops are written."""
        self._require([item])
        return self.places[item] if self.write == "whole" else None

    def original(self, item: str) -> Original:
        """The photograph as it is stored; with ``write="crop"`` the face in it, to be written as the photograph was.

        Originals and edits are cut from the same decoded photograph and compressed once, so that neither the format
        nor a second compression says which is which.
        """
        self._require([item])
        photo = self.photos.original(item)
        return photo if self.write == "whole" else photo.cut(self.places[item])

    def stored_size(self, item: str) -> StoredSize | None:
        """Of the photograph, or of the crop where crops are written."""
        self._require([item])
        photo = self.photos.stored_size(item)
        if photo is None or self.write == "whole":
            return photo
        edge = self.places[item].size
        return StoredSize(edge, edge, round(photo.num_bytes * edge**2 / (photo.width_px * photo.height_px)))


@checked_call
def align_dataset(
    faces: FaceDataset,
    *,
    layout: str,
    write: str = "whole",
    face: str = "only",
    detector: FaceDetector | None = None,
    cache: str | os.PathLike[str] | None = None,
    min_face_px: float = MIN_FACE_PX,
    show_progress: bool = True,
) -> AlignedDataset:
    """Find the face in every photograph of a dataset.

    Args:
        faces: photographs of any size, with a face anywhere.
        layout: how the crop is cut, ``editor.layout`` for an editor's.
        write: what a balanced copy holds: ``"whole"`` photographs with the edit put back into them, or the aligned
            ``"crop"`` of originals and edits alike.
        face: ``"only"``: a photograph with several faces is left out; ``"largest"`` takes that of the widest box.
        detector: finds the faces; ``None`` for ``vlbias.alignment.CenterFace``. One without a ``name`` is asked again
            by every run, since nobody can tell whether it is still the same.
        cache: file of the landmarks, outside of the dataset's folder; ``None`` for ``landmarks.sqlite`` in
            ``$VLBIAS_CACHE`` or the user's cache.
        min_face_px: a face of a narrower box is left out.
        show_progress: whether a line on stderr tells how far it is.

    Returns:
        The dataset of the faces, with the ids, splits and labels of their photographs. What was left out stands in
        ``problems``: ``no_face``, ``several_faces``, ``face_too_small``, ``face_cut_off`` (by the photograph's edge),
        ``face_unclear`` (landmarks that are no face's) or ``unreadable_image``.

    Raises:
        ConfigError: an option out of range, ``cache`` inside of the dataset, or a dataset that is aligned already.
        UnknownNameError: another layout.
        DatasetError: no photograph shows a usable face.
        MissingDependencyError: no detector was given and the default one is not installed.
        OutputError: ``cache`` cannot be used.
    """
    _check(faces, layout, write, face)
    detector = detector or default_detector()
    places, problems = _choose_all(faces, detector, cache, layout, face, min_face_px, show_progress)
    if not places:
        counts = ", ".join(f"{n} {code}" for code, n in Counter(problem.code for problem in problems).items())
        first = problems[0].detail
        raise DatasetError(f"no photograph of '{faces.name}' shows a usable face: {counts}. The first: {first}")
    settings = {
        "layout": layout,
        "write": write,
        "face": face,
        "min_face_px": min_face_px,
        "detector": getattr(detector, "name", "unnamed"),
    }
    return AlignedDataset(
        name=faces.name,
        table=faces.table.loc[list(places)],
        root=faces.root,
        attributes=faces.attributes,
        problems=[*faces.problems, *problems],
        license=faces.license,
        descriptions=faces.descriptions,
        alignment=settings,
        photos=faces,
        places=places,
        write=write,
    )


def _check(faces: FaceDataset, layout: str, write: str, face: str) -> None:
    if faces.alignment is not None:
        raise ConfigError(f"'{faces.name}' is aligned already ({dict(faces.alignment)}). Align the photographs once.")
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    for option, value, known in (("write", write, WRITE), ("face", face, FACES)):
        if value not in known:
            raise ConfigError(f"`{option}` must be {' or '.join(map(repr, known))}; got {value!r}.")


def _choose_all(
    faces: FaceDataset,
    detector: FaceDetector,
    cache: str | os.PathLike[str] | None,
    layout: str,
    face: str,
    min_face_px: float,
    show_progress: bool,
) -> tuple[dict[str, Similarity], list[Problem]]:
    """Where the face of each photograph lies, and which photographs show none that can be used."""
    places: dict[str, Similarity] = {}
    problems: list[Problem] = []
    with (
        _cache(faces, detector, cache) or nullcontext() as kept,
        ThreadPoolExecutor(_NUM_THREADS) as pool,
        track(len(faces), "finding faces", "photographs", show=show_progress) as progress,
    ):
        for item, found in _found(faces, detector, kept, pool):
            name = str(faces.table.at[item, "file_name"])
            try:
                if isinstance(found, ImageError):
                    raise found
                chosen = choose_face(found.faces, face, name=name, min_face_px=min_face_px)
                places[item] = face_transform(chosen, layout, photo_size=found.photo_size, name=name)
            except FaceError as error:
                problems.append(Problem(name, error.code, error.fact))
            except ImageError as error:
                problems.append(Problem(name, "unreadable_image", faces.reason(item, error)))
            progress.update(1, left_out=len(problems))
    return places, problems


def _cache(faces: FaceDataset, detector: FaceDetector, path: str | os.PathLike[str] | None) -> LandmarkCache | None:
    """The cache of what this detector found; ``None`` if it has no name to keep things under."""
    if getattr(detector, "name", None) is None:
        return None
    place = landmarks_file(path)
    if faces.root is not None and faces.root.resolve() in place.resolve().parents:
        raise ConfigError(
            f"{place} lies in the dataset's own folder {faces.root}. Give the landmarks (`cache`) a file outside it."
        )
    return LandmarkCache(path)


def _found(
    faces: FaceDataset, detector: FaceDetector, cache: LandmarkCache | None, pool: ThreadPoolExecutor
) -> Iterator[tuple[str, Found | ImageError]]:
    """Each id with what was found in its photograph, or with what is wrong with the photograph."""
    name, ids = str(getattr(detector, "name", "")), faces.ids
    for start in range(0, len(ids), _NUM_OPEN):
        block = ids[start : start + _NUM_OPEN]
        keys = list(pool.map(partial(_digest, faces), block)) if cache is not None else [None] * len(block)
        known = [cache.get(key, name) if cache is not None and key is not None else None for key in keys]
        unknown_ids = [item for item, found in zip(block, known, strict=True) if found is None]
        photos = dict(zip(unknown_ids, pool.map(partial(_open, faces), unknown_ids), strict=True))
        for item, key, found in zip(block, keys, known, strict=True):
            if found is not None:
                yield item, found
            elif isinstance(photo := photos.pop(item), ImageError):
                yield item, photo
            else:
                found = Found(photo.size, rounded(detector(photo)))
                if cache is not None and key is not None:
                    cache.put(key, name, found)
                yield item, found


def _digest(faces: FaceDataset, item: str) -> str | None:
    """SHA-256 of a photograph: of its file, or of the pixels where it is drawn; ``None`` if it cannot be read."""
    path = faces.path(item)
    try:
        if path is not None:
            return sha256_file(path)
        picture = faces.image(item)
        return hashlib.sha256(f"{picture.size}".encode() + picture.tobytes()).hexdigest()
    except OSError:  # ImageError is one
        return None


def _open(faces: FaceDataset, item: str) -> Image.Image | ImageError:
    try:
        return faces.image(item)
    except ImageError as error:
        return error
