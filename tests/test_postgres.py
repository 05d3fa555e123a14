"""Searches and simulations shared through a real PostgreSQL server, which the tests start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from postgres_server import PASSWORD, server

from vlbias import simulate
from vlbias.errors import ConfigError
from vlbias.postgres import PostgresStore, open_store, without_password
from vlbias.search import storage as search_storage
from vlbias.search.halving import HalvingSettings, make_sampler, work
from vlbias.search.spaces import space
from vlbias.search.storage import Storage, attempts_of, roots

sys.path += [str(Path(__file__).parent / "search"), str(Path(__file__).parent / "simulate")]
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def running():
    with server() as url:
        yield url


@pytest.fixture
def url(running, request):
    """An empty database for each test."""
    import psycopg

    name = request.node.name.split("[")[0][:60]
    with psycopg.connect(running.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return running.removesuffix("postgres") + name


# -- the store --------------------------------------------------------------------------------------------------------


def test_workers_share_keys_and_a_dead_one_frees_its_own(url):
    mine, theirs = (PostgresStore(url, "simulate", {"seed": 3}) for _ in range(2))
    with mine.claim("a"):
        assert theirs.claim("a") is None and theirs.claim("b") is not None
        mine.add("a", {"n": 1})
    assert theirs.claim("a") is None and theirs.read() == {"a": {"n": 1}}

    def die() -> None:
        PostgresStore(url, "simulate", {"seed": 3}).claim("c").__enter__()
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=die)
    process.start()
    process.join()
    deadline = time.monotonic() + 120
    while (lock := mine.claim("c")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert lock is not None
    with pytest.raises(ConfigError, match="belongs to another job of `vlbias simulate`: `seed` is 3 there and 4 here"):
        PostgresStore(url, "simulate", {"seed": 4})


# -- passwords --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opened", [lambda url: open_store(url, "simulate", {}), Storage], ids=["simulate", "search"])
@pytest.mark.parametrize(
    "spoilt", [("s3cret", "n0t"), ("/postgres", "/nowhere"), ("127.0.0.1", "no.such.host.invalid")]
)
def test_no_error_repeats_a_password(running, opened, spoilt):
    url = running.replace(*spoilt)
    with pytest.raises(ConfigError, match=r"Cannot open the database .*faces:\*\*\*@") as caught:
        opened(url)
    error: BaseException | None = caught.value
    while error is not None:  # a traceback shows causes as well
        assert PASSWORD not in str(error) and "cret" not in str(error) and "n0t" not in str(error)
        error = error.__cause__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:a@b:c/d@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://host/db?user=me&password=s3", "postgresql://host/db?user=me&password=***"),
        ("postgresql://host/db?sslpassword=s3&passwd=s4", "postgresql://host/db?sslpassword=***&passwd=***"),
        ("postgresql://:only@host/db", "postgresql://:***@host/db"),
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_urls_are_shown_without_passwords(url, shown):
    assert without_password(url) == shown


def test_other_databases_are_refused_for_simulations():
    with pytest.raises(ConfigError, match=r"a URL such as postgresql\+psycopg://.*; got mysql://me:\*\*\*@host/db"):
        open_store("mysql://me:secret@host/db", "simulate", {})


# -- searches ---------------------------------------------------------------------------------------------------------


def _search(url, folder, n_trials, linger=None):
    from search_worker import Curve

    search_storage._HEARTBEAT_S, search_storage._GRACE_S = 1, 2
    settings = HalvingSettings(("error", "rank_gap"), (1, 3, 9), 3.0, 0.9)
    storage = Storage(url, folder=folder)
    study = storage.study(2, {"seed": 0})
    chosen = space(["resnet10t"], ["cosface"], ["adamw", "adam"])
    study.sampler = make_sampler("random", 0, chosen.default_parameters())

    def start(configuration, number, on_epoch):
        if linger is not None and number == 3:
            linger.touch()
            time.sleep(600)
        time.sleep(0.1)
        return Curve(configuration, number)

    work(study, storage, chosen, start, settings, n_trials=n_trials, poll_s=0.2, show_progress=False)
    return study


def test_workers_search_together_from_an_empty_database(url, tmp_path):
    processes = [FORK.Process(target=_search, args=(url, tmp_path, 8)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    trials = _search(url, tmp_path, 8).get_trials()
    counted = roots(trials)
    assert list(counted) == list(range(8)) and all(trial.state.is_finished() for trial in counted.values())
    assert len({trial.user_attrs["worker"] for trial in counted.values()}) > 1
    alone = roots(_search(None, None, 8).get_trials())
    assert [trial.params for trial in counted.values()] == [trial.params for trial in alone.values()]


def test_a_killed_worker_is_missed_by_its_heartbeat(url, tmp_path):
    marker = tmp_path / "lingers"
    victim = FORK.Process(target=_search, args=(url, tmp_path, 6, marker))
    victim.start()
    while not marker.exists():
        assert victim.is_alive()
        time.sleep(0.05)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    trials = _search(url, tmp_path, 6).get_trials()
    assert attempts_of(trials) == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}


# -- simulations ------------------------------------------------------------------------------------------------------


def test_a_simulation_shared_by_workers_is_that_of_a_file(url, tmp_path):
    from tests_simulate_faces import TableFaces, face_table, stub

    faces = TableFaces(face_table())
    plan = simulate.plan(faces, target="emotion", protected="race", n=120, shares=(0.0, 0.5), repeats=2)
    right = stub(plan, lambda group, training: 0.6)

    def guesses(training):
        time.sleep(0.05)
        return right(training)

    def share():
        simulate.run(plan, faces, model=guesses, storage=url, show_progress=False)

    processes = [FORK.Process(target=share) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        assert process.exitcode == 0
    shared = simulate.run(plan, faces, model=guesses, storage=url, show_progress=False).table()
    alone = simulate.run(plan, faces, model=guesses, storage=tmp_path / "sim.log", show_progress=False).table()
    timing = [column for column in alone.columns if "seconds" in column]
    assert shared.drop(columns=timing).equals(alone.drop(columns=timing))
