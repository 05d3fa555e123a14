"""Pictures as people hand them over, and answers in the same kind: PIL in, PIL out; a list in, a list out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from vlbias.errors import ImageError, ShapeError
from vlbias.images import to_pil, to_pixels, to_tensor, to_upright_rgb
from vlbias.originals import Original

__all__ = ["Answer", "Given", "Images", "Pictures", "given_faces", "given_photos"]

#: A picture, several, an array uint8 (b, h, w, 3) or (h, w, 3), or a tensor (b, 3, h, w) in [-1, 1].
Images = Image.Image | Sequence[Image.Image] | np.ndarray | torch.Tensor
#: What is answered in the kind that it was given in.
Pictures = TypeVar("Pictures", Image.Image, list[Image.Image], np.ndarray, torch.Tensor)
Answer = Image.Image | list[Image.Image] | np.ndarray | torch.Tensor


#: A face crop is about square: shorter by longer edge.
LEAST_RATIO = 0.8


@dataclass(frozen=True)
class Given:
    """What somebody handed over.

    Attributes:
        kind: "picture", "list", "array" (h, w, 3), "arrays" (b, h, w, 3) or "tensor".
        pictures: upright RGB, one by one and of any sizes; empty for a tensor.
        faces: the tensor (b, 3, h, w); ``None`` for any other kind.
    """

    kind: str
    pictures: tuple[Image.Image, ...] = ()
    faces: torch.Tensor | None = None

    def check_square(self) -> None:
        """Refuse pictures that are no face crops by their shape.

        Raises:
            ImageError: a picture far from square.
        """
        for picture in self.pictures:
            if min(picture.size) < LEAST_RATIO * max(picture.size):
                raise ImageError(
                    f"a picture of {picture.width}x{picture.height} pixels is no face crop, which is about square. "
                    "Find the face in it with align=True (--align), cut it out, or edit its central square with "
                    "check=False (--any-picture)."
                )

    def to_tensor(self, size: int) -> torch.Tensor:
        """The central square of each at ``size`` pixels: float32 (b, 3, size, size) in [-1, 1]."""
        return to_tensor(list(self.pictures), size) if self.faces is None else self.faces

    def answer(self, made: torch.Tensor | list[Image.Image]) -> Answer:
        """Faces (b, 3, h, w) or pictures, one for each that was given, in the kind that was given."""
        if self.kind == "tensor" and isinstance(made, torch.Tensor):
            return made
        return self._in_kind(to_pil(made) if isinstance(made, torch.Tensor) else made)

    def changed(self, before: torch.Tensor, after: torch.Tensor) -> Answer:
        """The pictures in their own sizes, with what an edit changed in their central squares.

        Args:
            before, after: (b, 3, s, s), unedited and edited.
        """
        if self.kind == "tensor":
            return after
        triples = zip(self.pictures, to_pixels(before), to_pixels(after), strict=True)
        return self._in_kind([Original(picture).changed(old, new) for picture, old, new in triples])

    def _in_kind(self, pictures: list[Image.Image]) -> Answer:
        if self.kind == "picture":
            return pictures[0]
        if self.kind == "array":
            return np.asarray(pictures[0])
        return np.stack([np.asarray(picture) for picture in pictures]) if self.kind == "arrays" else pictures


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


def given_photos(photos: Images) -> Given:
    """Photographs of any size.

    Raises:
        ShapeError: no PIL image, no list of them, and no array.
    """
    found = None if isinstance(photos, torch.Tensor) else _pictures(photos)
    if found is None:
        raise ShapeError(
            f"`align` takes a PIL image or a list of them, or arrays uint8 (h, w, 3); got {_what(photos)}."
            f"{_hint(photos)}"
        )
    return found


def _pictures(images: object) -> Given | None:
    if isinstance(images, Image.Image):
        return Given("picture", (to_upright_rgb(images),))
    if isinstance(images, np.ndarray) and images.ndim in (3, 4) and len(images):
        single = images.ndim == 3
        return Given("array" if single else "arrays", tuple(map(_upright, images[None] if single else images)))
    items = list(images) if isinstance(images, list | tuple) else []
    if items and all(isinstance(item, Image.Image | np.ndarray) for item in items):
        return Given("list", tuple(map(_upright, items)))
    return None


def _upright(picture: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(picture, Image.Image):
        return to_upright_rgb(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        shape = f"{picture.dtype} {picture.shape}"
        raise ShapeError(f"an array of a picture must be uint8 (h, w, 3), several uint8 (b, h, w, 3); got {shape}.")
    return Image.fromarray(picture)


def _what(images: object) -> str:
    items = list(images) if isinstance(images, list | tuple) else []
    if isinstance(images, np.ndarray):
        return f"{images.dtype} {images.shape}"
    return ", ".join(dict.fromkeys(type(item).__name__ for item in items)) or type(images).__name__


def _hint(images: object) -> str:
    is_none = images is None or (isinstance(images, list | tuple) and any(item is None for item in images))
    return " Some readers give None for a file that they cannot read." if is_none else ""
