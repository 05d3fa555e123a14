"""Layouts of the copies that circulate: drawn ones, opened by name and by what is found."""

import numpy as np
import pytest
from PIL import Image

from vlbias.data import load_dataset, load_pairs, open_dataset, recognise
from vlbias.data.celebahq import CELEBA_ATTRIBUTES
from vlbias.errors import DatasetError


def draw(root, *names):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (9 * number % 256, 90, 60)).save(root / name)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def codes(faces):
    return {problem.code for problem in faces.problems}


PLACES = {
    "img_align_celeba": "jpg",
    "img_align_celeba/img_align_celeba": "jpg",
    "Img/img_align_celeba": "jpg",
    "Img/img_align_celeba_png": "png",
    "img_align_celeba_png/img_align_celeba_png": "png",
}


@pytest.mark.parametrize("place", PLACES)
def test_celeba_as_csv(tmp_path, place):
    names = [f"{i:06d}.jpg" for i in range(1, 4)]
    draw(tmp_path / place, *(name.replace("jpg", PLACES[place]) for name in names))
    values = ",".join(["1", "-1"] * 20)
    rows = [",".join(["image_id", *CELEBA_ATTRIBUTES]), *(f"{name},{values}" for name in names)]
    write(tmp_path / "list_attr_celeba.csv", "\n".join(rows) + "\n")
    for file, column in (("list_eval_partition", "partition"), ("identity_CelebA", "identity")):
        rows = [f"image_id,{column}", *(f"{name},{i}" for i, name in enumerate(names))]
        write(tmp_path / f"{file}.csv", "\n".join(rows) + "\n")
    faces = open_dataset(tmp_path)
    assert faces.name == "celeba" and codes(faces) == {"other_count"}
    assert faces.table["split"].tolist() == ["train", "val", "test"] and faces.table["identity"].tolist() == list("012")
    assert faces.image("000002.jpg").size == (12, 12)


@pytest.mark.parametrize(
    ("meta", "pictures"),
    [("meta", "data"), ("", ""), ("", "data"), ("VGG-Face2/meta", "VGG-Face2/data"), ("VGGFace2", "VGGFace2")],
)
@pytest.mark.parametrize("named", ["train", "vggface2_train"])
def test_vggface2(tmp_path, meta, pictures, named):
    test = named.replace("train", "test")
    draw(tmp_path / pictures, f"{named}/n000002/0001_01.jpg", f"{test}/n000001/0001_01.jpg")
    text = 'Class_ID, Name, Sample_Num, Flag, Gender\nn000001, "A",1,0, m,\nn000002, "B, the 2nd",1,1, f\n'
    write(tmp_path / meta / "identity_meta.csv", text)
    faces = open_dataset(tmp_path)
    assert faces.name == "vggface2" and codes(faces) == {"other_count"}
    assert sorted(zip(faces.table["gender"], faces.table["split"] == "test", strict=True)) == [
        ("female", False),
        ("male", True),
    ]


@pytest.mark.parametrize("label", ["3", 3, 3.0, np.float32(3), np.array(["3"]), np.array([3])])
def test_annotations_of_affectnet_in_other_types(tmp_path, label):
    for part in ("train_set", "val_set"):
        draw(tmp_path / part / "images", "0.jpg", "1.jpg")
        (tmp_path / part / "annotations").mkdir()
        np.save(tmp_path / part / "annotations" / "0_exp.npy", np.asarray(label))
        np.save(tmp_path / part / "annotations" / "1_exp.npy", np.array(2.5))
    faces = open_dataset(tmp_path)
    assert faces.table["expression"].tolist() == ["surprise"] * 2 and "malformed_line" in codes(faces)


@pytest.mark.parametrize("spelling", ["list_patition_label.txt", "list_partition_label.txt"])
@pytest.mark.parametrize("aligned", ["Image/aligned", "Image/aligned/aligned"])
@pytest.mark.parametrize("above", ["", "basic", "RAF-DB/basic"])
def test_rafdb_by_a_list(tmp_path, spelling, aligned, above):
    root = tmp_path / above
    draw(root / aligned, "train_00001_aligned.jpg", "test_0001_aligned.jpg")
    write(root / "EmoLabel" / spelling, "train_00001.jpg 5\ntest_0001.jpg 7\n")
    faces = open_dataset(tmp_path)
    assert faces.name == "rafdb" and codes(faces) == {"other_count"}
    assert faces.table["expression"].tolist() == ["sadness", "neutral"]
    assert faces.image("test_0001.jpg").size == (12, 12)


def test_rafdb_in_folders(tmp_path):
    draw(tmp_path / "DATASET", "train/5/train_00001_aligned.jpg", "test/7/test_0001_aligned.jpg")
    draw(tmp_path / "DATASET", "train/9/train_00002_aligned.jpg", "train/1/train_00001_aligned.jpg")
    draw(tmp_path / "DATASET", "train/1/train_00004_aligned.jpg", "train/1/portrait.jpg")
    write(tmp_path / "train_labels.csv", "image,label\ntrain_00001_aligned.jpg,5\n")
    faces = open_dataset(tmp_path)
    assert faces.name == "rafdb" and faces.attributes == ["expression"]
    assert set(zip(faces.table["split"], faces.table["expression"], strict=True)) == {
        ("train", "surprise"),
        ("test", "neutral"),
    }
    assert faces.ids == ["test_0001.jpg", "train_00001.jpg", "train_00004.jpg"]
    told = sorted(problem.code for problem in faces.problems)
    assert told == ["duplicate_name", "label_out_of_range", "malformed_name", "other_count", "other_count"]
    with pytest.raises(DatasetError, match="neither EmoLabel/list_patition_label.txt nor pictures such as train/5"):
        load_dataset("rafdb", tmp_path / "DATASET" / "val")


def test_fer2013_in_folders_of_other_names(tmp_path):
    draw(tmp_path / "images", "train/fearful/im0.png", "train/Happy/1.jpg", "validation/disgusted/2.jpg")
    draw(tmp_path / "images", "test/surprised/im1.png")
    faces = load_dataset("fer2013", tmp_path)
    assert dict(zip(faces.table["expression"], faces.table["split"], strict=True)) == {
        "fear": "train",
        "happiness": "train",
        "disgust": "val",
        "surprise": "test",
    }
    assert recognise(tmp_path) == "folder"  # anybody's folders may have these names


LFW = "Ann_Lee\t1\t2\nBo\t1\tCy\t1\nBo\t1\t3\nAnn_Lee\t1\tBo\t2\n"


def _people(root, end="jpg"):
    draw(root, *(f"{who}/{who}_{i:04d}.{end}" for who in ("Ann_Lee", "Bo", "Cy") for i in (1, 2, 3)))


@pytest.mark.parametrize("place", ["", "lfw", "lfw_funneled", "lfw-deepfunneled/lfw-deepfunneled"])
@pytest.mark.parametrize("name", ["pairs.txt", "pairsDevTest.txt", "pairs.csv"])
def test_lfw(tmp_path, place, name):
    _people(tmp_path / place, "png" if place == "lfw" else "jpg")
    text = f"{'10 1' if name == 'pairs.txt' else '2'}\n{LFW}"
    if name == "pairs.csv":
        text = "name,imagenum1,imagenum2,\n" + "".join(
            ",".join(row.split("\t")) + ("," if row.count("\t") == 2 else "") + "\n" for row in LFW.splitlines()
        )
    write(tmp_path / name, text)
    pairs = load_pairs(tmp_path / name)
    assert pairs.is_same.tolist() == [True, False, True, False] and not pairs.problems
    assert pairs.people.tolist()[1] == ["Bo", "Cy"] and pairs.pictures.tensor(pairs.ids, 8).shape == (6, 3, 8, 8)
    if name == "pairs.txt":
        assert len(load_pairs(tmp_path)) == 4  # the folder with the list


@pytest.mark.parametrize("above", ["", "test", "RFW", "RFW/test", "images/test"])
def test_rfw(tmp_path, above):
    root = tmp_path / above
    draw(root / "data/Indian", *(f"m.0{who}/m.0{who}_{i:04d}.jpg" for who in "ab" for i in (1, 2)))
    write(root / "txts/Indian/Indian_pairs.txt", "m.0a\t1\t2\nm.0b\t1\tm.0a\t2\nm.0b\t1\t2\nm.0a\t1\tm.0b\t2\n")
    pairs = load_pairs(tmp_path)
    assert pairs.groups.tolist() == ["Indian"] * 4 and pairs.is_same.tolist() == [True, False] * 2
