"""Image input and output: every odd file is read upright in RGB or refused by name."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vlbias.errors import ImageError, OutputError, ShapeError
from vlbias.images import (
    contact_sheet,
    load_pixels,
    open_image,
    picture_size,
    save_png,
    to_float,
    to_pil,
    to_tensor,
    to_uint8,
    to_upright_rgb,
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


@pytest.mark.parametrize(
    "levels", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), np.nan, np.float32), np.full((4, 4), 70_000, np.int32)]
)
def test_numbers_without_a_known_white_are_refused(levels, tmp_path):
    path = tmp_path / "levels.tiff"
    Image.fromarray(levels).save(path)
    with pytest.raises(ImageError, match="levels.tiff: a picture of .* Save it with 8 or 16 bits"):
        open_image(path)
    with pytest.raises(ImageError, match="a picture of .* Save it with 8 or 16 bits"):
        to_tensor(Image.fromarray(levels))
    assert to_tensor(Image.fromarray(np.full((4, 4), 200, np.float32))).max() > 0.5


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


def test_png_has_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        save_png(gradient(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
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


def test_the_scale_of_sixteen_bits_does_not_hang_on_the_content(tmp_path):
    for value, shown in ((0, 0), (200, 1), (257, 1), (30_000, 117), (65_535, 255)):
        flat = np.full((4, 4), value, np.uint16)
        Image.fromarray(flat).save(tmp_path / "flat.png")
        for picture in (open_image(tmp_path / "flat.png"), Image.fromarray(flat.astype(np.int32))):
            assert to_uint8(to_tensor(picture)).unique().tolist() == [shown]
    dark = Image.fromarray(np.full((4, 4), 200.0, np.float32))
    assert to_uint8(to_tensor(dark)).unique().tolist() == [200]


def display_p3():
    """The profile of a telephone's camera, built from its primaries (SMPTE RP 431-2, adapted to D50) and gamma 2.2."""

    def fixed(values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    primaries = [(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags = [(b"desc", b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78)]
    tags += [(b"cprt", b"text\0\0\0\0none\0\0\0\0"), (b"wtpt", b"XYZ \0\0\0\0" + fixed((0.9642, 1, 0.8249)))]
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags.append((name, b"XYZ \0\0\0\0" + fixed(xyz)))
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s4s", 2020, 1, 1, 0, 0, 0, b"acsp", b"APPL") + b"\0" * 24 + fixed((0.9642, 1, 0.8249))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_colours_are_those_of_the_profile(tmp_path):
    """The same cheek, written by a camera in Display P3 and in sRGB, with and without transparency."""
    cheek, profile = (198, 140, 100), display_p3()
    srgb, p3 = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(profile))
    coded = ImageCms.profileToProfile(Image.new("RGB", (8, 8), cheek), srgb, p3, renderingIntent=1)
    assert max(abs(a - b) for a, b in zip(coded.getpixel((0, 0)), cheek, strict=True)) > 5
    see_through = coded.convert("RGBA")
    see_through.putalpha(255)
    for number, picture in enumerate((coded, see_through, coded.quantize(4))):
        picture.save(tmp_path / f"{number}.png", icc_profile=profile)
        read = open_image(tmp_path / f"{number}.png")
        assert max(abs(a - b) for a, b in zip(read.getpixel((0, 0)), cheek, strict=True)) <= 2
        assert read.mode == "RGB" and "icc_profile" not in read.info
        assert torch.equal(to_tensor(Image.open(tmp_path / f"{number}.png")), to_tensor(read))


@pytest.mark.parametrize("profile", [b"", b"x" * 200, b"\0" * 5_000_000, "srgb"])
def test_a_damaged_or_an_srgb_profile_changes_nothing(tmp_path, profile):
    if profile == "srgb":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = gradient()
    picture.info["icc_profile"] = profile
    assert np.array_equal(np.asarray(to_upright_rgb(picture)), np.asarray(gradient()))


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"P6 1 1 255 abc"])
def test_only_known_decoders_are_reached_whatever_the_name_says(tmp_path, content, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    for name in ("face.jpg", "face.png"):
        (tmp_path / name).write_bytes(content)
        for read in (open_image, picture_size):
            with pytest.raises(ImageError, match="is not a picture that can be read"):
                read(tmp_path / name)


def test_pictures_are_loaded_in_chunks_and_in_order(capsys):
    class Source:
        def tensor(self, items, size):
            assert len(items) <= 2
            return torch.stack([torch.full((3, size, size), float(item) / 127.5 - 1) for item in items])

    pixels = load_pixels(Source(), ["7", "1", "9"], 4, chunk=2, title="reading")
    assert pixels.dtype == torch.uint8 and pixels[:, 0, 0, 0].tolist() == [7, 1, 9]
    assert "reading: 3/3 pictures" in capsys.readouterr().err
    assert to_float(pixels)[0, 0, 0, 0] == pytest.approx(7 / 127.5 - 1)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\1", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 9])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_damaged_exif_never_ends_in_a_traceback(tmp_path, exif, suffix):
    path = tmp_path / f"face{suffix}"
    gradient().save(path, exif=exif)
    try:
        assert open_image(path).size == (20, 12)
    except ImageError as error:
        assert f"face{suffix} is damaged" in str(error)
