"""Low-level statistics of a picture's file: what gives away how it was made, and nothing of whose face it shows.

Three kinds. Of the file: its format, mode, width, height, and the tables a JPEG was quantised with; its metadata is not
read, since a made picture says there that it is one. Of the pixels as they are stored: the grid of 8 x 8 blocks and the
steps that an earlier compression left in them. Of the pixels at a size that people train at: energy of the bands of the
spectrum, and variance, kurtosis and colour correlation of the high-pass residual.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin
from scipy import fft

from vlbias.arguments import checked_call
from vlbias.images import DECODERS, load_stored, to_upright_rgb
from vlbias.originals import Encoded

__all__ = [
    "Box",
    "Source",
    "cropped",
    "describe",
    "file_statistics",
    "grid_statistics",
    "low_level_statistics",
    "pixel_statistics",
    "residual_statistics",
    "spectrum_statistics",
    "statistics_at",
    "stored_picture",
]

#: A picture: its file, its file as it would be written, or a drawn picture.
Source = str | Path | Encoded | Image.Image
#: left, top, right, bottom in pixels of the upright picture.
Box = tuple[int, int, int, int]

#: Bands of the spectrum, of equal width up to half a cycle per pixel: of brightness, and of colour.
LUMA_BANDS, CHROMA_BANDS = 16, 8
#: Edge of a block of JPEG, in pixels.
BLOCK = 8
#: Larger pictures are read in their middle alone, where their own pixels are looked at.
MAX_EDGE_PX = 512
#: Steps, in grey levels, that coefficients are tried for.
STEPS = (3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24)
#: Frequencies of a block (rows, columns) whose coefficients are read, from low to high; the mean is the face's.
FREQUENCIES = {
    "low": ((0, 1), (1, 0), (1, 1)),
    "middle": ((0, 2), (2, 0), (1, 2), (2, 1), (2, 2)),
    "high": ((0, 3), (3, 0), (1, 3), (3, 1), (3, 3)),
}
FORMATS = ("JPEG", "PNG", "WEBP")
# Rec. 601, as JPEG has it.
_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_EPSILON = 0.01  # grey levels squared: a variance below that of rounding is none
_COLORS = ("red", "green", "blue")


def low_level_statistics(source: Source, size: int | None = None) -> dict[str, float]:
    """A picture's file => its statistics by name.

    Args:
        source: the file, as a path or as it would be written; a picture in memory, which was drawn and never stored,
            counts as an RGB PNG.
        size: edge in pixels that the picture is cropped and resized to as for training, and what is left in the pixels
            then; ``None`` reads the file as it is written.

    Returns:
        Numbers by name, the same names for every file; NaN where a picture is too small to have one.

    Raises:
        ImageError: the file cannot be read as a picture.
    """
    return statistics_at(source, (size,))[size]


def statistics_at(
    source: Source, sizes: Sequence[int | None], box: Box | None = None
) -> dict[int | None, dict[str, float]]:
    """:func:`low_level_statistics` at several sizes, from one look at the file.

    Args:
        source: the picture.
        sizes: edges in pixels, ``None`` for the file as it is written.
        box: the part of the upright picture that is looked at; ``None`` for all of it.
    """
    stored = stored_picture(source)
    picture = cropped(to_upright_rgb(stored), box)
    return {
        size: _as_written(stored, picture, box)
        if size is None
        else pixel_statistics(np.asarray(_fitted(picture, size)))
        for size in sizes
    }


def stored_picture(source: Source) -> Image.Image:
    """A picture as ``load_stored`` gives it.

    Raises:
        ImageError: the file cannot be read.
    """
    if isinstance(source, Encoded):
        return Image.open(io.BytesIO(source.data), formats=DECODERS)
    if not isinstance(source, Image.Image):
        return load_stored(source)
    drawn = source.convert("RGB")
    drawn.format = "PNG"
    return drawn


def cropped(picture: Image.Image, box: Box | None) -> Image.Image:
    """The part of a picture inside a box that may reach beyond it; all of it where the box misses it."""
    if box is None:
        return picture
    left, top, right, bottom = box
    inside = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    return picture.crop(inside) if inside[0] < inside[2] and inside[1] < inside[3] else picture


def _fitted(picture: Image.Image, size: int) -> Image.Image:
    same = picture.size == (size, size)
    return picture if same else ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)


def _as_written(stored: Image.Image, picture: Image.Image, box: Box | None) -> dict[str, float]:
    # the grid of blocks lies along the rows as they are stored, however the picture is turned for people
    grey = stored.convert("L")
    if box is not None and stored.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        left, top, right, bottom = box
        grey = cropped(grey, (max(left, 0) // BLOCK * BLOCK, max(top, 0) // BLOCK * BLOCK, right, bottom))
    grid = grid_statistics(np.asarray(_middle(grey)))
    return file_statistics(stored) | grid | pixel_statistics(np.asarray(_middle(picture)))


def pixel_statistics(pixels: np.ndarray) -> dict[str, float]:
    """Pixels (h, w, 3), 8 bit => bands of the spectrum and the residual."""
    return spectrum_statistics(pixels) | residual_statistics(pixels)


def _middle(picture: Image.Image) -> Image.Image:
    """The middle of a large picture, cut along its grid of blocks."""
    left, top = (max(0, edge - MAX_EDGE_PX) // 2 // BLOCK * BLOCK for edge in picture.size)
    right, bottom = (min(edge, MAX_EDGE_PX) for edge in picture.size)
    return picture.crop((left, top, left + right, top + bottom))


# ---------------------------------------------------------------------------------------------------------------------
# The file


def file_statistics(image: Image.Image) -> dict[str, float]:
    """Format, mode, size and quantisation of a picture as ``load_stored`` gives it.

    Quantisation is the mean of a JPEG's tables (brightness and colour) in logarithm, 0 for a file without.
    """
    tables: Mapping[int, list[int]] = getattr(image, "quantization", None) or {}
    means = [math.log(float(np.mean(tables[place]))) for place in sorted(tables)]
    is_jpeg = image.format == "JPEG"
    found = {f"format_{name.lower()}": float(image.format == name) for name in FORMATS}
    return found | {
        "mode_rgb": float(image.mode == "RGB"),
        "mode_grey": float(image.mode in ("L", "1", "I", "I;16", "F", "LA")),
        "mode_alpha": float(image.mode in ("RGBA", "LA", "PA")),
        "width": math.log(image.width),
        "height": math.log(image.height),
        "quantisation_luma": means[0] if means else 0.0,
        "quantisation_chroma": means[-1] if means else 0.0,
        # 0: colour at full size; 1: halved along rows; 2: halved both ways
        "colour_subsampling": float(JpegImagePlugin.get_sampling(image)) if is_jpeg else -1.0,
        "progressive": float(bool(image.info.get("progressive"))),
    }


# ---------------------------------------------------------------------------------------------------------------------
# The stored pixels


def grid_statistics(grey: np.ndarray) -> dict[str, float]:
    """Stored pixels (h, w), grey => traces of compression in blocks of 8 x 8.

    ``block_edges`` is the log of the mean step over the borders of blocks by that inside them; ``block_edges_shifted``
    the largest of the same for grids that lie elsewhere (a crop of a compressed picture). ``quantisation_low_6`` is 1
    where all low coefficients are multiples of 6 grey levels, 0 where they lie anywhere.
    """
    grey = grey.astype(np.float64)
    ratios = _block_edges(grey)
    found = {"block_edges": ratios[0], "block_edges_shifted": max(ratios[1:])}
    coefficients = _block_coefficients(grey)
    for name, places in FREQUENCIES.items():
        values = np.concatenate([coefficients[:, row, column] for row, column in places])
        # What is zero is a multiple of everything and says nothing.
        values = values[np.abs(values) > 1.5]
        for step in STEPS:
            comb = abs(np.exp(2j * np.pi * values / step).mean()) if len(values) >= 16 else math.nan
            found[f"quantisation_{name}_{step}"] = float(comb)
    return found


def _block_edges(grey: np.ndarray) -> list[float]:
    """Log ratio of steps on the grid to steps off it, for each of the 8 places of the grid; the file's own first."""
    across, down = np.abs(np.diff(grey, axis=1)).mean(0), np.abs(np.diff(grey, axis=0)).mean(1)
    if min(len(across), len(down)) < 2 * BLOCK:
        return [math.nan] * BLOCK
    ratios = []
    for shift in range(BLOCK):
        logs = []
        for steps in (across, down):
            on = np.arange(len(steps)) % BLOCK == (BLOCK - 1 + shift) % BLOCK
            logs.append(math.log((steps[on].mean() + _EPSILON) / (steps[~on].mean() + _EPSILON)))
        ratios.append(float(np.mean(logs)))
    return ratios


def _block_coefficients(grey: np.ndarray) -> np.ndarray:
    """DCT coefficients of whole blocks (n, 8, 8), scaled as in JPEG."""
    rows, columns = (edge // BLOCK for edge in grey.shape)
    blocks = grey[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    return fft.dctn(blocks.reshape(-1, BLOCK, BLOCK), axes=(1, 2), norm="ortho")


# ---------------------------------------------------------------------------------------------------------------------
# Pixels at any size


def spectrum_statistics(pixels: np.ndarray) -> dict[str, float]:
    """Pixels (h, w, 3), 8 bit => log of the mean energy in bands of the spectrum, of brightness and of colour.

    The lowest band of each, the face's own light and shade, is left out. A picture that is too small to have a
    frequency in a band has NaN there.
    """
    height, width = pixels.shape[:2]
    planes = np.moveaxis(pixels.astype(np.float64) @ _TO_YCBCR.T, 2, 0)
    planes = planes - planes.mean(axis=(1, 2), keepdims=True)
    # The window keeps the border, where a picture does not continue, from filling the high bands.
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    power = np.abs(fft.rfft2(planes * window)) ** 2 / (window**2).sum()
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width)[None])
    found = _bands(power[0], frequency, LUMA_BANDS, "spectrum")
    return found | _bands(power[1] + power[2], frequency, CHROMA_BANDS, "colour_spectrum")


def _bands(power: np.ndarray, frequency: np.ndarray, count: int, name: str) -> dict[str, float]:
    band = np.ceil(frequency * 2 * count).astype(int) - 1  # the corners, beyond half a cycle, belong to none
    inside = (band >= 0) & (band < count)
    totals = np.bincount(band[inside], power[inside], minlength=count)
    sizes = np.bincount(band[inside], minlength=count)
    means = np.divide(totals, sizes, out=np.full(count, math.nan), where=sizes > 0)
    return {f"{name}_{place + 1}": float(value) for place, value in enumerate(np.log(means + _EPSILON)) if place}


def residual_statistics(pixels: np.ndarray) -> dict[str, float]:
    """Pixels (h, w, 3), 8 bit => variance, kurtosis (both in logarithm) and correlation of the colours' residuals.

    The high-pass residual is what a pixel differs from the plane through its neighbours: second differences both ways,
    one after the other.
    """
    planes = np.moveaxis(pixels, 2, 0).astype(np.float32)
    residual = np.diff(np.diff(planes, 2, axis=1), 2, axis=2).reshape(3, -1) / 4
    if not residual.size:
        return dict.fromkeys(_RESIDUAL_NAMES, math.nan)
    residual -= residual.mean(axis=1, keepdims=True)
    squares = residual * residual
    variance = squares.mean(axis=1) + _EPSILON
    kurtosis = (squares * squares).mean(axis=1) / variance**2 + _EPSILON
    covariance = residual @ residual.T / residual.shape[1] / np.sqrt(np.outer(variance, variance))
    numbers = [*np.log(variance), *np.log(kurtosis), covariance[0, 1], covariance[1, 2]]
    return dict(zip(_RESIDUAL_NAMES, map(float, numbers), strict=True))


_RESIDUAL_NAMES = (
    *(f"residual_variance_{color}" for color in _COLORS),
    *(f"residual_kurtosis_{color}" for color in _COLORS),
    "residual_correlation_red_green",
    "residual_correlation_green_blue",
)


# ---------------------------------------------------------------------------------------------------------------------
# Words

_WORDS = {
    "format_jpeg": "whether the file is a JPEG",
    "format_png": "whether the file is a PNG",
    "format_webp": "whether the file is a WebP",
    "mode_rgb": "whether the file is stored as RGB",
    "mode_grey": "whether the file is stored as grey",
    "mode_alpha": "whether the file has transparency",
    "width": "the width in pixels",
    "height": "the height in pixels",
    "quantisation_luma": "the JPEG quality (table of brightness)",
    "quantisation_chroma": "the JPEG quality (table of colour)",
    "colour_subsampling": "the JPEG subsampling of colour",
    "progressive": "whether the JPEG is progressive",
    "block_edges": "edges of JPEG blocks, on the file's grid",
    "block_edges_shifted": "edges of JPEG blocks, off the file's grid",
    "residual_correlation_red_green": "correlation of the high-pass residual in red and green",
    "residual_correlation_green_blue": "correlation of the high-pass residual in green and blue",
}


@checked_call
def describe(name: str) -> str:
    """A statistic in words.

    Example:
        >>> describe("spectrum_16")
        'band 16 of 16 of the spectrum of brightness (0.47 to 0.50 cycles per pixel)'
        >>> describe("quantisation_low_6")
        'steps of 6 grey levels in low block frequencies, left by a compression'
    """
    if name in _WORDS:
        return _WORDS[name]
    kind, _, last = name.rpartition("_")
    if kind in ("spectrum", "colour_spectrum"):
        count, of = (LUMA_BANDS, "brightness") if kind == "spectrum" else (CHROMA_BANDS, "colour")
        low, high = ((int(last) - step) / (2 * count) for step in (1, 0))
        return f"band {last} of {count} of the spectrum of {of} ({low:.2f} to {high:.2f} cycles per pixel)"
    if kind in ("residual_variance", "residual_kurtosis"):
        return f"{kind.partition('_')[2]} of the high-pass residual in {last}"
    return f"steps of {last} grey levels in {kind.rpartition('_')[2]} block frequencies, left by a compression"


def is_of_file(name: str) -> bool:
    """Whether a statistic is of the file and not of its pixels."""
    return name in _FILE_NAMES


_FILE_NAMES = frozenset(list(_WORDS)[: list(_WORDS).index("block_edges")])
