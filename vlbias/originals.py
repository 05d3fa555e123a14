"""An edit at its donor's own size: the donor's stored pixels, plus what the edit changed, in the donor's file format.

An editor works on small pictures. Written as they are, beside full-size originals, resolution would say which faces
were edited. So the *difference* of the edited and the unedited small picture is enlarged and added to the donor's own
pixels: sensor noise, grain and JPEG blocks stay the donor's, and so do format, quality, mode, rotation and profile.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin

from vlbias.alignment import Similarity, cut, feathered_mask, smooth, warp
from vlbias.errors import ImageError, ShapeError
from vlbias.images import DECODERS, PNG_LEVEL, colour_space, decode_stored, read_picture, to_upright_rgb, with_alpha
from vlbias.privacy import without_private
from vlbias.provenance import provenance_of, writing_options, xmp_packet

__all__ = ["Encoded", "Original", "centre_square", "private_left_out", "without_private_metadata"]

#: Rows of the donor that are changed at a time: memory does not grow with the picture.
_STRIP_ROWS = 256
#: Width of the soft edge where the edited square ends inside the picture, as a share of the square's edge.
FEATHER = 0.12
#: Whether a picture has colour is looked for at about this size; channels that differ by no more levels are alike.
_COLOUR_SIZE, _ALIKE = 1024, 2
# Rec. 601, as Pillow turns colour into grey.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_KEPT_FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp"}
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif", ".jpe"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
}
#: Modes whose pixels can take a difference as they are stored.
_KEPT_MODES = frozenset({"RGB", "RGBA", "L", "LA", "CMYK", "I;16", "I;16L", "I;16B", "I"})
_GREY_MODES = frozenset({"L", "LA", "I;16", "I;16L", "I;16B", "I"})
_LOSSLESS_TIFF = frozenset({"raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"})


@dataclass(frozen=True)
class Encoded:
    """A picture as a file.

    Attributes:
        data: the file's bytes.
        suffix: its ending, with the dot.
        notes: what of the original could not be kept and why, one sentence each.
    """

    data: bytes
    suffix: str
    notes: tuple[str, ...] = ()

    def open(self) -> Image.Image:
        """What a reader of the file sees: upright 8-bit RGB."""
        with Image.open(io.BytesIO(self.data), formats=DECODERS) as stored:
            stored.load()
            return to_upright_rgb(stored)


@dataclass(frozen=True)
class Original:
    """A stored picture with what is needed to write a changed copy of it in the way it was written itself.

    Attributes:
        stored: the raster as the file holds it: its own mode, not turned.
        format: of the copy, in Pillow's words: "JPEG", "PNG", "WEBP", "TIFF" or "BMP".
        suffix: of the copy, with the dot.
        orientation: EXIF orientation, 1..8.
        options: what Pillow is told when the copy is written.
        notes: what could not be kept and why, one sentence each.
    """

    stored: Image.Image
    format: str = "PNG"
    suffix: str = ".png"
    orientation: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Original:
        """Read a file.

        Raises:
            ImageError: it is missing, damaged, too large, or no picture.
        """
        return cls.of_file(read_picture(path), str(path))

    @classmethod
    def of_file(cls, data: bytes, name: str) -> Original:
        """A file by its bytes, where it stands inside another one.

        Args:
            data: the bytes.
            name: what it is called, with its ending.

        Raises:
            ImageError: it is damaged, too large, or no picture.
        """
        stored = decode_stored(data, name)
        # phones wrap several JPEG pictures as MPO; the first one is the photograph
        found = "JPEG" if stored.format == "MPO" else str(stored.format)
        suffix = Path(name).suffix.lower()
        notes: list[str] = []
        if found not in _KEPT_FORMATS:
            notes.append(f"{found} is written as PNG: it cannot hold a changed picture in full colour.")
            found = "PNG"
        if suffix not in _SUFFIXES[found]:
            suffix = _KEPT_FORMATS[found]
        if not stored.mode.startswith("I") and _is_deep(data):
            notes.append("16 bits a channel are written as 8: Pillow reads no more of them.")
        raster, note = _changeable(stored)
        options = _writing_options(stored, found, raster.mode)
        original = cls(raster, found, suffix, _orientation(stored), options, tuple(notes + note))
        if found == "WEBP" and b"VP8L" not in data[:4096]:  # its first picture is none without loss
            return original._with_webp_quality(len(data))
        return original

    @classmethod
    def of_picture(cls, picture: Image.Image) -> Original:
        """A picture that was never a file, such as a drawn one: copies are PNG."""
        raster, notes = _changeable(picture)
        return cls(raster, orientation=_orientation(picture), notes=tuple(notes))

    @property
    def upright(self) -> Image.Image:
        """The picture as people see it: upright 8-bit RGB."""
        turned = _TURNS.get(self.orientation)
        return to_upright_rgb(self.stored if turned is None else self.stored.transpose(turned))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture, in pixels."""
        width, height = self.stored.size
        return (height, width) if self.orientation >= 5 else (width, height)

    def cut(self, placement: Similarity) -> Original:
        """A square of the picture as a picture of its own, that is written in the same format and quality.

        Args:
            placement: where the square lies in the upright picture.

        Raises:
            ImageError: all of the square lies beyond the picture's edge.
        """
        return self.with_picture(cut(self.upright, placement))

    def with_picture(self, picture: Image.Image) -> Original:
        """Another picture, upright and in sRGB, to be written in the same format and quality.

        Returns:
            8-bit grey where this one is grey, else 8-bit RGB; not turned.
        """
        mode = "L" if self.stored.mode in _GREY_MODES else "RGB"
        options, notes = dict(self.options), self.notes
        if mode != self.stored.mode or mode == "L" or colour_space(options.get("icc_profile"), mode) is not None:
            options.pop("icc_profile", None)
        if mode != self.stored.mode:
            notes = (*notes, f"the crop of a picture of mode {self.stored.mode} is written as {mode}.")
        return Original(picture.convert(mode), self.format, self.suffix, 1, options, notes)

    def changed(self, before: np.ndarray, after: np.ndarray, placement: Similarity | None = None) -> Image.Image:
        """The stored raster with what the edit changed.

        Args:
            before, after: the unedited and the edited picture at the editor's size, (s, s, 3), values 0..255, not
                rounded: only their difference counts.
            placement: where the square that they show lies in the upright picture; ``None`` for the central square.

        Returns:
            A picture of the mode and size of ``stored``; where ``after`` is ``before``, every pixel is the donor's.

        Raises:
            ShapeError: ``before`` and ``after`` are not square and alike.
        """
        change = np.asarray(after, dtype=np.float32) - np.asarray(before, dtype=np.float32)
        if change.ndim != 3 or change.shape[0] != change.shape[1] or change.shape[2] != 3:
            raise ShapeError(f"`before` and `after` must be (s, s, 3); got {np.shape(before)} and {np.shape(after)}.")
        width, height = self.size
        # an edge is soft where the square ends inside the picture
        sides = (True, True) if placement is not None else (width > height, height > width)
        placement = placement or centre_square(width, height, change.shape[0])
        raster = self.stored.copy()
        if not change.any():
            return raster
        if _has_no_colour(raster):
            # a black-and-white photograph stays one: a breath of colour would say that it was edited
            change = np.repeat((change @ _LUMA)[..., None], 3, axis=2)
        change = smooth(change, placement)
        change = change * feathered_mask(change.shape[0], FEATHER, sides=sides)[..., None]
        space = colour_space(self.options.get("icc_profile"), self.stored.mode)
        for box in _strips(placement, width, height):
            where = _stored_box(box, self.orientation, self.size)
            pixels = np.array(raster.crop(where))
            region, added = _upright_view(pixels, self.orientation), warp(change, placement, box)
            if space is not None:
                added = space.change(region[..., :3], added)
            _add(region, added, raster.mode)
            raster.paste(_picture(pixels, raster.mode), where[:2])
        return raster

    def encode(self, raster: Image.Image, provenance: Mapping[str, str] | None = None) -> Encoded:
        """A raster of :meth:`changed` as a file like the donor's.

        Args:
            raster: of the mode and size of ``stored``.
            provenance: what the picture is and how it was made, kept in the file; ``None`` for nothing. BMP has no
                room for it.

        Raises:
            ImageError: the format refuses the raster.
        """
        options = {**self.options, **writing_options(self.format, provenance or {}, self.orientation)}
        buffer = io.BytesIO()
        try:
            raster.save(buffer, format=self.format, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ImageError(f"mode {raster.mode} cannot be written as {self.format} ({error}).") from error
        return Encoded(buffer.getvalue(), self.suffix, self.notes)

    def _with_webp_quality(self, num_bytes: int) -> Original:
        """WebP does not say its quality: take the one at which the donor itself comes out as large as it is."""

        def at(quality: int) -> Original:
            return replace(self, options={**self.options, "lossless": False, "quality": quality})

        def size_at(quality: int) -> int:
            return len(at(quality).encode(self.stored).data)

        low, high = 1, 100
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if size_at(middle) < num_bytes else (low, middle)
        return at(low)


def centre_square(width: int, height: int, size: int) -> Similarity:
    """Where the central square of a picture lies that is shown at ``size`` pixels, as ``to_tensor`` cuts it."""
    edge = min(width, height)
    scale = edge / size
    return Similarity(np.array([[scale, 0, (width - edge) / 2], [0, scale, (height - edge) / 2]]), size)


#: What vlbias says of a picture that it made; whatever else stands beside it is somebody's own.
_SAID = frozenset(
    ("synthetic", "digital_source_type", "made_by", "editor", "source", "seed", "path", "strength", "from", "to")
    + ("edits", "steps", "reach")
)


def without_private_metadata(path: str | os.PathLike[str], *, source: str | None = None) -> Encoded:
    """A copy of a file that says nothing of who took it where: see :func:`vlbias.privacy.without_private`.

    JPEG, PNG and WebP keep every bit of their pixels. Other formats are written anew, without loss. What vlbias wrote
    into a file about how it was made stays.

    Args:
        path: the file.
        source: what it says it was made from, if it was made; ``None`` for what it says now.

    Raises:
        ImageError: it is missing, damaged, too large, or no picture.
    """
    return private_left_out(read_picture(path), str(path), source=source)


def private_left_out(data: bytes, name: str, *, source: str | None = None) -> Encoded:
    """:func:`without_private_metadata` of a file by its bytes, with the name that :meth:`Original.of_file` takes."""
    stored = decode_stored(data, name)
    said = {name: text for name, text in provenance_of(stored).items() if name in _SAID}
    orientation = _orientation(stored)
    del stored  # a large picture twice would not fit
    made = said if {"synthetic", "made_by"} & said.keys() else {}
    if source is not None and made:
        made["source"] = source
    text = json.dumps(made, sort_keys=True).encode() if made else None
    bare = without_private(data, orientation=orientation, provenance=text, xmp=xmp_packet(made))
    if bare is not None:
        return Encoded(bare, Path(name).suffix.lower())
    original = Original.of_file(data, name)
    return original.encode(original.stored, made)


# -- the raster -------------------------------------------------------------------------------------------------------

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright_view(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The stored array seen upright; no copy, so that what is added to the view is added to the array."""
    turned = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    up, left = _runs_backwards(orientation)
    return turned[:: -1 if up else 1, :: -1 if left else 1]


def _stored_box(box: tuple[int, int, int, int], orientation: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of the upright picture of ``size`` (width, height) => where the file has it."""
    left, top, right, bottom = box
    rows, columns = _runs_backwards(orientation)
    if rows:
        top, bottom = size[1] - bottom, size[1] - top
    if columns:
        left, right = size[0] - right, size[0] - left
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)


def _runs_backwards(orientation: int) -> tuple[bool, bool]:
    """Whether the rows and the columns of the upright picture run backwards in the file."""
    return orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)


def _changeable(stored: Image.Image) -> tuple[Image.Image, list[str]]:
    """A raster whose numbers can take a difference, and what had to be given up for it."""
    mode = stored.mode if stored.mode.startswith("I") else with_alpha(stored) or stored.mode
    if mode != stored.mode:
        return stored.convert(mode), [f"mode {stored.mode} with transparency is written as {mode}."]
    if stored.mode in _KEPT_MODES:
        return stored, []
    if stored.mode == "1":
        return stored.convert("L"), ["black-and-white pixels are written as grey: there is no half a step."]
    why = {"P": "a palette has no place for new colours", "F": "floating pixels have no stated range"}
    return _plain_rgb(stored), [f"mode {stored.mode} is written as RGB: {why.get(stored.mode, 'it is rare')}."]


def _is_deep(data: bytes) -> bool:
    """Whether a file has 16 bits a channel, by the raw mode that its decoder is asked for, such as "RGB;16B"."""
    with Image.open(io.BytesIO(data), formats=DECODERS) as header:
        return any(re.search(r";16[BLN]", str(tile[3])) for tile in getattr(header, "tile", []))


def _plain_rgb(stored: Image.Image) -> Image.Image:
    """RGB of a rare mode, not turned."""
    plain = stored.copy()
    plain.getexif().clear()
    return to_upright_rgb(plain)


def _strips(placement: Similarity, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of the picture that the square reaches, a few hundred rows each."""
    corners = placement.corners()
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int), [width, height])
    for start in range(int(top), int(bottom), _STRIP_ROWS):
        if right > left:
            yield int(left), start, int(right), min(start + _STRIP_ROWS, int(bottom))


def _add(region: np.ndarray, change: np.ndarray, mode: str) -> None:
    """Add a colour difference (h, w, 3) to stored numbers, in place and in their own units."""
    if mode == "CMYK":
        # Pillow shows R as (255 - C)(255 - K) / 255: with the black plate held, ink falls as light rises
        light = np.maximum(255.0 - region[..., 3:], 1.0)
        region[..., :3] = np.clip(np.round(region[..., :3] - change * 255.0 / light), 0, 255)
        return
    if mode in ("RGB", "RGBA"):
        colour = region[..., :3]
        colour[...] = np.clip(np.round(colour + change), 0, 255)
        return
    grey = change @ _LUMA
    if mode in ("L", "LA"):
        plane = region[..., 0] if mode == "LA" else region
        plane[...] = np.clip(np.round(plane + grey), 0, 255)
        return
    region[...] = np.clip(np.round(region + grey * 257.0), 0, 65535)


def _has_no_colour(raster: Image.Image) -> bool:
    """Whether a picture in colour shows none: its channels are alike, up to the rounding of a compression."""
    if raster.mode not in ("RGB", "RGBA"):
        return False
    small = raster.reduce(max(1, min(raster.size) // _COLOUR_SIZE))
    red, green, blue = np.moveaxis(np.asarray(small)[..., :3], 2, 0)
    # plane by plane: a reduction along so short an axis takes ten times as long
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return bool((most - least).max() <= _ALIKE)


def _picture(pixels: np.ndarray, mode: str) -> Image.Image:
    """An array as ``np.array`` gives it of a picture => a picture of that mode."""
    return Image.frombytes(mode, (pixels.shape[1], pixels.shape[0]), pixels.tobytes())


# -- the file ---------------------------------------------------------------------------------------------------------


def _orientation(stored: Image.Image) -> int:
    value = stored.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _writing_options(stored: Image.Image, kind: str, mode: str) -> dict[str, Any]:
    """What makes a copy look like the file itself to somebody who studies files."""
    options: dict[str, Any] = {}
    # a profile of other colours than are written would be a lie; transparency beside them changes none
    if stored.info.get("icc_profile") and mode in (stored.mode, with_alpha(stored)):
        options["icc_profile"] = stored.info["icc_profile"]
    if "dpi" in stored.info and kind in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = tuple(float(value) for value in stored.info["dpi"])
    if kind == "JPEG":
        options |= _jpeg_options(stored)
    elif kind == "PNG":
        options["compress_level"] = PNG_LEVEL
    elif kind == "WEBP":
        options |= {"lossless": True, "quality": 80, "method": 4}
    elif kind == "TIFF":
        compression = stored.info.get("compression", "raw")
        options["compression"] = compression if compression in _LOSSLESS_TIFF else "tiff_deflate"
    return options


def _jpeg_options(stored: Image.Image) -> dict[str, Any]:
    """The donor's own quantisation tables and subsampling, so that both were rounded on the same grid."""
    tables = getattr(stored, "quantization", None)
    if not tables:
        return {"quality": 95, "subsampling": 0}
    options: dict[str, Any] = {"qtables": {key: list(table) for key, table in tables.items()}}
    sampling = JpegImagePlugin.get_sampling(stored)
    if sampling >= 0:
        options["subsampling"] = sampling
    if stored.info.get("progressive"):
        options["progressive"] = True
    return options
