"""Photographs with a face somewhere in them: balanced whole, or as aligned crops."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
import torch
from photographs import KnownFaces, found_at, photograph, placed
from PIL import ExifTags, Image
from typer.testing import CliRunner

from vlbias import Editor, report
from vlbias.alignment import cut
from vlbias.balance import Balancer
from vlbias.cli import app
from vlbias.data import FaceDataset, align_dataset, load_dataset
from vlbias.errors import ConfigError, OutputError, PlanError
from vlbias.images import open_image, to_pil, to_tensor
from vlbias.leak import LeakSettings
from vlbias.pages.folder import RunFiles
from vlbias.pages.page import data_uri
from vlbias.provenance import read_provenance

SCALE = 10  # photograph pixels for one pixel of a tiny face
CELLS = {("train", 0, "light"): 9, ("train", 0, "dark"): 3, ("train", 1, "light"): 3, ("train", 1, "dark"): 7}

ORIENTATION = ExifTags.Base.Orientation


def soft_editor(tiny):
    """The tiny editor with patterns of low frequency, which survive being enlarged and shrunk again."""
    editor = tiny.TinyEditor()
    editor.layout = "synthfaces"
    waves = [torch.cos(torch.pi * (torch.arange(tiny.SIZE) + 0.5) * k / tiny.SIZE) for k in range(3)]
    planes = [torch.outer(waves[k], waves[m]) for k, m in ((1, 1), (1, 0), (0, 1), (2, 0), (0, 2), (0, 0))]
    editor.diffae.patterns = torch.linalg.qr(torch.stack([p.repeat(3, 1, 1).flatten() for p in planes]).T)[0].T * 4
    return editor


def tiny_face(tiny, rng, smile, skin) -> Image.Image:
    """A face that the tiny editor reads as told."""
    z = rng.normal(0, 0.3, tiny.DIM)
    z[0] = (1 if skin == "dark" else -1) * rng.uniform(0.2, 0.45)
    z[1] = (1 if smile else -1) * rng.uniform(0.25, 0.45)
    x_T = torch.tensor(rng.normal(size=(1, 3, tiny.SIZE, tiny.SIZE)), dtype=torch.float32)
    return to_pil(soft_editor(tiny).diffae.decode(torch.tensor(z[None], dtype=torch.float32), x_T))[0]


def make_album(tiny, folder, ending):
    """22 photographs of one face, one of two, one of none; cameras turned some, and one face is at the edge."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows, files = [], {}
    labels = [cell for cell, n in CELLS.items() for _ in range(n)]
    for number, (split, smile, skin) in enumerate([*labels, ("train", 0, "light"), ("train", 0, "light")]):
        centre = (30, 90) if number == 1 else (130, 90)
        num_faces = {len(labels): 2, len(labels) + 1: 0}.get(number, 1)
        places = [placed(0, SCALE, centre, tiny.SIZE), placed(0, SCALE / 2, (40, 40), tiny.SIZE)][:num_faces]
        faces = [tiny_face(tiny, rng, smile, skin) for _ in places]
        photo, found = photograph(*places, size=(240, 180), faces=faces)
        exif = Image.Exif()
        if number % 3 == 2:
            exif[0x0112] = 8
            photo = photo.transpose(Image.Transpose.ROTATE_270)
        path = folder / f"{number:02d}{ending}"
        photo.save(path, exif=exif, **({"quality": 90, "subsampling": 2} if ending == ".jpg" else {}))
        files[path] = found
        rows.append({"file_name": path.name, "split": split, "smile": smile, "skin": skin})
    faces = FaceDataset("album", pd.DataFrame(rows, index=[row["file_name"] for row in rows]), root=folder)
    return faces, KnownFaces(files)


@pytest.fixture(scope="module")
def png_album(tiny, tmp_path_factory):
    return make_album(tiny, tmp_path_factory.mktemp("png") / "album", ".png")


@pytest.fixture(scope="module")
def jpeg_album(tiny, tmp_path_factory):
    return make_album(tiny, tmp_path_factory.mktemp("jpeg") / "album", ".jpg")


def aligned(album, **options):
    faces, detector = album
    return align_dataset(faces, layout="synthfaces", detector=detector, show_progress=False, **options)


def balance(tiny, faces, out, **run):
    balancer = Balancer(soft_editor(tiny), target="smile", protected="skin", chunk_size=4)
    return balancer.run(faces, balancer.plan(faces), out, show_progress=False, **run)


@pytest.fixture(scope="module")
def whole(tiny, png_album, tmp_path_factory):
    return balance(tiny, aligned(png_album), tmp_path_factory.mktemp("run") / "whole")


@pytest.fixture(scope="module")
def crops(tiny, jpeg_album, tmp_path_factory):
    return balance(tiny, aligned(jpeg_album, write="crop"), tmp_path_factory.mktemp("run") / "crops")


def edits_of(result):
    return result.table[result.table["origin"] == "edited"].to_dict("records")


def test_faces_are_balanced_and_what_has_none_is_listed(whole):
    assert whole.complete and len(edits_of(whole)) == whole.report["edits"]["kept"] >= 8  # 10 are planned
    assert whole.report["counts_before"] == {"0": {"light": 9, "dark": 3}, "1": {"light": 3, "dark": 7}}
    assert [(row["file"], row["code"]) for row in whole.report["left_out"]] == [
        ("22.png", "several_faces"),
        ("23.png", "no_face"),
    ]
    assert whole.report["alignment"]["write"] == "whole"
    card = (whole.out_dir / "README.md").read_text()
    assert "found in photographs by known faces 1. Edits are put back into the whole photographs" in card


def test_whole_photographs_change_inside_the_crop_alone(whole, png_album):
    faces = aligned(png_album)
    for row in edits_of(whole):
        before, after = png_album[0].path(row["source_id"]), whole.out_dir / row["file_name"]
        with Image.open(before) as one, Image.open(after) as other:
            assert (one.size, one.mode, one.format) == (other.size, other.mode, other.format)  # stored as turned
        change = np.abs(np.asarray(open_image(after), int) - np.asarray(open_image(before), int)).max(axis=2)
        place = faces.placement(row["source_id"])
        y, x = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
        at = place.to_crop(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*change.shape, 2) / place.size
        outside = ((at < 0) | (at > 1)).any(axis=2)
        assert not change[outside].any() and change[~outside].max() > 20
        assert read_provenance(after)["source"] == row["source_id"]


def test_the_face_that_was_asked_for_is_in_the_written_photograph(whole, png_album, tiny):
    model, faces = soft_editor(tiny).diffae, aligned(png_album)
    for row in edits_of(whole):
        face = cut(open_image(whole.out_dir / row["file_name"]), faces.placement(row["source_id"]))
        z, donor = (model.encode(to_tensor(picture, tiny.SIZE))[0] for picture in (face, faces.image(row["source_id"])))
        assert (z[0] > 0) == (row["skin"] == "dark") and (donor[0] > 0) != (row["skin"] == "dark")
        assert (z[1] > 0) == (row["smile"] == 1)


def test_originals_of_whole_photographs_are_the_files(whole, png_album):
    for row in whole.table[whole.table["origin"] == "real"].to_dict("records"):
        copy, source = Image.open(whole.out_dir / row["file_name"]), Image.open(png_album[0].path(row["source_id"]))
        assert copy.tobytes() == source.tobytes()
        assert copy.getexif().get(ORIENTATION) == source.getexif().get(ORIENTATION)


def test_a_face_box_says_where_to_look(whole, png_album, tmp_path):
    row = next(row for row in edits_of(whole) if row["source_id"] != "01.png")
    assert row["face_box"] == "90,50,170,130"  # 80 pixels around (130, 90)
    beyond = whole.table[whole.table["source_id"] == "01.png"].iloc[0]
    assert beyond["face_box"] == "-10,50,70,130"
    read = load_dataset("folder", whole.out_dir)
    assert "face_box" not in read.attributes and read.attributes == ["smile", "skin"]
    shown = RunFiles(whole.out_dir)
    photo = open_image(whole.out_dir / row["file_name"])
    assert shown.image(row["file_name"]) == data_uri(photo.crop((90, 50, 170, 130)))
    assert shown.image(beyond["file_name"]) is not None
    text = report.write(whole.out_dir).read_text()
    assert "written back into the whole photographs" in text and "--align --write whole --face only" in text
    assert "several_faces 1, no_face 1" in text


def test_crops_are_written_alike(crops, jpeg_album):
    """Originals and edits: one size, one format, one compression."""
    faces = aligned(jpeg_album, write="crop")
    tables = set()
    for row in crops.table.to_dict("records"):
        assert row["file_name"].endswith(".jpg")
        with Image.open(crops.out_dir / row["file_name"]) as written, Image.open(jpeg_album[0].path("00.jpg")) as photo:
            assert written.size == faces.image(row["source_id"]).size == (80, 80) and written.mode == "RGB"
            assert written.quantization == photo.quantization and not written.getexif()
            tables.add((json.dumps(written.quantization), tuple(layer[1:3] for layer in written.layer)))
    assert len(tables) == 1 and "face_box" not in crops.table
    assert "Originals and edits are both the aligned crop" in (crops.out_dir / "README.md").read_text()


def test_an_original_crop_is_compressed_once(crops, jpeg_album):
    """It is what one JPEG compression makes of the photograph's pixels; an edit that changes nothing is the same."""
    faces = aligned(jpeg_album, write="crop")
    row = crops.table[crops.table["origin"] == "real"].iloc[0]
    buffer = io.BytesIO()
    with Image.open(jpeg_album[0].path(row["source_id"])) as photo:
        faces.image(row["source_id"]).save(buffer, "JPEG", qtables=photo.quantization, subsampling=2)
    written = crops.out_dir / row["file_name"]
    assert open_image(written).tobytes() == Image.open(buffer).tobytes()
    original, flat = faces.original(row["source_id"]), np.zeros((8, 8, 3))
    assert original.encode(original.changed(flat, flat)).data == written.read_bytes()


@pytest.mark.parametrize("write", ["whole", "crop"])
def test_a_killed_run_ends_with_the_same_bytes(tiny, jpeg_album, tmp_path, write, monkeypatch):
    faces = aligned(jpeg_album, write=write)
    straight = balance(tiny, faces, tmp_path / "straight")
    commits = []

    class Killed(Exception):
        pass

    from vlbias.balance.run_folder import RunFolder

    commit = RunFolder.commit_chunk

    def kills(self, *arguments):
        commits.append(arguments)
        if len(commits) == 2:
            raise Killed
        commit(self, *arguments)

    monkeypatch.setattr(RunFolder, "commit_chunk", kills)
    with pytest.raises(Killed):
        balance(tiny, faces, tmp_path / "killed")
    monkeypatch.undo()
    # a new process aligns anew, from the landmarks that were kept
    calls = jpeg_album[1].calls
    resumed = balance(tiny, aligned(jpeg_album, write=write), tmp_path / "killed")
    assert jpeg_album[1].calls == calls
    names = sorted(p.relative_to(straight.out_dir) for p in straight.out_dir.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(resumed.out_dir) for p in resumed.out_dir.rglob("*") if p.is_file())
    for name in names:
        assert (straight.out_dir / name).read_bytes() == (resumed.out_dir / name).read_bytes(), name


def test_originals_that_are_in_place_are_not_written_again(tiny, jpeg_album, crops):
    place = crops.out_dir / crops.table[crops.table["origin"] == "real"].iloc[0]["file_name"]
    before = place.stat().st_mtime_ns
    (crops.out_dir / ".state" / "done.json").unlink()
    again = balance(tiny, aligned(jpeg_album, write="crop"), crops.out_dir)
    assert place.stat().st_mtime_ns == before and again.table.equals(crops.table)


def test_another_alignment_is_another_job(tiny, jpeg_album, crops):
    with pytest.raises(OutputError, match="write` is 'crop' there and 'whole' here"):
        balance(tiny, aligned(jpeg_album), crops.out_dir)
    with pytest.raises(OutputError, match="lies in the dataset's own folder"):
        balance(tiny, aligned(jpeg_album), jpeg_album[0].root / "out")


def test_faces_that_were_cut_for_another_editor_are_refused(tiny, png_album):
    faces, detector = png_album
    wrong = align_dataset(faces, layout="ffhq", detector=detector, show_progress=False)
    with pytest.raises(PlanError, match="were cut as 'ffhq', but editor 'tiny' was trained on 'synthfaces'"):
        Balancer(soft_editor(tiny), target="smile", protected="skin").plan(wrong)


def test_a_photograph_that_breaks_in_between_is_turned_down(tiny, tmp_path):
    faces, detector = make_album(tiny, tmp_path / "album", ".png")
    found = aligned((faces, detector))
    path = faces.path("03.png")
    path.write_bytes(path.read_bytes()[:2000])
    result = balance(tiny, found, tmp_path / "out")
    assert result.report["unreadable"] == ["03.png"]


def test_sizes_are_known_without_reading(jpeg_album):
    whole, crop = aligned(jpeg_album), aligned(jpeg_album, write="crop")
    assert whole.stored_size("00.jpg")[:2] == (240, 180) and crop.stored_size("00.jpg")[:2] == (80, 80)
    share = crop.stored_size("00.jpg").num_bytes / whole.stored_size("00.jpg").num_bytes
    assert share == pytest.approx(80 * 80 / (240 * 180), rel=0.01)


def test_known_faces_agree_with_where_they_were_put(png_album):
    place = placed(0, SCALE, (130, 90), 8)
    assert np.allclose(aligned(png_album).placement("00.png").corners(), place.corners(), atol=0.1)
    assert found_at(place).width == 80


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tiny, png_album, monkeypatch):
    """Runs `vlbias balance` on the album, with the tiny editor and the detector that knows the album."""
    faces, detector = png_album
    faces.table.to_csv(faces.root / "metadata.csv", index=False)
    editor = soft_editor(tiny)
    monkeypatch.setattr("vlbias.cli.balance.open_editor", lambda name: editor)
    monkeypatch.setattr("vlbias.data.aligned.default_detector", lambda: detector)

    def call(out, *words):
        line = ["balance", str(faces.root), str(out), "--target", "smile", "--protected", "skin", *map(str, words)]
        return CliRunner().invoke(app, line)

    return call


def test_the_command_says_what_it_found_and_writes_whole_photographs(command, png_album, tmp_path, whole):
    result = command(tmp_path / "out", "--align", "--chunk-size", 4)
    assert result.exit_code == 0, result.output
    assert "faces found in 22 of 24 photographs; left out: several_faces 1, no_face 1" in result.output
    assert "note: 22.png: several_faces: 22.png has 2 faces" in result.output
    edit = edits_of(whole)[0]["file_name"]
    assert (tmp_path / "out" / edit).read_bytes() == (whole.out_dir / edit).read_bytes()
    calls = png_album[1].calls
    again = command(tmp_path / "other", "--align", "--write", "crop", "--face", "largest", "--dry-run")
    assert "faces found in 23 of 24 photographs; left out: no_face 1" in again.output
    assert png_album[1].calls == calls and not (tmp_path / "other").exists()


def test_the_command_keeps_landmarks_where_it_is_told(command, png_album, tmp_path):
    kept = tmp_path / "kept.sqlite"
    assert command(tmp_path / "out", "--align", "--dry-run", "--landmarks", kept).exit_code == 0
    assert kept.is_file()
    inside = command(tmp_path / "out", "--align", "--dry-run", "--landmarks", png_album[0].root / "kept.sqlite")
    assert isinstance(inside.exception, ConfigError) and "own folder" in str(inside.exception)


@pytest.mark.parametrize("words", [("--write", "crop"), ("--face", "largest"), ("--landmarks", "kept.sqlite")])
def test_options_that_do_nothing_are_refused(command, tmp_path, words):
    result = command(tmp_path / "out", *words)
    assert result.exit_code == 2 and f"{words[0]}: goes with --align" in result.output
    result = CliRunner().invoke(app, ["balance", "prior:9", "out", "--target", "a", "--protected", "b", "--align"])
    assert result.exit_code == 2 and "prior:N has no photographs" in result.output


# -- a real editor ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_shipped_editor_leaves_no_square(tmp_path):
    """Drawn faces in larger photographs, edited by synthfaces-64 and put back."""
    drawn = load_dataset("synthfaces", n=90, seed=3)
    table = drawn.table[["split", "smile", "skin"]].assign(split="train")
    files = {}
    for number, item in enumerate(drawn.ids):
        place = placed(number % 30 - 15, 2.2, (100, 90), 64)
        photo, found = photograph(place, size=(200, 180), faces=[drawn.image(item).resize((64, 64))])
        files[tmp_path / f"{item}.png"] = found
        photo.save(tmp_path / f"{item}.png")
    table.insert(0, "file_name", [f"{item}.png" for item in drawn.ids])
    photos = FaceDataset("scenes", table, root=tmp_path)
    editor = Editor.from_pretrained("synthfaces-64")
    faces = align_dataset(photos, layout=editor.layout, detector=KnownFaces(files), show_progress=False)
    balancer = Balancer(editor, target="smile", protected="skin")
    result = balancer.run(faces, balancer.plan(faces, limit=3), tmp_path.parent / "scenes", show_progress=False)
    edits = edits_of(result)
    assert edits
    for row in edits:
        before, after = photos.image(row["source_id"]), open_image(result.out_dir / row["file_name"])
        change = np.abs(np.asarray(after, int) - np.asarray(before, int)).max(axis=2)
        place = faces.placement(row["source_id"])
        y, x = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
        at = place.to_crop(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*change.shape, 2) / place.size
        depth = np.minimum(at, 1 - at).min(axis=2)  # 0 on the crop's border
        assert not change[depth < 0].any() and change[depth > 0.2].max() > 30
        assert change[(depth >= 0) & (depth < 0.02)].max() <= 0.1 * change.max()


def test_copies_of_originals_keep_nothing_private_unless_asked(tiny, tmp_path):
    faces = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    for path in map(faces.path, faces.table.index):
        exif = Image.Exif()
        exif[ExifTags.Base.Artist] = "Jane Doe"
        Image.open(path).save(path, exif=exif)
    for originals, number in (("copy", 0), ("exact", len(faces))):
        out = tmp_path / originals
        balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin", leak=LeakSettings(sizes=()))
        result = balancer.run(faces, balancer.plan(faces, limit=2), out, originals=originals, show_progress=False)
        real = result.table[result.table["origin"] == "real"]
        files = [out / name for name in real["file_name"]]
        assert len(files) == len(faces) and sum(b"Jane Doe" in file.read_bytes() for file in files) == number
        for file, item in zip(files, real["source_id"], strict=True):
            assert Image.open(file).tobytes() == Image.open(faces.path(item)).tobytes()
