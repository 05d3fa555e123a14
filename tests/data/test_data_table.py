"""The label table: selections, splits, missing labels, pictures, joins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlbias.data import FaceDataset, hash_split, join, load_dataset
from vlbias.data.table import label_columns
from vlbias.errors import ConfigError, DatasetError, ImageError, UnknownNameError


@pytest.fixture
def faces(utkface_root):
    return load_dataset("utkface", utkface_root)


def table(**columns):
    ids = [f"f{i}" for i in range(3)]
    base = {"file_name": [f"{i}.png" for i in ids], "split": ["train", "train", "test"]}
    return pd.DataFrame(base | columns, index=pd.Index(ids, name="id"))


def test_select_by_mask_ids_and_series_agree(faces):
    mask = faces.table["gender"] == "male"
    by_series, by_list, by_ids = (
        faces.select(mask),
        faces.select(mask.tolist()),
        faces.select(faces.table.index[mask].tolist()),
    )
    assert by_series.ids == by_list.ids == by_ids.ids
    assert len(by_series) == int(mask.sum()) > 0
    # a mask in another order means the same faces
    assert faces.select(mask.iloc[::-1]).ids == by_series.ids
    assert by_series.problems == faces.problems and by_series.license == faces.license


def test_missing_labels_are_no_values_and_select_nothing(faces):
    assert faces.values("skin") == ["dark", "light"]
    assert faces.table["skin"].isna().sum() == 2
    assert len(faces.select((faces.table["skin"] == "dark").astype("boolean").where(faces.table["skin"].notna()))) == 3


def test_ids_keep_their_order_and_pictures(faces):
    wanted = faces.ids[::-1][:3]
    chosen = faces.select(wanted)
    assert chosen.ids == wanted
    assert torch.equal(chosen.tensor(wanted, 16), faces.tensor(wanted, 16))


def test_a_sample_does_not_depend_on_the_order_of_the_table():
    ids = [f"{age}_{i}" for age in range(100) for i in range(20)]  # as UTKFace names its files
    table = pd.DataFrame({"file_name": ids, "split": "train", "age": [int(i.split("_")[0]) for i in ids]}, index=ids)
    faces = FaceDataset("faces", table)
    drawn = faces.sample(200)
    assert len(drawn) == 200 and abs(drawn.table["age"].mean() - 49.5) < 7
    assert drawn.ids == [item for item in ids if item in set(drawn.ids)]
    assert set(faces.select(ids[::-1]).sample(200).ids) == set(drawn.ids)
    assert set(faces.sample(200, seed=1).ids) != set(drawn.ids)
    assert faces.sample(2000).ids == faces.sample(9999).ids == ids
    with pytest.raises(ConfigError, match="`n` must be 1 or more faces; got 0"):
        faces.sample(0)


def test_tensor_is_the_pictures_one_by_one(faces):
    ids = faces.ids + faces.ids[:2]
    whole = faces.tensor(ids, 16)
    assert whole.shape == (len(ids), 3, 16, 16) and whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([faces.tensor([item], 16) for item in ids]))
    assert faces.tensor([], 16).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("size", [0, -1, 10**6, 2.5, None, True, "64"])
def test_a_tensor_that_cannot_be_meant_is_refused_before_memory_is_taken(faces, size):
    whole = join([faces])
    for dataset in (faces, whole, load_dataset("synthfaces", n=2)):
        with pytest.raises(ConfigError, match=r"`size`( of [A-Za-z.]+)? must be a whole number"):
            dataset.tensor(dataset.ids[:1], size)
    with pytest.raises(ConfigError, match="1000 pictures of 4096 px take 188 GiB at once. Ask for fewer"):
        whole.tensor(whole.ids[:1] * 1000, 4096)


def test_split_selects_and_names_the_splits_there_are(faces):
    assert sum(len(faces.split(name)) for name in faces.values("split")) == len(faces)
    with pytest.raises(UnknownNameError, match="Unknown split 'holdout' for utkface.*Available: .*train"):
        faces.split("holdout")


def test_unknown_names_show_near_ones(faces):
    with pytest.raises(UnknownNameError, match="Did you mean 'gender'"):
        faces.values("gander")
    with pytest.raises(UnknownNameError, match=r"Unknown id 'nobody.jpg' for 'utkface' \(8 faces"):
        faces.image("nobody.jpg")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": ["train", "train", "holdout"]}, r"splits \['holdout'\]; expected train, val, test"),
        ({"split": None}, "lacks 'split'"),
        ({"index": ["f0", "f0", "f1"]}, "ids twice: f0"),
    ],
)
def test_a_wrong_table_is_refused(change, message):
    wrong = table()
    if "index" in change:
        wrong.index = pd.Index(change["index"])
    elif change["split"] is None:
        wrong = wrong.drop(columns="split")
    else:
        wrong["split"] = change["split"]
    with pytest.raises(DatasetError, match=message):
        FaceDataset("toy", wrong)


def test_nothing_selected_is_an_error(faces):
    with pytest.raises(DatasetError, match="has no face"):
        faces.select(faces.table["age"] > 1000)
    with pytest.raises(ConfigError, match="mask must hold 8 values; got 3"):
        faces.select([True, False, True])
    with pytest.raises(ConfigError, match="indexed by other ids"):
        faces.select(pd.Series([True, False], index=["a", "b"]))
    with pytest.raises(DatasetError, match="ids twice"):
        faces.select([faces.ids[0], faces.ids[0]])


def test_an_attribute_that_is_no_column_is_refused():
    with pytest.raises(UnknownNameError, match="Unknown attribute 'smile' for toy"):
        FaceDataset("toy", table(age=[1, 2, 3]), attributes=["smile"])
    with pytest.raises(DatasetError, match="columns twice: age"):
        FaceDataset("toy", pd.concat([table(age=[1, 2, 3]), pd.DataFrame({"age": [1, 2, 3]}, table().index)], axis=1))


def test_labels_without_pictures_say_so():
    with pytest.raises(DatasetError, match="has only labels"):
        FaceDataset("toy", table()).image("f0")


def test_with_column_adds_and_replaces_by_index(faces):
    labels = pd.Series(range(len(faces)), index=faces.ids).iloc[::-1]
    new = faces.with_column("rank", labels, "position")
    assert new.table["rank"].tolist() == list(range(len(faces)))
    assert new.attributes == [*faces.attributes, "rank"] and new.descriptions["rank"] == "position"
    assert "rank" not in faces.table  # the given dataset is not changed
    with pytest.raises(ConfigError, match="must hold 8 labels; got 1"):
        faces.with_column("rank", [1])
    with pytest.raises(ConfigError, match="'split' cannot be the name of a label"):
        faces.with_column("split", ["train"] * 8)


def test_check_images_leaves_out_what_cannot_be_read(faces, utkface_root, capsys):
    names = faces.ids
    (utkface_root / names[0]).write_bytes(b"")
    whole = (utkface_root / names[1]).read_bytes()
    (utkface_root / names[1]).write_bytes(whole[: len(whole) // 2])
    (utkface_root / names[2]).write_text("not a picture")
    checked = faces.check_images()
    assert checked.ids == names[3:]
    new = checked.problems[len(faces.problems) :]
    assert [problem.file for problem in new] == names[:3]
    assert {problem.code for problem in new} == {"unreadable_image"}
    assert "zero bytes" in new[0].detail
    assert "checking pictures: 8/8 images" in capsys.readouterr().err
    # nothing was decoded when the folder was opened, so the broken files were met here first
    with pytest.raises(ImageError, match="zero bytes"):
        faces.image(names[0])
    with pytest.raises(DatasetError, match="no picture of 'utkface' can be read"):
        faces.select(names[:3]).check_images(show_progress=False)
    assert checked.check_images(show_progress=False) is checked
    with pytest.raises(DatasetError, match="20x20 pixels; at least 64"):
        checked.check_images(min_size_px=64, show_progress=False)


def test_join_keeps_pictures_and_labels_apart(faces, celebahq_root):
    celeba = load_dataset("celebahq", celebahq_root)
    whole = join([faces, celeba])
    assert len(whole) == len(faces) + len(celeba)
    assert whole.attributes == [*faces.attributes, *celeba.attributes]
    assert whole.table.loc[celeba.ids, "age"].isna().all()
    ids = [celeba.ids[1], faces.ids[0], celeba.ids[0]]
    expected = torch.cat([celeba.tensor([ids[0]], 8), faces.tensor([ids[1]], 8), celeba.tensor([ids[2]], 8)])
    assert torch.equal(whole.tensor(ids, 8), expected)
    assert whole.image(ids[1]).tobytes() == faces.image(ids[1]).tobytes()
    assert torch.equal(whole.select(ids).tensor(ids, 8), expected)
    with pytest.raises(DatasetError, match="ids twice"):
        join([faces, faces])
    with pytest.raises(ConfigError, match="`datasets` is empty"):
        join([])


def test_provenance_is_no_label_only_beside_an_origin():
    own = pd.DataFrame([{"file_name": "a", "split": "train", "age": 1, "seed": 2, "path": "b", "origin": "flickr"}])
    assert label_columns(own) == ["age", "seed", "path", "origin"]
    assert label_columns(own.assign(origin="real", source_id="a", strength=1, score_x=2)) == ["age"]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=50))
def test_hash_split_depends_on_the_name_alone(names):
    assert [hash_split(name) for name in names] == [hash_split(name) for name in names]
    assert set(map(hash_split, names)) <= {"train", "val", "test"}


def test_hash_split_gives_a_tenth_each():
    counts = pd.Series([hash_split(f"{i}.png") for i in range(5000)]).value_counts(normalize=True)
    assert np.allclose([counts["val"], counts["test"]], 0.1, atol=0.02)


def test_ids_are_text_whatever_index_a_table_has():
    plain = pd.DataFrame({"file_name": ["a.png", "b.png"], "split": ["train", "test"]})
    faces = FaceDataset("plain", plain, root="/photos")
    assert faces.ids == ["0", "1"] and faces.path("1") == Path("/photos/b.png") and plain.index.tolist() == [0, 1]
    with pytest.raises(ConfigError, match="ids of 'plain' are text; got 0"):
        faces.path(0)
    with pytest.raises(DatasetError, match="`table` must be a pandas DataFrame; got dict"):
        FaceDataset("plain", {})


def test_joined_columns_keep_their_type(faces):
    rows = {"file_name": ["x", "y"], "split": ["train"] * 2, "person": [2**60 + 1, 3], "age": ["12", "old"]}
    other = FaceDataset("other", pd.DataFrame(rows, index=["x", "y"]))
    joined = join(part for part in (faces, other.select(other.ids)))
    assert joined.table["person"].dropna().tolist() == [2**60 + 1, 3] and joined.values("person") == [3, 2**60 + 1]
    assert set(map(type, joined.table["age"])) == {str} and len(joined) == len(faces) + 2


def test_a_column_from_a_generator(faces):
    assert faces.with_column("even", (row % 2 for row in range(len(faces)))).values("even") == [0, 1]
    for values in ("a", 3):
        with pytest.raises(ConfigError, match="`values` of FaceDataset.with_column must be a list or a Series"):
            faces.with_column("even", values)
    for name in ("", None, "split"):
        with pytest.raises(ConfigError, match="must be a text|cannot be the name of a label"):
            faces.with_column(name, ["a"] * len(faces))
