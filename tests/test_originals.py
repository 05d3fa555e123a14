"""What is written beside an original looks like one: its pixels, mode, rotation, format and quality."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from vlbias.alignment import Similarity
from vlbias.errors import ImageError, ShapeError
from vlbias.images import open_image, to_tensor
from vlbias.originals import Original, centre_square
from vlbias.provenance import read_provenance

SMALL = 16
PROVENANCE = {"synthetic": "true", "editor": "tiny", "note": "grün"}


def scene(width=60, height=60, seed=0):
    """A smooth picture with grain, no value near the ends of the range."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    plane = 110 + 40 * np.sin(x / 9) + 25 * np.cos(y / 7)
    return Image.fromarray((plane[..., None] + rng.normal(0, 6, (height, width, 3))).clip(20, 235).astype(np.uint8))


def small(picture):
    return (to_tensor(picture, SMALL)[0].permute(1, 2, 0).numpy() + 1) * 127.5


def brighter(picture, by=12.0):
    before = small(picture)
    return before, before + by


SAVED = {
    "jpeg": (".jpg", {"quality": 87, "subsampling": 2}),
    "jpeg of quality 20": (".jpeg", {"quality": 20}),
    "progressive jpeg": (".jpg", {"quality": 90, "progressive": True, "subsampling": 0}),
    "png": (".png", {}),
    "webp": (".webp", {"quality": 60}),
    "lossless webp": (".webp", {"lossless": True}),
    "tiff": (".tif", {"compression": "tiff_lzw"}),
    "bmp": (".bmp", {}),
}


@pytest.mark.parametrize("kind", SAVED)
def test_an_edit_is_written_as_its_donor_is(tmp_path, kind):
    suffix, options = SAVED[kind]
    path = tmp_path / f"face{suffix}"
    scene().save(path, **options)
    original = Original.read(path)
    file = original.encode(original.changed(*brighter(original.upright)), PROVENANCE)
    written = tmp_path / f"edit{file.suffix}"
    written.write_bytes(file.data)
    assert file.suffix == suffix and original.notes == ()
    with Image.open(path) as donor, Image.open(written) as edit:
        assert (edit.format, edit.mode, edit.size) == (donor.format, donor.mode, donor.size)
        assert getattr(edit, "quantization", None) == getattr(donor, "quantization", None)
        assert edit.info.get("progressive") == donor.info.get("progressive")
    rise = np.asarray(open_image(written), dtype=float) - np.asarray(open_image(path), dtype=float)
    # coarse tables round a rise of the whole picture to their own steps
    assert rise.mean() == pytest.approx(12, abs=3 if "20" in kind else 0.6)
    assert read_provenance(written) == ({} if suffix == ".bmp" else PROVENANCE)


def test_the_quality_of_a_webp_is_found_again(tmp_path):
    for quality in (30, 80):
        scene(200, 200).save(tmp_path / "face.webp", quality=quality)
        found = Original.read(tmp_path / "face.webp").options["quality"]
        assert abs(found - quality) <= 15  # a picture that was compressed before comes out a little smaller


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "CMYK", "I;16"])
def test_modes_are_kept_and_take_the_difference(tmp_path, mode):
    picture = scene()
    if mode == "I;16":
        grey = np.asarray(picture.convert("L"), dtype=np.uint16) * 257 + 3
        stored = Image.frombytes("I;16", picture.size, grey.tobytes())
    else:
        stored = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        stored.putalpha(Image.linear_gradient("L").resize(stored.size).point(lambda a: 128 + a // 2))
    path = tmp_path / ("face.jpg" if mode == "CMYK" else "face.png")
    stored.save(path, **({"quality": 95} if mode == "CMYK" else {}))
    original = Original.read(path)
    raster = original.changed(*brighter(original.upright))
    assert raster.mode == original.stored.mode == mode and original.notes == ()
    (tmp_path / f"edit{path.suffix}").write_bytes(original.encode(raster, PROVENANCE).data)
    with Image.open(tmp_path / f"edit{path.suffix}") as edit:
        assert edit.mode == mode
        if mode in ("RGBA", "LA"):
            assert edit.getchannel("A").tobytes() == stored.getchannel("A").tobytes()
        if mode == "I;16":
            steps = np.asarray(edit, dtype=int) - np.asarray(stored, dtype=int)
            assert abs(steps.mean() - 12 * 257) < 2 and set(np.unique(np.asarray(edit) % 257)) != {0}
    rise = np.asarray(open_image(tmp_path / f"edit{path.suffix}"), float) - np.asarray(open_image(path), float)
    # on white behind glass of three quarters, a rise of 12 shows as 9
    assert rise.mean() == pytest.approx(9 if mode in ("RGBA", "LA") else 12, abs=1.0)


@pytest.mark.parametrize(("mode", "why"), [("P", "palette"), ("1", "black-and-white")])
def test_modes_that_cannot_hold_a_change_say_why(tmp_path, mode, why):
    scene().convert(mode).save(tmp_path / "face.png")
    original = Original.read(tmp_path / "face.png")
    assert why in " ".join(original.notes) and original.stored.mode == ("RGB" if mode == "P" else "L")


def test_a_gif_becomes_a_png_and_says_so(tmp_path):
    scene().save(tmp_path / "face.gif")
    original = Original.read(tmp_path / "face.gif")
    assert (original.format, original.suffix) == ("PNG", ".png") and "GIF is written as PNG" in original.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_rotated_picture_is_changed_where_people_see_it(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    scene(64, 40).save(tmp_path / f"face{suffix}", exif=exif, **options)
    original = Original.read(tmp_path / f"face{suffix}")
    shown = open_image(tmp_path / f"face{suffix}")
    assert original.size == shown.size == ((40, 64) if orientation >= 5 else (64, 40))
    before = small(shown)
    after = before.copy()
    after[:4, SMALL // 2 :] += 30  # upper right of the square that people see
    file = original.encode(original.changed(before, after))
    (tmp_path / f"edit{suffix}").write_bytes(file.data)
    rise = np.asarray(open_image(tmp_path / f"edit{suffix}"), float) - np.asarray(shown, float)
    left, top = (shown.width - 40) // 2, (shown.height - 40) // 2
    square = rise[top : top + 40, left : left + 40]
    assert square[3:7, 24:32].mean() > 10 and abs(square[20:, :20].mean()) < 1.0


def test_what_does_not_change_is_the_donor_exactly(tmp_path):
    scene(70, 50).save(tmp_path / "face.png")
    original = Original.read(tmp_path / "face.png")
    before = small(original.upright)
    assert original.changed(before, before).tobytes() == scene(70, 50).tobytes()
    after = before.copy()
    after[-1, -1] += 50
    beside = np.asarray(original.changed(before, after), int) - np.asarray(scene(70, 50), int)
    assert not beside[:, :10].any() and not beside[:, 60:].any()  # outside of the central square
    assert not beside[:30].any()


def test_a_change_does_not_ring_and_keeps_the_grain(tmp_path):
    picture = scene(128, 128)
    original = Original.of_picture(picture)
    before = small(picture)
    after = before.copy()
    after[:, SMALL // 2 :] += 40
    rise = np.asarray(original.changed(before, after), int) - np.asarray(picture, int)
    assert rise.min() == 0 and rise.max() == 40  # no overshoot beside the edge
    assert np.ptp(rise[:, :48]) == 0 and np.ptp(rise[:, 80:]) == 0  # grain is untouched on both sides


def test_a_change_of_one_colour_leaves_the_others():
    picture = scene(128, 128)
    before = small(picture)
    changed = Original.of_picture(picture).changed(before, before + np.array((20, 0, 0)))
    rise = np.asarray(changed, int) - np.asarray(picture, int)
    assert (rise == (20, 0, 0)).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photograph_without_colour_stays_without(tmp_path, suffix):
    scene().convert("L").convert("RGB").save(tmp_path / f"grey{suffix}")
    original = Original.read(tmp_path / f"grey{suffix}")
    before = small(original.upright)
    redder = before + np.array([20.0, 0.0, -10.0])
    file = original.encode(original.changed(before, redder))
    changed = np.asarray(file.open()).astype(int)
    assert np.ptp(changed, axis=2).max() == 0
    # the change of brightness is there: .299 * 20 - .114 * 10
    assert (changed - np.asarray(original.upright)).mean() == pytest.approx(4.84, abs=0.4)
    coloured = Original.of_picture(scene()).changed(before, redder)
    assert (np.asarray(coloured).astype(int) - np.asarray(scene()))[..., 0].mean() == pytest.approx(20, abs=0.5)


def test_a_placement_carries_the_change_into_a_photo():
    photo = scene(200, 120)
    original = Original.of_picture(photo)
    placement = Similarity(np.array([[2.0, 0, 120], [0, 2.0, 60]]), SMALL)
    before = np.zeros((SMALL, SMALL, 3))
    rise = np.asarray(original.changed(before, before + 20, placement), int) - np.asarray(photo, int)
    assert rise[70:82, 130:142].min() == 20 and not rise[:60].any() and not rise[:, :120].any()
    assert not rise[92:].any() and not rise[:, 152:].any()


def display_p3() -> bytes:
    """A profile with the primaries of Display P3 and gamma 2.2, written by hand: no library at hand makes one."""
    columns = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + fixed(*values)

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    said = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + b"\0" * 80
    tags = [(b"desc", said), (b"wtpt", xyz((0.9642, 1, 0.8249)))]
    tags += [(name, xyz(column)) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    table, body = b"", b""
    for name, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    size = 132 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s6H4s4s", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ", 2020, 1, 1, 0, 0, 0,
                       b"acsp", b"APPL")  # fmt: skip
    head += b"\0" * 24 + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_change_of_colour_is_the_same_in_every_profile(tmp_path, mode):
    """What people see changes as the edit says, whatever numbers a file has for it; untouched numbers stay."""
    scene().convert(mode).save(tmp_path / "p3.png", icc_profile=display_p3())
    original = Original.read(tmp_path / "p3.png")
    before = small(original.upright)
    change = np.array([30.0, -18.0, 6.0])
    raster = original.changed(before, before + change)
    (tmp_path / "edit.png").write_bytes(original.encode(raster).data)
    seen = np.asarray(open_image(tmp_path / "edit.png"), np.float32) - np.asarray(original.upright, np.float32)
    assert np.abs(seen.mean(axis=(0, 1)) - change).max() < 1.0
    plain = np.asarray(raster, np.float32)[..., :3] - np.asarray(original.stored, np.float32)[..., :3]
    assert abs(plain.mean(axis=(0, 1))[0] - 30) > 3, "the numbers themselves change by something else"
    assert np.array_equal(np.asarray(original.changed(before, before)), np.asarray(original.stored))


def grey_profile() -> bytes:
    """Grey with a gamma of 1.0: numbers of light, which people see much brighter than they are written."""
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    said = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"G1\0" + b"\0" * 81
    white = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1, 0.8249))
    tags = ((b"desc", said), (b"wtpt", white), (b"kTRC", curve))
    table, body = b"", b""
    for name, data in tags:
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s6H4s4s", 132 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY",
                       b"XYZ ", 2020, 1, 1, 0, 0, 0, b"acsp", b"APPL")  # fmt: skip
    head += b"\0" * 24 + white[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


@pytest.mark.parametrize("is_edited", [False, True])
@pytest.mark.parametrize(
    ("mode", "suffix", "transparency"),
    [
        ("P", ".png", 0),
        ("P", ".png", None),
        ("P", ".gif", None),
        ("RGB", ".png", (1, 2, 3)),
        ("RGBA", ".png", None),
        ("RGBA", ".webp", None),
        ("RGB", ".jpg", None),
        ("L", ".png", 3),
        ("L", ".png", None),
        ("LA", ".png", None),
        ("L", ".jpg", None),
    ],
)
def test_colours_of_every_mode_are_those_of_the_profile(tmp_path, mode, suffix, transparency, is_edited):
    """What people see of a copy, changed or not, is what they see of the file: transparent, with a palette, grey."""
    profile = grey_profile() if mode in ("L", "LA") else display_p3()
    colour = (150, 150, 150) if mode in ("L", "LA") else (170, 90, 60)
    picture = Image.new("RGB", (SMALL, SMALL), colour).convert(mode)
    options = {} if transparency is None else {"transparency": transparency}
    picture.save(tmp_path / f"a{suffix}", icc_profile=profile, **options)
    with Image.open(tmp_path / f"a{suffix}") as stored:
        if not stored.info.get("icc_profile"):
            pytest.skip("the format keeps no profile")
    seen = np.asarray(open_image(tmp_path / f"a{suffix}"), float).mean(axis=(0, 1))
    assert np.abs(seen - colour).max() > 10, "the profile changes what is seen"
    original = Original.read(tmp_path / f"a{suffix}")
    assert np.abs(small(original.upright).mean(axis=(0, 1)) - seen).max() < 2
    raster = original.stored
    if is_edited:
        before = small(original.upright)
        raster = original.changed(before, before + 8.0)
    (tmp_path / f"b{original.suffix}").write_bytes(original.encode(raster).data)
    again = np.asarray(open_image(tmp_path / f"b{original.suffix}"), float).mean(axis=(0, 1))
    # the numbers of a grey picture take the change as they are: its profile makes something else of it
    assert np.abs(again - seen - 8.0 * is_edited).max() < (3 if mode not in ("L", "LA") else 9)


def test_a_crop_is_written_in_the_colours_that_are_seen(tmp_path):
    Image.new("RGB", (80, 80), (170, 90, 60)).save(tmp_path / "a.jpg", icc_profile=display_p3(), quality=95)
    original = Original.read(tmp_path / "a.jpg")
    square = original.cut(centre_square(80, 80, 40))
    (tmp_path / "b.jpg").write_bytes(square.encode(square.stored).data)
    one, other = (np.asarray(open_image(tmp_path / name), float).mean(axis=(0, 1)) for name in ("a.jpg", "b.jpg"))
    assert np.abs(one - other).max() < 3


def test_a_profile_travels_along(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    scene().save(tmp_path / "face.jpg", icc_profile=profile)
    original = Original.read(tmp_path / "face.jpg")
    (tmp_path / "edit.jpg").write_bytes(original.encode(original.stored).data)
    with Image.open(tmp_path / "edit.jpg") as edit:
        assert edit.info["icc_profile"] == profile


def test_private_notes_of_the_camera_do_not_travel_along(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    exif[ExifTags.Base.Orientation] = 6
    scene().save(tmp_path / "face.jpg", exif=exif, comment=b"at home")
    original = Original.read(tmp_path / "face.jpg")
    data = original.encode(original.stored, PROVENANCE).data
    assert b"somebody" not in data and b"at home" not in data and b"synthetic" in data


def test_a_wide_picture_is_changed_in_strips():
    picture = Image.new("RGB", (3000, 700), (90, 90, 90))
    original = Original.of_picture(picture)
    before = np.zeros((SMALL, SMALL, 3))
    rise = np.asarray(original.changed(before, before + 9), int)[..., 0] - 90
    assert (rise[:, 1400:1600] == 9).all()  # every strip of rows, no seam between them
    assert not rise[:, :1150].any()


def test_centre_square_is_what_to_tensor_cuts():
    corners = centre_square(300, 200, 64).corners()
    assert corners.min(axis=0).tolist() == [50, 0] and corners.max(axis=0).tolist() == [250, 200]


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ShapeError, match=r"must be \(s, s, 3\); got \(4, 5, 3\)"):
        Original.of_picture(scene()).changed(np.zeros((4, 5, 3)), np.zeros((4, 5, 3)))
    (tmp_path / "face.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"face.jpg is not a picture"):
        Original.read(tmp_path / "face.jpg")
    assert read_provenance(_saved(tmp_path / "plain.jpg")) == {}


def _saved(path):
    scene().save(path, comment=b"[1, 2")
    return path
