"""``vlbias search`` and ``vlbias simulate`` from the command line, on a folder of small pictures."""

from __future__ import annotations

import pandas as pd
import pytest
from doubles import failing, people
from doubles import run_command as run
from typer.testing import CliRunner

from vlbias.cli import app

SEARCH = ("--protected", "gender", "--epochs", 1, "--refit", 0, "--image-size", 16, "--max-error", 1)
SIMULATE = ("--target", "smile", "--protected", "gender", "--steps", 1, "--image-size", 16)


def test_simulations_and_audits_train_on_what_device_and_how_is_asked_for(tmp_path):
    real = people(tmp_path / "real")
    run("simulate", real, tmp_path / "sim", *SIMULATE, "--repeats", 1, "--shares", "0,0.5", "--device", "cpu", "--amp")
    first = (tmp_path / "sim" / "sim.log").read_text().splitlines()[0]
    assert '"amp": true' in first and "device" not in first
    words = ("--target", "smile", "--protected", "gender", "--seeds", 1, "--steps", 1, "--device", "cpu", "--amp")
    assert "accuracy_gap" in run("audit", real, *words)
    result = CliRunner().invoke(app, ["audit", str(real), *map(str, words), "--pretrained", "no.safetensors"])
    assert result.exit_code == 1 and "no.safetensors" in str(result.exception)


def test_edits_make_their_share_a_searched_variable(tmp_path):
    real = people(tmp_path / "real")
    names = [f"{i:02d}.png" for i in range(72)]
    edits = people(tmp_path / "edits", origin="edited", source_id=names)
    out = tmp_path / "out"
    assert "best model is in" in run("search", real, out, *SEARCH, "--trials", 2, "--edits", edits)
    trials = pd.read_csv(out / "trials.csv")
    assert (trials["state"] == "complete").all() and trials["augmentation"].nunique() == 2
    assert trials["augmentation"].iloc[0] == 0 and trials["augmentation"].between(0, 1).all()
    assert (out / "front.png").is_file() and (out / "best").is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trials", 1, "--seed", 4), "of another job (`seed` is 0 there and 4 here)"),
        (("--trials", 1, "--objectives", "error,rankgap"), "Did you mean 'rank_gap'"),
        (("--trials", 1, "--edits", "nowhere"), "nowhere is not there"),
    ],
)
def test_search_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, message):
    real = people(tmp_path / "real")
    if "--seed" in arguments:
        run("search", real, tmp_path / "out", *SEARCH, "--trials", 1)
    assert message in failing(monkeypatch, capsys, "search", real, tmp_path / "out", *SEARCH, *arguments)


def test_a_number_of_people_that_is_none(tmp_path, monkeypatch, capsys):
    message = failing(monkeypatch, capsys, "search", "synthfaces:1e3", tmp_path / "out", "--protected", "skin")
    assert "expected a number of faces" in message and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", 5000), "The largest feasible n is"),
        (("--shares", "0.2,1.5"), "share must be >= 0 and below 1"),
        (("--model", "resnet81"), "Near names in timm: resnet18"),
        (("--focal", "men"), "Unknown group 'men'"),
        (("--editor", "nope"), "No checkpoint 'nope'"),
    ],
)
def test_simulate_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, message):
    real = people(tmp_path / "real")
    assert message in failing(monkeypatch, capsys, "simulate", real, tmp_path / "out", *SIMULATE, *arguments)


def test_a_storage_of_another_version_or_program(tmp_path, monkeypatch, capsys):
    real = people(tmp_path / "real")
    (tmp_path / "out").mkdir()
    for text, message in (
        ('{"vlbias": "simulate", "format": 99}\n', "has format 99; this version reads"),
        ("hello\n", "is not the storage of `vlbias simulate`"),
    ):
        (tmp_path / "out" / "sim.log").write_text(text)
        assert message in failing(monkeypatch, capsys, "simulate", real, tmp_path / "out", *SIMULATE)
        assert (tmp_path / "out" / "sim.log").read_text() == text, "a foreign file is left alone"


@pytest.mark.parametrize("command", ["search", "simulate"])
def test_a_dataset_of_ones_own_must_name_its_columns(command, tmp_path):
    folder = people(tmp_path / "people")
    result = CliRunner().invoke(app, [command, str(folder), str(tmp_path / "out")])
    assert result.exit_code == 2 and "named" in result.output and not (tmp_path / "out").exists()


def test_the_embedded_world_has_columns_to_fall_back_on(tmp_path):
    run("simulate", "synthfaces:60", tmp_path / "out", "--steps", 1, "--image-size", 16, "--shares", "0,0.5",
        "--repeats", 1)  # fmt: skip
    assert (tmp_path / "out" / "curves.png").is_file()


def test_what_is_searched_is_chosen_on_the_command_line(tmp_path, capsys):
    real = people(tmp_path / "real")
    out = tmp_path / "out"
    printed = run("search", real, out, "--protected", "gender", "--refit", 0, "--image-size", 32, "--max-error", 1,
        "--trials", 2, "--rungs", "1,2", "--backbones", "resnet10t", "--heads", "magface", "--optimizers", "adamw",
        "--learning-rate", "adamw=1e-4:2e-4", "--batch-size", 16, "--device", "cpu", "--natural-gallery",
        "--min-cell", 2, "--storage", f"sqlite:///{tmp_path / 'x.db'}")  # fmt: skip
    trials = pd.read_csv(out / "trials.csv")
    assert set(trials["backbone"]) == {"resnet10t"} and set(trials["head"]) == {"magface"}
    assert trials["learning_rate"].between(1e-4, 2e-4).all() and trials["epochs"].max() == 2
    assert "reliability is not known yet" in printed and "best model is in" in printed
    assert (out / "study.files").is_dir() and (out / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rungs", "1,2.5"), "whole epochs"),
        (("--learning-rate", "sgd=fast"), "OPTIMIZER=LOW:HIGH"),
        (("--pretrained", "resnet10t"), "BACKBONE=FILE"),
        (("--study-name", "second"), "needs a database's URL"),
        (("--baselines", "all", "--refit", "0"), "--refit 1 or more"),
    ],
)
def test_wrong_words(tmp_path, arguments, message):
    real = people(tmp_path / "real")
    result = CliRunner().invoke(app, ["search", str(real), str(tmp_path / "out"), "--protected", "gender", *arguments])
    assert result.exit_code == 2 and message in result.output and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--baselines", "resnet51-cosface-sgd"), "Unknown baseline 'resnet51-cosface-sgd'"),
        (("--mitigation", "none,flip"), "Unknown mitigation 'flip'"),
        (("--mitigation", "angular", "--heads", "softmax"), "Leave one of them out"),
    ],
)
def test_names_that_are_none_are_refused_before_the_search(tmp_path, monkeypatch, capsys, arguments, message):
    real = people(tmp_path / "real")
    told = failing(monkeypatch, capsys, "search", real, tmp_path / "out", "--protected", "gender", *arguments)
    assert message in told and not (tmp_path / "out").exists()
