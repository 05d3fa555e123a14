"""How a network wants its faces: cut, scaled and normalised as those it was trained on.

No detector is asked: an editor's pictures are aligned, so where the face lies is known, and what lies between two
kinds of crop is one similarity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vlbias.alignment import LAYOUTS, Similarity, cut, fit_transform, layout_transform
from vlbias.errors import ConfigError, ShapeError, unknown
from vlbias.images import to_pil, to_tensor

__all__ = ["CHANNELS", "FaceInput"]

CHANNELS = ("RGB", "BGR")


@dataclass(frozen=True)
class FaceInput:
    """Preprocessing of a network on faces.

    Attributes:
        size: edge in pixels of its square pictures.
        layout: how faces lie in them, a key of ``vlbias.alignment.LAYOUTS``; ``None``: as in the pictures given.
        landmarks: the same as five points (x, y), shares of the edge: eyes, nose, corners of the mouth, each pair from
            the viewer's left; in place of ``layout``.
        padding: added on each side of that crop, as a share of its edge, > -0.5. ``padding`` of dlib's face chips.
        channels: ``RGB`` or ``BGR``.
        range: what white is, before mean and std: 255 or 1.
        mean, std: of each channel, in the order of ``channels``; the network gets (pixel - mean) / std.

    Raises:
        ConfigError: a value out of range, or both ``layout`` and ``landmarks``.
        UnknownNameError: no such layout.
    """

    size: int
    layout: str | None = None
    landmarks: tuple[tuple[float, float], ...] | None = None
    padding: float = 0.0
    channels: str = "RGB"
    range: float = 255.0
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= 4096:
            raise ConfigError(f"`size` must be a whole number of pixels in 1..4096; got {self.size!r}.")
        if self.layout is not None and (not isinstance(self.layout, str) or self.layout not in LAYOUTS):
            raise unknown("layout", str(self.layout), LAYOUTS)
        if self.landmarks is not None:
            self._check_landmarks(self.landmarks)
        if self.channels not in CHANNELS:
            raise ConfigError(f"`channels` must be one of {', '.join(CHANNELS)}; got {self.channels!r}.")
        if self.range not in (1, 255):
            raise ConfigError(f"`range` must be 255 or 1 (what white is); got {self.range!r}.")
        if not is_number(self.padding) or not self.padding > -0.5:
            raise ConfigError(f"`padding` must be a number > -0.5; got {self.padding!r}.")
        object.__setattr__(self, "mean", _three(self.mean, "mean"))
        object.__setattr__(self, "std", _three(self.std, "std"))
        if min(self.std) <= 0:
            raise ConfigError(f"`std` must be > 0; got {self.std}.")

    def _check_landmarks(self, landmarks: object) -> None:
        if self.layout is not None:
            raise ConfigError("`layout` and `landmarks` both say how faces lie; give one of them.")
        points = np.asarray(landmarks, dtype=object)
        if points.shape != (5, 2) or not all(is_number(value) for value in points.ravel()):
            raise ConfigError(f"`landmarks` must be five points [x, y], shares of the edge; got {landmarks!r}.")
        if np.ptp(points.astype(float), axis=0).min() < 1e-3:
            raise ConfigError(f"`landmarks` must not lie in one line of pixels; got {landmarks!r}.")
        object.__setattr__(self, "landmarks", tuple((float(x), float(y)) for x, y in points))

    def transform(self, edge: int, layout: str) -> Similarity | None:
        """Where the network's crop lies in a picture of ``edge`` pixels in which faces lie as ``layout`` says.

        ``None`` where it takes the picture as it is.

        Raises:
            UnknownNameError: no such layout.
        """
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        if self.landmarks is None and self.layout in (None, layout):
            whole = Similarity(np.eye(2, 3) * (edge / self.size), self.size)
            return _padded(whole, self.padding) if self.padding else None
        points = np.array(LAYOUTS[layout]) * edge
        if self.landmarks is not None:
            found = fit_transform(points, self.landmarks, self.size)
        else:
            assert self.layout is not None
            found = layout_transform(points, self.size, self.layout)
        return _padded(found, self.padding)

    def picture_size(self, layout: str) -> int:
        """Edge in pixels of the pictures from which the crop is cut with nothing lost: twice its own resolution."""
        transform = self.transform(1000, layout)
        return self.size if transform is None else math.ceil(2 * self.size * 1000 / transform.side)

    def __call__(self, x: torch.Tensor, *, layout: str) -> torch.Tensor:
        """Pictures (b, 3, h, w) in [-1, 1] of any size, faces lying as ``layout`` => input (b, 3, size, size), float32.

        Pictures are read with 8 bits per channel, as they are written; those that are not square give their middle.

        Raises:
            ShapeError: not (b, 3, h, w), or NaN inside.
        """
        crops = self._crops(x, layout).to(x.device)
        pixels = (crops + 1) * (self.range / 2)
        if self.channels == "BGR":
            pixels = pixels.flip(1)
        mean, std = (torch.tensor(values, device=x.device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _crops(self, x: torch.Tensor, layout: str) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"pictures must be (b, 3, h, w); got {tuple(x.shape)}.")
        edge = min(x.shape[-2:])
        transform = self.transform(edge, layout)
        if not len(x):
            return x.new_zeros(0, 3, self.size, self.size)
        pictures = to_pil(x)
        if transform is None:
            return to_tensor(pictures, self.size)
        if x.shape[-2] != x.shape[-1]:
            pictures = to_pil(to_tensor(pictures, edge))
        return to_tensor([cut(picture, transform) for picture in pictures])


def _padded(crop: Similarity, padding: float) -> Similarity:
    """The crop with ``padding`` of its edge more on each side, in as many pixels."""
    matrix = crop.matrix.copy()
    matrix[:, :2] *= 1 + 2 * padding
    matrix[:, 2] -= crop.matrix[:, :2] @ np.full(2, padding * crop.size)
    return Similarity(matrix, crop.size)


def is_number(value: object) -> bool:
    """Whether a value is a finite number of Python's own, and no truth."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _three(values: Sequence[float] | float, name: str) -> tuple[float, float, float]:
    """Three numbers, one for each channel; one number stands for all of them."""
    given = [values] * 3 if is_number(values) else list(values) if isinstance(values, Sequence) else []
    if len(given) != 3 or not all(is_number(value) for value in given):
        raise ConfigError(f"`{name}` must be one number, or three (one a channel); got {values!r}.")
    red, green, blue = (float(value) for value in given)  # type: ignore[arg-type]
    return red, green, blue
