"""Expressions in the layouts of their publishers: tiny drawn copies, what is wrong in them, and values one by one."""

import numpy as np
import pytest
from PIL import Image

from vlbias import simulate
from vlbias.data import load_dataset, open_dataset, recognise
from vlbias.errors import DatasetError


def picture(path, shade=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 12), (shade, 90, 60)).save(path)


def codes(problems):
    return sorted(problem.code for problem in problems)


@pytest.fixture
def affectnet(tmp_path):
    root = tmp_path / "AffectNet"
    values = {
        "train_set": {"0": "1", "1": "0", "2": "7", "3": "8", "4": "word", "5": None, "6": 4},
        "val_set": {"10": "6", "11": "3"},
    }
    for part, labels in values.items():
        (root / part / "annotations").mkdir(parents=True)
        for name, label in labels.items():
            picture(root / part / "images" / f"{name}.jpg", 10 * int(name))
            if label is not None:
                np.save(root / part / "annotations" / f"{name}_exp.npy", np.array(label))
                np.save(root / part / "annotations" / f"{name}_val.npy", np.array("-0.2"))
    return root


def test_affectnet(affectnet):
    faces = load_dataset("affectnet", affectnet)
    assert faces.table["expression"].to_dict() == {
        "train_set/images/0.jpg": "happiness",
        "train_set/images/1.jpg": "neutral",
        "train_set/images/2.jpg": "contempt",
        "train_set/images/6.jpg": "fear",
        "val_set/images/10.jpg": "anger",
        "val_set/images/11.jpg": "surprise",
    }
    assert faces.table["split"].value_counts().to_dict() == {"train": 4, "test": 2}
    assert codes(faces.problems) == ["label_out_of_range", "malformed_line", "no_label", "other_count", "other_count"]
    assert any("4 train images; the published set has 287,651" in problem.detail for problem in faces.problems)
    assert faces.attributes == ["expression"] and faces.image("val_set/images/10.jpg").size == (12, 12)
    assert recognise(affectnet) == recognise(affectnet.parent) == "affectnet"
    assert len(open_dataset(affectnet.parent)) == 6


DAMAGE = [(b"1\0\0\0", b"\xff\xff\xff\xff"), (b"()", b"(("), (b"{", b"["), (b"U1", b"O8")]


@pytest.mark.parametrize(("old", "new"), DAMAGE)
def test_an_annotation_with_damaged_letters_or_header_is_a_problem(affectnet, old, new):
    place = affectnet / "train_set" / "annotations" / "0_exp.npy"
    assert old in place.read_bytes()
    place.write_bytes(place.read_bytes().replace(old, new))
    faces = open_dataset(affectnet)
    problems = {problem.file: problem.code for problem in faces.problems}
    assert problems["train_set/images/0.jpg"] == "malformed_line" and len(faces) == 5


def test_an_annotation_that_would_run_code_is_not_read(affectnet):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was read",))

    label = affectnet / "val_set/annotations/10_exp.npy"
    np.save(label, np.array(Trap(), dtype=object), allow_pickle=True)
    faces = load_dataset("affectnet", affectnet)
    assert "val_set/images/10.jpg" not in faces.ids
    assert any("10_exp.npy has no number" in problem.detail for problem in faces.problems)
    elsewhere = affectnet / "elsewhere.npy"
    np.save(elsewhere, np.array("2"))
    label.unlink()
    label.symlink_to(elsewhere)
    assert "link" in codes(load_dataset("affectnet", affectnet).problems)
    assert "val_set/images/10.jpg" in load_dataset("affectnet", affectnet, follow_links=True).ids


RAF_LINES = """train_00001.jpg 5
train_00002.jpg 4
train_00003.jpg 8
train_00004.jpg
../train_00005.jpg 1
train_00002.jpg 1
test_0001.jpg 7
test_0002.jpg 1
"""


@pytest.fixture
def rafdb(tmp_path):
    root = tmp_path / "basic"
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel/list_patition_label.txt").write_text(RAF_LINES)
    marks = "\n".join(f"{i}.5\t{2 * i}.25" for i in range(5))
    attributes = {"train_00001": "1\n0\n2", "train_00002": "2\n2\n4", "test_0001": "0\n1\n9", "test_0002": "0\n1\n0"}
    (root / "Annotation/manual").mkdir(parents=True)
    for name, lines in attributes.items():
        picture(root / f"Image/aligned/{name}_aligned.jpg")
        (root / f"Annotation/manual/{name}_manu_attri.txt").write_text(f"{marks}\n{lines}\n")
    return root


def test_rafdb(rafdb):
    faces = load_dataset("rafdb", rafdb)
    table = faces.table
    assert table["expression"].to_dict() == {
        "train_00001.jpg": "sadness",
        "train_00002.jpg": "happiness",
        "test_0001.jpg": "neutral",
        "test_0002.jpg": "surprise",
    }
    assert table["split"].tolist() == ["train", "train", "test", "test"]
    assert table.loc["train_00001.jpg", ["gender", "race", "age_range"]].tolist() == ["female", "Caucasian", "20-39"]
    assert table["gender"].isna().tolist() == [False, True, True, False], "unsure, and an age that does not exist"
    assert table.loc["test_0002.jpg", ["gender", "race", "age_range"]].tolist() == ["male", "African-American", "0-3"]
    assert codes(faces.problems) == sorted(
        ["label_out_of_range", *["malformed_line"] * 4, "other_count", "other_count"]
    )
    assert {problem.file for problem in faces.problems if problem.code == "label_out_of_range"} == {
        "EmoLabel/list_patition_label.txt:3"
    }
    assert recognise(rafdb) == recognise(rafdb.parent) == "rafdb" and len(open_dataset(f"rafdb:{rafdb}")) == 4


def test_rafdb_without_a_picture_or_without_lists(rafdb, tmp_path):
    (rafdb / "Image/aligned/test_0002_aligned.jpg").unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 4 pictures"):
        load_dataset("rafdb", rafdb)
    faces = load_dataset("rafdb", rafdb, max_missing=0.5)
    assert faces.ids == ["train_00001.jpg", "train_00002.jpg", "test_0001.jpg"]
    (rafdb / "EmoLabel/list_patition_label.txt").write_text("nothing of use\n")
    with pytest.raises(DatasetError, match="no line that can be used"):
        load_dataset("rafdb", rafdb)
    with pytest.raises(DatasetError, match="list_patition_label.txt"):
        load_dataset("rafdb", tmp_path)


def pixels(value):
    return " ".join([str(value)] * 48**2)


def test_fer2013_in_one_file(tmp_path):
    lines = [
        "emotion,pixels,Usage",
        f"0,{pixels(10)},Training",
        f"3,{pixels(200)},PublicTest",
        f"6,{pixels(90)},PrivateTest",
        f"7,{pixels(90)},PrivateTest",
        f"1,{pixels(256)},Training",
        "1,12 13,Training",
        f"1,{pixels(5)},Other",
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(lines) + "\n")
    faces = open_dataset(tmp_path)
    assert faces.name == "fer2013" and faces.attributes == ["expression"]
    assert faces.table["expression"].tolist() == ["anger", "happiness", "neutral"]
    assert faces.table["split"].tolist() == ["train", "val", "test"]
    assert codes(faces.problems) == ["malformed_line"] * 4 + ["other_count"] * 3
    assert any(problem.file == "fer2013.csv:5" and "expected 0..6" in problem.detail for problem in faces.problems)
    happy = faces.ids[1]
    assert faces.path(happy) is None and faces.image(happy).size == (48, 48)
    assert faces.image(happy).getpixel((3, 3)) == (200, 200, 200)
    assert faces.select([happy]).tensor([happy], 16).shape == (1, 3, 16, 16)
    # the other file of the contest has spaces in its header and another order
    (tmp_path / "fer2013.csv").unlink()
    (tmp_path / "icml_face_data.csv").write_text(f"emotion, Usage, pixels\n4,Training,{pixels(7)}\n")
    assert load_dataset("fer2013", tmp_path).table["expression"].tolist() == ["sadness"]
    (tmp_path / "icml_face_data.csv").write_text("emotion,pixels\n")
    with pytest.raises(DatasetError, match="lacks the column usage"):
        load_dataset("fer2013", tmp_path)


def test_fer2013_in_folders(tmp_path):
    for name in ("train/angry/Training_1.jpg", "train/happy/Training_2.jpg", "test/sad/PublicTest_3.jpg"):
        picture(tmp_path / name)
    picture(tmp_path / "test/surprise/PrivateTest_4.jpg")
    picture(tmp_path / "train/bored/Training_5.jpg")
    faces = open_dataset(tmp_path)
    assert faces.name == "fer2013"
    assert dict(zip(faces.table["expression"], faces.table["split"], strict=True)) == {
        "anger": "train",
        "happiness": "train",
        "sadness": "val",
        "surprise": "test",
    }
    assert codes(faces.problems) == ["malformed_name"] + ["other_count"] * 3


def test_folders_of_classes_with_other_names_stay_folders(tmp_path):
    for part in ("train", "test"):
        for word in ("angry", "happy"):
            picture(tmp_path / part / word / "im0.png", 40 if word == "angry" else 200)
    assert recognise(tmp_path) == "folder", "a folder of one's own may have these classes"
    by_name = load_dataset("fer2013", tmp_path)
    assert sorted(by_name.table["split"]) == ["test", "test", "train", "train"]
    assert any("published set has 7,178" in problem.detail for problem in by_name.problems)


def test_cafe(tmp_path):
    names = ["9977-angry_F-AA-01.jpg", "10002-fearfulopen_F-EA-03.jpg", "7-neutral_M-LA-2.jpg", "8-sad_F-AA-01.jpg"]
    for name in (*names, "9-bored_F-AA-01.jpg", "portrait.jpg"):
        picture(tmp_path / "sessions" / "6280" / name)
    faces = open_dataset(tmp_path)
    table = faces.table.set_axis([item.rsplit("/", 1)[1] for item in faces.ids])
    assert faces.name == "cafe" and len(faces) == 4
    assert table.loc[names, "expression"].tolist() == ["anger", "fear", "neutral", "sadness"]
    assert table.loc[names, "gender"].tolist() == ["female", "female", "male", "female"]
    assert table.loc[names, "race"].tolist() == ["African American", "European American", "LA", "African American"]
    assert table.loc[names[0], "person"] == table.loc[names[3], "person"] == "F-AA-01"
    assert table.loc[names[0], "split"] == table.loc[names[3], "split"], "a child has one split"
    assert codes(faces.problems) == ["malformed_name"] * 2 + ["other_count"] * 2


@pytest.mark.parametrize("kind", ["affectnet", "rafdb", "fer2013", "cafe"])
def test_a_folder_of_something_else_is_refused(kind, tmp_path):
    picture(tmp_path / "portrait.jpg")
    with pytest.raises(DatasetError):
        load_dataset(kind, tmp_path)
    assert recognise(tmp_path) == "folder"


def test_a_simulation_reads_them(rafdb):
    root = rafdb
    words = {"1": "African-American", "0": "Caucasian"}
    lines = []
    for i in range(60):
        name, label = f"train_{i + 10:05d}" if i < 40 else f"test_{i:04d}", "45"[i % 2]
        lines.append(f"{name}.jpg {label}")
        picture(root / f"Image/aligned/{name}_aligned.jpg", 3 * i)
        marks = "\n".join(["1\t1"] * 5)
        (root / f"Annotation/manual/{name}_manu_attri.txt").write_text(f"{marks}\n0\n{i // 2 % 2}\n2\n")
    (root / "EmoLabel/list_patition_label.txt").write_text("\n".join(lines))
    plan = simulate.plan(load_dataset("rafdb", root), target="expression", protected="race", shares=(0, 0.5), repeats=2)
    assert plan.groups == tuple(sorted(words.values())) and plan.classes == ("happiness", "sadness")
    assert all(item.startswith("test_") for item in plan.test) and len(plan.test) == 20
