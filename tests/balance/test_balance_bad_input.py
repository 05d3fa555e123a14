"""Donors as people's folders hold them: each edit opens, has its donor's size, format and mode, or says why not."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from vlbias.alignment import Similarity
from vlbias.balance import Balancer
from vlbias.data.aligned import AlignedDataset
from vlbias.images import open_image
from vlbias.originals import Original

SIZE = 8
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def model(tiny):
    """The tiny autoencoder with soft patterns in place of white noise, so that they outlive enlarging and JPEG.

    Skin, smile and age are grey, as grey donors must show them; the rest is colour.
    """
    place = (torch.arange(SIZE) + 0.5) / SIZE * torch.pi
    waves = [(1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 1)]
    planes = torch.stack([torch.outer(torch.cos(v * place), torch.cos(u * place)) for u, v in waves])
    colours = torch.tensor([[1.0, 1, 1]] * 3 + [[1.0, 0, -1]] * 3)
    model = tiny.TinyDiffAE()
    model.patterns = 4 * torch.nn.functional.normalize(torch.einsum("nc,nhw->nchw", colours, planes).flatten(1), dim=1)
    return model


@pytest.fixture(scope="module")
def soft_faces(tiny, model, tmp_path_factory):
    return tiny.make_faces(tmp_path_factory.mktemp("soft"), tiny.CELLS, model=model)


@pytest.fixture
def editor(tiny, model):
    editor = tiny.TinyEditor()
    editor.diffae = model
    return editor


def plan_of(editor, faces):
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=4)
    return balancer, balancer.plan(faces, limit=3)


def edits_of(editor, faces, out):
    """Kept edits as (the donor's file, the edit's file), and the result."""
    balancer, plan = plan_of(editor, faces)
    result = balancer.run(faces, plan, out, show_progress=False)
    rows = result.table[result.table["origin"] == "edited"].to_dict("records")
    return [(faces.path(row["source_id"]), out / row["file_name"]) for row in rows], result


def grain(picture, width, height=None, seed=0):
    """A face enlarged, with the noise of a sensor."""
    large = np.asarray(picture.resize((width, height or width), Image.Resampling.BICUBIC), dtype=float)
    noise = np.random.default_rng(seed).normal(0, 2, large.shape)
    return Image.fromarray((large + noise).clip(0, 255).astype(np.uint8))


def deep_png(path, picture):
    """Colour of 16 bits, which Pillow reads and cannot write."""
    values = np.asarray(picture, dtype=">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", picture.width, picture.height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def turned_jpeg(path, picture):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = grain(picture, 40).transpose(Image.Transpose.ROTATE_90)
    stored.save(path, quality=95, subsampling=0, exif=exif)


def grey_16(path, picture):
    grey = np.asarray(grain(picture, 40).convert("L"), dtype=np.uint16) * 257
    Image.frombytes("I;16", (40, 40), grey.tobytes()).save(path)


def with_alpha(path, picture):
    picture = grain(picture, 40)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size).point(lambda a: 224 + a // 8))
    picture.save(path)


KEPT = {
    "smaller than the editor's size": (".png", lambda path, face: face.resize((6, 6), Image.Resampling.BOX).save(path)),
    "grey": (".png", lambda path, face: grain(face, 40).convert("L").save(path)),
    "grey JPEG": (".jpg", lambda path, face: grain(face, 40).convert("L").save(path, quality=90)),
    "CMYK": (".jpg", lambda path, face: grain(face, 40).convert("CMYK").save(path, quality=95)),
    "16 bit": (".png", grey_16),
    "alpha": (".png", with_alpha),
    "ICC profile": (".jpg", lambda path, face: grain(face, 40).save(path, quality=92, icc_profile=SRGB)),
    "EXIF-rotated": (".jpg", turned_jpeg),
    "10,000 pixels wide": (".jpg", lambda path, face: wide(face).save(path, quality=90)),
    "upright": (".jpg", lambda path, face: grain(face, 40, 52).save(path, quality=95)),
    "quality 20": (".jpg", lambda path, face: grain(face, 64).save(path, quality=20)),
    "progressive, upper case": (".JPG", lambda path, face: grain(face, 40).save(path, quality=90, progressive=True)),
    "another ending than its format": (".png", lambda path, face: grain(face, 40).save(path, format="JPEG")),
}


def wide(face):
    picture = Image.new("RGB", (10_000, 96), (90, 120, 150))
    picture.paste(grain(face, 96), (4952, 0))
    return picture


def converted(editor, faces, folder, kind):
    """The dataset with the planned donors' files written anew."""
    suffix, save = kind
    _, plan = plan_of(editor, faces)
    table = faces.table.copy()
    folder.mkdir()
    for item in faces.ids:
        if item in set(plan.table["donor"]):
            table.loc[item, "file_name"] = f"{item}{suffix}"
            save(folder / f"{item}{suffix}", faces.image(item))
        else:
            (folder / f"{item}.png").write_bytes(faces.path(item).read_bytes())
    return replace(faces, root=folder, table=table), set(plan.table["donor"])


@pytest.mark.parametrize("kind", KEPT)
def test_an_edit_is_of_its_donors_kind(editor, soft_faces, tmp_path, kind):
    faces, donors = converted(editor, soft_faces, tmp_path / "photos", KEPT[kind])
    pairs, result = edits_of(editor, faces, tmp_path / "out")
    pairs = [(donor, edit) for donor, edit in pairs if donor.stem in donors]
    assert pairs, result.rejected
    assert result.report["warnings"] == []
    for donor, edit in pairs:
        with Image.open(donor) as old, Image.open(edit) as new:
            new.load()
            assert (new.format, new.mode, new.size) == (old.format, old.mode, old.size)
            assert new.info.get("icc_profile") == old.info.get("icc_profile")
            assert new.getexif().get(ExifTags.Base.Orientation, 1) == old.getexif().get(ExifTags.Base.Orientation, 1)
            assert getattr(new, "quantization", None) == getattr(old, "quantization", None)
            if "A" in old.mode:
                assert new.getchannel("A").tobytes() == old.getchannel("A").tobytes()
        before, after = (np.asarray(open_image(path), dtype=int) for path in (donor, edit))
        assert before.shape == after.shape and np.abs(after - before).max() >= 10
        height, width = before.shape[:2]
        if width > 2 * height:
            # a JPEG that is opened and written on the same grid moves by what rounding takes
            beside = np.abs(np.delete(after - before, np.s_[4928:5072], axis=1))
            assert beside.max() <= 3, beside.max()


LOST = {
    "palette": (".png", lambda path, face: grain(face, 40).quantize(64).save(path), "a palette has no place"),
    "GIF": (".gif", lambda path, face: grain(face, 40).save(path), "GIF is written as PNG"),
    "black and white": (".png", lambda path, face: grain(face, 40).convert("1").save(path), "written as grey"),
    "16-bit colour": (".png", lambda path, face: deep_png(path, grain(face, 40)), "16 bits a channel"),
}


@pytest.mark.parametrize("kind", LOST)
def test_what_cannot_be_kept_is_said(editor, soft_faces, tmp_path, kind):
    suffix, save, why = LOST[kind]
    faces, donors = converted(editor, soft_faces, tmp_path / "photos", (suffix, save))
    pairs, result = edits_of(editor, faces, tmp_path / "out")
    pairs = [(donor, edit) for donor, edit in pairs if donor.stem in donors]
    assert pairs, result.rejected
    (warning,) = result.report["warnings"]
    assert why in warning and warning.startswith(f"{len(pairs)} edit")
    assert warning in result.summary() and warning in (tmp_path / "out" / "README.md").read_text()
    for donor, edit in pairs:
        assert open_image(edit).size == open_image(donor).size


def test_a_face_at_the_edge_of_its_photograph(editor, soft_faces, tmp_path):
    """A third of the crop lies outside: the edit ends at the border and leaves the rest of the photograph alone."""
    photos = tmp_path / "photos"
    photos.mkdir()
    places = {}
    for item in soft_faces.ids:
        whole = Image.new("RGB", (120, 80), (110, 110, 110))
        whole.paste(grain(soft_faces.image(item), 64), (-16, 8))
        whole.save(photos / f"{item}.png")
        places[item] = Similarity(np.array([[8.0, 0, -16], [0, 8.0, 8]]), SIZE)
    whole_faces = replace(soft_faces, root=photos)
    faces = AlignedDataset(
        name="edge", table=whole_faces.table, root=photos, license="MIT", photos=whole_faces, places=places
    )
    pairs, result = edits_of(editor, faces, tmp_path / "out")
    assert pairs, result.rejected
    for donor, edit in pairs:
        change = np.asarray(open_image(edit), dtype=int) - np.asarray(open_image(donor), dtype=int)
        assert np.abs(change[8:72, :48]).max() >= 10 and not change[:, 49:].any()
        assert not change[:7].any() and not change[73:].any()


def test_the_output_may_be_on_another_disk(editor, soft_faces, tmp_path):
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{other} is no other disk here")
    faces, _ = converted(editor, soft_faces, tmp_path / "photos", KEPT["upright"])
    out = other / f"vlbias-{os.getpid()}"
    try:
        pairs, result = edits_of(editor, faces, out)
        assert pairs and result.complete
        assert all((out / name).is_file() for name in result.table["file_name"])
        same = edits_of(editor, faces, tmp_path / "out")[0]
        assert [edit.read_bytes() for _, edit in pairs] == [edit.read_bytes() for _, edit in same]
    finally:
        shutil.rmtree(out, ignore_errors=True)


@pytest.mark.parametrize("kind", KEPT)
def test_an_edit_that_changes_nothing_is_the_donor(soft_faces, tmp_path, kind):
    suffix, save = KEPT[kind]
    save(tmp_path / f"face{suffix}", soft_faces.image(soft_faces.ids[0]))
    original = Original.read(tmp_path / f"face{suffix}")
    same = np.full((SIZE, SIZE, 3), 100.0)
    raster = original.changed(same, same)
    with Image.open(tmp_path / f"face{suffix}") as stored:
        assert raster.mode == stored.mode and raster.tobytes() == stored.tobytes()
