"""Copies of originals: the pixels to the last bit, and nothing of who took them where."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from vlbias.errors import ImageError
from vlbias.images import open_image
from vlbias.originals import Original, without_private_metadata
from vlbias.privacy import without_private
from vlbias.provenance import read_provenance

SECRETS = (b"Jane Doe", b"SN-4711", b"secret words", b"http://ns.adobe.com/xap", b"Photoshop 3.0", b"trailing bytes")


def scene(mode="RGB", size=(40, 30)):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def camera_notes(orientation=1):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Jane Doe"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "SN-4711"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg_segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(mode="RGB", orientation=6, **options):
    buffer = io.BytesIO()
    options = {"quality": 90, "comment": b"secret words", "icc_profile": profile()} | options
    scene(mode).save(buffer, "JPEG", exif=camera_notes(orientation), **options)
    data = buffer.getvalue()
    more = jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>") + jpeg_segment(0xED, b"Photoshop 3.0\0 Jane Doe")
    return data[:2] + more + data[2:] + b"trailing bytes"


def png(mode="RGB", **options):
    buffer, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret words")
    text.add_itxt("XML:com.adobe.xmp", "http://ns.adobe.com/xap Jane Doe")
    scene(mode).save(buffer, "PNG", pnginfo=text, exif=camera_notes(3), icc_profile=profile(), **options)
    return buffer.getvalue() + b"trailing bytes"


def webp(**options):
    buffer = io.BytesIO()
    scene(options.pop("mode", "RGB")).save(
        buffer, "WEBP", exif=camera_notes(8), xmp=b"http://ns.adobe.com/xap Jane Doe", icc_profile=profile(), **options
    )
    return buffer.getvalue() + b"trailing bytes"


FILES = {
    "plain.jpg": jpeg(),
    "progressive.jpg": jpeg(progressive=True),
    "restarts.jpg": jpeg(restart_marker_blocks=2),
    "grey.jpg": jpeg("L"),
    "cmyk.jpg": jpeg("CMYK", icc_profile=None),
    "plain.png": png(),
    "alpha.png": png("RGBA"),
    "palette.png": png("P", transparency=3),
    "lossy.webp": webp(quality=70),
    "lossless.webp": webp(lossless=True),
    "alpha.webp": webp(mode="RGBA", quality=70),
}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    path = tmp_path / request.param
    path.write_bytes(FILES[request.param])
    return path


def opened(data):
    image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data)
    image.load()
    return image


def test_the_pixels_the_profile_and_the_turn_stay_and_nothing_else(file, tmp_path):
    copied = without_private_metadata(file)
    before, after = opened(file), opened(copied.data)
    assert after.mode == before.mode and after.tobytes() == before.tobytes()
    assert after.info.get("icc_profile") == before.info.get("icc_profile")
    assert after.info.get("transparency") == before.info.get("transparency")
    exif = after.getexif()
    assert dict(exif) == {ExifTags.Base.Orientation: before.getexif()[ExifTags.Base.Orientation]}
    assert not any(secret in copied.data for secret in SECRETS)
    (tmp_path / f"copy{file.suffix}").write_bytes(copied.data)
    assert open_image(tmp_path / f"copy{file.suffix}").tobytes() == open_image(file).tobytes()


def test_it_is_the_files_own_coding(file):
    """Nothing is compressed again: what a copy has more than its source is the header that says how it was held."""
    kept = without_private_metadata(file).data
    assert len(kept) < len(file.read_bytes())
    if file.suffix == ".jpg":
        assert Original.read(file).options.get("qtables") == opened(kept).quantization


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP"])
def test_other_formats_are_written_anew(kind, tmp_path):
    path = tmp_path / f"face.{kind.lower()}"
    options = {"TIFF": {"tiffinfo": {315: "Jane Doe"}}, "GIF": {"comment": b"secret words"}, "BMP": {}}[kind]
    scene().save(path, kind, **options)
    path.write_bytes(path.read_bytes() + b"trailing bytes")
    copied = without_private_metadata(path)
    assert not any(secret in copied.data for secret in SECRETS)
    assert opened(copied.data).convert("RGB").tobytes() == opened(path).convert("RGB").tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_what_says_that_a_picture_is_synthetic_stays(suffix, tmp_path):
    path, made = tmp_path / f"edit{suffix}", {"synthetic": "true", "made_by": "vlbias balance: edit", "strength": "0.8"}
    buffer = io.BytesIO()
    scene().save(buffer, {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP"}[suffix], exif=camera_notes())
    (tmp_path / f"donor{suffix}").write_bytes(buffer.getvalue())
    original = Original.read(tmp_path / f"donor{suffix}")
    path.write_bytes(original.encode(original.stored, made).data)
    copied = tmp_path / f"copied{suffix}"
    copied.write_bytes(without_private_metadata(path).data)
    assert read_provenance(copied) == made
    assert opened(copied).tobytes() == opened(path).tobytes()


def test_a_second_picture_behind_the_first_is_left_out(tmp_path):
    path = tmp_path / "phone.jpg"
    first, second = scene(), scene(size=(64, 48))
    first.save(path, "MPO", save_all=True, append_images=[second], quality=90)
    copied = without_private_metadata(path)
    image = opened(copied.data)
    assert image.format == "JPEG" and image.tobytes() == opened(path).tobytes()
    assert copied.data.count(b"\xff\xd8\xff") == 1


def test_a_thumbnail_in_the_header_is_left_out():
    plain = io.BytesIO()
    scene().save(plain, "JPEG")
    data = plain.getvalue()
    header = b"JFIF\0\x01\x01\0\0\x01\0\x01" + b"\x02\x02" + b"\x07" * 12
    with_thumbnail = data[:2] + jpeg_segment(0xE0, header) + data[20:]
    kept = without_private(with_thumbnail)
    assert opened(kept).tobytes() == opened(with_thumbnail).tobytes() and b"\x07" * 12 not in kept


@pytest.mark.parametrize("name", FILES)
def test_damage_is_left_to_the_reader(name):
    """A file that is cut off anywhere is never taken for a whole one."""
    whole = FILES[name].removesuffix(b"trailing bytes")
    for length in range(0, len(whole) - 1, max(1, len(whole) // 97)):
        assert without_private(whole[:length]) is None
    assert without_private(b"GIF89a") is None and without_private(b"") is None


def test_a_png_chunk_of_any_length_ends_in_none():
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 0xFFFFFFFF, b"IHDR") + b"\0" * 40
    assert without_private(bomb) is None
    assert zlib.crc32(b"") == 0 and without_private(b"RIFF\xff\xff\xff\xffWEBP") is None


def test_what_is_no_picture_says_so(tmp_path):
    (tmp_path / "face.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    with pytest.raises(ImageError, match=r"face\.jpg"):
        without_private_metadata(tmp_path / "face.jpg")


def test_what_hides_behind_a_field_or_in_a_name_is_left_out(tmp_path):
    data = jpeg("CMYK", icc_profile=None).removesuffix(b"trailing bytes")
    adobe = b"Adobe\0\x64\0\0\0\0\x00"
    hidden = jpeg_segment(0xEE, adobe + b"Jane Doe") + jpeg_segment(0xF3, b"secret words")
    kept = without_private(data[:2] + hidden + data[2:])
    assert not any(secret in kept for secret in SECRETS)
    assert opened(kept).size == opened(data).size
    named = png()
    name = named.index(b"iCCP") + 4
    length = struct.unpack(">I", named[name - 8 : name - 4])[0]
    body = b"Monitor of Jane Doe" + named[named.index(b"\0", name) : name + length]
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body + struct.pack(">I", zlib.crc32(b"iCCP" + body))
    palette = b"Jane Doe\0\x08" + b"\0" * 6
    palette = struct.pack(">I", len(palette)) + b"sPLT" + palette + struct.pack(">I", zlib.crc32(b"sPLT" + palette))
    named = named[: name - 8] + palette + chunk + named[name + length + 4 :]
    kept = without_private(named)
    assert b"Jane Doe" in named and b"Jane Doe" not in kept
    assert opened(kept).info["icc_profile"] == opened(named).info["icc_profile"] == profile()
    assert opened(kept).tobytes() == opened(named).tobytes()
