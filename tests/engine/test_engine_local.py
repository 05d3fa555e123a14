"""Pieces in processes of this machine: every one is done once, whoever dies, and errors arrive as they were raised."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vlbias.engine import Engine, run_pieces, standing_workers
from vlbias.engine import settings as engine_settings
from vlbias.engine.cluster import _shares
from vlbias.engine.settings import chosen_workers
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


def test_standing_workers_do_one_job_after_another():
    with standing_workers(TWO, ["json"]):
        first = dict(run_pieces(TWO, Squares(), range(2)))
        with pytest.raises(FaceError):
            list(run_pieces(TWO, Squares(), [-2]))
        second = dict(run_pieces(TWO, Squares(), range(4)))
        own = dict(run_pieces(Engine(workers=2, cores=1), Squares(), range(2)))
    pids, later, others = ({pid for _, pid, _ in values.values()} for values in (first, second, own))
    assert len(pids) == 2 and later <= pids and not others & pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids | others)


def test_standing_workers_forget_a_job_that_nobody_waits_for_and_one_that_dies(tmp_path):
    with standing_workers(TWO, ["json"]):
        answers = run_pieces(TWO, Squares(), range(100))
        next(answers)
        answers.close()
        values = dict(run_pieces(TWO, Squares(tmp_path / "killed"), range(9)))
    assert {place: value for place, (value, _, _) in values.items()} == {place: place**2 for place in range(9)}


GB = 1e9


@pytest.mark.parametrize(
    ("pieces", "processors", "memory", "least", "workers"),
    [
        (0, 2, 16 * GB, 4, 1),
        (7, 2, 16 * GB, 4, 1),  # no start is worth less than four pieces each
        (8, 2, 16 * GB, 4, 2),
        (1000, 2, 16 * GB, 4, 2),
        (1000, 64, 16 * GB, 4, 10),  # 1.5 GB each
        (1000, 64, float("inf"), 4, 64),
        (1000, 64, 1 * GB, 4, 1),
        (1000, 0, 16 * GB, 4, 1),  # --cores is more than there are
        (1000, 1, 16 * GB, 4, 1),
        (3, 8, 16 * GB, 1, 3),
    ],
)
def test_workers_are_chosen_by_processors_memory_and_pieces(pieces, processors, memory, least, workers):
    assert chosen_workers(pieces, processors=processors, memory_bytes=memory, least=least) == workers


@pytest.mark.parametrize(
    ("given", "threads", "gpus", "workers"),
    [
        ({"auto": True}, None, 0, 8),
        ({"auto": True}, "3", 0, 3),  # OMP_NUM_THREADS bounds the threads of all together
        ({"auto": True}, "99", 0, 8),
        ({"auto": True, "cores": 3}, None, 0, 2),
        ({"auto": True, "workers": 5}, None, 0, 5),
        ({"auto": True}, None, 2, None),
        ({"auto": True, "kind": "ray"}, None, 0, None),
        ({}, None, 0, None),
    ],
)
def test_an_engine_chooses_only_where_it_may(monkeypatch, given, threads, gpus, workers):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(engine_settings, "usable_processors", lambda: 8)
    monkeypatch.setattr(engine_settings, "usable_memory", lambda: 64 * GB)
    assert Engine(**given).sized(100, gpus, least=4).workers == workers


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
