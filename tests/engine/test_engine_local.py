"""Pieces in processes of this machine: every one is done once, whoever dies, and errors arrive as they were raised."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vlbias.engine import Engine, run_pieces
from vlbias.engine.cluster import _shares
from vlbias.errors import CheckpointError, ConfigError, FaceError, WorkerError

sys.path.insert(0, str(Path(__file__).parent))
from pieces import Damaged, Squares

TWO = Engine(workers=2, cores=3)


def test_each_piece_is_done_once_though_a_worker_is_killed(tmp_path):
    answers = dict(run_pieces(TWO, Squares(tmp_path / "killed"), range(12)))
    assert (tmp_path / "killed").exists()
    assert {place: value for place, (value, _, _) in answers.items()} == {place: place**2 for place in range(12)}
    pids, threads = ({row[column] for row in answers.values()} for column in (1, 2))
    assert os.getpid() not in pids and 1 <= len(pids) <= 3 and threads == {"3"}


def test_a_piece_that_kills_every_worker_is_given_up():
    with pytest.raises(WorkerError, match="3 workers died while they did piece 1, mostly for lack of memory"):
        list(run_pieces(TWO, Squares(), [2, -1, 3]))


def test_what_a_worker_meets_arrives_as_it_was_raised():
    with pytest.raises(FaceError, match="a.jpg shows no face") as caught:
        list(run_pieces(TWO, Squares(), [-2]))
    assert str(caught.value) == "a.jpg shows no face. Give another." and "in square" in caught.value.__notes__[0]
    with pytest.raises(WorkerError, match=r"^A worker failed: ZeroDivisionError: by nought"):
        list(run_pieces(TWO, Squares(), [-3]))
    with pytest.raises(CheckpointError, match=r"^weights.pt is damaged. Copy it again."):
        list(run_pieces(TWO, Damaged(), [1]))


def test_no_process_stays_when_nobody_listens_any_more():
    answers = run_pieces(TWO, Squares(), range(100))
    _, (_, pid, _) = next(answers)
    answers.close()
    assert not Path(f"/proc/{pid}").exists()


def test_settings_of_an_engine():
    assert Engine().is_this_process(num_gpus=0) and not Engine().is_this_process(num_gpus=2)
    assert not Engine(workers=2).is_this_process(0) and not Engine(kind="ray").is_this_process(1)
    with pytest.raises(ConfigError, match="needs kind='ray'"):
        Engine(address="auto")
    with pytest.raises(ConfigError, match="`kind` of Engine must be one of local, ray"):
        Engine(kind="dask")


def test_a_cluster_without_room_says_what_it_has():
    assert _shares(Engine(kind="ray", workers=4), {"CPU": 8.0}) == (4, 2, 0)
    assert _shares(Engine(kind="ray"), {"CPU": 64.0, "GPU": 8.0}) == (8, 8, 1)
    with pytest.raises(ConfigError, match="has 4 processors and 1 GPUs: room for 1 workers of 2 processors, not for 2"):
        _shares(Engine(kind="ray", workers=2), {"CPU": 4.0, "GPU": 1.0})


def test_an_address_without_a_cluster_is_wrong_usage(tmp_path):
    from typer.testing import CliRunner

    from vlbias.cli import app

    words = ["balance", "synthfaces:20", str(tmp_path / "out"), "--target", "smile", "--protected", "skin"]
    result = CliRunner().invoke(app, [*words, "--address", "auto"])
    assert result.exit_code == 2 and "add --engine ray" in result.output
