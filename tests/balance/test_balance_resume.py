"""Killed at any moment, or shared by shards: the same bytes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "tiny_editor.py"
REPOSITORY = SCRIPT.parents[2]


def tree(out):
    """Every file but the state, as path -> hash."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


def start(tiny, *arguments):
    """A process that balances the tiny faces; returns it once its work has begun."""
    context = multiprocessing.get_context("fork")  # starts at once: torch is imported already
    begun = context.Event()
    process = context.Process(target=tiny.run_job, args=(*arguments, begun.set))
    process.start()
    assert begun.wait(timeout=600)
    return process


def finish(process):
    process.join(timeout=600)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One uninterrupted run, in an interpreter of its own."""
    base = tmp_path_factory.mktemp("whole")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, SCRIPT, base / "out", base / "faces"], env=environment, check=True, timeout=600)
    return tree(base / "out"), base / "faces"


def test_killed_five_times_and_resumed(whole, tiny, tmp_path):
    expected, root = whole
    out = tmp_path / "out"
    moments, codes = random.Random(11), []
    for _ in range(5):
        # slow enough that five kills cannot outlast the work, unless the machine is so busy that this process waits
        process = start(tiny, out, root, 0.1, None)
        time.sleep(moments.uniform(0.01, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        codes.append(process.exitcode)
    assert codes[0] == -signal.SIGKILL and set(codes) <= {0, -signal.SIGKILL}
    finish(start(tiny, out, root, 0.0, None))
    assert tree(out) == expected


@pytest.mark.parametrize("moment", range(4))
def test_killed_while_files_are_put_in_place(whole, tmp_path, moment, tiny, monkeypatch):
    """The assembly is cut short at its n-th write, in this process: every write may be the last."""
    from vlbias.balance import Balancer
    from vlbias.balance.run_folder import RunFolder

    expected, root = whole
    faces = tiny.make_faces(root, tiny.CELLS)

    def run():
        balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=5, seed=3)
        return balancer.run(faces, balancer.plan(faces), tmp_path / "out", show_progress=False)

    class Killed(BaseException):
        pass

    left = [moment * 17]
    originals = {name: getattr(RunFolder, name) for name in ("put", "place")}

    def dying(name):
        def call(self, *args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return originals[name](self, *args, **kwargs)

        return call

    for name in originals:
        monkeypatch.setattr(RunFolder, name, dying(name))
    with pytest.raises(Killed):
        run()
    monkeypatch.undo()
    assert run().complete and tree(tmp_path / "out") == expected


@pytest.mark.parametrize("shards", [2, 3])
def test_shards_side_by_side_give_the_same_bytes(whole, tiny, tmp_path, shards):
    expected, root = whole
    processes = [start(tiny, tmp_path / "out", root, 0.0, (index, shards)) for index in range(shards)]
    for process in processes:
        finish(process)
    assert tree(tmp_path / "out") == expected


def test_a_shard_that_is_not_the_last_says_so(tiny, tmp_path):
    from vlbias.balance import Balancer

    faces = tiny.make_faces(tmp_path / "faces", tiny.CELLS)
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin", chunk_size=5)
    plan = balancer.plan(faces)
    first = balancer.run(faces, plan, tmp_path / "out", shard=(0, 2), show_progress=False)
    assert not first.complete and first.report == {"chunks": 6, "chunks_done": 3} and first.table.empty
    assert "3 of 6 chunks are done" in first.summary()
    assert not (tmp_path / "out" / "metadata.csv").exists()
    last = balancer.run(faces, plan, tmp_path / "out", shard=(1, 2), show_progress=False)
    assert last.complete and last.summary().startswith("29 of 29 edits kept")
    # and once more: nothing is left to do
    evaluations = balancer.backend.diffae.evaluations
    again = balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    assert again.report == last.report and balancer.backend.diffae.evaluations == evaluations
    assert again.table.equals(last.table)
