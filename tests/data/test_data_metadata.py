"""Labels keep value and type: through our files, through Hugging Face `datasets`, and through files of others."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from vlbias.data import FaceDataset, load_dataset
from vlbias.data.metadata import SCHEMA_FILE, metadata_files, read_metadata
from vlbias.errors import DatasetError, LabelError
from vlbias.labels import label_text, label_texts, typed_labels

#: Ten forms of labels, six faces each: what somebody may have, missing ones among them.
FORMS = {
    "yes_no": [True, False, True, False, True, True],
    "yes_no_missing": [True, None, False, None, True, False],
    "whole": [0, 1, 2, 0, 1, 2],
    "whole_missing": [2**60 + 1, None, 3, 0, None, 1],
    "float_codes": [0.0, 1.0, None, 0.5, 1e-9, 0.1 + 0.2],
    "text": ["light", "dark", "a, b", 'say "x"', "two\nlines", "tab\there"],
    "text_numbers": ["0", "1", "01", "1.0", "1e5", "-0"],
    "mixed_case": ["Male", "male", "MALE", "True", "true", "FALSE"],
    "unicode": ["é", "日本", "🙂", "ß", "İ", "a\u2028b"],
    "names_of_nothing": ["None", "NA", "nan", "null", "N/A", None],
    "blank": [None, None, "x", None, None, None],
    "empty": [None] * 6,
    "dates": ["2020-01-01", "01/02/03", "2020-01-01 00:00:00", "12:30", "1.2.2020", "2020"],
    "long": ["x" * 5000, "🙂" * 40_000, "x" * 4999, None, "-" * 300, "1" * 400],
    "leading_zeros": ["007", "7", "0x7", "1_000", "+1", "١"],
    "looks_like_a_number": ["inf", "-inf", "1e999", "0.10", "1.", "1,5"],
    "spoken": ["TRUE", "FALSE", "yes", "no", "T", "F"],
    "of_other_languages": ["<b>", "&amp;", "'", "\\", "\\n", "=1+1"],
    "looks_missing": ["-1", "?", "#N/A", "<NA>", "NaN", "NaT"],
    "unseen_signs": ["a\u200bb", "\u202eabc", "\ufeffx", "a\xa0b", "a\u3000b", "a\x7fb"],
    "line_ends": ["a\rb", "a\r\nb", "a\x0bb", "a\x1cb", "a\x85b", "a\u2029b"],
    "numbers_at_the_edge": [1e308, -1e-300, 5e-324, 1.0, None, 123456789.12345679],
    "always_yes": [True] * 6,
    "whole_floats": [3.0, None, 1.0, 2.0, 0.0, -7.0],
}


@pytest.fixture
def table(tmp_path, picture):
    for row in range(6):
        picture(tmp_path / "in" / ("test" if row % 3 == 0 else "train") / f"{row}.png", 30 * row)
    names = [f"{'test' if row % 3 == 0 else 'train'}/{row}.png" for row in range(6)]
    columns = {name: typed_labels(pd.Series(values, names, dtype=object)) for name, values in FORMS.items()}
    splits = [name.split("/")[0] for name in names]
    return pd.DataFrame({"file_name": names, "split": splits, **columns, "boxes": [[1, 2]] * 6}, index=names)


def files_of(table):
    return {name: b"".join(parts) for name, parts in metadata_files(table)}


def write(root, table):
    for name, content in files_of(table).items():
        (root / name).write_bytes(content)
    return root


def values_of(column):
    return [None if value is None or pd.isna(value) else value for value in column.tolist()]


def test_ten_forms_read_back_value_by_value(table, tmp_path):
    root = write(tmp_path / "in", table)
    for _ in range(3):  # and again from what was read
        faces = load_dataset("folder", root)
        assert faces.attributes == [name for name in table.columns if name not in ("file_name", "split", "boxes")]
        for name, wanted in FORMS.items():
            got = values_of(faces.table[name])
            assert got == wanted and list(map(type, got)) == list(map(type, wanted)), name
        pd.testing.assert_frame_equal(faces.table.drop(columns="boxes"), table.drop(columns="boxes"), check_names=False)
        assert faces.table["boxes"].tolist() == [[1, 2]] * 6
        codes = [problem.code for problem in faces.problems if not problem.code.endswith("_label")]
        assert codes[0] == "no_label_column" and {*codes[1:]} <= {"alike_labels"}
        write(root, faces.table)


def test_the_same_through_datasets(table, tmp_path, hugging_face):
    theirs = hugging_face(write(tmp_path / "in", table))
    for split in ("train", "test"):
        rows = table[table["split"] == split]
        for name in FORMS:
            got, wanted = theirs[split][name][:], values_of(rows[name])
            assert got == wanted and list(map(type, got)) == list(map(type, wanted)), name


def test_the_same_table_is_the_same_bytes_whatever_dtypes_it_has(table):
    files = files_of(table)
    assert files_of(table.astype(object).where(table.notna(), None)) == files
    assert files_of(table.iloc[::1].copy()) == files
    schema = json.loads(files[SCHEMA_FILE])["columns"]
    assert {schema[name] for name in ("yes_no", "yes_no_missing")} == {"boolean"}
    assert {schema[name] for name in ("whole", "whole_missing")} == {"integer"}
    assert schema["float_codes"] == "number" and schema["text_numbers"] == schema["empty"] == "text"


def test_splits_have_one_schema_even_where_a_column_is_empty_in_one(table, tmp_path):
    root = write(tmp_path / "in", table)
    schemas = [pq.read_schema(root / split / "metadata.parquet") for split in ("train", "test")]
    assert schemas[0] == schemas[1]


def test_a_hand_that_changed_the_table(table, tmp_path):
    root = write(tmp_path / "in", table)
    path = root / "metadata.csv"
    text = path.read_text()
    path.write_text(text.replace("test/0.png,test,True", "test/0.png,test,maybe"))
    with pytest.raises(DatasetError, match="'yes_no' is of the type boolean.*expected True or False, got 'maybe'"):
        load_dataset("folder", root)
    path.write_text(text)
    (root / SCHEMA_FILE).write_text('{"columns": {"smile": "colour"}}')
    with pytest.raises(DatasetError, match="must say the type of each column .boolean, integer, number, text"):
        load_dataset("folder", root)
    # without its types it is guessed, as any other CSV file is
    (root / SCHEMA_FILE).unlink()
    for split in ("train", "test"):
        (root / split / "metadata.parquet").unlink()
    faces = load_dataset("folder", root)
    assert faces.values("whole") == [0, 1, 2] and faces.table["names_of_nothing"].isna().all()
    (problem,) = [problem for problem in faces.problems if "names_of_nothing" in problem.detail]
    assert problem.code == "missing_word" and "N/A, NA, None, nan, null" in problem.detail


@pytest.mark.parametrize("values", [["a", 1, None], [True, "x", None], [1, True, "1"]])
def test_a_column_of_several_types_is_text(values):
    assert typed_labels(pd.Series(values, dtype=object)).dropna().tolist() == [
        label_text(value) for value in values if value is not None
    ]


def test_numbers_beyond_64_bits_are_text():
    assert typed_labels(pd.Series([2**70, 1], dtype=object)).tolist() == [str(2**70), "1"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_spaces_around_text_make_no_second_group(tmp_path, picture, form):
    table = pd.DataFrame({"file_name": [f"{i}.png" for i in range(4)], "skin": ["light", "light ", " dark", "dark"]})
    for name in table["file_name"]:
        picture(tmp_path / name)
    if form == "csv":
        table.to_csv(tmp_path / "metadata.csv", index=False)
    elif form == "jsonl":
        table.to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    else:
        table.to_parquet(tmp_path / "metadata.parquet")
    assert load_dataset("folder", tmp_path).values("skin") == ["dark", "light"]


def test_a_table_of_your_own_has_no_second_group_either():
    table = pd.DataFrame({"file_name": ["a", "b", "c"], "split": "train", "skin": ["light", "light ", None]})
    faces = FaceDataset("own", table)
    assert faces.values("skin") == ["light"]
    assert faces.with_column("hair", ["red ", "red", " "]).values("hair") == ["red"]
    with pytest.raises(LabelError, match="a label is one value"):
        faces.with_column("box", [[1], [2], [3]])


def test_json_lines_end_with_line_feeds_alone(tmp_path, picture):
    rows = [{"file_name": "0.png", "caption": "one\u2028two"}, {"file_name": "1.png", "caption": "a\x85b\x0c"}]
    for row in rows:
        picture(tmp_path / row["file_name"])
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (tmp_path / "metadata.jsonl").write_text("\r\n".join(lines), newline="")
    assert load_dataset("folder", tmp_path).table["caption"].tolist() == ["one\u2028two", "a\x85b"]


def test_lists_in_parquet_are_no_labels(tmp_path, picture):
    table = pd.DataFrame({"file_name": ["0.png", "1.png"], "box": [[1, 2], [3, 4]], "smile": [0, 1]})
    for name in table["file_name"]:
        picture(tmp_path / name)
    table.to_parquet(tmp_path / "metadata.parquet")
    faces = load_dataset("folder", tmp_path)
    assert faces.attributes == ["smile"]
    assert [(problem.file, problem.code) for problem in faces.problems] == [("metadata.parquet", "no_label_column")]
    with pytest.raises(LabelError, match="a label is one value, text or a number; got ndarray"):
        faces.values("box")


def test_a_header_that_names_a_column_twice(tmp_path, picture):
    picture(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text("file_name,gender, gender\n0.png,Male,Female\n")
    with pytest.raises(DatasetError, match="metadata.csv has a column twice: gender"):
        load_dataset("folder", tmp_path)


def test_class_folders_of_any_name(tmp_path, picture):
    for name in ("None", "NA", "0", "1", "True", "light "):
        for i in range(2):
            picture(tmp_path / "in" / "train" / name / f"{i}.png")
    faces = load_dataset("folder", tmp_path / "in")
    assert faces.values("label") == ["0", "1", "NA", "None", "True", "light"]
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "in", out)
    back = load_dataset("folder", write(out, faces.table))
    pd.testing.assert_frame_equal(back.table, faces.table)


def test_whole_numbers_of_a_csv_are_not_bent_by_a_blank(tmp_path):
    (tmp_path / "metadata.csv").write_text(f"file_name,code,flag\n0.png,{2**60 + 1},True\n1.png,,\n")
    table = read_metadata(tmp_path / "metadata.csv")
    assert table["code"].tolist() == [2**60 + 1, pd.NA] and str(table["flag"].dtype) == "boolean"


def test_labels_are_counted_once_for_all_rooms(table):
    texts = label_texts(table["yes_no"])
    assert texts.tolist() == ["1", "0", "1", "0", "1", "1"]
    assert np.array_equal(texts, label_texts(table["yes_no"].astype("int64")))


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load(root):
        return datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))

    return load


def test_text_in_parquet_that_is_none_is_refused_by_name(tmp_path, picture):
    picture(tmp_path / "0.png", 9)
    place = tmp_path / "metadata.parquet"
    pd.DataFrame({"file_name": ["0.png"], "who": ["abcdefgh"]}).to_parquet(place, compression=None)
    content = place.read_bytes()
    place.write_bytes(content.replace(b"abcdefgh", b"ab\xcddefgh"))
    with pytest.raises(DatasetError, match=r"metadata.parquet cannot be read: .*UTF8"):
        load_dataset("folder", tmp_path)
    place.write_bytes(content.replace(b"numpy_type", b"numpy_typo"))
    with pytest.raises(DatasetError, match=r"metadata.parquet cannot be read: its notes for pandas are damaged"):
        load_dataset("folder", tmp_path)
