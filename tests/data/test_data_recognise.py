"""From a word or folder to a dataset."""

from __future__ import annotations

import tarfile

import pytest

from vlbias.data import load_dataset, open_dataset, recognise
from vlbias.errors import ConfigError, DatasetError, UnknownNameError


def test_each_kind_is_recognised(utkface_root, celebahq_root, imagefolder_root):
    assert recognise(utkface_root) == "utkface"
    assert recognise(celebahq_root) == "celebahq"
    assert recognise(imagefolder_root) == "folder"
    assert open_dataset(utkface_root, seed=3).name == "utkface"
    assert open_dataset(str(celebahq_root)).name == "celebahq"
    assert open_dataset(imagefolder_root).attributes == ["smile", "skin", "age"]


def test_folders_one_level_up_are_recognised(utkface_root, celebahq_root):
    assert celebahq_root.parent == utkface_root.parent
    assert recognise(celebahq_root.parent) == "celebahq"
    assert len(open_dataset(celebahq_root.parent)) == 10


def test_plain_photographs_are_a_folder(tmp_path, picture):
    picture(tmp_path / "holiday" / "IMG_1.jpg")
    picture(tmp_path / "holiday" / "IMG_2.jpg")
    assert recognise(tmp_path) == "folder"
    assert open_dataset(tmp_path).attributes == []


def test_a_balanced_utkface_is_a_folder(utkface_root):
    (utkface_root / "metadata.csv").write_text("file_name,smile\n1_0_0_20170109142408075.jpg.chip.jpg,1\n")
    assert recognise(utkface_root) == "folder"


def test_what_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="nowhere is not there. Give a folder of pictures, or synthfaces"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="has no picture and no metadata.csv"):
        open_dataset(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DatasetError, match="a.txt is a file, not a folder"):
        open_dataset(tmp_path / "a.txt")


def test_an_archive_is_to_be_unpacked(tmp_path, utkface_root):
    archive = tmp_path / "UTKFace.tar"
    with tarfile.open(archive, "w") as handle:
        handle.add(utkface_root, "UTKFace")
    for call in (lambda: open_dataset(archive), lambda: load_dataset("utkface", archive)):
        with pytest.raises(DatasetError, match=r"UTKFace.tar is an archive.*Unpack it first: tar -xf"):
            call()


def test_wrong_kinds_and_options(utkface_root):
    with pytest.raises(UnknownNameError, match="Unknown dataset kind 'utkfaces'. Did you mean 'utkface'"):
        load_dataset("utkfaces", utkface_root)
    with pytest.raises(ConfigError, match="`age_limit` is not an option of 'utkface'. It has: age_split"):
        load_dataset("utkface", utkface_root, age_limit=3)
    with pytest.raises(ConfigError, match="'utkface' needs `root`"):
        load_dataset("utkface")
    with pytest.raises(ConfigError, match="`sede` is not an option of any dataset"):
        open_dataset(utkface_root, sede=3)


@pytest.mark.parametrize("spec", ["synthfaces:", "synthfaces:many", "synthfaces:0", "synthfaces:-5", "synthfaces:1.5"])
def test_synthfaces_wants_a_number(spec):
    with pytest.raises(ConfigError, match="expected a number of faces after the colon, such as synthfaces:1000"):
        open_dataset(spec)


def test_frames_of_a_video_are_not_utkface(tmp_path, picture):
    for label in ("happy", "sad"):
        for i in range(6):
            picture(tmp_path / label / f"3_{i % 2}_2_{i:04d}.jpg")
    faces = open_dataset(tmp_path)
    assert faces.attributes == ["label"] and faces.values("label") == ["happy", "sad"]
    # what is recognised can be overruled
    assert open_dataset(f"utkface:{tmp_path}").values("race") == ["Asian"]


def test_the_kind_can_be_said(utkface_root, celebahq_root):
    assert open_dataset(f"folder:{utkface_root}", unsplit="train").name != "utkface"
    assert open_dataset(f"celebahq:{celebahq_root}").name == "celebahq"
    with pytest.raises(DatasetError, match="is not a folder"):
        open_dataset("folder:/no/such/place")


@pytest.mark.parametrize("wrong", [None, 3, ["a"], 1.5])
def test_wrong_types_are_said_in_a_sentence(wrong):
    with pytest.raises(ConfigError, match="`kind` of load_dataset must be a text; got"):
        load_dataset(wrong)
    with pytest.raises(ConfigError, match="'folder' needs `root`, the folder|`root` of load_dataset must be a text or"):
        load_dataset("folder", wrong)
    with pytest.raises(ConfigError, match="`spec` of open_dataset must be a text or a path; got"):
        open_dataset(wrong)
