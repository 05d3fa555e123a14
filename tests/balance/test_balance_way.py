"""The way of one row of a plan through the files: short, and seldom back into a file that it has left."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

import vlbias
from vlbias.balance import Balancer, chunk_work
from vlbias.balance.attempt import Attempt
from vlbias.leak import LeakSettings

HERE = str(Path(vlbias.__file__).parent)


class Ways:
    """Files whose functions are given a row or what becomes of it, in their order, by the row's slot."""

    def __init__(self, rows):
        self.slots = {id(row): row["slot"] for row in rows}
        self.files = defaultdict(list)

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(HERE) or code.co_name.startswith("<"):
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if names == ("self",) and isinstance(getattr(Attempt, code.co_name, None), property):
            return  # a row that is asked for its slot goes nowhere
        for slot in self.slots_in([frame.f_locals.get(name) for name in names]):
            if self.files[slot][-1:] != [code.co_filename]:
                self.files[slot].append(code.co_filename)

    def slots_in(self, values):
        found = set()
        for value in values:
            if isinstance(value, Attempt):
                found.add(value.slot)
            elif isinstance(value, list | tuple):
                found |= self.slots_in(value)
            elif id(value) in self.slots:
                found.add(self.slots[id(value)])
        return found


@pytest.mark.parametrize("source", ["real", "prior"])
def test_a_row_that_needs_one_try_goes_straight(tiny, faces, tmp_path, monkeypatch, source):
    ways, run_chunk = [], chunk_work.run_chunk

    def followed(job, rows):
        ways.append(Ways(rows))
        sys.setprofile(ways[-1])
        try:
            return run_chunk(job, rows)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(chunk_work, "run_chunk", followed)
    balancer = Balancer(
        tiny.TinyEditor(), target="smile", protected="skin", source=source, chunk_size=64, leak=LeakSettings(sizes=())
    )
    balancer.run(faces, balancer.plan(faces, limit=3), tmp_path / "out", show_progress=False)
    files = [way for chunk in ways for way in chunk.files.values()]
    assert len(files) == 3
    for way in files:
        assert {Path(file).stem for file in way} >= {"chunk", "donors", "strength", "pictures", "readings", "next_try"}
        assert len(way) <= 18
        assert len(way) - len(set(way)) <= 9
