"""Links in a dataset lead nowhere unless its user says so."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from vlbias import load_dataset
from vlbias.data import open_dataset
from vlbias.data.files import list_pictures
from vlbias.errors import DatasetError


def picture(path, grey=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey,) * 3).save(path)
    return path


@pytest.fixture
def private(tmp_path):
    """A picture and a folder of pictures that nobody meant to pass on."""
    picture(tmp_path / "private" / "me.png", 1)
    return tmp_path / "private"


@pytest.fixture
def root(tmp_path):
    for number in range(4):
        picture(tmp_path / "set" / ("a", "b")[number % 2] / f"{number}.png", 40 * number)
    return tmp_path / "set"


def names(faces):
    return sorted(faces.table["file_name"])


def test_linked_pictures_and_folders_are_left_out_and_listed(root, private):
    (root / "a" / "me.png").symlink_to(private / "me.png")
    (root / "c").symlink_to(private)
    faces = load_dataset("folder", root)
    assert names(faces) == ["a/0.png", "a/2.png", "b/1.png", "b/3.png"]
    assert [(problem.file, problem.code) for problem in faces.problems] == [("a/me.png", "link"), ("c", "link")]
    assert "--follow-links" in faces.problems[0].detail
    followed = open_dataset(root, follow_links=True)
    assert set(names(followed)) == {*names(faces), "a/me.png", "c/me.png"} and not followed.problems


def test_metadata_cannot_name_what_stands_behind_a_link(root, private):
    (root / "c").symlink_to(private)
    (root / "a" / "me.png").symlink_to(private / "me.png")
    (root / "metadata.csv").write_text("file_name,smile\na/0.png,1\nc/me.png,0\na/me.png,0\n")
    faces = load_dataset("folder", root)
    assert names(faces) == ["a/0.png"]
    assert {problem.file for problem in faces.problems if problem.code == "link"} == {"c/me.png", "a/me.png"}
    assert names(load_dataset("folder", root, follow_links=True)) == ["a/0.png", "a/me.png", "c/me.png"]


def test_a_label_file_that_is_a_link_is_refused(root, tmp_path):
    (tmp_path / "secret.csv").write_text("file_name,smile\na/0.png,1\n")
    (root / "metadata.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(DatasetError, match=r"metadata\.csv is a link\. .*--follow-links"):
        load_dataset("folder", root)
    assert names(load_dataset("folder", root, follow_links=True)) == ["a/0.png"]


def test_nothing_but_links_says_so(tmp_path, private):
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "a" / "x.png").symlink_to(private / "me.png")
    with pytest.raises(DatasetError, match=r"all pictures of .* are links .* such as a/x\.png\. .*follow_links=True"):
        open_dataset(tmp_path / "set")


def test_folders_linked_in_circles_are_visited_once(root):
    for number in range(12):
        (root / "a" / f"up{number}").symlink_to(root)
        (root / "b" / f"over{number}").symlink_to(root / "a")
    found = list_pictures(root, follow_links=True)
    assert {name.rsplit("/", 1)[-1] for name in found} == {"0.png", "1.png", "2.png", "3.png"}
    assert len(found) <= 8  # each real folder at most by its own name and by one link
    assert len(list_pictures(root)) == 4


def test_a_root_that_is_a_link_is_what_the_user_named(root, tmp_path):
    (tmp_path / "shortcut").symlink_to(root)
    assert len(load_dataset("folder", tmp_path / "shortcut")) == 4


def test_utkface_and_celebahq_leave_links_out(tmp_path, private):
    utk = tmp_path / "utk"
    for age in (20, 30):
        picture(utk / f"{age}_1_0_20170116184024662.jpg.chip.jpg")
    (utk / "50_1_0_20170116184024663.jpg.chip.jpg").symlink_to(private / "me.png")
    faces = load_dataset("utkface", utk)
    assert len(faces) == 2 and [problem.code for problem in faces.problems] == ["link"]
    assert len(load_dataset("utkface", utk, follow_links=True)) == 3


def test_names_that_are_no_text_are_refused(root, tmp_path):
    """Tables are UTF-8; a name of other bytes would end in a traceback when a run is written."""
    name = os.fsdecode(b"\xff.png")
    picture(tmp_path / "other" / name)
    with pytest.raises(DatasetError, match=r"\\udcff\.png: the name is not text in UTF-8.*Rename it"):
        open_dataset(tmp_path / "other")
    (root / "metadata.jsonl").write_text('{"file_name": "a/0.png", "smile": "\\ud800"}\n')
    with pytest.raises(DatasetError, match="line 1: .*half a character"):
        open_dataset(root)
