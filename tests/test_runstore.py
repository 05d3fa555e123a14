"""Stores that outlive a kill and refuse another job."""

from __future__ import annotations

import json

import pytest

from vlbias.errors import ConfigError, OutputError
from vlbias.runstore import RunStore, cut_torn_line, differences, files_beside

JOB = {"seed": 3, "settings": {"steps": 9, "names": ("a", "b")}}


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "deep" / "runs.log", "bake", JOB)


def test_records_come_back_to_every_worker(store):
    store.add("one", {"loss": 0.5})
    store.add("two", {"loss": 0.25})
    again = RunStore(store.path, "bake", JOB)
    assert again.read() == {"one": {"loss": 0.5}, "two": {"loss": 0.25}} == store.read()
    assert json.loads(store.path.read_text().splitlines()[0])["vlbias"] == "bake"
    assert store.folder == files_beside(store.path) and store.folder.is_dir()


def test_seconds_stand_in_a_file_of_their_own(store, tmp_path):
    slow = RunStore(tmp_path / "slow.log", "bake", JOB)
    store.add("one", {"loss": 0.5}, seconds=0.25)
    slow.add("one", {"loss": 0.5}, seconds=9.0)
    assert store.path.read_bytes() == slow.path.read_bytes()
    with (files_beside(slow.path) / "times.jsonl").open("ab") as file:
        file.write(b'{"run": "two", "sec')  # by a killed worker
    slow.add("two", {"loss": 1}, seconds=2)
    slow.add("three", {"loss": 1})
    assert RunStore(slow.path, "bake", JOB).times() == slow.times() == {"one": 9.0, "two": 2.0}
    (files_beside(slow.path) / "times.jsonl").write_bytes(b'null\n{"run": "two", "seconds": "x"}\n\xff\n')
    assert RunStore(slow.path, "bake", JOB).times() == {}
    memory = RunStore(None, "bake", JOB)
    memory.add("one", {}, seconds=1.5)
    assert memory.times() == {"one": 1.5}


@pytest.mark.parametrize("torn", [b'{"run": "three", "lo', b"\0" * 32, b"{", b"\xff\xfe"])
def test_a_torn_last_line_counts_as_not_written(store, torn):
    store.add("one", {"loss": 0.5})
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + torn)
    assert set(store.read()) == {"one"}
    store.add("two", {"loss": 1})  # by a worker that had the file open
    assert set(store.read()) == {"one", "two"}
    store.path.write_bytes(whole + torn)
    RunStore(store.path, "bake", JOB)
    assert store.path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"[1, 2]\n", b"null\n", b'{"loss": 1}\n', b"7\n", b"[" * 100_000 + b"\n"])
def test_strange_lines_are_left_out(store, line):
    store.path.write_bytes(store.path.read_bytes() + line)
    store.add("one", {})
    assert store.read() == {"one": {}}


def test_a_record_that_cannot_be_decoded_is_made_again(store):
    store.add("one", {"loss": 0.5})
    store.add("two", {"lss": 0.5})
    again = RunStore(store.path, "bake", JOB, lambda record: {"loss": record["loss"]})
    assert again.read() == {"one": {"loss": 0.5}} and again.claim("two") is not None


def test_a_key_is_claimed_once(store):
    lock = store.claim("one")
    assert lock is not None and RunStore(store.path, "bake", JOB).claim("one") is None
    store.add("one", {})
    lock.release()
    assert store.claim("one") is None and store.claim("two") is not None


def test_a_store_is_read_once_however_many_keys_are_claimed(store, monkeypatch):
    for number in range(50):
        store.add(str(number), {})
    other = RunStore(store.path, "bake", JOB)
    parsed = []
    monkeypatch.setattr("vlbias.runstore.parse_json", lambda line: parsed.append(line) or json.loads(line))
    assert not any(store.claim(str(number)) for number in range(50)) and len(parsed) == 50
    other.add("new", {"by": "another"})
    assert store.claim("new") is None and store.read()["new"] == {"by": "another"} and len(parsed) == 51
    store.path.write_bytes(b"".join(store.path.read_bytes().splitlines(keepends=True)[:3]))
    assert set(store.read()) == {"0", "1"}  # somebody took lines away: their work is done again


def test_without_a_file_records_stay_in_memory():
    store = RunStore(None, "bake", JOB)
    assert store.claim("one") is not None and store.folder is None
    store.add("one", {"loss": 1})
    assert store.claim("one") is None and store.read() == {"one": {"loss": 1}}


def test_another_job_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"another job: `settings.steps` is 9 there and 8 here"):
        RunStore(store.path, "bake", {**JOB, "settings": {"steps": 8, "names": ["a", "b"]}})
    with pytest.raises(ConfigError, match="is not the storage of `vlbias fry`"):
        RunStore(store.path, "fry", JOB)
    store.path.write_text(store.path.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ConfigError, match="format 9; this version reads 1"):
        RunStore(store.path, "bake", JOB)
    for text in ("hello\n", "null\n", "[]\n", "{}\n", '{"vlbias": "ba'):
        store.path.write_text(text)
        with pytest.raises(ConfigError, match="not the storage"):
            RunStore(store.path, "bake", JOB)
        assert store.path.read_text() == text, "a foreign file is left alone"
    with pytest.raises(ConfigError, match="is a folder"):
        RunStore(tmp_path, "bake", JOB)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        RunStore(tmp_path / "file" / "runs.log", "bake", JOB)


def test_differences_name_each_setting():
    assert differences(JOB, {"seed": 3, "settings": {"steps": 9, "names": ["a", "b"]}}) == []
    assert differences({"a": 1}, {"b": 2}) == ["`a` is 1 there and None here", "`b` is None there and 2 here"]


def test_cutting_leaves_whole_files_alone(tmp_path):
    path = tmp_path / "x"
    for text, left in (("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("b", "")):
        path.write_text(text)
        cut_torn_line(path)
        assert path.read_text() == left


def test_a_store_is_a_file_with_a_name():
    with pytest.raises(ConfigError, match=r"`storage` must be a file; '\.' is a folder"):
        files_beside("")


def test_what_differs_is_said_in_settings_before_hashes(tmp_path):
    job = {"plan": "5214ad422e24726d", "settings": {"steps": 9, "size": 48}, "shares": "0,0.5"}
    RunStore(tmp_path / "sim.log", "bake", job)
    other = {"plan": "18edde44e63f47a7", "settings": {"steps": 8, "size": 32}, "shares": "0,1"}
    with pytest.raises(ConfigError) as refused:
        RunStore(tmp_path / "sim.log", "bake", other)
    said = str(refused.value)
    assert (
        "`settings.size` is 48 there and 32 here, `settings.steps` is 9 there and 8 here, `shares` is '0,0.5'" in said
    )
    assert "(and 1 more). Give another folder, another file as `storage`" in said and "5214ad" not in said
    assert differences({"plan": job["plan"]}, {"plan": other["plan"]}) == ["`plan` is another"]
