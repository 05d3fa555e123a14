"""Files and folders appear whole or not at all; what a killed run left is cleared by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vlbias.errors import CheckpointError, CheckpointNotFoundError, ImageError, OutputError
from vlbias.files import (
    draft_folder,
    make_folder,
    new_file,
    read_json,
    read_object,
    sha256_file,
    write_file,
    write_json,
    writing,
)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def killed(code, *arguments):
    """Run code in another process that kills itself where it says ``die()``."""
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom vlbias.files import *\n"
    start += "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", start + code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_files_are_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"z": 1, "a": "ä"})
    assert read_json(tmp_path / "a.json") == {"z": 1, "a": "ä"}
    write_file(tmp_path / "b", b"abc")
    write_file(tmp_path / "c", "ä")
    assert sha256_file(tmp_path / "b").startswith("ba7816bf")
    assert (tmp_path / "c").read_bytes() == "ä".encode()
    with pytest.raises(RuntimeError), new_file(tmp_path / "b") as handle:
        handle.write(b"half")
        raise RuntimeError
    assert (tmp_path / "b").read_bytes() == b"abc"
    assert names(tmp_path) == ["a.json", "b", "c"]
    with pytest.raises(OutputError, match=r"none/b cannot be written .*A folder on the way is missing"):
        write_file(tmp_path / "none" / "b", b"abc")


def test_results_are_for_everybody_that_may_read_the_folder(tmp_path):
    before = os.umask(0o022)
    try:
        write_file(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_what_a_killed_write_left_is_taken_over(tmp_path):
    killed("with new_file(sys.argv[1]) as handle: handle.write(b'half' * 9999); handle.flush(); die()", tmp_path / "a")
    assert names(tmp_path) == [".a.draft"]
    write_file(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"whole"


def test_several_writers_of_one_file_leave_one_whole_file(tmp_path):
    contents = [bytes([65 + number]) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "a", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() in contents


def test_a_link_in_the_draft_s_place_is_not_followed(tmp_path):
    (tmp_path / "private").write_text("mine")
    (tmp_path / ".a.draft").symlink_to(tmp_path / "private")
    with pytest.raises(OutputError, match="a cannot be written"):
        write_file(tmp_path / "a", b"x")
    assert (tmp_path / "private").read_text() == "mine"


def test_a_new_folder_appears_whole(tmp_path):
    with draft_folder(tmp_path / "out" / "model") as draft:
        (draft / "config.json").write_text("{}")
        assert not (tmp_path / "out" / "model").exists()
    assert names(tmp_path / "out") == ["model", "model/config.json"]
    with pytest.raises(ImageError, match="broken"), draft_folder(tmp_path / "other") as draft:
        raise ImageError("broken")
    assert names(tmp_path) == ["out", "out/model", "out/model/config.json"]


def test_a_folder_that_is_there_keeps_what_is_not_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "stale").write_text("")
    with draft_folder(tmp_path) as draft:
        (draft / "part").mkdir()
        (draft / "part" / "new").write_text("")
        (draft / "config.json").write_text("{}")
    assert names(tmp_path) == ["config.json", "notes.txt", "part", "part/new"]


def test_what_a_killed_build_left_is_cleared(tmp_path):
    code = "with draft_folder(sys.argv[1]) as draft: (draft / 'config.json').write_text('{}'); die()"
    killed(code, tmp_path / "new")
    (tmp_path / "old").mkdir()
    killed(code, tmp_path / "old")
    assert names(tmp_path) == [".new.draft", ".new.draft/config.json", "old", "old/.draft", "old/.draft/config.json"]
    for name in ("new", "old"):
        with draft_folder(tmp_path / name) as draft:
            (draft / "a").write_text("")
    assert names(tmp_path) == ["new", "new/a", "old", "old/a"]


def test_two_processes_do_not_build_one_folder(tmp_path):
    with draft_folder(tmp_path / "a"), pytest.raises(OutputError, match="being written by another process"):
        draft_folder(tmp_path / "a").__enter__()
    assert names(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file. Give a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(OutputError, match="A part of the path is a file"):
        make_folder(tmp_path / "file" / "inside")
    assert make_folder(tmp_path / "a" / "b").is_dir() and make_folder(tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("place", ["~/balanced", "~nosuch/x", "s3://bucket/x", "http://localhost:9/x"])
def test_a_home_or_a_url_is_no_folder_here(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="Write out the home folder" if place[0] == "~" else "is a URL"):
        make_folder(Path(place))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # whoever runs the tests may be allowed everything
    with pytest.raises(OutputError, match="No permission to write there: change it or choose another folder"):
        make_folder(tmp_path)


def test_half_a_character_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(OutputError, match=r"a.txt cannot be written: half a character stands in 'old \\udcff'"):
        write_file(tmp_path / "a.txt", "old \udcff")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_is_told_once_with_its_place_and_remedy():
    with pytest.raises(OutputError) as failure, writing("outer"), writing("x"):
        raise OSError(28, "No space left on device")
    text = "x cannot be written (No space left on device). The disk is full: free some space and run the same command"
    assert str(failure.value) == f"{text} again."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a":\n 1,}', r"not valid JSON.*line 2"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "key 'c' stands twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_damaged_json_is_a_sentence(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=said) as failure:
        read_json(path)
    assert "a.json" in str(failure.value)


def test_json_that_is_no_file_or_too_large_is_refused(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="does not exist"):
        read_json(tmp_path / "b.json")
    with pytest.raises(CheckpointError, match="pipe or a device"):
        read_json("/dev/zero")
    write_json(tmp_path / "a.json", list(range(100)))
    with pytest.raises(CheckpointError, match="more than 50 bytes"):
        read_json(tmp_path / "a.json", max_bytes=50)


@pytest.mark.parametrize(("text", "said"), [("[]", "a list"), ("null", "null"), ("1.5", "a number"), ('"a"', "a text")])
def test_something_else_where_an_object_belongs_is_named(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"must hold one JSON object .*it contains {said}"):
        read_object(tmp_path / "a.json")
