"""Sets of people, each in a tiny drawn copy of its published layout, with the lines that copies of them get wrong."""

from __future__ import annotations

import io
import struct
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vlbias.data import FaceDataset, balance_people, load_dataset, open_dataset, recognise
from vlbias.data.celebahq import CELEBA_ATTRIBUTES
from vlbias.data.people import one_split_each
from vlbias.errors import ConfigError, DatasetError, ImageError, LabelError, UnknownNameError


def problems_of(faces, code):
    return {problem.file: problem.detail for problem in faces.problems if problem.code == code}


# -- CelebA -----------------------------------------------------------------------------------------------------------


def celeba_lists(num_images=8):
    names = [f"{i + 1:06d}.jpg" for i in range(num_images)]
    rows = [f"{name} " + " ".join("-1" if (i + j) % 3 else " 1" for j in range(40)) for i, name in enumerate(names)]
    return {
        "list_attr_celeba.txt": "\n".join([str(num_images), " ".join(CELEBA_ATTRIBUTES) + " ", *rows]) + "\n",
        "identity_CelebA.txt": "\n".join(f"{name} {2880 + i // 2}" for i, name in enumerate(names)) + "\n",
        "list_eval_partition.txt": "\n".join(f"{name} {min(i // 2, 2)}" for i, name in enumerate(names)),
    }


@pytest.fixture
def celeba_root(tmp_path, picture):
    root = tmp_path / "set"
    for i in range(8):
        picture(root / "img_align_celeba" / f"{i + 1:06d}.jpg", 20 * i)
    for name, text in celeba_lists().items():
        (root / name).write_text(text)
    return root


def test_celeba(celeba_root):
    faces = load_dataset("celeba", celeba_root)
    assert recognise(celeba_root) == "celeba"
    assert faces.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 4
    assert faces.table["identity"].tolist() == ["2880", "2880", "2881", "2881", "2882", "2882", "2883", "2883"]
    assert faces.attributes == [*CELEBA_ATTRIBUTES, "identity"]
    assert faces.table.loc["000001.jpg", list(CELEBA_ATTRIBUTES[:4])].tolist() == [1, 0, 0, 1]
    assert faces.image("000003.jpg").size == (20, 20)
    told = problems_of(faces, "other_count")
    assert told == {
        "list_eval_partition.txt": "4 test; the published set has 19,962",
        "identity_CelebA.txt": "4 people; the published set has 10,177",
    }
    counts = [problem.detail for problem in faces.problems if problem.file == "list_eval_partition.txt"]
    assert counts[0] == "8 images; the published set has 202,599" and len(counts) == 4
    assert len(faces.problems) == 5


def test_celeba_as_it_is_downloaded(celeba_root):
    """Anno, Eval and Img, each with its own; a folder one level up is recognised as well."""
    root = celeba_root.rename(celeba_root.with_name("celeba"))
    for folder, names in {
        "Anno": ["list_attr_celeba.txt", "identity_CelebA.txt"],
        "Eval": ["list_eval_partition.txt"],
    }.items():
        (root / folder).mkdir()
        for name in names:
            (root / name).rename(root / folder / name)
    (root / "Img").mkdir()
    (root / "img_align_celeba").rename(root / "Img" / "img_align_celeba")
    faces = open_dataset(root.parent)
    assert faces.name == "celeba" and len(faces) == 8
    assert faces.path("000001.jpg") == root / "Img/img_align_celeba/000001.jpg"


def test_celeba_as_csv_without_identities(celeba_root):
    """The copies that circulate as CSV have no list of people, and the pictures in a folder twice deep."""
    (celeba_root / "identity_CelebA.txt").unlink()
    for name, header in (("list_attr_celeba", "image_id"), ("list_eval_partition", "image_id,partition\n")):
        lines = (celeba_root / f"{name}.txt").read_text().split("\n")
        (celeba_root / f"{name}.txt").unlink()
        lines = [",".join(line.split()) for line in lines if len(line.split()) > 1]
        (celeba_root / f"{name}.csv").write_text(
            header + ("," if name == "list_attr_celeba" else "") + "\n".join(lines)
        )
    (celeba_root / "img_align_celeba").rename(celeba_root / "inner")
    (celeba_root / "img_align_celeba").mkdir()
    (celeba_root / "inner").rename(celeba_root / "img_align_celeba" / "img_align_celeba")
    faces = load_dataset("celeba", celeba_root)
    assert faces.attributes == list(CELEBA_ATTRIBUTES)
    assert faces.table["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 4
    assert faces.image("000008.jpg").size == (20, 20)


def test_celeba_with_line_ends_of_windows(celeba_root):
    for name, text in celeba_lists().items():
        (celeba_root / name).write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig") + b"\r\n\r\n")
    faces = load_dataset("celeba", celeba_root)
    assert len(faces) == 8 and {problem.code for problem in faces.problems} == {"other_count"}


def test_celeba_reports_malformed_lines(celeba_root, picture):
    lists = celeba_lists()
    attributes = lists["list_attr_celeba.txt"].split("\n")
    attributes[3] = attributes[3].replace("-1", "0", 1)  # 000002.jpg
    attributes[4] = attributes[4].rsplit(" ", 1)[0]  # 000003.jpg
    (celeba_root / "list_attr_celeba.txt").write_text("\n".join(attributes))
    (celeba_root / "identity_CelebA.txt").write_text(
        lists["identity_CelebA.txt"].replace("000004.jpg 2881", "000004.jpg") + "000001.jpg 9\n000009.jpg x\n"
    )
    (celeba_root / "list_eval_partition.txt").write_text(lists["list_eval_partition.txt"].replace("5.jpg 2", "5.jpg 7"))
    faces = load_dataset("celeba", celeba_root)
    assert faces.ids == ["000001.jpg", "000006.jpg", "000007.jpg", "000008.jpg"]
    told = problems_of(faces, "malformed_line")
    assert set(told) == {
        "list_attr_celeba.txt:4",
        "list_attr_celeba.txt:5",
        "list_eval_partition.txt:5",
        "identity_CelebA.txt:4",
        "identity_CelebA.txt:9",
        "identity_CelebA.txt:10",
    }
    assert told["list_attr_celeba.txt:5"] == "'000003.jpg' has 39 values; expected 40."
    assert set(problems_of(faces, "no_label")) == {"000004.jpg", "000005.jpg"}


def test_nobody_is_in_two_splits(celeba_root):
    text = celeba_lists()["identity_CelebA.txt"].replace("000003.jpg 2881", "000003.jpg 2880")
    (celeba_root / "identity_CelebA.txt").write_text(text)
    faces = load_dataset("celeba", celeba_root)
    assert faces.table.groupby("identity")["split"].nunique().max() == 1
    assert faces.table.loc["000003.jpg", "split"] == "train"
    assert list(problems_of(faces, "person_in_two_splits")) == ["2880"]
    assert one_split_each(["val", "test", "test"], ["a", "a", None])[0] == ["val", "val", "test"]


def test_celeba_that_is_incomplete(celeba_root, tmp_path):
    for picture in sorted((celeba_root / "img_align_celeba").iterdir())[:1]:
        picture.unlink()
    with pytest.raises(DatasetError, match="lacks 1 of 8 pictures, the first is img_align_celeba/000001.jpg"):
        load_dataset("celeba", celeba_root)
    assert len(load_dataset("celeba", celeba_root, max_missing=0.5)) == 7
    (celeba_root / "list_eval_partition.txt").write_text("9.jpg 0\n")
    with pytest.raises(DatasetError, match="list_eval_partition.txt has none of the pictures"):
        load_dataset("celeba", celeba_root)
    (celeba_root / "list_eval_partition.txt").unlink()
    with pytest.raises(DatasetError, match="has no list_eval_partition.txt"):
        load_dataset("celeba", celeba_root)
    with pytest.raises(DatasetError, match="has no list_attr_celeba.txt"):
        load_dataset("celeba", tmp_path)


# -- VGGFace2 ---------------------------------------------------------------------------------------------------------

META = """Class_ID, Name, Sample_Num, Flag, Gender
n000001, "14th_Dalai_Lama",424,0, m,
n000002, "A_Fine_Frenzy",315,1, f,
n000003, "Smith,_Jr",205,1, m
n000004, "No_Gender",205,1,
n000002, "Twice",205,1, m,
"""


@pytest.fixture
def vggface2_root(tmp_path, picture):
    root = tmp_path / "vgg"
    for person in ("test/n000001", "train/n000002", "train/n000003", "train/n000004"):
        for face in ("0001_01.jpg", "0002_01.jpg"):
            picture(root / person / face)
    picture(root / "train" / "stray.jpg")
    (root / "meta").mkdir()
    (root / "meta" / "identity_meta.csv").write_text(META)
    return root


def test_vggface2(vggface2_root):
    assert recognise(vggface2_root) == "vggface2"
    faces = open_dataset(vggface2_root)
    table = faces.table.drop_duplicates("identity").set_index("identity")
    assert table.loc[["n000001", "n000002", "n000003"], "gender"].tolist() == ["male", "female", "male"]
    assert table.loc["n000003", "name"] == "Smith,_Jr"
    assert pd.isna(table.loc["n000004", "gender"]) and faces.attributes == ["identity", "gender"]
    assert table.loc["n000001", "split"] == "test" and "test" not in set(table["split"][1:])
    assert set(problems_of(faces, "malformed_line")) == {"identity_meta.csv:5", "identity_meta.csv:6"}
    assert set(problems_of(faces, "malformed_name")) == {"train/stray.jpg"}
    assert set(problems_of(faces, "no_label")) == {"n000004"}
    told = [problem.detail for problem in faces.problems if problem.code == "other_count"]
    assert told[0] == "3 people in train; the published set has 8,631" and len(told) == 3


def test_vggface2_without_folders_of_splits(vggface2_root):
    """The list says who is test where no folder does."""
    for folder in ("train", "test"):
        for person in (vggface2_root / folder).glob("n*"):
            person.rename(vggface2_root / person.name)
    faces = load_dataset("vggface2", vggface2_root)
    assert set(faces.table.loc[faces.table["split"] == "test", "identity"]) <= {"n000001", "n000004"}
    assert faces.table.loc["n000001/0001_01.jpg", "split"] == "test"


def test_vggface2_that_is_none(tmp_path):
    with pytest.raises(DatasetError, match="has no identity_meta.csv"):
        load_dataset("vggface2", tmp_path)
    (tmp_path / "identity_meta.csv").write_text(META)
    with pytest.raises(DatasetError, match="has no picture in a person's folder"):
        load_dataset("vggface2", tmp_path)


# -- folders and lists of one's own -----------------------------------------------------------------------------------


@pytest.fixture
def people_root(tmp_path, picture):
    root = tmp_path / "people"
    for person in ("anna", "ben", "1"):
        for i in range(2):
            picture(root / person / f"{i}.png")
    return root


def test_a_folder_for_each_person(people_root):
    faces = load_dataset("identities", people_root)
    assert faces.table["identity"].tolist() == ["1", "1", "anna", "anna", "ben", "ben"]
    assert faces.table.groupby("identity")["split"].nunique().max() == 1
    assert open_dataset(f"identities:{people_root}").ids == faces.ids
    assert recognise(people_root) == "folder"  # nothing says that the classes are people


def test_labels_of_each_person(people_root):
    (people_root / "identities.csv").write_text("identity,gender,born\nanna,f,1980\nben,,1975\nclara,f,1990\ndora\n")
    assert recognise(people_root) == "identities"
    faces = open_dataset(people_root)
    assert faces.table.loc["anna/0.png", ["gender", "born"]].tolist() == ["f", 1980]
    assert faces.table["gender"].isna().tolist() == [True, True, False, False, True, True]
    assert problems_of(faces, "missing_image") == {"clara": "in identities.csv, without a picture"}
    assert list(problems_of(faces, "no_label")) == ["1"]
    assert list(problems_of(faces, "malformed_line")) == ["identities.csv:5"]


LISTS = {
    "comma.csv": "path,identity,split,age\n{rows}",
    "tab.tsv": "file\tperson\tsplit\tage\n{rows}",
    "spaces.txt": "image subject split age\n{rows}",
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_pictures_and_people(people_root, name):
    rows = [("anna/0.png", "007", "train", "31"), ("anna/1.png", "007", "train", "32"), ("ben/0.png", "8", "val", "40")]
    separator = {"comma.csv": ",", "tab.tsv": "\t", "spaces.txt": " "}[name]
    (people_root / name).write_text(LISTS[name].format(rows="\n".join(separator.join(row) for row in rows)))
    faces = load_dataset("identities", people_root / name)
    assert faces.table["identity"].tolist() == ["007", "007", "8"]
    assert faces.table["split"].tolist() == ["train", "train", "val"]
    assert faces.table["age"].tolist() == [31, 32, 40] and faces.attributes == ["identity", "age"]
    assert faces.image("ben/0.png").size == (20, 20)


@pytest.mark.parametrize("separator", ["\t", ";"])
def test_signs_of_other_lists_in_names(people_root, picture, separator):
    """The first line says what stands between columns; a comma in a name is a comma."""
    picture(people_root / "lee, ann" / "a b.png")
    rows = [("path", "identity", "city"), ("lee, ann/a b.png", "lee, ann", "Bonn"), ("ben/0.png", "ben", "Köln, Rhein")]
    text = "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n"
    (people_root / "list.csv").write_bytes(text.encode("utf-8-sig"))
    faces = open_dataset(people_root / "list.csv")
    assert faces.table["identity"].tolist() == ["lee, ann", "ben"] and faces.problems == []
    assert faces.table["city"].tolist() == ["Bonn", "Köln, Rhein"]


def test_a_list_without_a_header_is_recognised(people_root):
    (people_root / "list.csv").write_text("anna/0.png,a\nanna/1.png,a\nben/0.png,b\n")
    assert recognise(people_root / "list.csv") == "identities"
    assert open_dataset(people_root / "list.csv").table["identity"].tolist() == ["a", "a", "b"]


def test_malformed_lines_of_a_list(people_root):
    rows = ["anna/0.png,a,train", "anna/0.png,a,train", "../x.png,a,", "ben/0.png,,", "ben/1.png,b", "1/0.png,c,x"]
    text = "\n".join(["path,identity,split", *rows])
    (people_root / "list.csv").write_text(text)
    faces = load_dataset("identities", people_root / "list.csv")
    assert faces.ids == ["anna/0.png", "1/0.png"]
    told = problems_of(faces, "malformed_line")
    assert told == {
        "list.csv:4": "'../x.png' leaves the list's folder",
        "list.csv:5": "no identity",
        "list.csv:6": "2 fields; expected 3",
    }
    assert problems_of(faces, "duplicate_name") == {"list.csv:3": "'anna/0.png', first in line 2"}
    assert problems_of(faces, "label_out_of_range") == {"1/0.png": "split 'x'; expected train, val, test"}


def test_a_cell_of_a_megabyte_in_a_list(people_root):
    place = people_root / "identities.csv"
    place.write_text("path,identity\n" + "x" * 1_000_000 + ",a\n")
    with pytest.raises(DatasetError, match="lacks 1 of 1 pictures, the first is xxx") as raised:
        load_dataset("identities", people_root)
    assert len(str(raised.value)) < 1000


def test_lists_that_are_none(people_root, tmp_path):
    (people_root / "list.csv").write_text("path,age\nanna/0.png,3\n")
    with pytest.raises(DatasetError, match="list.csv, line 1: names no column 'identity'; its columns are: path, age"):
        load_dataset("identities", people_root / "list.csv")
    (people_root / "list.csv").write_text("identity,age\nanna,3\n")
    with pytest.raises(DatasetError, match="names no picture; expected the columns path and identity"):
        load_dataset("identities", people_root / "list.csv")
    (people_root / "list.csv").write_text("path,identity\nnowhere.png,a\nanna/0.png,a\n")
    with pytest.raises(DatasetError, match="lacks 1 of 2 pictures, the first is nowhere.png"):
        load_dataset("identities", people_root / "list.csv")
    with pytest.raises(DatasetError, match="is not there"):
        load_dataset("identities", tmp_path / "nowhere" / "list.csv")


# -- records ----------------------------------------------------------------------------------------------------------


def record(labels, data, *, split_at=None):
    """A record as MXNet writes it: one label in the header, or a list of them behind it."""
    labels = [float(label) for label in labels]
    header = struct.pack("<IfQQ", 0 if len(labels) == 1 else len(labels), labels[0] if len(labels) == 1 else 0.0, 0, 0)
    body = header + (struct.pack(f"<{len(labels)}f", *labels) if len(labels) > 1 else b"") + data
    magic = struct.pack("<I", 0xCED7230A)
    parts = [body] if split_at is None else [body[:split_at], body[split_at + 4 :]]
    out = b""
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else (1, 3)[number]
        out += magic + struct.pack("<I", kind << 29 | len(part)) + part + b"\0" * (-len(part) % 4)
    return out


def jpeg(level):
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 10, 3), level, np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def write_records(root, records, index="train.idx"):
    root.mkdir(exist_ok=True)
    offset, lines = 0, []
    with (root / "train.rec").open("wb") as file:
        for key, content in records:
            lines.append(f"{key}\t{offset}")
            offset += file.write(content)
    (root / index).write_text("\n".join(lines) + "\n")


@pytest.fixture
def record_root(tmp_path):
    """Three people of two pictures each; record 0 says where the lists of the people are, 7 to 9."""
    pictures = [(key, record([(key - 1) // 2], jpeg(30 * key))) for key in range(1, 7)]
    people = [(7 + i, record([1 + 2 * i, 3 + 2 * i], b"")) for i in range(3)]
    write_records(tmp_path / "ms1m", [(0, record([7, 10], b"")), *pictures, *people])
    (tmp_path / "ms1m" / "property").write_text("3,112,112")
    return tmp_path / "ms1m"


def test_records(record_root):
    assert recognise(record_root) == "recordio"
    faces = open_dataset(record_root)
    assert faces.ids == ["1", "2", "3", "4", "5", "6"] and faces.problems == []
    assert faces.table["identity"].tolist() == ["0", "0", "1", "1", "2", "2"] and faces.attributes == ["identity"]
    assert faces.image("4").size == (10, 12)
    assert abs(np.asarray(faces.image("4")).mean() - 120) < 3
    assert faces.tensor(["2", "5"], 8).shape == (2, 3, 8, 8)
    assert faces.select(["5"]).image("5").size == (10, 12)
    assert faces.path("1") is None and faces.original("1") is not None


def test_records_without_a_table_of_contents(tmp_path):
    """As im2rec writes them; a record whose bytes hold the magic number is stored in two parts."""
    body = jpeg(99)
    with_magic = body[:40] + struct.pack("<I", 0xCED7230A) + body[40:]
    records = [
        (0, record([5], jpeg(50))),
        (1, record([6], with_magic, split_at=24 + 40)),
        (2, record([7, 1, 2], jpeg(9))),
    ]
    write_records(tmp_path / "set", records)
    faces = load_dataset("recordio", tmp_path / "set")
    assert faces.table["identity"].tolist() == ["5", "6", "7"]
    from vlbias.data.recordio import _read_record

    with (tmp_path / "set" / "train.rec").open("rb") as file:
        assert _read_record(file.fileno(), int(faces.table.at["1", "offset"])).data == with_magic
    assert abs(np.asarray(faces.image("2")).mean() - 9) < 3


def test_malformed_records(record_root):
    index = (record_root / "train.idx").read_text().split("\n")
    index[2] = index[2].replace("\t", " x ")  # record 2
    index[4] = f"4\t{int(index[4].split()[1]) + 4}"  # not where a record begins
    index += ["5\t0", "11\t99999999"]
    (record_root / "train.idx").write_text("\n".join(index))
    (record_root / "property").write_text("4,112,112")
    faces = load_dataset("recordio", record_root)
    assert set(problems_of(faces, "malformed_line")) == {"train.idx:3", "train.idx:12", "train.idx:13"}
    assert faces.ids == ["1", "3", "4", "5", "6"]
    assert problems_of(faces, "other_count") == {"property": "3 people in the records; it says 4"}
    with pytest.raises(ImageError, match="train.rec, record 4 cannot be read"):
        faces.image("4")
    assert len(faces.check_images(show_progress=False)) == 4


def test_records_that_are_none(tmp_path, record_root):
    with pytest.raises(DatasetError, match=r"has no pair of a .rec and an .idx"):
        load_dataset("recordio", tmp_path)
    (record_root / "train.rec").write_bytes(b"\0" * 400)
    with pytest.raises(DatasetError, match="has no record that can be used"):
        load_dataset("recordio", record_root)


# -- balance ----------------------------------------------------------------------------------------------------------


def unbalanced(seed=0):
    """Women: 9 people of 2..5 images; men: 5 people of 3..8; one person of one image."""
    rows = []
    for i in range(14):
        group = "f" if i < 9 else "m"
        count = 2 + i % 4 if i < 9 else 3 + i % 6
        rows += [("train", f"p{i}", group)] * count
    rows += [("train", "single", "f")]
    table = pd.DataFrame(rows, columns=["split", "identity", "gender"])
    table.index = pd.Index([f"i{n}" for n in range(len(table))])
    table.insert(0, "file_name", table.index)
    return FaceDataset("unbalanced", table.sample(frac=1, random_state=seed))


def test_groups_get_as_many_people_and_images():
    faces = unbalanced()
    balanced = balance_people(faces, "gender")
    table = balanced.table
    people = table.groupby("gender")["identity"].nunique()
    assert people.tolist() == [5, 5]
    images = table["gender"].value_counts()
    assert images["f"] == images["m"]
    assert min(Counter(table["identity"]).values()) >= 2 and "single" not in set(table["identity"])
    assert balance_people(unbalanced(seed=1), "gender").table["identity"].value_counts().to_dict() == (
        table["identity"].value_counts().to_dict()
    )
    fewer = balance_people(faces, "gender", num_images=11).table["gender"].value_counts()
    assert fewer.tolist() == [11, 11]


def test_what_cannot_be_balanced():
    faces = unbalanced()
    with pytest.raises(LabelError, match="`num_images` must lie in 10..1"):
        balance_people(faces, "gender", num_images=500)
    with pytest.raises(LabelError, match="the group 'f' has nobody with 6 images in the split 'train'"):
        balance_people(faces, "gender", min_images=6)
    lone = faces.table.assign(split=["val" if gender == "m" else "train" for gender in faces.table["gender"]])
    with pytest.raises(LabelError, match="the group 'm' has nobody with 2 images in the split 'train'"):
        balance_people(FaceDataset("lone", lone), "gender")
    with pytest.raises(ConfigError, match="`min_images` must be >= 1"):
        balance_people(faces, "gender", min_images=0)
    with pytest.raises(UnknownNameError, match="Unknown column 'race'"):
        balance_people(faces, "race")
    mixed = faces.with_column("gender", ["f", "m"] * (len(faces) // 2) + ["f"] * (len(faces) % 2))
    with pytest.raises(LabelError, match="people have several values of `gender`"):
        balance_people(mixed, "gender")
