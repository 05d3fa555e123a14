"""Pictures as people hand them over, and answers in the same kind: PIL in, PIL out; a list in, a list out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from vlbias.alignment import Aligned, FaceDetector, align
from vlbias.errors import ImageError, ShapeError
from vlbias.images import to_pil, to_pixels, to_tensor, to_upright_rgb
from vlbias.originals import Original
from vlbias.shown import Glance, Shown, plural

__all__ = ["Answer", "Code", "Given", "Images", "Pictures", "given_faces", "given_photos"]

#: A picture (PIL's, or an ``Original`` that can be written as its file was), several, an array uint8 (b, h, w, 3) or
#: (h, w, 3), or a tensor (b, 3, h, w) in [-1, 1].
Images = Image.Image | Original | Sequence[Image.Image] | Sequence[Original] | np.ndarray | torch.Tensor
#: What is answered in the kind that it was given in.
Pictures = TypeVar("Pictures", Image.Image, list[Image.Image], Original, list[Original], np.ndarray, torch.Tensor)
Answer = Image.Image | list[Image.Image] | Original | list[Original] | np.ndarray | torch.Tensor


#: A face crop is about square: shorter by longer edge.
LEAST_RATIO = 0.8


@dataclass(frozen=True)
class Given:
    """What somebody handed over.

    Attributes:
        kind: "picture", "list", "original", "originals", "array" (h, w, 3), "arrays" (b, h, w, 3) or "tensor".
        pictures: one by one and of any sizes; empty for a tensor.
        faces: the tensor (b, 3, h, w); ``None`` for any other kind.
        found: the face of each picture, where it was looked for.
    """

    kind: str
    pictures: tuple[Original, ...] = ()
    faces: torch.Tensor | None = None
    found: tuple[Aligned, ...] | None = None

    def check_square(self) -> None:
        """Refuse pictures that are no face crops by their shape; photographs in which faces were found are.

        Raises:
            ImageError: a picture far from square.
        """
        for width, height in () if self.found is not None else (picture.size for picture in self.pictures):
            if min(width, height) < LEAST_RATIO * max(width, height):
                raise ImageError(
                    f"a picture of {width}x{height} pixels is not a face crop, which is about square",
                    code="not_square",
                    remedy="Find the face in it with align=True (--align), cut it out, or edit its central square "
                    "with check=False (--any-picture).",
                )

    def to_tensor(self, size: int) -> torch.Tensor:
        """The central square of each, or its face, at ``size`` pixels: float32 (b, 3, size, size) in [-1, 1]."""
        if self.faces is not None:
            return self.faces
        if self.found is not None:
            return torch.cat([to_tensor(one.crop, size) for one in self.found])
        return torch.cat([to_tensor(picture.upright, size) for picture in self.pictures])

    def answer(self, made: torch.Tensor) -> Answer:
        """Faces (b, 3, h, w), one for each that was given, in the kind that was given."""
        if self.kind == "tensor":
            return made
        pictures = self.pictures or [Original(Image.new("RGB", (1, 1)))] * len(made)
        return self._in_kind([one.with_picture(face) for one, face in zip(pictures, to_pil(made), strict=True)])

    def changed(self, before: torch.Tensor, after: torch.Tensor) -> Answer:
        """The pictures in their own sizes, with what an edit changed in their central squares, or in their faces.

        Args:
            before, after: (b, 3, s, s), unedited and edited.
        """
        if self.kind == "tensor":
            return after
        places = [None] * len(self.pictures) if self.found is None else [one.transform for one in self.found]
        changes = zip(self.pictures, to_pixels(before), to_pixels(after), places, strict=True)
        return self._in_kind([replace(one, stored=one.changed(old, new, place)) for one, old, new, place in changes])

    def _in_kind(self, originals: list[Original]) -> Answer:
        if self.kind.startswith("original"):
            return originals if self.kind == "originals" else originals[0]
        pictures = [original.stored for original in originals]
        if self.kind == "picture":
            return pictures[0]
        if self.kind == "array":
            return np.asarray(pictures[0])
        return np.stack([np.asarray(picture) for picture in pictures]) if self.kind == "arrays" else pictures


@dataclass(frozen=True, repr=False, eq=False)
class Code(Shown):
    """Two codes of a batch of faces: together they decode to the faces.

    Attributes:
        z_sem: semantic codes, float32 (b, d): what the face is.
        x_T: stochastic codes, float32 (b, 3, h, w): the detail that z_sem leaves open.
        given: what the faces were given as, so that ``Editor.decode`` can answer in kind.
    """

    z_sem: torch.Tensor
    x_T: torch.Tensor
    given: Given = field(default=Given("list"), compare=False)

    def __len__(self) -> int:
        return len(self.z_sem)

    def _glance(self) -> Glance:
        return Glance(f"{plural(len(self), 'face')}, z_sem {tuple(self.z_sem.shape)}, x_T {tuple(self.x_T.shape)}")


def given_faces(images: Images, size: int) -> Given:
    """Faces for a model that takes ``size`` pixels.

    Raises:
        ShapeError: none of :data:`Images`; a tensor of another size or out of range.
    """
    if isinstance(images, torch.Tensor):
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size) or not images.is_floating_point():
            raise ShapeError(
                f"a tensor of faces must be floating (b, 3, {size}, {size}) in [-1, 1]; got {images.dtype} "
                f"{tuple(images.shape)}."
            )
        if images.numel() and (images.min() < -1.001 or images.max() > 1.001 or images.isnan().any()):
            raise ShapeError("a tensor of faces must have values in [-1, 1] and no NaN.")
        return Given("tensor", faces=images.float())
    found = _pictures(images)
    if found is None:
        raise ShapeError(
            f"faces must be a PIL image, a list of them, an array or a tensor; got {_what(images)}.{_hint(images)}"
        )
    return found


def given_photos(photos: Images, *, detector: FaceDetector | None, face: str | int, layout: str) -> Given:
    """Photographs of any size, with the face in each; see :func:`vlbias.alignment.align`.

    Raises:
        ShapeError: no PIL image, no list of them, and no array.
        ImageError: a photograph without one usable face; says which of several.
    """
    found = None if isinstance(photos, torch.Tensor) else _pictures(photos)
    if found is None:
        raise ShapeError(
            f"`align` takes a PIL image or a list of them, or arrays uint8 (h, w, 3); got {_what(photos)}."
            f"{_hint(photos)}"
        )
    return replace(found, found=tuple(_faces_in(found, detector, face, layout)))


def _faces_in(given: Given, detector: FaceDetector | None, face: str | int, layout: str) -> Iterator[Aligned]:
    for number, photo in enumerate(given.pictures, start=1):
        try:
            yield align(photo.upright, size=None, detector=detector, face=face, layout=layout)
        except ImageError as error:
            if len(given.pictures) == 1 and given.kind not in ("list", "originals"):
                raise
            raise ImageError(f"photo {number} of {len(given.pictures)}: {error}") from error


def _pictures(images: object) -> Given | None:
    if isinstance(images, Image.Image | Original):
        return Given("picture" if isinstance(images, Image.Image) else "original", (_original(images),))
    if isinstance(images, np.ndarray) and images.ndim in (3, 4) and len(images):
        single = images.ndim == 3
        return Given("array" if single else "arrays", tuple(map(_original, images[None] if single else images)))
    items = list(images) if isinstance(images, list | tuple) else []
    if items and all(isinstance(item, Original) for item in items):
        return Given("originals", tuple(items))
    if items and all(isinstance(item, Image.Image | np.ndarray) for item in items):
        return Given("list", tuple(map(_original, items)))
    return None


def _original(picture: Image.Image | Original | np.ndarray) -> Original:
    if isinstance(picture, Original):
        return picture
    if isinstance(picture, Image.Image):
        return Original(to_upright_rgb(picture))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        shape = f"{picture.dtype} {picture.shape}"
        raise ShapeError(f"an array of a picture must be uint8 (h, w, 3), several uint8 (b, h, w, 3); got {shape}.")
    return Original(Image.fromarray(picture))


def _what(images: object) -> str:
    items = list(images) if isinstance(images, list | tuple) else []
    if isinstance(images, np.ndarray):
        return f"{images.dtype} {images.shape}"
    kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in items))
    return kinds or ("none" if isinstance(images, list | tuple) else type(images).__name__)


def _hint(images: object) -> str:
    is_none = images is None or (isinstance(images, list | tuple) and any(item is None for item in images))
    return " Some readers give None for a file that they cannot read." if is_none else ""
