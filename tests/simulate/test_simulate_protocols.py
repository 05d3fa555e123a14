"""The published study on drawn copies of its datasets, by the command."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias.cli import app
from vlbias.data import FaceDataset, open_dataset
from vlbias.errors import ConfigError, LabelError
from vlbias.simulate.protocols import PROTOCOLS, describe, draw_copy, make_plan, prepared, tiny


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", "fer", *map(str, arguments)])


def test_a_drawn_copy_of_cafe_is_recognised_and_has_children_on_one_side(tmp_path):
    protocol = tiny(PROTOCOLS["cafe"])
    faces = open_dataset(draw_copy(protocol, tmp_path))
    assert faces.name == "cafe" and {problem.code for problem in faces.problems} == {"other_count"}
    table = prepared(protocol, faces).table
    assert table.groupby("person")["split"].nunique().max() == 1
    assert set(table["race"]) == {"African American", "European American"} and table["expression"].nunique() == 6
    alone = faces.select((table["race"] == "African American") | (table["person"] == table["person"].iloc[0]))
    with pytest.raises(LabelError, match=r"two groups of 4 people in training and in the test"):
        prepared(protocol, alone)


def test_the_whole_study_in_its_tiny_budget(tmp_path):
    result = run(tmp_path / "out", "--budget", "tiny", "--device", "cpu", "--repeats", 1)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "UNKNOWN: the backbone" in result.output and "says nothing about the published numbers" in result.output
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    published = table[table["source"] == "published"].set_index("metric")["gain"]
    assert published.to_dict() == {"F1": 0.272, "demographic parity": 0.157}
    measured = table[table["source"] == "measured"]
    assert measured["gain"].between(-1, 1).all() and measured["low"].isna().all(), "one repeat has no interval"
    assert (tmp_path / "out" / "curves.png").is_file() and (tmp_path / "out" / "summary.csv").is_file()
    assert json.loads((tmp_path / "out" / "protocol.json").read_text())["published"]["f1"] == 0.272


def test_affectnet_has_its_races_from_a_file_that_may_err(tmp_path):
    data = draw_copy(tiny(PROTOCOLS["affectnet"]), tmp_path / "data")
    (tmp_path / "m.csv").write_text("given,AA,EA\nAA,9,1\nEA,2,8\n")
    wanted = ["--dataset", "affectnet", "--data", data, "--dry-run", "--images-per-second", 1000]
    result = run(tmp_path / "out", *wanted, "--groups", data / "groups.csv", "--label-noise", tmp_path / "m.csv")
    assert result.exit_code == 0, (result.output, result.exception)
    # 2 groups, 6 shares, 5 repeats, 4,000 steps of 64 images
    assert "60 runs" in result.output and "15.4 million images are trained on, 4.3 GPU hours." in result.output
    assert "by a labeller that is right for 90% of AA, 80% of EA" in result.output
    assert not (tmp_path / "out").exists()
    (data / "groups.csv").unlink()
    result = run(tmp_path / "out", *wanted)
    assert result.exit_code == 1 and "does not say of what race a face is" in str(result.exception)


def test_faces_of_no_known_race_are_left_out(tmp_path):
    protocol = tiny(PROTOCOLS["affectnet"])
    data = draw_copy(protocol, tmp_path)
    faces, races = open_dataset(data), pd.read_csv(data / "groups.csv")
    half = prepared(protocol, faces, races.iloc[::2])
    assert len(half) == 180 and half.table["race"].notna().all()
    text = describe(protocol, make_plan(protocol, half))
    assert "8 runs" in text and "GPU hours" not in text
    with pytest.raises(LabelError, match=r"need the columns file_name and race; got \['file_name'\]"):
        prepared(protocol, faces, races[["file_name"]])


def test_what_cannot_be_run(tmp_path):
    table = pd.DataFrame({"file_name": ["a", "b"], "split": ["train", "test"]})
    with pytest.raises(ConfigError, match="on 'cafe'; got 'affectnet'"):
        prepared(PROTOCOLS["cafe"], FaceDataset("affectnet", table))
    for arguments, text in (
        (["--dataset", "jaffe"], "Unknown dataset of fer 'jaffe'"),
        (["--budget", "huge"], "Unknown budget 'huge'"),
        ([], "`--data` is the folder of the official files"),
    ):
        result = run(tmp_path / "x", *arguments)
        assert result.exit_code == 1 and text in str(result.exception)
    assert not (tmp_path / "x").exists()
