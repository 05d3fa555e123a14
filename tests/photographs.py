"""Photographs composed of drawn faces on a drawn background, and a detector that knows where it was told they are."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vlbias.alignment import LAYOUTS, DetectedFace, Similarity
from vlbias.images import open_image, to_pil
from vlbias.world import render, sample


@functools.cache
def drawn_faces(n: int, size: int = 32) -> torch.Tensor:
    """Faces of the embedded world, (n, 3, size, size) in [-1, 1]."""
    return render(sample(n, seed=3), size=size) if n else torch.empty(0, 3, size, size)


def placed(angle_degrees: float, scale: float, centre: tuple[float, float], size: int = 32) -> Similarity:
    """Where a face's picture of ``size`` pixels lies in the photo."""
    turn = math.radians(angle_degrees)
    linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift = np.array(centre) - linear @ [size / 2, size / 2]
    return Similarity(np.concatenate([linear, shift[:, None]], axis=1), size)


def background(size: tuple[int, int]) -> Image.Image:
    """Soft waves of colour."""
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [120 + 60 * np.sin(x / 29), 130 + 60 * np.cos(y / 37), 110 + 50 * np.sin((x - y) / 43)]
    return Image.fromarray(np.stack(planes, axis=-1).round().astype(np.uint8))


def found_at(place: Similarity, layout: str = "synthfaces") -> DetectedFace:
    """What a detector without error finds in a face's picture that lies at ``place``."""
    corners = place.corners()
    landmarks = place.to_photo(np.array(LAYOUTS[layout]) * place.size)
    return DetectedFace(landmarks, (*corners.min(axis=0), *corners.max(axis=0)), 0.9)


def photograph(
    *places: Similarity, size: tuple[int, int] = (360, 300), faces: Sequence[Image.Image] | None = None
) -> tuple[Image.Image, list[DetectedFace]]:
    """A photo with a face at each place, and what a detector without error finds in it."""
    photo = background(size)
    pictures = to_pil(drawn_faces(len(places))) if faces is None and places else faces or []
    for place, picture in zip(places, pictures, strict=True):
        matrix = place.inverse.ravel().tolist()
        drawn = picture.transform(photo.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        mask = Image.new("L", picture.size, 255).transform(photo.size, Image.Transform.AFFINE, matrix)
        photo.paste(drawn, mask=mask)
    return photo, [found_at(place) for place in places]


class KnownFaces:
    """A detector that was told what is in which file, and counts how often it is asked."""

    name = "known faces 1"

    def __init__(self, found: Mapping[Path, Sequence[DetectedFace]]):
        self.found = {self._key(open_image(path)): list(faces) for path, faces in found.items()}
        self.calls = 0

    def __call__(self, photo: Image.Image, /) -> list[DetectedFace]:
        self.calls += 1
        return self.found[self._key(photo)]

    @staticmethod
    def _key(photo: Image.Image) -> str:
        return hashlib.sha256(photo.tobytes()).hexdigest()
