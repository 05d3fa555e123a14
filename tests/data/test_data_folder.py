"""Imagefolders: metadata in three formats, class folders, splits, what `datasets` makes of the same folder."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.data import load_dataset, open_dataset
from vlbias.data.files import PICTURE_SUFFIXES, inside_root
from vlbias.errors import ConfigError, DatasetError, LabelError, UnknownNameError
from vlbias.images import IMAGE_SUFFIXES


@pytest.fixture
def photos(tmp_path, picture) -> Path:
    root = tmp_path / "photos"
    for i in range(10):
        picture(root / f"{i}.png", 20 * i, size=(20 + i, 30))  # a folder of mixed sizes
    return root


def write_csv(root: Path, text: str) -> None:
    (root / "metadata.csv").write_text(text)


def test_a_balanced_dataset_reads_back(imagefolder_root):
    faces = load_dataset("folder", imagefolder_root)
    assert faces.attributes == ["smile", "skin", "age"]
    assert len(faces) == 10 and faces.problems == []
    assert set(faces.table["split"]) == {"train"}
    assert faces.table["smile"].dtype == "int64" and faces.table["age"].dtype == "float64"
    assert faces.values("skin") == ["dark", "light"]
    assert faces.table["origin"].value_counts().to_dict() == {"real": 5, "edited": 5}
    assert faces.table.loc["train/1.png", ["path", "strength", "seed"]].isna().all()
    assert faces.table.loc["train/0.png", "seed"] == 7
    assert faces.image("train/3.png").size == (20, 20)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_three_formats_say_the_same(photos, kind):
    table = pd.DataFrame(
        {
            "file_name": [f"{i}.png" for i in range(10)],
            "smile": [i % 2 for i in range(10)],
            "age": [20.5] * 9 + [None],
            "hair": ["red"] * 9 + [None],
            "identity": pd.array([*range(9), None], dtype="Int64"),
        }
    )
    if kind == "csv":
        table.to_csv(photos / "metadata.csv", index=False)
    elif kind == "jsonl":
        table.astype(object).where(table.notna(), None).to_json(photos / "metadata.jsonl", orient="records", lines=True)
    else:
        pytest.importorskip("pyarrow")
        table.to_parquet(photos / "metadata.parquet")
    faces = load_dataset("folder", photos)
    assert faces.attributes == ["smile", "age", "hair", "identity"]
    assert faces.values("smile") == [0, 1] and faces.values("hair") == ["red"]
    assert faces.values("identity") == list(range(9))
    assert faces.table.loc["9.png", ["age", "hair", "identity"]].isna().all()
    assert not (faces.table[["age", "identity"]] == -1).any(axis=None)
    assert faces.tensor(faces.ids, 16).shape == (10, 3, 16, 16)


def test_any_spacing_order_and_line_end(photos):
    body = "".join(f" red , {i}.png ,{i % 2}\r\n" for i in range(10))
    (photos / "metadata.csv").write_bytes(("\ufeff hair, file_name ,smile\r\n" + body).rstrip("\r\n").encode())
    faces = load_dataset("folder", photos)
    assert faces.ids == [f"{i}.png" for i in range(10)]
    assert faces.values("smile") == [0, 1] and faces.attributes == ["hair", "smile"]


def test_class_folders_give_labels_and_splits(tmp_path, picture):
    for split in ("train", "validation", "test"):
        for label in ("smiling", "serious"):
            picture(tmp_path / split / label / "1.png")
    picture(tmp_path / ".cache" / "x" / "hidden.png")
    faces = load_dataset("folder", tmp_path)
    assert faces.attributes == ["label"] and faces.values("label") == ["serious", "smiling"]
    assert faces.table["split"].value_counts().to_dict() == {"train": 2, "val": 2, "test": 2}
    assert faces.table.loc["validation/smiling/1.png", ["split", "label"]].tolist() == ["val", "smiling"]


def test_unlabelled_pictures_are_a_dataset_too(photos):
    faces = load_dataset("folder", photos)
    assert len(faces) == 10 and faces.attributes == [] and faces.problems == []
    (photos / "metadata.json").write_text('[{"file_name": "0.png", "smile": 1}]')
    assert [(found.file, found.code) for found in load_dataset("folder", photos).problems] == [
        ("metadata.json", "table_not_read")
    ]
    assert set(load_dataset("folder", photos, unsplit="test").table["split"]) == {"test"}
    with pytest.raises(ConfigError, match="`unsplit` must be 'hash', 'train', 'val' or 'test'; got 'x'"):
        load_dataset("folder", photos, unsplit="x")


def test_splits_from_a_column(photos):
    words = ["train", "training", "val", "valid", "validation", "dev", "test", "eval", "evaluation", "Testing"]
    write_csv(photos, "file_name,split\n" + "".join(f"{i}.png,{word}\n" for i, word in enumerate(words)))
    assert load_dataset("folder", photos).table["split"].tolist() == ["train"] * 2 + ["val"] * 4 + ["test"] * 4
    write_csv(photos, "file_name,split\n0.png,holdout\n")
    with pytest.raises(LabelError, match="'0.png' has the split 'holdout'; expected"):
        load_dataset("folder", photos)


def test_metadata_of_each_split_folder(tmp_path, picture):
    for split in ("train", "test"):
        for i in range(3):
            picture(tmp_path / split / f"{i}.png")
        (tmp_path / split / "metadata.csv").write_text("file_name,smile\n" + "".join(f"{i}.png,1\n" for i in range(3)))
    faces = load_dataset("folder", tmp_path)
    assert faces.ids == [f"{split}/{i}.png" for split in ("test", "train") for i in range(3)]
    assert faces.table["split"].tolist() == ["test"] * 3 + ["train"] * 3


def test_pictures_without_a_row_are_counted(photos):
    write_csv(photos, "file_name,smile\n" + "".join(f"{i}.png,1\n" for i in range(7)))
    faces = load_dataset("folder", photos)
    assert len(faces) == 7
    (problem,) = faces.problems
    assert (problem.file, problem.code) == ("7.png", "no_label") and "and 2 more" in problem.detail


def test_missing_pictures_are_reported_up_to_a_share(photos):
    write_csv(photos, "file_name,smile\n" + "".join(f"{i}.png,1\n" for i in range(11)))
    faces = load_dataset("folder", photos)
    assert len(faces) == 10 and faces.problems[0].code == "missing_image"
    with pytest.raises(DatasetError, match="lacks 1 of 11 pictures, the first is 10.png"):
        load_dataset("folder", photos, max_missing=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "metadata.csv is empty"),
        ("file_name,smile\n", "metadata.csv has no row"),
        ("name,smile\n0.png,1\n", "lacks the column 'file_name'; its columns are: name, smile"),
        ("file_name,smile\n../secret.png,1\n", "row 1: '../secret.png' leaves the folder"),
        ("file_name,smile\n/etc/passwd,1\n", "row 1: '/etc/passwd' leaves the folder"),
        ("file_name,smile\n0.png,1\n0.png,0\n", "row 2: '0.png' appears twice, first in row 1"),
        ("file_name,smile\n0.png,1\n./0.png,0\n", "row 2: './0.png' appears twice"),
        ("file_name,smile\n0.png,1,3\n1.png,0,3\n", "line 2: more values than the 2 columns of line 1"),
        ("file_name,smile\n0.png,1\n,0\n", "row 2: no file name in column 'file_name'"),
        ("file_name,smile\n0.png,1\n1.png,1,2,3\n", "cannot be read: .*line 3"),
        ("file_name;smile\n0.png;1\n", "Separate its cells by commas, not by semicolons"),
        ("file_name\tsmile\n0.png\t1\n", "Separate its cells by commas, not by tabs"),
        ("file_name,caf\u00e9,cafe\u0301\n0.png,1,2\n", "has a column twice: caf\u00e9"),
    ],
)
def test_damaged_metadata(photos, text, message):
    write_csv(photos, text)
    with pytest.raises(DatasetError, match=message):
        load_dataset("folder", photos)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_metadata_in_another_encoding(photos, encoding):
    (photos / "metadata.csv").write_bytes("file_name,café\n0.png,1\n".encode(encoding))
    with pytest.raises(DatasetError, match="is not text in UTF-8 .*Save it as CSV in UTF-8"):
        load_dataset("folder", photos)


def test_columns_without_a_name_are_no_labels(photos):
    """What pandas writes before the first column, and what a comma too many makes."""
    write_csv(photos, ",file_name,smile,\n0,0.png,1,\n1,1.png,0,\n")
    faces = load_dataset("folder", photos)
    assert faces.attributes == ["smile"] and faces.table["Unnamed: 0"].tolist() == [0, 1]
    found = [problem.detail for problem in faces.problems if problem.code == "no_label_column"]
    assert len(found) == 2 and all("has no name of its own" in detail for detail in found)


@pytest.mark.parametrize(("cells", "said"), [(("007", "7"), "007"), (('"+01"', " 2"), "+01"), (("70", "0.5"), None)])
def test_a_number_that_is_written_like_a_name_is_told(photos, cells, said):
    write_csv(photos, f"file_name,code\n0.png,{cells[0]}\n1.png,{cells[1]}\n")
    found = [problem.detail for problem in load_dataset("folder", photos).problems if problem.code == "padded_number"]
    sentence = f"{said} in 'code' reads as a number, as for `datasets`; JSON can hold such text"
    assert found == ([sentence] if said else [])


@pytest.mark.parametrize("text", ["0.png,1,3\n1.png,0,3\n", "0.png,1,\n", "0.png,1" + ",0" * 100_000 + "\n"])
def test_no_value_slips_into_its_neighbour_where_types_are_known(photos, text):
    """The first row decides for pandas whether the first column names the rows."""
    write_csv(photos, "file_name,smile\n" + text)
    (photos / "metadata.schema.json").write_text('{"columns": {"smile": "text"}}')
    with pytest.raises(DatasetError, match="line 2: more values than the 2 columns of line 1"):
        load_dataset("folder", photos)


def test_damaged_json_lines_name_the_line(photos):
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png"}\n\n{"file_name": \n')
    with pytest.raises(DatasetError, match=r"metadata.jsonl, line 3: not JSON"):
        load_dataset("folder", photos)
    (photos / "metadata.jsonl").write_text("[1, 2]\n")
    with pytest.raises(DatasetError, match="line 1: expected an object {...}, got list"):
        load_dataset("folder", photos)
    (photos / "metadata.csv").write_text("file_name\n0.png\n")
    with pytest.raises(DatasetError, match=r"metadata files of several kinds \(.csv, .jsonl\)"):
        load_dataset("folder", photos)


def test_lists_and_objects_are_kept_but_are_no_labels(photos):
    rows = [{"file_name": f"{i}.png", "smile": True, "boxes": [1, 2], "more": {"a": 1}} for i in range(10)]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    faces = load_dataset("folder", photos)
    assert faces.attributes == ["smile"] and faces.values("smile") == [True]
    assert faces.table.loc["0.png", "boxes"] == [1, 2]


def test_attributes_can_be_named(imagefolder_root):
    assert load_dataset("folder", imagefolder_root, attributes=["age"]).attributes == ["age"]
    with pytest.raises(UnknownNameError, match="Unknown attribute 'agee'.*Did you mean 'age'"):
        load_dataset("folder", imagefolder_root, attributes=["agee"])


def test_wrong_roots(tmp_path):
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset("folder", tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="has neither a picture nor a metadata.csv"):
        load_dataset("folder", tmp_path)


def test_links_round_about_end(photos):
    (photos / "again").symlink_to(photos, target_is_directory=True)
    (photos / "dangling.png").symlink_to(photos / "gone.png")
    assert len(load_dataset("folder", photos)) == 10


@settings(deadline=None)
@given(st.text(alphabet="ab./\\:~ ", max_size=12))
def test_no_name_leaves_the_root(name):
    clean = inside_root(name)
    if clean is not None:
        assert not clean.startswith("/") and ".." not in clean.split("/")
        base = Path("/root/data").resolve()
        assert (base / clean).resolve().is_relative_to(base) and (base / clean).resolve() != base


@settings(max_examples=30, deadline=None)
@given(
    st.permutations(["file_name", "smile", "hair"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.permutations(range(10)),
    st.sampled_from([",", ", "]),
)
def test_csv_layout_does_not_matter(photos, columns, line_end, last, order, comma):
    rows = [{"file_name": f"{i}.png", "smile": str(i % 2), "hair": "x" * (i + 1)} for i in order]
    text = line_end.join(comma.join(row[name] for name in columns) for row in rows)
    text = comma.join(columns) + line_end + text + (line_end if last else "")
    (photos / "metadata.csv").write_bytes(text.encode())
    faces = load_dataset("folder", photos)
    assert faces.ids == [f"{i}.png" for i in order]
    assert faces.table["smile"].tolist() == [i % 2 for i in order]
    assert faces.table["hair"].str.len().tolist() == [i + 1 for i in order]


# -- the same folders through Hugging Face -----------------------------------------------------------------------------


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")

    def load(root):
        return datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))

    return load


def test_datasets_reads_what_the_pipeline_writes(imagefolder_root, hugging_face):
    ours = load_dataset("folder", imagefolder_root)
    theirs = hugging_face(imagefolder_root)
    assert set(theirs) == {"train"} and len(theirs["train"]) == len(ours)
    for row, item in zip(theirs["train"], ours.ids, strict=True):
        for name in ours.attributes:
            assert row[name] == ours.table.at[item, name]
        assert row["image"].convert("RGB").tobytes() == ours.image(item).tobytes()


def test_class_folders_agree_with_datasets(tmp_path, picture, hugging_face):
    root = tmp_path / "classes"
    for split, number in (("train", 3), ("test", 2)):
        for label in ("smiling", "serious"):
            for i in range(number):
                picture(root / split / label / f"{i}.png", 10 * i)
    ours = load_dataset("folder", root)
    theirs = hugging_face(root)
    names = theirs["train"].features["label"].names
    assert names == ours.values("label")
    for split in ("train", "test"):
        mine = ours.split(split).table["label"].value_counts().to_dict()
        assert pd.Series([names[label] for label in theirs[split]["label"]]).value_counts().to_dict() == mine


def test_json_lines_agree_with_datasets(photos, hugging_face):
    (photos / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{i}.png", "smile": i % 2, "hair": "red"}) for i in range(10))
    )
    ours, theirs = load_dataset("folder", photos), hugging_face(photos)["train"]
    assert theirs["smile"] == ours.table["smile"].tolist() and theirs["hair"] == ours.table["hair"].tolist()


def test_every_kind_of_picture_that_datasets_knows(tmp_path, picture):
    imagefolder = pytest.importorskip("datasets.packaged_modules.imagefolder.imagefolder")
    assert set(imagefolder.ImageFolder.EXTENSIONS) == PICTURE_SUFFIXES
    forms = {".jpg": "JPEG", ".jfif": "JPEG", ".jpe": "JPEG", ".apng": "PNG", ".dib": "BMP", ".tif": "TIFF"}
    for suffix in PICTURE_SUFFIXES:
        picture(tmp_path / "female" / "a.png")
        picture(tmp_path / "male" / f"a{suffix}", format=forms.get(suffix, "PNG"))
    faces = load_dataset("folder", tmp_path)
    assert faces.values("label") == ["female", "male"]
    readable = {item for item in faces.ids if item.startswith("male")}
    assert {Path(item).suffix for item in readable} == IMAGE_SUFFIXES
    left_out = {Path(problem.file).suffix for problem in faces.problems}
    assert left_out == PICTURE_SUFFIXES - IMAGE_SUFFIXES and faces.problems[0].code == "unreadable_image"


def test_splits_agree_with_datasets(tmp_path, picture, hugging_face):
    names = ["train", "training_1", "my-val", "set.validation 2", "dev", "x_valid", "a test b", "testing", "1eval"]
    for i, name in enumerate([*names, "evaluation"]):
        for label in ("a", "b"):
            picture(tmp_path / "in" / name / label / f"{i}.png")
    picture(tmp_path / "in" / "other" / "a" / "99.png")
    (tmp_path / "in" / "other" / "a" / "__x.png").write_bytes((tmp_path / "in" / "other" / "a" / "99.png").read_bytes())
    faces, theirs = load_dataset("folder", tmp_path / "in"), hugging_face(tmp_path / "in")
    counts = {split.replace("validation", "val"): len(rows) for split, rows in theirs.items()}
    assert faces.table["split"].value_counts().to_dict() == counts
    assert [problem.code for problem in faces.problems] == ["no_split", "no_split"]
    assert faces.values("label") == theirs["train"].features["label"].names == ["a", "b"]


def test_equal_files_and_people_go_to_one_split(tmp_path, picture):
    for i in range(30):
        for copy in range(3):
            picture(tmp_path / f"{copy}-{i}.png", 8 * i)
    table = load_dataset("folder", tmp_path).table
    same = [name.split("-")[1] for name in table["file_name"]]
    assert table["split"].nunique() > 1 and (table["split"].groupby(same).nunique() == 1).all()
    # of people, a column says who it is
    rows = pd.DataFrame({"file_name": table["file_name"], "person": [int(name[0]) for name in table["file_name"]]})
    rows.to_csv(tmp_path / "metadata.csv", index=False)
    faces = load_dataset("folder", tmp_path, person="person")
    assert (faces.table["split"].groupby(faces.table["person"]).nunique() == 1).all()
    with pytest.raises(UnknownNameError, match="Unknown attribute 'people'"):
        load_dataset("folder", tmp_path, person="people")


def test_letters_with_accents_are_one_name_in_two_spellings(tmp_path, picture):
    picture(tmp_path / unicodedata.normalize("NFD", "é.png"))
    picture(tmp_path / "b.png")
    write_csv(tmp_path, "file_name,x\né.png,1\nb.png,0\n")
    faces = load_dataset("folder", tmp_path)
    assert faces.table["x"].tolist() == [1, 0] and faces.problems == [] and faces.image(faces.ids[0]).size == (20, 20)


def test_a_table_of_pandas_keeps_its_index_as_columns(tmp_path, picture):
    picture(tmp_path / "a.png")
    pd.DataFrame({"x": [1]}, index=pd.Index(["a.png"], name="file_name")).to_parquet(tmp_path / "metadata.parquet")
    assert load_dataset("folder", tmp_path).table["x"].tolist() == [1]


def test_a_key_of_json_lines_stands_once(photos):
    (photos / "metadata.jsonl").write_text('{"file_name": "0.png", "x": 1, "x": 2}\n')
    with pytest.raises(DatasetError, match="line 1: not JSON .the key 'x' stands twice"):
        load_dataset("folder", photos)


@pytest.mark.parametrize("wrong", [None, "x", math.nan, True, -0.1, 2])
def test_a_share_is_a_share(photos, wrong):
    write_csv(photos, "file_name\n0.png\n")
    with pytest.raises(ConfigError, match="`max_missing`.* must be a number"):
        load_dataset("folder", photos, max_missing=wrong)


def test_classes_spelled_in_two_ways_are_named(photos):
    rows = ["Light-skin,m,1-5", "light skin,M,15", "dark,f,15", "dark,ｆ,1-5"]
    names = [f"{number}.png,{row}" for number, row in enumerate(rows)]
    (photos / "metadata.csv").write_text("\n".join(["file_name,tone,sex,range", *names]), encoding="utf-8")
    faces = load_dataset("folder", photos)
    said = [(found.file, found.detail) for found in faces.problems if found.code == "alike_labels"]
    assert [file for file, _ in said] == ["column 'tone'", "column 'sex'", "column 'sex'"]
    assert (
        said[0][1]
        == "'Light-skin' (1) and 'light skin' (1) are different labels; spell them alike if they mean the same"
    )
    assert faces.values("sex") == ["M", "f", "m", "ｆ"]  # nothing is changed


def test_words_for_what_is_not_known_are_named(photos):
    rows = ["unknown,-1,-1", "m,0,1", "?,1,1", "f,0,-1"]
    names = [f"{number}.png,{row}" for number, row in enumerate(rows)]
    (photos / "metadata.csv").write_text("\n".join(["file_name,sex,smile,celeba", *names]))
    faces = load_dataset("folder", photos)
    odd = [(found.file, found.detail) for found in faces.problems if found.code == "unknown_label"]
    said = "is a label here; if no label is meant, leave the cell empty"
    assert odd == [
        ("column 'sex'", f"'?' (1) {said}"),
        ("column 'sex'", f"'unknown' (1) {said}"),
        ("column 'smile'", f"'-1' (1) {said}"),
    ]


@pytest.mark.parametrize("name", ["photos/0.png", "0.PNG", "0.jpg", "elsewhere/0.png"])
def test_a_name_that_is_nearly_right_is_told(photos, name):
    (photos / "metadata.csv").write_text(f"file_name,smile\n{name},1\n")
    with pytest.raises(DatasetError, match=rf"lacks 1 of 1 pictures, the first is {name}, where 0.png is there"):
        load_dataset("folder", photos)
    (photos / "metadata.csv").write_text("file_name,smile\n0,1\n")
    with pytest.raises(DatasetError, match="row 1: 0 is no file name, such as 0.jpg, in column 'file_name'"):
        load_dataset("folder", photos)


def test_a_folder_in_the_place_of_a_kind_and_below_the_home_folder(photos, monkeypatch):
    with pytest.raises(ConfigError, match="is a place, not a kind of dataset: open_dataset"):
        load_dataset(str(photos))
    monkeypatch.setenv("HOME", str(photos.parent))
    assert len(load_dataset("folder", f"~/{photos.name}")) == len(open_dataset(f"~/{photos.name}")) == 10
