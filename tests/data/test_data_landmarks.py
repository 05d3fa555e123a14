"""The file of landmarks: exact, shared, and never trusted blindly."""

from __future__ import annotations

import multiprocessing
import sqlite3

import numpy as np
import pytest

from vlbias.alignment import DetectedFace
from vlbias.data.landmarks import Found, LandmarkCache, rounded
from vlbias.errors import OutputError, ShapeError

POINTS = np.array([[75, 80], [125, 80], [100, 110], [80, 140], [120, 140]], dtype=float)
FACE = DetectedFace(POINTS + 0.123456, (50.004, 50, 150, 160.1), 0.98765432)
FOUND = Found((640, 480), [FACE])


def same(left: DetectedFace, right: DetectedFace) -> bool:
    return np.array_equal(left.landmarks, right.landmarks) and (left.box, left.score) == (right.box, right.score)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "kept.sqlite"


def test_what_is_kept_comes_back(path):
    with LandmarkCache(path) as cache:
        cache.put("one", "d", Found((640, 480), [FACE, DetectedFace(POINTS, (0, 0, 9, 9))]))
        cache.put("none", "d", Found((9, 7), []))
        # before it is on disk
        assert len(cache.get("one", "d").faces) == 2 and cache.get("none", "d") == Found((9, 7), [])
    with LandmarkCache(path) as cache:
        assert same(cache.get("one", "d").faces[0], rounded([FACE])[0])
        assert cache.get("one", "d").photo_size == (640, 480) and cache.get("none", "d") == Found((9, 7), [])
        assert cache.get("two", "d") is None and cache.get("one", "e") is None
    assert rounded([FACE])[0].landmarks[0].tolist() == [75.12, 80.12]
    assert rounded([FACE])[0].box == (50.0, 50, 150, 160.1) and rounded([FACE])[0].score == 0.9877


def test_what_was_found_is_on_disk_soon(path, monkeypatch):
    monkeypatch.setattr("vlbias.data.landmarks._WRITE_INTERVAL_S", 0.0)
    cache = LandmarkCache(path)
    cache.put("one", "d", FOUND)
    with LandmarkCache(path) as other:  # as if this process were killed now
        assert same(other.get("one", "d").faces[0], rounded([FACE])[0])
    cache.close()


def fill(path, start, done):
    with LandmarkCache(path) as cache:
        for number in range(start, start + 50):
            cache.put(str(number), "d", FOUND)
            cache.write()
    done.put(start)


def test_several_processes_share_a_file(path):
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    workers = [context.Process(target=fill, args=(path, start, done)) for start in (0, 25, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    with LandmarkCache(path) as cache:
        assert all(cache.get(str(number), "d") for number in [*range(75), *range(100, 150)])


@pytest.mark.parametrize("garbage", [b"not a database, but long enough to look at" * 30, b"\0" * 5000])
def test_a_damaged_file_is_set_aside_and_begun_anew(path, garbage):
    path.parent.mkdir()
    path.write_bytes(garbage)
    with pytest.warns(UserWarning, match=r"kept.sqlite is damaged .* set aside as kept.sqlite.damaged and begun anew"):
        cache = LandmarkCache(path)
    with cache:
        assert cache.get("one", "d") is None
        cache.put("one", "d", FOUND)
    assert path.with_name("kept.sqlite.damaged").read_bytes() == garbage
    with LandmarkCache(path) as cache:
        assert same(cache.get("one", "d").faces[0], rounded([FACE])[0])


def test_damage_that_shows_only_later(path):
    with LandmarkCache(path) as cache:
        for number in range(2000):
            cache.put(f"{number:064d}", "d", FOUND)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="set aside"), LandmarkCache(path) as cache:
        assert cache.get(f"{7:064d}", "d") is None
        cache.put("new", "d", FOUND)
    with LandmarkCache(path) as cache:
        assert cache.get("new", "d") is not None


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "7",
        "[[64, 48]]",
        "[[64, 48], 7]",
        "[[64, 0], []]",
        "[[64], []]",
        "[[64.5, 48], []]",
        "[[64, 48], [[1, 2, 3]]]",
        "[[64, 48], [[0, 0, 9, 9, 0.5, NaN, 1, 1, 1, 1, 1, 1, 1, 1, 1]]]",
        "[[64, 48], [[9, 0, 0, 9, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]]",
        "[[64, 48], [[0, 0, 9, 9, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]]",
        '[[64, 48], [["a", 0, 9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]]]',
        b"\x00\xff",
        None,
    ],
)
def test_a_damaged_entry_is_as_if_it_were_not_there(path, text):
    with LandmarkCache(path) as cache:
        cache.put("one", "d", FOUND)
        cache.put("two", "d", FOUND)
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE found_1 SET found = ? WHERE photo = 'one'", (text,))
    database.close()
    if text is None:  # an empty field says no more than a missing row
        with LandmarkCache(path) as cache:
            assert cache.get("one", "d") is None
        return
    with pytest.warns(UserWarning, match="1 entries were damaged; those photographs are searched again"):  # noqa: SIM117
        with LandmarkCache(path) as cache:
            assert cache.get("one", "d") is None and cache.get("two", "d") is not None
            cache.put("one", "d", FOUND)
    with LandmarkCache(path) as cache:
        assert cache.get("one", "d") is not None


def test_a_database_of_something_else_is_left_alone(path):
    path.parent.mkdir()
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE addresses (name TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is not a file of landmarks. Name another file"):
        LandmarkCache(path)
    assert path.read_bytes() == before


def test_versions_share_a_file(path, monkeypatch):
    with LandmarkCache(path) as cache:
        cache.put("one", "d", FOUND)
    monkeypatch.setattr("vlbias.data.landmarks._TABLE", "found_2")
    with LandmarkCache(path) as cache:
        assert cache.get("one", "d") is None
    monkeypatch.undo()
    with LandmarkCache(path) as cache:
        assert cache.get("one", "d") is not None


def test_a_place_that_cannot_be_written(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be opened .* set [$]VLBIAS_CACHE to a folder"):
        LandmarkCache(tmp_path / "file" / "kept.sqlite")
    with pytest.raises(OutputError, match="cannot be opened"):
        LandmarkCache(tmp_path)
    # the user did not ask for the default place, so the work goes on without it
    monkeypatch.setenv("VLBIAS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="Landmarks are not kept for the next run"):
        cache = LandmarkCache()
    with cache:
        cache.put("one", "d", FOUND)
        cache.write()
        assert cache.get("one", "d") is not None


def test_faces_of_a_faulty_detector():
    with pytest.raises(ShapeError, match=r"box with left < right .* got box \(9.0, 0.0, 3.0, 9.0\), score 1.0"):
        rounded([DetectedFace(POINTS, (9, 0, 3, 9))])
