"""Chunks in other processes, here or on a Ray cluster, one of them killed: the bytes of a run in one process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from test_balance_resume import tree

from vlbias.balance import Balancer, run
from vlbias.engine import Engine, run_pieces, settings
from vlbias.errors import ConfigError, OutputError


def balance(editor, faces, out, engine=None, **options):
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=5, seed=3, **options)
    return balancer.run(faces, balancer.plan(faces), out, engine=engine, show_progress=False)


@pytest.fixture(scope="module")
def whole(tiny, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    balance(tiny.TinyEditor(leak=0.12), faces, out)
    return tree(out)


def test_processes_give_the_same_bytes_where_one_is_killed(tiny, faces, whole, tmp_path):
    marker = tmp_path / "killed"
    result = balance(tiny.MortalEditor(marker, leak=0.12), faces, tmp_path / "out", Engine(workers=2))
    assert result.complete and marker.exists() and tree(tmp_path / "out") == whole


def test_workers_are_chosen_where_there_is_enough_to_do(tiny, faces, whole, tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(settings, "usable_processors", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    def noted(engine, *arguments, **options):
        chosen.append(engine)
        return run_pieces(engine, *arguments, **options)

    monkeypatch.setattr(run, "run_pieces", noted)
    balance(tiny.TinyEditor(leak=0.12), faces, tmp_path / "here", Engine(auto=True))
    assert not chosen and tree(tmp_path / "here") == whole
    monkeypatch.setattr(run, "WORKER_EDITS", 5)  # one chunk
    balance(tiny.TinyEditor(leak=0.12), faces, tmp_path / "there", Engine(auto=True))
    assert [engine.workers for engine in chosen] == [2] and tree(tmp_path / "there") == whole
    balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=5, seed=3)
    plan = balancer.plan(faces)
    shard = {"shard": (0, plan.num_chunks), "engine": Engine(auto=True), "show_progress": False}
    balancer.run(faces, plan, tmp_path / "part", **shard)  # a part of a run has the threads of the whole
    assert [engine.workers for engine in chosen] == [2, 2]


def test_a_run_that_workers_began_goes_on_in_this_process(tiny, faces, whole, tmp_path):
    editor, out = tiny.TinyEditor(leak=0.12), tmp_path / "out"
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=5, seed=3)
    plan = balancer.plan(faces)
    part = balancer.run(faces, plan, out, shard=(0, 2), engine=Engine(workers=2), show_progress=False)
    assert not part.complete and 0 < part.report["chunks_done"] < plan.num_chunks
    assert balancer.run(faces, plan, out, show_progress=False).complete and tree(out) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cluster_gives_the_same_bytes(ray, tiny, faces, whole, tmp_path, workers):
    """With two workers, one of them is killed on the way."""
    marker = tmp_path / "killed"
    editor = tiny.MortalEditor(marker, leak=0.12) if workers == 2 else tiny.TinyEditor(leak=0.12)
    balance(editor, faces, tmp_path / "out", Engine(kind="ray", workers=workers))
    assert marker.exists() == (workers == 2) and tree(tmp_path / "out") == whole


def test_a_cluster_that_is_started_here_listens_to_this_machine_alone(ray):
    own = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if b"ray" in (link.parents[1] / "cmdline").read_bytes() and os.readlink(link).startswith("socket:"):
                own.add(os.readlink(link)[len("socket:[") : -1])
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    listening = [words[1] for words in lines if words[3] == "0A" and words[9] in own]
    assert listening and all("0100007F:" in place for place in listening), listening


def test_a_worker_that_does_not_see_the_folder_says_so_and_makes_none(tiny, faces, tmp_path, monkeypatch):
    """As on another host of a cluster, which would store its chunks where nobody looks for them."""

    def on_another_host(engine, work, pieces, **options):
        (tmp_path / "out").rename(tmp_path / "here")
        yield work.open()

    monkeypatch.setattr(run, "run_pieces", on_another_host)
    with pytest.raises(OutputError, match=r"out is not on .*\. Workers need the folders of the run\."):
        balance(tiny.TinyEditor(leak=0.12), faces, tmp_path / "out", Engine(workers=2))
    assert not (tmp_path / "out").exists()


def test_a_job_that_cannot_be_sent_says_so(tiny, faces, tmp_path):
    class Local(tiny.TinyEditor):
        pass

    with pytest.raises(ConfigError, match="cannot be handed to other processes .* work in this process: workers=1"):
        balance(Local(), faces, tmp_path / "out", Engine(workers=2))
