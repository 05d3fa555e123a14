"""CelebA-HQ: three annotation files, any spacing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.data import load_dataset
from vlbias.data.celebahq import (
    CELEBA_ATTRIBUTES,
    parse_attributes,
    parse_fairface,
    parse_mapping,
    parse_partition,
)
from vlbias.errors import ConfigError, DatasetError, LabelError

ATTRIBUTES, MAPPING, PARTITION = (
    "CelebAMask-HQ-attribute-anno.txt",
    "CelebA-HQ-to-CelebA-mapping.txt",
    "list_eval_partition.txt",
)


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_the_true_annotation_files(shared_dir):
    faces = load_dataset("celebahq", shared_dir / "data" / "CelebAMask-HQ", labels_only=True)
    assert len(faces) == 30_000
    assert faces.table["split"].value_counts().to_dict() == {"train": 24_183, "val": 2_993, "test": 2_824}
    assert faces.attributes == list(CELEBA_ATTRIBUTES)
    assert all(set(faces.values(name)) == {0, 1} for name in faces.attributes)
    # the first line of the file: 0.jpg  -1 1 1 1 -1 ...
    assert faces.table.loc["0.jpg", list(CELEBA_ATTRIBUTES[:5])].tolist() == [0, 1, 1, 1, 0]
    with pytest.raises(DatasetError, match="has only labels"):
        faces.image("0.jpg")


def test_pictures_labels_and_splits(celebahq_root):
    faces = load_dataset("celebahq", celebahq_root)
    assert faces.ids == [f"{i}.jpg" for i in range(10)]
    assert faces.table["split"].tolist() == ["train"] * 7 + ["train", "val", "test"]
    assert faces.table.loc["1.jpg", "5_o_Clock_Shadow"] == 0 and faces.table.loc["3.jpg", "5_o_Clock_Shadow"] == 1
    assert faces.image("3.jpg").size == (20, 20) and faces.problems == []
    assert "non-commercial" in faces.license


def test_missing_pictures_are_reported_up_to_a_share(celebahq_root):
    (celebahq_root / "CelebA-HQ-img" / "4.jpg").unlink()
    faces = load_dataset("celebahq", celebahq_root, max_missing=0.1)
    assert len(faces) == 9 and "4.jpg" not in faces.ids
    assert [(problem.file, problem.code) for problem in faces.problems] == [("CelebA-HQ-img/4.jpg", "missing_image")]
    with pytest.raises(DatasetError, match="lacks 1 of 10 pictures, the first is CelebA-HQ-img/4.jpg"):
        load_dataset("celebahq", celebahq_root, max_missing=0.05)
    with pytest.raises(ConfigError, match="`max_missing` must be a number in 0..1; got 2"):
        load_dataset("celebahq", celebahq_root, max_missing=2)
    for path in (celebahq_root / "CelebA-HQ-img").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="lacks 10 of 10"):
        load_dataset("celebahq", celebahq_root, max_missing=1)
    (celebahq_root / "CelebA-HQ-img").rmdir()
    with pytest.raises(DatasetError, match="no folder CelebA-HQ-img/.*labels_only=True"):
        load_dataset("celebahq", celebahq_root)


def test_png_copies_are_found(celebahq_root, picture):
    (celebahq_root / "CelebA-HQ-img" / "4.jpg").unlink()
    picture(celebahq_root / "CelebA-HQ-img" / "4.png")
    assert load_dataset("celebahq", celebahq_root).image("4.jpg").size == (20, 20)


def test_split_by_hash_needs_no_partition(celebahq_root):
    (celebahq_root / MAPPING).unlink()
    with pytest.raises(DatasetError, match="mapping.txt does not exist"):
        load_dataset("celebahq", celebahq_root)
    assert len(load_dataset("celebahq", celebahq_root, split="hash")) == 10
    with pytest.raises(ConfigError, match="`split` must be 'celeba' or 'hash'"):
        load_dataset("celebahq", celebahq_root, split="random")


@pytest.mark.parametrize(
    ("file", "old", "new", "error", "message"),
    [
        (ATTRIBUTES, "Smiling ", "", DatasetError, "line 2: lacks the column Smiling"),
        (ATTRIBUTES, "Smiling", "Smiling Smiling", DatasetError, "line 2: has a column twice: Smiling"),
        (ATTRIBUTES, "10\n", "11\n", DatasetError, "announces 11 images in its first line and has 10"),
        (ATTRIBUTES, "3.jpg", "2.jpg", DatasetError, "line 6: '2.jpg' appears twice, first in line 5"),
        (ATTRIBUTES, "2.jpg  -1", "2.jpg  7", LabelError, "line 5: '2.jpg' has 5_o_Clock_Shadow=7; expected -1 or 1"),
        (ATTRIBUTES, "2.jpg  -1", "2.jpg ", DatasetError, "line 5: '2.jpg' has 39 values; expected 40"),
        (ATTRIBUTES, "2.jpg", "../2.jpg", DatasetError, "line 5: '../2.jpg' is a path; expected the name"),
        (MAPPING, "000011.jpg", "", DatasetError, "line 3: expected 'idx orig_idx orig_file', got '1 10'"),
        (MAPPING, "\n1 ", "\n2 ", DatasetError, "the index 2 appears twice"),
        (MAPPING, "\n9 ", "\n77 ", DatasetError, "mapping.txt has no line for the annotated '9.jpg'"),
        (PARTITION, "000011.jpg 0", "000011.jpg 3", LabelError, "line 2: '000011.jpg' has split 3; expected 0, 1 or 2"),
        (PARTITION, "000011.jpg", "000004.jpg", DatasetError, "line 2: '000004.jpg' appears twice"),
        (PARTITION, "000011.jpg", "900000.jpg", DatasetError, "no line for '000011.jpg', the original of '1.jpg'"),
        (PARTITION, "000011.jpg 0", "000011.jpg", DatasetError, "line 2: expected 'name split'"),
    ],
)
def test_damaged_annotation_names_file_and_line(celebahq_root, file, old, new, error, message):
    edit(celebahq_root / file, old, new)
    with pytest.raises(error, match=message):
        load_dataset("celebahq", celebahq_root)


def test_wrong_files(celebahq_root):
    (celebahq_root / ATTRIBUTES).write_text("")
    with pytest.raises(DatasetError, match="is empty; expected a count"):
        load_dataset("celebahq", celebahq_root)
    (celebahq_root / ATTRIBUTES).write_text("0.jpg 1 -1\n1.jpg 1 1\n")
    with pytest.raises(DatasetError, match="line 1: expected the names of the attributes, got '0.jpg ...'"):
        load_dataset("celebahq", celebahq_root)
    (celebahq_root / ATTRIBUTES).write_text(" ".join(CELEBA_ATTRIBUTES))
    with pytest.raises(DatasetError, match="names no image"):
        load_dataset("celebahq", celebahq_root)
    (celebahq_root / ATTRIBUTES).write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DatasetError, match="is not a text file in UTF-8"):
        load_dataset("celebahq", celebahq_root)


def test_fairface_pseudo_labels(celebahq_root):
    path = celebahq_root / "fair_face_pseudo_labels.txt"
    path.write_text(
        "image age gender race\n0.jpg 20-29 Female White\n1.jpg 50-59 Male Black\n2 40-49 Male East Asian\n"
        "3.jpg 3-9 Male Latino_Hispanic\n99.jpg 3-9 Male White\n"
    )
    faces = load_dataset("celebahq", celebahq_root)
    assert faces.table["skin"].tolist()[:3] == ["light", "dark", "light"]
    assert faces.table["age_group"].tolist()[:4] == ["young", "old", "old", "young"]
    assert faces.table.loc["3.jpg", "fairface_race"] == "Latino Hispanic"
    assert faces.table["skin"].isna().sum() == 7 and faces.values("skin") == ["dark", "light"]
    assert [(problem.file, problem.code) for problem in faces.problems] == [("99.jpg", "unknown_image")]
    assert "not measured" in faces.descriptions["skin"]
    path.write_text("801.jpg 20-29 Female White\n")
    with pytest.raises(DatasetError, match="no label for any annotated image, the first is '801.jpg'"):
        load_dataset("celebahq", celebahq_root)
    path.write_text("0.jpg 20-29 Female\n")
    with pytest.raises(DatasetError, match="line 1: expected 'image age gender race', got '0.jpg 20-29 Female'"):
        load_dataset("celebahq", celebahq_root)


def test_fairface_with_commas():
    table = parse_fairface("image,age,gender,race\nimg/0.jpg,20-29,Female,East Asian\n")
    assert table.loc["0.jpg"].tolist() == ["20-29", "Female", "East Asian"]


def test_fairface_is_asked_for_commas_once():
    """Not once a line: of a large file without any that took minutes."""

    class Text(str):
        asked = 0

        def __contains__(self, sign):
            Text.asked += sign == ","
            return super().__contains__(sign)

    assert len(parse_fairface(Text("".join(f"{i}.jpg 20-29 Female White\n" for i in range(9))))) == 9
    assert Text.asked == 1


def test_fairface_columns_go_by_their_header(celebahq_root):
    """The published tables: a fifth column, and whole numbers under another header."""
    path = celebahq_root / "fair_face_pseudo_labels.txt"
    path.write_text(
        "file,age,gender,race,service_test\nval/0.jpg,3-9,Male,White,True\n1.jpg,50-59,Female,Black,False\n"
    )
    faces = load_dataset("celebahq", celebahq_root)
    assert faces.table.loc[["0.jpg", "1.jpg"], "fairface_race"].tolist() == ["White", "Black"]
    assert faces.table.loc[["0.jpg", "1.jpg"], "skin"].tolist() == ["light", "dark"]

    path.write_text("image_name age gender skin_color\n0.jpg 0 0 0\n1.jpg 1 1 1\n2.jpg 1 0 2\n3.jpg 0 1 3\n")
    faces = load_dataset("celebahq", celebahq_root)
    assert faces.table["age_group"].tolist()[:4] == ["young", "old", "old", "young"]
    assert faces.table["skin"].tolist()[:3] == ["light", "dark", "light"] and faces.table["skin"].isna()["3.jpg"]
    assert "fairface_race" not in faces.attributes and "fairface_race" not in faces.descriptions

    path.write_text("image_name age skin_color\n0.jpg 0 1\n")
    faces = load_dataset("celebahq", celebahq_root)
    assert faces.table.loc["0.jpg", ["age_group", "skin"]].tolist() == ["young", "dark"]

    path.write_text("image_name age gender skin_color\n0.jpg 0 0 4\n")
    with pytest.raises(LabelError, match="line 2: skin_color is '4'; expected one of the published codes 0, 1, 2, 3"):
        load_dataset("celebahq", celebahq_root)
    path.write_text("number age gender race\n0 3-9 Male White\n")
    with pytest.raises(DatasetError, match="line 1: no column names the image; expected image, image_name"):
        load_dataset("celebahq", celebahq_root)


# -- laws: what stands between the fields does not matter --------------------------------------------------------------

SPACE = st.sampled_from([" ", "  ", "\t", "   \t "])
LINE_END = st.sampled_from(["\n", "\r\n", "\r", " \n", "\n\n"])


def layout(draw, rows, last):
    """Rows of fields as text, each gap and line end drawn anew."""
    text = draw(st.sampled_from(["", "\ufeff"])).replace("\ufeff", "")  # a byte order mark is taken off on reading
    for number, fields in enumerate(rows):
        line = fields[0]
        for name in fields[1:]:
            line += draw(SPACE) + name
        text += draw(st.sampled_from(["", " "])) + line
        if number < len(rows) - 1 or not last:
            text += draw(LINE_END)
    return text


@settings(max_examples=25, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_attributes_in_any_layout_and_order(data, with_count, no_last_newline):
    columns = data.draw(st.permutations(CELEBA_ATTRIBUTES))
    rows = data.draw(st.lists(st.lists(st.sampled_from(["1", "-1"]), min_size=40, max_size=40), min_size=1, max_size=3))
    lines = [[f"{i}.jpg", *values] for i, values in enumerate(rows)]
    head = [[str(len(rows))]] if with_count else []
    table = parse_attributes(layout(data.draw, [*head, list(columns), *lines], no_last_newline))
    assert table.index.tolist() == [f"{i}.jpg" for i in range(len(rows))]
    for i, values in enumerate(rows):
        assert table.loc[f"{i}.jpg", list(columns)].tolist() == [int(value == "1") for value in values]


@settings(max_examples=50, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_mapping_with_and_without_header_in_any_order(data, header, no_last_newline):
    indices = data.draw(st.lists(st.integers(0, 30000), unique=True, min_size=1, max_size=8))
    rows = [[str(i), str(i + 1), f"{i + 2:06d}.jpg"] for i in indices]
    text = layout(data.draw, [["idx", "orig_idx", "orig_file"]] * header + rows, no_last_newline)
    assert parse_mapping(text) == {i: f"{i + 2:06d}.jpg" for i in indices}


@settings(max_examples=50, deadline=None)
@given(st.data(), st.booleans(), st.booleans())
def test_partition_with_and_without_header(data, header, no_last_newline):
    codes = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=8))
    rows = [[f"{i:06d}.jpg", str(code)] for i, code in enumerate(codes)]
    text = layout(data.draw, [["image", "partition"]] * header + rows, no_last_newline)
    names = ("train", "val", "test")
    assert parse_partition(text) == {f"{i:06d}.jpg": names[code] for i, code in enumerate(codes)}


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_clearly_or_read(text):
    for parse in (parse_attributes, parse_mapping, parse_partition, parse_fairface):
        try:
            parse(text, "some.txt")
        except DatasetError as error:
            assert "some.txt" in str(error)
