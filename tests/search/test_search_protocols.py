"""The published experiment on drawn copies of its datasets, by the command."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

from vlbias.cli import app
from vlbias.data import FaceDataset, open_dataset
from vlbias.errors import ConfigError
from vlbias.search.protocols import PROTOCOLS, balanced, draw_copy, plan, tiny


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", "fr-nas", *map(str, arguments)])


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_drawn_copies_are_recognised_and_balanced(kind, tmp_path):
    protocol = tiny(PROTOCOLS[kind])
    faces = open_dataset(draw_copy(protocol, tmp_path / "copy"))
    assert faces.name == kind and {p.code for p in faces.problems} <= {"other_count"}
    table = balanced(protocol, faces).table
    images = table.groupby("split")[protocol.protected].value_counts().unstack()
    assert (images.iloc[:, 0] == images.iloc[:, 1]).all() and set(images.index) == {"train", "val", "test"}
    assert table.groupby("identity")["split"].nunique().max() == 1


def test_the_whole_experiment_in_its_tiny_budget(tmp_path):
    result = run(tmp_path / "out", "--budget", "tiny", "--refit", 1, "--device", "cpu")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "UNKNOWN: how many GPU hours they took." in result.output
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert table["source"].value_counts()["published"] == 5 and (table["source"] == "measured").any()
    row = table.set_index("name").loc["SMAC_000"]
    assert row["error_percent"] == 3.14 and row["rank_disparity"] == 3.41
    measured = table[table["source"] == "measured"]
    assert measured["error_percent"].between(0, 100).all() and measured["on_front"].notna().all()
    assert (tmp_path / "out" / "front.png").is_file() and (tmp_path / "out" / "protocol.json").is_file()


def test_the_plan_counts_epochs_images_and_hours():
    table = pd.DataFrame({"file_name": ["a"] * 100, "split": ["train"] * 80 + ["test"] * 20})
    text = plan(PROTOCOLS["celeba"], FaceDataset("celeba", table), refit=2, images_per_second=100)
    assert "200 trials on 80 training images of 224 px, compared at 25, 50, 100 epochs; 2 refits" in text
    # 200 x 25 + 100 x 25 + 50 x 50 epochs of 80 images
    assert "if half is stopped at each: 10,000 epochs, 0.8 million images, 2.2 GPU hours" in text
    assert "at most: 20,000 epochs" in text and "at least: 5,000 epochs" in text


def test_what_cannot_be_run(tmp_path):
    table = pd.DataFrame({"file_name": ["a", "b"], "split": ["train", "test"], "Male": [0, 1]})
    with pytest.raises(ConfigError, match="needs identity_CelebA.txt"):
        balanced(PROTOCOLS["celeba"], FaceDataset("celeba", table))
    with pytest.raises(ConfigError, match="on 'vggface2'; got 'celeba'"):
        balanced(PROTOCOLS["vggface2"], FaceDataset("celeba", table))
    for arguments, text in (
        (["--dataset", "lfw"], "Unknown dataset of fr-nas 'lfw'"),
        (["--budget", "huge"], "Unknown budget 'huge'"),
        ([], "`--data` is the folder of the official files"),
    ):
        result = run(tmp_path / "x", *arguments)
        assert result.exit_code == 1 and text in str(result.exception)
    assert not (tmp_path / "x").exists()
