"""Measured skin tone: ITA in degrees and the nearest Monk step, from skin pixels of an aligned face.

This measures the colour of a *picture* of skin: pigment, light, exposure, white balance, make-up and print all enter.
It is no race label and none can be read from it; the evaluation in ``docs/labelling.md`` shows by how much they differ.

ITA, the individual typology angle, is ``arctan((L* - 50) / b*)`` in CIE L*a*b* under D65 (Chardon, Cretois and
Hourseau, 1991): about +55 and more is very light, -30 and less dark. The Monk scale's ten colours are those published
(Monk, 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlbias.alignment import LAYOUTS
from vlbias.arguments import checked_call
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, ShapeError, unknown
from vlbias.images import to_tensor
from vlbias.labelling.labels import Labels, batches, table_of
from vlbias.progress import track
from vlbias.world.color import MONK

__all__ = ["LAYOUTS", "SkinTone", "SkinToneLabeller", "measure_skin_tone", "rgb_to_lab"]

# A picture whose skin has less chroma than this is black and white, and less b* than this has a blue cast: arctan of
# a quotient by almost nothing says nothing.
_MIN_CHROMA = 5.0
_MIN_B = 3.0
_MIN_PIXELS = 30
_MIN_SHARE = 0.25

# Radii of the three patches in distances between the eyes.
_CHEEK_RADIUS = 0.17
_FOREHEAD_RADIUS = 0.20

# IEC 61966-2-1 and CIE 1976, D65.
_RGB_TO_XYZ = np.array(
    [
        [0.4123907993, 0.3575843394, 0.1804807884],
        [0.2126390059, 0.7151686788, 0.0721923154],
        [0.0193308187, 0.1191947798, 0.9505321522],
    ]
)
_WHITE = _RGB_TO_XYZ.sum(axis=1)


@dataclass(frozen=True)
class SkinTone:
    """Skin tone of one face. Every number is NaN or None where it could not be measured.

    Attributes:
        ita: median individual typology angle of the skin pixels, degrees.
        ita_low, ita_high: its quartiles over the pixels: the spread within the face.
        side_difference: ITA of the left cheek minus that of the right one, degrees; large where the light comes from a
            side, and then the value hangs on the light.
        lightness, a, b: median colour in L*a*b*.
        monk: nearest of the ten Monk colours, 1 lightest .. 10 darkest.
        monk_low, monk_high: nearest colours of the lightest and darkest tenth of the pixels.
        share: share of the patches' pixels that were taken for skin, 0..1.
        reason: why it could not be measured (``grey``, ``blue_cast``, ``few_skin_pixels``), else ``None``.
    """

    ita: float = float("nan")
    ita_low: float = float("nan")
    ita_high: float = float("nan")
    side_difference: float = float("nan")
    lightness: float = float("nan")
    a: float = float("nan")
    b: float = float("nan")
    monk: int | None = None
    monk_low: int | None = None
    monk_high: int | None = None
    share: float = 0.0
    reason: str | None = None


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """SRGB in [0, 1], (..., 3) => CIE L*a*b* under D65, (..., 3).

    Example:
        >>> rgb_to_lab(np.array([1.0, 1.0, 1.0])).round(3).tolist()
        [100.0, 0.0, 0.0]
    """
    rgb = np.asarray(rgb, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


_MONK_LAB = rgb_to_lab(np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in MONK]))


def ita_of(lab: np.ndarray) -> np.ndarray:
    """L*a*b* (..., 3) with b* > 0 => individual typology angle in degrees, (...)."""
    return np.degrees(np.arctan2(lab[..., 0] - 50, lab[..., 2]))


def monk_of(lab: np.ndarray) -> np.ndarray:
    """L*a*b* (..., 3) => nearest Monk step 1..10, by Euclidean distance in L*a*b*."""
    distance = ((lab[..., None, :] - _MONK_LAB) ** 2).sum(axis=-1)
    return distance.argmin(axis=-1) + 1


@checked_call
def measure_skin_tone(
    image: Image.Image | np.ndarray | torch.Tensor,
    *,
    layout: str = "ffhq",
    landmarks: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> SkinTone:
    """Measure one aligned face.

    Args:
        image: the crop: a PIL image, an array (h, w, 3) uint8, or a tensor (3, h, w) or (1, 3, h, w) in [-1, 1].
        layout: kind of crop, a key of :data:`LAYOUTS`.
        landmarks: (5, 2) in pixels of this crop, in place of the layout's usual ones.

    Raises:
        UnknownNameError: another layout.
        ShapeError: not one picture, or not five points.

    Three round patches (both cheeks, forehead) are read. Clipped pixels are left out, then those that differ from the
    patches' median colour by more than three robust deviations: hair, shadow, glare, spectacle frames.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image | torch.Tensor) or (isinstance(image, torch.Tensor) and image.ndim < 3):
        raise ShapeError(f"`image` must be a picture or a tensor (3, h, w); got {type(image).__name__}.")
    x = to_tensor(image) if isinstance(image, Image.Image) else image if image.ndim == 4 else image[None]
    if x.shape[:2] != (1, 3):
        raise ShapeError(f"`image` must be one picture, (3, h, w); got {tuple(image.shape)}.")  # type: ignore[union-attr]
    h, w = int(x.shape[2]), int(x.shape[3])
    patches = _patches(_points(layout, landmarks, h, w), h, w)
    return _measure(x[0], patches)[0]


class SkinToneLabeller:
    """Measures the skin tone of every face of a dataset of aligned crops.

    Args:
        layout: kind of the crops, a key of :data:`LAYOUTS`.
        split_ita: label by this angle in degrees, ``"light"`` from it on and ``"dark"`` below; ``None`` labels by Monk
            step, 1..10.
        size: edge in pixels at which pictures are read; more reads more noise, not more colour.

    The confidence is the share of skin pixels that by themselves give the same label (within one step for Monk).
    """

    @checked_call
    def __init__(self, *, layout: str = "ffhq", split_ita: float | None = None, size: int = 128):
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        if split_ita is not None and not -90 < split_ita < 90:
            raise ConfigError(f"`split_ita` is an angle in degrees between -90 and 90; got {split_ita}.")
        if size < 32:
            raise ConfigError(f"`size` must be >= 32 pixels; got {size}.")
        self.layout, self.split_ita, self.size = layout, split_ita, size

    @property
    def source(self) -> str:
        """How the label came about, for reports."""
        how = "nearest Monk step" if self.split_ita is None else f"light from an ITA of {self.split_ita:g} degrees on"
        return f"skin tone measured in the picture ({how}); depends on light and camera, and is no race label"

    def label(self, dataset: FaceDataset) -> Labels:
        """Measure every face, with progress on stderr.

        Returns:
            Also the numbers of :class:`SkinTone`, one column each. A face that cannot be measured has no label and a
            reason.
        """
        patches = _patches(_points(self.layout, None, self.size, self.size), self.size, self.size)
        rows: dict[str, dict[str, object]] = {}
        with track(len(dataset), "measuring skin", "images") as progress:
            for ids, x, broken in batches(dataset, self.size, 64):
                rows |= {item: {"reason": reason} for item, reason in broken.items()}
                for item, picture in zip(ids, x, strict=True):
                    rows[item] = self._row(picture, patches)
                progress.update(len(ids) + len(broken))
        return Labels(self.source, table_of(rows, dataset))

    def _row(self, picture: torch.Tensor, patches: np.ndarray) -> dict[str, object]:
        tone, pixels = _measure(picture, patches)
        row: dict[str, Any] = asdict(tone)
        if tone.reason is not None:
            return row | {"label": None, "confidence": float("nan")}
        if self.split_ita is None:
            agree = np.abs(monk_of(pixels) - tone.monk) <= 1
            return row | {"label": tone.monk, "confidence": float(agree.mean())}
        light = tone.ita >= self.split_ita
        agree = (ita_of(pixels) >= self.split_ita) == light
        return row | {"label": "light" if light else "dark", "confidence": float(agree.mean())}


def _points(layout: str, landmarks: object, h: int, w: int) -> np.ndarray:
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if landmarks is None:
        return np.array(LAYOUTS[layout]) * [w, h]
    points = np.asarray(landmarks, dtype=float)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise ShapeError(f"`landmarks` must be five finite points, (5, 2); got shape {points.shape}.")
    return points


def _patches(points: np.ndarray, h: int, w: int) -> np.ndarray:
    """Landmarks (5, 2) in pixels => masks (3, h, w): left cheek, right cheek, forehead."""
    eye_left, eye_right, _, mouth_left, mouth_right = points
    eyes, mouth = (eye_left + eye_right) / 2, (mouth_left + mouth_right) / 2
    unit = float(np.hypot(*(eye_right - eye_left)))
    centres = (
        eye_left + 0.55 * (mouth_left - eye_left),
        eye_right + 0.55 * (mouth_right - eye_right),
        eyes - 0.5 * (mouth - eyes),
    )
    radii = (_CHEEK_RADIUS * unit, _CHEEK_RADIUS * unit, _FOREHEAD_RADIUS * unit)
    y, x = np.mgrid[:h, :w] + 0.5
    masks = [(x - cx) ** 2 + (y - cy) ** 2 <= radius**2 for (cx, cy), radius in zip(centres, radii, strict=True)]
    return np.stack(masks)


def _skin_pixels(picture: torch.Tensor, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Picture (3, h, w) in [-1, 1] => skin pixels in L*a*b* (n, 3), their patches (n,), how many were looked at."""
    where, row, column = np.nonzero(patches)
    pixels = ((picture.numpy()[:, row, column].T.astype(float) + 1) / 2).clip(0, 1)
    unclipped = (pixels.max(axis=1) < 252 / 255) & (pixels.max(axis=1) > 8 / 255)
    lab, where_kept = rgb_to_lab(pixels[unclipped]), where[unclipped]
    for _ in range(2):  # the second round works from a median that the worst no longer pull at
        if len(lab) == 0:
            break
        deviation = np.abs(lab - np.median(lab, axis=0))
        # 1.4826 MAD is the standard deviation of a normal distribution; one unit of L*a*b* is what noise makes
        limit = 3 * np.maximum(1.4826 * np.median(deviation, axis=0), 1.0)
        inside = (deviation <= limit).all(axis=1)
        lab, where_kept = lab[inside], where_kept[inside]
    return lab, where_kept, len(pixels)


def _measure(picture: torch.Tensor, patches: np.ndarray) -> tuple[SkinTone, np.ndarray]:
    """What is measured, and the skin pixels (n, 3) in L*a*b* that it was measured on."""
    lab, where, num_pixels = _skin_pixels(picture, patches)
    share = len(lab) / num_pixels if num_pixels else 0.0
    if len(lab) < _MIN_PIXELS or share < _MIN_SHARE:
        return SkinTone(share=share, reason="few_skin_pixels"), lab
    lightness, a, b = (float(value) for value in np.median(lab, axis=0))
    if np.hypot(a, b) < _MIN_CHROMA:
        return SkinTone(lightness=lightness, a=a, b=b, share=share, reason="grey"), lab
    if b < _MIN_B:
        return SkinTone(lightness=lightness, a=a, b=b, share=share, reason="blue_cast"), lab
    ita = ita_of(lab)
    low, middle, high = (float(value) for value in np.percentile(ita, [25, 50, 75]))
    sides = [np.median(ita[where == side]) if (where == side).sum() >= 5 else np.nan for side in (0, 1)]
    by_lightness = lab[np.argsort(lab[:, 0])]
    tenth = max(1, len(lab) // 10)
    tone = SkinTone(
        ita=middle,
        ita_low=low,
        ita_high=high,
        side_difference=float(sides[0] - sides[1]),
        lightness=lightness,
        a=a,
        b=b,
        monk=int(monk_of(np.array([lightness, a, b]))),
        monk_low=int(monk_of(np.median(by_lightness[-tenth:], axis=0))),
        monk_high=int(monk_of(np.median(by_lightness[:tenth], axis=0))),
        share=share,
    )
    return tone, lab
