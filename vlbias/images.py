"""Safe image input and output: open, orient, convert, tensor <-> PIL, contact sheets.

Image tensors are float32 (b, 3, h, w) with values in [-1, 1] everywhere in the library.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeGuard

import numpy as np
import torch
from einops import rearrange
from PIL import ExifTags, Image, ImageCms, ImageDraw, ImageFile, ImageFont, ImageOps, UnidentifiedImageError

from vlbias.arguments import checked_call
from vlbias.errors import ImageError, ShapeError, VlbiasError
from vlbias.files import open_plain, write_file
from vlbias.progress import track
from vlbias.settings import checked_number

__all__ = [
    "DECODERS",
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "PNG_LEVEL",
    "ColourSpace",
    "Pictures",
    "colour_space",
    "contact_sheet",
    "decode_image",
    "decode_stored",
    "in_turn",
    "load_pixels",
    "load_stored",
    "open_image",
    "picture_size",
    "read_picture",
    "save_png",
    "to_pil",
    "to_pixels",
    "to_tensor",
    "to_uint8",
    "to_upright_rgb",
    "with_alpha",
]

#: File endings that count as pictures in a folder.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp"}
)

#: Decoders that a file may reach, whatever its name says; Pillow has forty more, one of which starts another program.
DECODERS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
#: A larger colour profile is passed over, and one that computes in more steps, or between more channels.
MAX_PROFILE_BYTES, _MAX_STEPS, _MAX_CHANNELS = 4 * 2**20, 16, 4
_STEPS, _CHANNELS = re.compile(rb"mpet.{8}(.{4})", re.DOTALL), re.compile(rb"clut.{4}(.{2})", re.DOTALL)

#: zlib level of every PNG that the library writes: the same picture gives the same bytes.
PNG_LEVEL = 6

#: A picture of more pixels than this is refused; decoded and converted, one of that size takes up to a gigabyte.
MAX_PIXELS = 80_000_000
#: The decoder of a format that keeps several canvases takes as much for fewer pixels; that of a BMP with runs of equal
#: pixels is written in Python.
_MAX_PIXELS_OF = {"WEBP": 50_000_000, "BMP of runs": 16_000_000}
_RUNS = (1, 2)  # how a BMP says that it has them
#: Scans that a JPEG may have, and pixels that all of them may touch together; encoders make a dozen.
_MAX_SCANS, _MAX_SCANNED_PIXELS = 1_000, 8_000_000_000
_MARKER, _SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL), 0xDA
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF, _OFFSETS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (273, 324)
#: Pieces that a file may have: a PNG, a JPEG, of those the notes of a camera, and a TIFF.
_MAX_CHUNKS, _MAX_SEGMENTS, _MAX_EXIF, _MAX_TILES = 100_000, 10_000, 16, 100_000
_LARGE_CHUNK = 2**20
#: Entries of a TIFF, and values of one of them, such as the bytes of an XMP packet.
_MAX_ENTRIES, _MAX_VALUES = 2**16, 2**25
#: Largest file of a picture that is held in memory.
MAX_FILE_BYTES = 2**30
#: Larger pictures are converted in strips, and come one at a time where several threads read.
_LARGE_PIXELS = 4_000_000
_LARGE_IN_TURN = threading.RLock()


@checked_call
def open_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    EXIF rotation is applied; colours are converted to sRGB; grey, palette, CMYK and 16-bit pictures are converted;
    transparency is put on white.

    Args:
        path: the file.
        max_pixels: a larger picture is refused before it is decoded.

    Raises:
        ImageError: no such file, zero bytes, not a picture, truncated, or too large; the message names the file.
    """
    with _image_errors(path):
        return to_upright_rgb(load_stored(path, max_pixels=max_pixels))


@checked_call
def load_stored(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open and decode a picture as it is stored: its own mode, not turned, with Pillow's notes on the file.

    Args:
        path: the file.
        max_pixels: a larger picture is refused before it is decoded.

    Raises:
        ImageError: as :func:`open_image`.
    """
    with _opened(path) as file:
        return _decode(file, str(path), max_pixels)


def decode_stored(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """:func:`load_stored` of a picture that stands inside another file; see :func:`decode_image`."""
    with _image_errors(name):
        return _decode(io.BytesIO(data), name, max_pixels)


@checked_call
def read_picture(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a picture's file, once its header was found to be one; nothing is decoded.

    Raises:
        ImageError: as :func:`open_image`, or the file is larger than a gigabyte.
    """
    with _opened(path) as file:
        with _header(file):
            pass
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ImageError(f"{path} is larger than {MAX_FILE_BYTES / 2**30:.0f} GiB. Compress or resize the picture.")
        return file.read(size)  # a number that is too large would take as much memory


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a picture that stands inside another file (a record, a list of pairs) as upright 8-bit RGB.

    Args:
        data: an encoded picture, such as the bytes of a JPEG file.
        name: what messages call it.
        max_pixels: a larger picture is refused before it is decoded.

    Raises:
        ImageError: as :func:`open_image`; the message gives ``name``.
    """
    with _image_errors(name):
        return to_upright_rgb(decode_stored(data, name, max_pixels=max_pixels))


def _decode(source: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    with _header(source) as raw:
        num_pixels = raw.width * raw.height
        kind = f"{raw.format} of runs" if raw.info.get("compression") in _RUNS else str(raw.format)
        limit = min(max_pixels, _MAX_PIXELS_OF.get(kind, max_pixels))
        if num_pixels > limit:
            raise ImageError(f"{name} has {num_pixels:,} pixels; at most {limit:,} are read. Resize the picture.")
        if raw.format in ("JPEG", "MPO"):
            _check_scans(source, name, num_pixels)
        with _in_turn(num_pixels):
            raw.load()
        raw.getexif()  # read while the file is open; Pillow keeps it
        return raw


def _check_scans(source: BinaryIO, name: str, num_pixels: int) -> None:
    """Refuse a JPEG that goes over its pixels again and again: a scan of a few bytes touches every one of them."""
    most, place = min(_MAX_SCANS, _MAX_SCANNED_PIXELS // num_pixels), source.tell()
    segments = _count(_segments(source), _MAX_SEGMENTS, "segments")
    source.seek(place)
    if sum(head[0] == _SCAN for head in segments) > most:
        raise ImageError(f"{name} has more than {most:,} scans, which takes too long. Convert it to PNG or JPEG anew.")


@checked_call
def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a picture as it is stored, from its header alone.

    Raises:
        ImageError: as :func:`open_image`.
    """
    with _opened(path) as file, _header(file) as raw:
        return raw.size


def in_turn(path: str | os.PathLike[str]) -> AbstractContextManager[object]:
    """While a large picture is decoded and made smaller, threads that come to another one wait; small ones do not.

    Raises:
        ImageError: as :func:`open_image`.
    """
    width, height = picture_size(path)
    return _in_turn(width * height)


def _in_turn(num_pixels: int) -> AbstractContextManager[object]:
    return _LARGE_IN_TURN if num_pixels > _LARGE_PIXELS else nullcontext()


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file in which a picture may stand."""
    with _image_errors(path), open_plain(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ImageError(f"{path} is empty (zero bytes). Restore the file or remove it from the dataset.")
        yield file


@contextmanager
def _header(source: BinaryIO) -> Iterator[ImageFile.ImageFile]:
    """A picture whose header was read, by one of the few decoders that a stranger's file may reach."""
    with warnings.catch_warnings():
        # Pillow warns about large pictures; our own limit decides instead.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        _check_pieces(source)
        with Image.open(source, formats=DECODERS) as raw:
            yield raw


def _check_pieces(source: BinaryIO) -> None:
    """Refuse a picture of a million pieces, each of which takes Pillow longer than it is large.

    Raises:
        ValueError: it has too many.
    """
    start = source.read(len(_PNG))
    if start == _PNG:
        _count(_chunks(source), _MAX_CHUNKS, "chunks")
    elif start.startswith(b"\xff\xd8"):
        header = itertools.takewhile(lambda head: head[0] != _SCAN, _segments(source))
        segments = _count(header, _MAX_SEGMENTS, "segments")
        _count((head for head in segments if head[1:].startswith(b"Exif\0")), _MAX_EXIF, "notes of a camera")
    elif start[:4] in _TIFF:
        for tag, count in _tiff_entries(source, start):
            if tag in _OFFSETS and count > _MAX_TILES:
                raise ValueError(f"it has more than {_MAX_TILES:,} tiles or strips")
            if count > _MAX_VALUES:
                raise ValueError(f"it has a note of more than {_MAX_VALUES:,} bytes")
    source.seek(0)


def _count(pieces: Iterator[bytes], most: int, kind: str) -> list[bytes]:
    found = list(itertools.islice(pieces, most + 1))
    if len(found) > most:
        raise ValueError(f"it has more than {most:,} {kind}")
    return found


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    """The length and kind of each chunk of a PNG.

    Raises:
        ValueError: one is large and not there; who reads it takes memory for all of it first.
    """
    size, place = source.seek(0, os.SEEK_END), source.seek(len(_PNG))
    while len(head := source.read(8)) == 8:
        yield head
        if head[4:] == b"IEND":
            return  # what follows is no chunk
        length = int.from_bytes(head[:4])
        if length > _LARGE_CHUNK and place + length > size:
            raise ValueError(f"a chunk of {length:,} bytes is not there")
        place = source.seek(place + 12 + length)


def _segments(source: BinaryIO) -> Iterator[bytes]:
    """The marker of each segment of a JPEG and how its content begins, as a decoder meets them, up to its end."""
    place = 2
    while (found := _next_marker(source, place)) is not None:
        place, head = found
        if head[1] == 0xD9:
            return
        yield head[1:2] + head[4:]
        place += 2 if head[1] in (0x01, 0xD8) else 2 + int.from_bytes(head[2:4])


def _tiff_entries(source: BinaryIO, start: bytes) -> Iterator[tuple[int, int]]:
    """Tag and number of values of each entry of the first picture in a TIFF."""
    order, is_big = "<" if start.startswith(b"II") else ">", 43 in start[2:4]
    source.seek(8 if is_big else 4)
    number, entry = ("Q", "HHQ8x") if is_big else ("I", "HHI4x")
    with suppress(struct.error):  # cut off; the decoder says so
        source.seek(_unpacked(source, order + number)[0])
        (num_entries,) = _unpacked(source, order + ("Q" if is_big else "H"))
        if num_entries > _MAX_ENTRIES:
            raise ValueError(f"it has more than {_MAX_ENTRIES:,} entries")
        for _ in range(num_entries):
            tag, _, count = _unpacked(source, order + entry)
            yield tag, count


def _unpacked(source: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, source.read(struct.calcsize(form)))


def _next_marker(source: BinaryIO, place: int) -> tuple[int, bytes] | None:
    """Where the next marker stands, and ten bytes from there; coded pixels, and bytes that only fill, have none."""
    while True:
        source.seek(place)
        piece = source.read(2**16)
        if (found := _MARKER.search(piece)) is not None:
            source.seek(place + found.start())
            return place + found.start(), source.read(10)
        if len(piece) < 2:
            return None
        place += len(piece) - 1


@contextmanager
def _image_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """What Pillow and the file system raise about a picture => an :class:`ImageError` that names the file."""
    try:
        yield
    except VlbiasError as error:
        if type(error) is not ImageError or str(path) in str(error):
            raise
        raise ImageError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not a picture that can be read. Convert it to PNG or JPEG.") from error
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder. Give a picture.") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file trips a decoder anywhere: struct.error, KeyError, EOFError, ...
        raise ImageError(f"{path} is damaged or truncated ({error}). Restore it or remove it.") from error


def to_upright_rgb(stored: Image.Image) -> Image.Image:
    """A picture as it is stored => upright 8-bit sRGB, as people see it; itself where it is that already."""
    if stored.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        stored = ImageOps.exif_transpose(stored)
    stored = _to_srgb(stored)  # one name: of a large picture there is no room for all its stages
    return _to_rgb(stored)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Colours of another profile (Display P3 of a telephone, CMYK of a print) => sRGB; a damaged one is passed over."""
    stored = image.info.get("icc_profile")
    if not _is_profile(stored):
        return image
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert(with_alpha(image) or "RGB")
    if image.mode == "LA":
        grey, alpha = image.split()
        grey.info.update(image.info)
        seen = _to_srgb(grey).convert("RGB")
        seen.putalpha(alpha)
        return seen
    if image.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return image
    wanted = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(stored))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        srgb = ImageCms.createProfile("sRGB")
        out = ImageCms.profileToProfile(image, profile, srgb, renderingIntent=_INTENT, outputMode=wanted)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert out is not None
    out.info.pop("icc_profile", None)
    return out


def _is_profile(stored: object) -> TypeGuard[bytes]:
    """Whether this may be a colour profile that is soon done: a step takes as long as a picture is large."""
    return (
        isinstance(stored, bytes)
        and 128 <= len(stored) <= MAX_PROFILE_BYTES
        and all(int.from_bytes(number) <= _MAX_STEPS for number in _STEPS.findall(stored))
        and all(int.from_bytes(number) <= _MAX_CHANNELS for number in _CHANNELS.findall(stored))
    )


@checked_call
def with_alpha(image: Image.Image) -> str | None:
    """The mode that holds a picture's transparency pixel by pixel, in its own colours; ``None`` if it has none."""
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return None
    return "LA" if image.mode in ("L", "LA", "La") else "RGBA"


@dataclass(frozen=True)
class ColourSpace:
    """The colours of an RGB picture with a profile of its own, such as Display P3; see :func:`colour_space`."""

    to_srgb: ImageCms.ImageCmsTransform
    from_srgb: ImageCms.ImageCmsTransform

    def change(self, pixels: np.ndarray, change: np.ndarray) -> np.ndarray:
        """A change of what is seen, as a change of what is stored.

        Args:
            pixels: stored numbers (h, w, 3), uint8.
            change: to add to their sRGB values, float (h, w, 3).

        Returns:
            What to add to the stored numbers (h, w, 3), float32; 0 where the change is. A colour beyond sRGB keeps what
            it has beyond it.
        """
        seen = _through(self.to_srgb, pixels)
        wanted = np.clip(np.round(seen + change), 0, 255).astype(np.uint8)
        before, after = (_through(self.from_srgb, one).astype(np.float32) for one in (seen, wanted))
        return after - before


def _through(transform: ImageCms.ImageCmsTransform, pixels: np.ndarray) -> np.ndarray:
    out = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels)), transform)
    assert out is not None
    return np.asarray(out)


def colour_space(icc_profile: object, mode: str) -> ColourSpace | None:
    """The space of a picture whose stored numbers are RGB, but not those of sRGB.

    Args:
        icc_profile: as the file has it, ``None`` for none.
        mode: of the stored raster.

    Returns:
        ``None`` where viewers take the numbers for sRGB, or the profile is damaged or leads one way only.
    """
    if mode not in ("RGB", "RGBA") or not _is_profile(icc_profile):
        return None
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)), ImageCms.createProfile("sRGB")
        if "sRGB" in ImageCms.getProfileDescription(own):
            return None
        pairs = ((own, srgb), (srgb, own))
        return ColourSpace(*(ImageCms.buildTransform(a, b, "RGB", "RGB", renderingIntent=_INTENT) for a, b in pairs))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        _check_scale(np.asarray(image))
    width, height = image.size
    if width * height <= _LARGE_PIXELS or (image.mode == "RGB" and "transparency" not in image.info):
        return _to_rgb_at_once(image)
    out = Image.new("RGB", image.size)
    rows = max(_LARGE_PIXELS // (4 * width), 1)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = _to_rgb_at_once(image.crop(box))
        out.paste(strip, box)
    out.info.update(strip.info)
    return out


def _check_scale(levels: np.ndarray) -> None:
    """Refuse numbers in which nobody said what is white: it is 65535 for whole ones, 255 for others."""
    low, high = float(levels.min()), float(levels.max())
    if levels.dtype.kind == "i" and not 0 <= low <= high <= 65535:
        raise ImageError(f"a picture of whole numbers in {low:g}..{high:g} exceeds 16 bits. Save it with 8 or 16 bits.")
    if levels.dtype.kind == "f" and (not math.isfinite(low + high) or 0 < high <= 1):
        raise ImageError(f"a picture of numbers in {low:g}..{high:g} has no known white. Save it with 8 or 16 bits.")


def _to_rgb_at_once(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow reads 16 bits a pixel as I;16, I;16B or I, and clips instead of scaling
        levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        image = Image.fromarray(_OF_16_BITS[levels])
    elif image.mode == "F":  # in Pillow's own scale white is 255
        image = Image.fromarray(np.clip(np.asarray(image), 0, 255).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


#: 16-bit level => 8-bit level; the scale does not hang on what a picture shows.
_OF_16_BITS = (np.arange(65536, dtype=np.float32) / 65535 * 255).round().astype(np.uint8)


@checked_call
def to_tensor(images: Image.Image | Sequence[Image.Image], size: int | None = None) -> torch.Tensor:
    """PIL images => float32 (b, 3, h, w) in [-1, 1], upright where they say how they were held.

    Args:
        images: one picture or several; of one size unless ``size`` is given.
        size: edge in pixels; each picture is cropped to its central square and resized with antialiasing.
            ``None`` keeps the pictures as they are.

    Raises:
        ShapeError: no picture, or pictures of several sizes and no ``size``.
    """
    batch = [images] if isinstance(images, Image.Image) else list(images)
    if not batch:
        raise ShapeError("`images` is empty; expected at least one picture.")
    if size is not None:
        checked_number("size", size, low=1, high=65_535)
    batch = [to_upright_rgb(image) for image in batch]
    if size is not None:
        batch = [
            image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            for image in batch
        ]
    sizes = sorted({image.size for image in batch})
    if len(sizes) > 1:
        raise ShapeError(f"`images` have several sizes, {sizes[:4]}; pass `size` to bring them to one.")
    pixels = np.stack([np.asarray(image, dtype=np.uint8) for image in batch])
    return to_float(rearrange(torch.from_numpy(pixels), "b h w c -> b c h w"))


class Pictures(Protocol):
    """What pictures are loaded from; ``vlbias.data.FaceDataset`` is one."""

    def tensor(self, items: Sequence[str], size: int, /) -> torch.Tensor:
        """Pictures by id => float32 (b, 3, size, size) in [-1, 1]."""


def load_pixels(
    source: Pictures, ids: Sequence[str], size: int, *, title: str | None = None, chunk: int = 256
) -> torch.Tensor:
    """Pictures in memory, in the order of ``ids``: uint8 (n, 3, size, size), a quarter of the memory of floats.

    Args:
        source: where they are.
        ids: which.
        size: edge in pixels.
        title: of the progress line; ``None`` shows none.
        chunk: pictures that are held as floats at a time.

    Raises:
        ConfigError: ``size`` out of range.
        ImageError: a picture cannot be read.
    """
    size = checked_number("size", size, int, low=1, high=2**14)
    out = torch.empty(len(ids), 3, size, size, dtype=torch.uint8)
    with track(len(ids), title or "reading", "pictures", show=title is not None) as progress:
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            out[start : start + chunk] = to_uint8(source.tensor(part, size))
            progress.update(len(part))
    return out


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Images, uint8 or floating in [-1, 1] => float32 in [-1, 1]."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()


@checked_call
def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Image tensor (b, 3, h, w) in [-1, 1] => uint8 of the same shape; values outside are clipped.

    Raises:
        ShapeError: not (b, 3, h, w), or NaN inside.
    """
    if x.ndim != 4 or x.shape[1] != 3:
        raise ShapeError(f"an image tensor must be (b, 3, h, w); got {tuple(x.shape)}.")
    if torch.isnan(x).any():
        raise ShapeError("an image tensor contains NaN.")
    return x.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8).cpu()


@checked_call
def to_pil(x: torch.Tensor) -> list[Image.Image]:
    """Image tensor (b, 3, h, w) in [-1, 1] => list of b PIL images."""
    return [Image.fromarray(pixels) for pixels in rearrange(to_uint8(x), "b c h w -> b h w c").contiguous().numpy()]


@checked_call
def to_pixels(x: torch.Tensor) -> np.ndarray:
    """Image tensor (b, 3, h, w) in [-1, 1] => float32 (b, h, w, 3) in 0..255, not rounded.

    Raises:
        ShapeError: another shape.
    """
    if x.ndim != 4:
        raise ShapeError(f"an image tensor must be (b, 3, h, w); got {tuple(x.shape)}.")
    return rearrange(x.detach().float().cpu(), "b c h w -> b h w c").add(1).mul(127.5).numpy()


@checked_call
def save_png(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a PNG; the same picture gives the same bytes.

    The file appears whole or not at all, so a killed run leaves no half picture.

    Raises:
        OutputError: the place cannot be written.
    """
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=PNG_LEVEL)
    write_file(path, buffer.getvalue())


@checked_call
def contact_sheet(
    images: Sequence[Image.Image],
    columns: int,
    *,
    captions: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    scale: int = 1,
    gap_px: int = 4,
) -> Image.Image:
    """Lay pictures out in rows on white, each with an optional caption below.

    Args:
        images: pictures, row by row; smaller ones are centred in their cell.
        columns: pictures in a row, >= 1.
        captions: one text per picture, or ``None``.
        row_titles: one text per row, written left of it, or ``None``.
        scale: whole-number enlargement (nearest neighbour keeps pixels honest).
        gap_px: white space between cells.

    Raises:
        ShapeError: no picture, ``columns`` < 1, or as many captions or titles as do not fit.
    """
    if not images or columns < 1:
        raise ShapeError(f"a contact sheet needs pictures and columns >= 1; got {len(images)} and {columns}.")
    rows = -(-len(images) // columns)
    if captions is not None and len(captions) != len(images):
        raise ShapeError(f"`captions` must hold {len(images)} texts; got {len(captions)}.")
    if row_titles is not None and len(row_titles) != rows:
        raise ShapeError(f"`row_titles` must hold {rows} texts; got {len(row_titles)}.")
    font = ImageFont.load_default(size=12)
    cell_w = max(image.width for image in images) * scale
    cell_h = max(image.height for image in images) * scale
    text_h = 16 if captions else 0
    left = 0
    if row_titles:
        left = int(max(font.getlength(title) for title in row_titles)) + 2 * gap_px
    width = left + columns * (cell_w + gap_px) + gap_px
    height = rows * (cell_h + text_h + gap_px) + gap_px
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        x = left + gap_px + column * (cell_w + gap_px)
        y = gap_px + row * (cell_h + text_h + gap_px)
        if scale != 1:
            image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        sheet.paste(image, (x + (cell_w - image.width) // 2, y + (cell_h - image.height) // 2))
        if captions:
            draw.text((x + cell_w / 2, y + cell_h + 1), captions[index], fill="black", font=font, anchor="ma")
        if row_titles and column == 0:
            draw.text((gap_px, y + cell_h / 2), row_titles[row], fill="black", font=font, anchor="lm")
    return sheet
