"""UTKFace: labels in file names."""

from __future__ import annotations

import tarfile
import time
import zlib

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlbias.data import Problem, hash_split, load_dataset
from vlbias.data.utkface import parse_utkface_name
from vlbias.errors import ConfigError, DatasetError


def test_columns_and_derived_labels(utkface_root):
    faces = load_dataset("utkface", utkface_root)
    table = faces.table
    assert faces.attributes == ["age", "gender", "race", "age_group", "skin"]
    assert len(faces) == 8
    row = table.loc["40_1_1_20170116174525126.jpg.chip.jpg"]
    assert row[["age", "gender", "race", "age_group", "skin"]].tolist() == [40, "female", "Black", "old", "dark"]
    assert table.loc["39_0_1_20170116174525125.jpg.chip.jpg", "age_group"] == "young"
    assert pd.isna(table.loc["52_0_3_20170116174525128.jpg.chip.jpg", "skin"])
    assert pd.isna(table.loc["80_1_4_20170116174525129.jpg.chip.jpg", "skin"])
    assert table.loc["26_1_2_20170116184024662.jpg.chip.jpg", "skin"] == "light"
    assert "not measured" in faces.descriptions["skin"] and "non-commercial" in faces.license


def test_malformed_names_are_reported_not_fatal(utkface_root, picture):
    picture(utkface_root / "200_0_0_20170116174525125.jpg.chip.jpg")
    picture(utkface_root / "30_2_0_20170116174525125.jpg.chip.jpg")
    picture(utkface_root / "30_1_5_20170116174525125.jpg.chip.jpg")
    picture(utkface_root / "part2" / "1_0_0_20170109142408075.jpg.chip.jpg")
    faces = load_dataset("utkface", utkface_root)
    assert len(faces) == 8
    found = {problem.file: (problem.code, problem.detail) for problem in faces.problems}
    assert found.pop("39_1_20170116174525125.jpg.chip.jpg") == (
        "malformed_name",
        "3 fields before the first dot; expected age_gender_race_date",
    )
    assert found.pop("55_0_0_20170116232725357jpg.chip.jpg")[0] == "malformed_name"
    assert found.pop("200_0_0_20170116174525125.jpg.chip.jpg") == (
        "label_out_of_range",
        "age is 200; expected 0..116",
    )
    assert found.pop("30_2_0_20170116174525125.jpg.chip.jpg")[1] == "gender is 2; expected 0..1"
    assert found.pop("30_1_5_20170116174525125.jpg.chip.jpg")[1] == "race is 5; expected 0..4"
    assert found.pop("part2/1_0_0_20170109142408075.jpg.chip.jpg")[0] == "duplicate_name"
    assert not found


def test_split_is_crc32_of_the_name(utkface_root):
    for name, split in load_dataset("utkface", utkface_root).table["split"].items():
        assert split == {0: "test", 1: "val"}.get(zlib.crc32(name.encode()) % 10, "train")


def test_the_folder_above_is_taken_too(utkface_root):
    assert load_dataset("utkface", utkface_root.parent).ids == load_dataset("utkface", utkface_root).ids


def test_age_split_is_an_option(utkface_root):
    faces = load_dataset("utkface", utkface_root, age_split=25)
    assert faces.table.loc["26_1_2_20170116184024662.jpg.chip.jpg", "age_group"] == "old"
    assert faces.descriptions["age_group"] == "young below 25 years, old from 25 on"
    with pytest.raises(ConfigError, match="`age_split` must be a whole number in 1..116; got 0"):
        load_dataset("utkface", utkface_root, age_split=0)


def test_wrong_roots(tmp_path, picture):
    with pytest.raises(DatasetError, match="is not a folder. Give the folder of UTKFace"):
        load_dataset("utkface", tmp_path / "nowhere")
    picture(tmp_path / "photos" / "IMG_0001.jpg")
    with pytest.raises(DatasetError, match="has no photograph with UTKFace labels .1 pictures in all"):
        load_dataset("utkface", tmp_path / "photos")


@settings(deadline=None)
@given(st.integers(0, 116), st.integers(0, 1), st.integers(0, 4), st.integers(0, 10**17), st.sampled_from(["", " "]))
def test_every_well_formed_name_parses(age, gender, race, date, space):
    assert parse_utkface_name(f"{age}_{gender}_{race}_{date}{space}.jpg.chip.jpg") == (age, gender, race)


@settings(deadline=None)
@given(st.text(max_size=60))
@example("")
@example("1_0_0_\u0664.jpg")
@example("9" * 5000 + "_0_0_1.jpg")
def test_no_name_raises(name):
    labels = parse_utkface_name(name)
    if isinstance(labels, Problem):
        assert labels.file == name and labels.detail
    else:
        assert 0 <= labels[0] <= 116 and labels[1] in (0, 1) and 0 <= labels[2] <= 4


def test_the_real_names(shared_dir, tmp_path):
    """12,000 names of the published set; empty files stand for the photographs, which are not opened."""
    with tarfile.open(shared_dir / "data" / "UTKFace.tar") as archive:
        names = [member.name for member in archive if member.isfile()]
    (tmp_path / "UTKFace").mkdir()
    for name in names:
        (tmp_path / name).touch()
    start = time.process_time()
    faces = load_dataset("utkface", tmp_path)
    cpu_s = time.process_time() - start
    assert len(names) == 12_000
    assert len(faces) == 11_998
    assert sorted(problem.file for problem in faces.problems) == [
        "39_1_20170116174525125.jpg.chip.jpg",
        "55_0_0_20170116232725357jpg.chip.jpg",
    ]
    # processor time, not the clock: it is 0.1 to 0.3 s
    assert cpu_s < 1.5


def test_a_photograph_and_its_crop_go_to_one_split(tmp_path, picture):
    for i in range(40):
        name = f"26_1_{i % 5}_2017011618402{i:04d}.jpg"
        picture(tmp_path / "part1" / name)
        picture(tmp_path / "crop_part1" / f"{name}.chip.jpg")
    faces = load_dataset("utkface", tmp_path)
    photographs = [item.removesuffix(".chip.jpg") for item in faces.ids]
    assert len(faces) == 80 and (faces.table["split"].groupby(photographs).nunique() == 1).all()
    # a crop keeps the split that it had on its own
    assert all(faces.table.at[item, "split"] == hash_split(item) for item in faces.ids if ".chip." in item)
