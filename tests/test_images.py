"""Image input and output: every odd file is read upright in RGB or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlbias.errors import ImageError, OutputError, ShapeError
from vlbias.images import (
    contact_sheet,
    open_image,
    read_png_metadata,
    save_png,
    to_pil,
    to_tensor,
    to_uint8,
)


def gradient(width=20, height=12):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    pixels[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "CMYK", "RGBA", "1", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "LA", "YCbCr") else "png"
    path = tmp_path / f"{mode}.{suffix}"
    gradient().convert(mode).save(path)
    image = open_image(path)
    assert image.mode == "RGB" and image.size == (20, 12)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 32768, 65535]], np.uint16)).save(path)
    assert [pixel[0] for pixel in np.asarray(open_image(path))[0]] == [0, 128, 255]
    night = Image.fromarray(np.array([[0, 129, 200]], np.uint16))
    assert night.mode == "I;16" and to_uint8(to_tensor(night))[0, 0, 0].tolist() == [0, 1, 1]


def test_transparency_is_put_on_white(tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(path)
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


def test_exif_rotation_is_applied(tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(20, 12).save(path, exif=exif)
    assert open_image(path).size == (12, 20)
    with Image.open(path) as as_stored:
        assert torch.equal(to_tensor(as_stored), to_tensor(open_image(path)))


def test_zero_bytes_truncated_text_missing_and_huge_are_refused_by_name(tmp_path):
    empty, cut, text, huge = (tmp_path / name for name in ("empty.jpg", "cut.jpg", "text.jpg", "huge.png"))
    empty.touch()
    gradient(200, 200).save(cut)
    cut.write_bytes(cut.read_bytes()[:900])
    text.write_text("not a picture")
    gradient(40, 40).save(huge)
    with pytest.raises(ImageError, match=r"empty\.jpg is empty \(zero bytes\)"):
        open_image(empty)
    with pytest.raises(ImageError, match=r"cut\.jpg is damaged or truncated"):
        open_image(cut)
    with pytest.raises(ImageError, match=r"text\.jpg is not a picture"):
        open_image(text)
    with pytest.raises(ImageError, match="is a folder. Give a picture"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match=r"gone\.jpg does not exist"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"huge\.png has 1,600 pixels; at most 100"):
        open_image(huge, max_pixels=100)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_bytes_survive_tensor_and_back(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    back = to_pil(to_tensor([Image.fromarray(picture) for picture in pixels]))
    assert np.array_equal(np.stack([np.asarray(image) for image in back]), pixels)


def test_to_tensor_crops_the_centre_and_ranges_over_minus_one_to_one():
    x = to_tensor(gradient(40, 20), size=10)
    assert x.shape == (1, 3, 10, 10) and x.min() >= -1 and x.max() <= 1
    # The middle half of a left-to-right gradient stays.
    assert -0.55 < x[0, 0, 5, 0] < -0.35 and 0.35 < x[0, 0, 5, -1] < 0.55


def test_tensors_of_wrong_shape_or_with_nan_are_refused():
    with pytest.raises(ShapeError, match=r"must be \(b, 3, h, w\); got \(3, 4, 4\)"):
        to_uint8(torch.zeros(3, 4, 4))
    with pytest.raises(ShapeError, match="NaN"):
        to_uint8(torch.full((1, 3, 2, 2), float("nan")))
    with pytest.raises(ShapeError, match="several sizes"):
        to_tensor([gradient(4, 4), gradient(5, 5)])
    with pytest.raises(ShapeError, match="empty"):
        to_tensor([])


def test_png_keeps_metadata_and_has_the_same_bytes_each_time(tmp_path):
    metadata = {"editor": "tiny", "source": "ä.jpg"}
    for name in ("a.png", "b.png"):
        save_png(gradient(), tmp_path / name, metadata)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert read_png_metadata(tmp_path / "a.png") == metadata
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), np.asarray(gradient()))


def test_png_into_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="A folder on the way is missing"):
        save_png(gradient(), tmp_path / "none" / "a.png")


def test_contact_sheet_places_every_picture():
    reds = [Image.new("RGB", (8, 8), (20 * index, 0, 0)) for index in range(5)]
    sheet = contact_sheet(reds, 3, captions=[str(index) for index in range(5)], row_titles=["top", "low"])
    colours = {colour for _, colour in sheet.getcolors(10_000)}
    assert {(20 * index, 0, 0) for index in range(5)} <= colours


def test_contact_sheet_counts_its_texts():
    with pytest.raises(ShapeError, match="`captions` must hold 1 texts; got 2"):
        contact_sheet([gradient()], 1, captions=["a", "b"])
    with pytest.raises(ShapeError, match="`row_titles` must hold 1 texts; got 2"):
        contact_sheet([gradient()], 1, row_titles=["a", "b"])
    with pytest.raises(ShapeError, match="columns >= 1"):
        contact_sheet([gradient()], 0)
