"""Tables of a million rows: columns, not a mapping for each; and what no table could hold is said before the work."""

from __future__ import annotations

import hashlib
import json
import pickle
import tracemalloc

import pandas as pd
import pytest

from vlbias.balance import Balancer, run_folder
from vlbias.balance.plan import EditPlanSettings, make_plan
from vlbias.balance.poles import Poles
from vlbias.balance.rows import GatheredRows, TableRows, gathered, sha256_csv
from vlbias.balance.run_folder import RunFolder
from vlbias.data import metadata
from vlbias.data.metadata import csv_parts, csv_text, read_table
from vlbias.errors import DatasetError, OutputError, PlanError
from vlbias.leak import LeakSettings

ROWS = [{"slot": i, "name": f"n{i}", "group": "ab"[i % 2], "x": i / 3} for i in range(10_000)]


def test_rows_of_a_table_are_mappings_when_they_are_asked_for():
    rows = TableRows(pd.DataFrame(ROWS), 5, 9000)
    assert len(rows) == 8995 and list(rows) == ROWS[5:9000]
    assert rows[0] == ROWS[5] and rows[-1] == ROWS[8999] and rows[2:4] == ROWS[7:9]
    assert type(rows[0]["slot"]) is int and type(rows[0]["name"]) is str
    assert len(TableRows(pd.DataFrame(ROWS), 9999, 10_050)) == 1 and not TableRows(pd.DataFrame(ROWS), 50, 40)
    with pytest.raises(IndexError):
        rows[8995]


def test_only_the_rows_that_are_meant_are_sent():
    rows = TableRows(pd.DataFrame(ROWS), 5, 15)
    sent = pickle.dumps(rows)
    assert list(pickle.loads(sent)) == ROWS[5:15] and len(sent) < 4000


def test_gathered_rows_are_what_they_were():
    assert gathered(iter(ROWS), ["slot", "group", "x"]).equals(pd.DataFrame(ROWS)[["slot", "group", "x"]])
    as_objects = gathered([{"a": 1}, {"a": None, "b": "x"}], ["a", "b"], object)
    assert as_objects["a"].tolist() == [1, None] and as_objects["b"].tolist() == [None, "x"]
    assert list(gathered([], ["a", "b"]).columns) == ["a", "b"] and len(gathered([], ["a"])) == 0


def test_a_text_that_stands_in_many_rows_is_kept_once():
    rows = GatheredRows(["name"], object)
    for i in range(100):
        rows.add({"name": "".join(["la", "bel", str(i % 2)])})
    assert len({id(value) for value in rows.table()["name"]}) == 2


def test_text_in_parts_is_the_text(tmp_path):
    table = pd.DataFrame(ROWS + ROWS + [{"slot": -1, "name": 'a"b\n,c', "group": None, "x": None}])
    assert b"".join(csv_parts(table)).decode() == csv_text(table)
    lines = csv_text(table).splitlines()
    assert lines[0] == "slot,name,group,x" and lines[1:3] == ["0,n0,a,0.0", f"1,n1,b,{1 / 3}"] and len(lines) == 20_003
    assert csv_text(table.iloc[:0]) == "slot,name,group,x\n"
    for index in (False, True):
        assert sha256_csv(table, index=index).digest() == hashlib.sha256(table.to_csv(index=index).encode()).digest()


def test_the_edits_of_a_large_plan_take_little_memory():
    n = 20_000
    table = pd.DataFrame(
        {"split": "train", "smile": [i % 2 for i in range(n)]}, index=[f"{i:06d}.png" for i in range(n)]
    )
    table["skin"] = ["light" if i % 10 else "dark" for i in range(n)]
    tracemalloc.start()
    try:
        poles = [Poles("skin", "skin_tone", {"dark": 1.0, "light": -1.0})]
        plan = make_plan(table, EditPlanSettings("smile", ["skin"]), poles)
        chunks = plan.chunks()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(plan) > n / 2 and sum(map(len, chunks)) == len(plan)
    assert held / len(plan) < 500  # a mapping for each row took 1,400 bytes
    for number in (0, 7, plan.num_chunks - 1):
        wanted = plan.table[plan.table["chunk"] == number].to_dict("records")
        assert list(chunks[number]) == wanted


def test_a_set_that_no_table_could_hold_is_refused_before_the_work(editor, faces, tmp_path, monkeypatch):
    balancer = Balancer(editor, target="smile", protected="skin", leak=LeakSettings(sizes=()))
    plan = balancer.plan(faces)
    assert not any("pictures" in note for note in plan.notes)
    monkeypatch.setattr(metadata, "MAX_ROWS", len(faces) + len(plan))
    balancer.run(faces, plan, tmp_path / "fits", show_progress=False)
    monkeypatch.setattr(metadata, "MAX_ROWS", len(faces) + len(plan) - 1)
    said = (
        f"the balanced set would have {len(faces) + len(plan)} pictures.* more than {len(faces) + len(plan) - 1} is not"
    )
    assert any(f"would have {len(faces) + len(plan)} pictures" in note for note in balancer.plan(faces).notes)
    with pytest.raises(PlanError, match=said):
        balancer.run(faces, plan, tmp_path / "out", show_progress=False)
    assert not (tmp_path / "out" / "train").exists()
    balancer.run(faces, plan, tmp_path / "edits alone", originals="omit", show_progress=False)


def test_the_digests_of_many_pictures_are_read(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "out", {})
    files = {f"train/{i:06d}.png": "0" * 64 for i in range(1000)}
    folder.first_wins("done.json", {"files": files})
    (folder.state / "scorers.json").write_text(json.dumps({"a": "x" * 1000}))
    monkeypatch.setattr(run_folder, "MAX_JSON_BYTES", 500)
    assert folder.read("done.json")["files"] == files
    with pytest.raises(OutputError, match="more than 500 bytes"):
        folder.read("scorers.json")


def test_a_table_of_tries_may_be_longer_than_one_of_faces(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "MAX_ROWS", 10)
    path = tmp_path / "rejected.csv"
    path.write_text("slot\n" + "1\n" * 40)
    assert len(read_table(path)) == 40
    path.write_text("slot\n" + "1\n" * 41)
    with pytest.raises(DatasetError, match="at most"):
        read_table(path)
