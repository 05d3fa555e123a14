"""Datasets from and to an object store: what is fetched, what is sent, and what is neither."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlbias import remote
from vlbias.data import load_dataset, open_dataset
from vlbias.errors import ConfigError, DatasetError, MissingDependencyError, OutputError
from vlbias.remote import fetch, send_folder, work_folder

fsspec = pytest.importorskip("fsspec")
sys.path.append(str(Path(__file__).parent / "balance"))


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """An empty store in memory, and an empty cache."""
    monkeypatch.setenv("VLBIAS_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    return store


def picture(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def shard(first):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in ((f"{first}.png", picture(first)), (f"{first}.json", json.dumps({"smile": first}).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def folder_in(store):
    for number in range(3):
        store.pipe(f"/set/{number % 2}/{number}.png", picture(number))


def test_a_folder_of_a_store_is_a_dataset(store):
    folder_in(store)
    store.pipe("/set/.hidden/me.png", b"x")
    faces = open_dataset("memory://set")
    assert faces.ids == ["0/0.png", "0/2.png", "1/1.png"] and faces.name == "set"
    assert faces.file("1/1.png").data == picture(1)
    assert load_dataset("folder", "memory://set").ids == open_dataset("folder:memory://set").ids == faces.ids


def test_only_what_changed_is_fetched_again(store, monkeypatch):
    folder_in(store)
    fetch("memory://set")
    store.pipe("/set/0/0.png", picture(9))
    store.rm("/set/0/2.png")
    fetched = []
    get = type(store).get_file
    monkeypatch.setattr(type(store), "get_file", lambda self, *a, **k: fetched.append(a[0]) or get(self, *a, **k))
    faces = open_dataset("memory://set")
    assert fetched == ["/set/0/0.png"] and faces.ids == ["0/0.png", "1/1.png"]
    assert faces.file("0/0.png").data == picture(9)


def test_shards_by_pattern_and_by_file(store):
    for number in range(3):
        store.pipe(f"/set/train-{number}.tar", shard(number))
    assert len(open_dataset("memory://set/train-*.tar")) == 3
    assert open_dataset("memory://set/train-1.tar").table["smile"].tolist() == [1]


def test_names_of_a_store_lead_nowhere(store, tmp_path):
    store.pipe("/set/a/0.png", picture(0))
    store.store["/set/a/../../../up.png"] = store.store["/set/a/0.png"]
    fetch("memory://set")
    assert not list(tmp_path.rglob("up.png")) and len(list(tmp_path.rglob("0.png"))) == 1


@pytest.mark.parametrize("pattern", ["", "/*.png", "/**"])
def test_links_in_a_folder_of_a_url_are_not_followed(tmp_path, pattern):
    given, private = tmp_path / "given", tmp_path / "private"
    for folder in (given, private):
        folder.mkdir()
    (given / "0.png").write_bytes(picture(0))
    (private / "me.png").write_bytes(picture(1))
    (given / "link.png").symlink_to(private / "me.png")
    (given / "linked").symlink_to(private, target_is_directory=True)
    fetch(f"file://{given}{pattern}")
    fetched = [path.name for path in (tmp_path / "cache").rglob("*.png") if path.is_file()]
    assert fetched == ["0.png"]


def test_what_cannot_be_fetched(store, monkeypatch):
    with pytest.raises(DatasetError, match=r"memory://nothing (has no file|cannot be reached)"):
        open_dataset("memory://nothing")
    with pytest.raises(ConfigError, match="may not hold a password"):
        open_dataset("ftp://anna:secret@host/set")
    with pytest.raises(ConfigError, match="may not hold several URLs"):
        open_dataset("simplecache::memory://set")
    with pytest.raises((DatasetError, MissingDependencyError), match="nosuch://a"):
        open_dataset("nosuch://a")
    folder_in(store)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(DatasetError, match=r"0\.0 GB free.*VLBIAS_CACHE"):
        open_dataset("memory://set")


@pytest.mark.parametrize("url", ["memory://out/set", "file://{}/store/set"])
def test_a_balanced_set_is_sent_and_read_back(url, tmp_path, monkeypatch):
    from tiny_editor import CELLS, TinyEditor, make_faces

    from vlbias.balance import Balancer

    url = url.format(tmp_path)
    store = fsspec.filesystem(url.partition(":")[0])
    faces = make_faces(tmp_path / "faces", CELLS)
    options = {"target": "smile", "protected": "skin", "format": "webdataset", "shard_size": 20}
    balancer = Balancer(TinyEditor(leak=0.12), **options)
    sent = []
    put = type(store).put_file
    monkeypatch.setattr(type(store), "put_file", lambda self, *a, **k: sent.append(a[1]) or put(self, *a, **k))
    plan = balancer.plan(faces, limit=8)
    result = balancer.run(faces, plan, url, show_progress=False)
    assert result.out_dir == work_folder(url) and sent[-1].endswith("/metadata.csv")
    first = [name.rpartition("/")[2] for name in sent[:4]]
    assert first == ["test-000000.tar", *(f"train-00000{number}.tar" for number in range(3))]
    assert not any(".state" in name for name in sent) and len(sent) == len(set(sent))
    balancer.run(faces, plan, url, show_progress=False)
    assert len(sent) == len(set(sent))  # nothing is sent twice
    back = open_dataset(url)
    assert set(back.ids) == set(result.table["file_name"]) and back.table["smile"].notna().all()


def test_what_cannot_be_sent(store, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("a")

    def refuse(*arguments, **options):
        raise PermissionError("not yours")

    monkeypatch.setattr(type(store), "put_file", refuse)
    with pytest.raises(OutputError, match=r"memory://out cannot be reached or used \(PermissionError: not yours\)"):
        send_folder(tmp_path / "out", "memory://out")


def test_what_was_sent_is_noted_now_and_then_and_at_the_end(store, tmp_path, monkeypatch):
    noted = []
    write = remote.write_json
    monkeypatch.setattr(remote, "write_json", lambda path, value: noted.append(len(value)) or write(path, value))
    monkeypatch.setattr(remote, "_NOTED_EACH", 4)
    for number in range(10):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{number}.txt").write_text("a")
    assert send_folder(tmp_path / "out", "memory://out") == 10 and noted == [4, 8, 10]
    put = type(store).put_file
    for number in (7, 8, 9):
        (tmp_path / "out" / f"{number}.txt").write_text("b")

    def stops(self, source, *arguments, **options):
        if source.endswith("9.txt"):
            raise KeyboardInterrupt
        return put(self, source, *arguments, **options)

    monkeypatch.setattr(type(store), "put_file", stops)
    with pytest.raises(KeyboardInterrupt):
        send_folder(tmp_path / "out", "memory://out")
    monkeypatch.setattr(type(store), "put_file", put)
    assert send_folder(tmp_path / "out", "memory://out") == 1


def test_no_url_imports_no_store(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DatasetError, match="is not there"):
        open_dataset(str(tmp_path / "nothing"))
    with pytest.raises(MissingDependencyError, match=r"needs fsspec: pip install 'vlbias\[remote\]'"):
        open_dataset("s3://bucket/set")
