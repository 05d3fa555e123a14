"""Any byte of an editor's files that changes is noticed, and the file is named."""

from __future__ import annotations

import json
import shutil

import pytest

from vlbias.checkpoints import find_checkpoint, verify_folder, write_manifest
from vlbias.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    """A small editor-like folder with its manifest."""
    place = tmp_path / "editor"
    for name in ("config.json", "clip/merges.txt", "diffae/model.safetensors"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f"content of {name}")
    write_manifest(place)
    return place


def flipped(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_every_byte_of_every_file_counts(folder):
    verify_folder(folder, "mine")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for at in range(len(whole)):
            flipped(path, at)
            with pytest.raises(CheckpointError, match=path.name):
                verify_folder(folder, "mine")
            path.write_bytes(whole)
        path.unlink()
        with pytest.raises(CheckpointError, match=path.name):
            verify_folder(folder, "mine")
        path.write_bytes(whole)
    verify_folder(folder, "mine")


def test_a_file_that_was_added_to_a_part_is_named_and_notes_are_not(folder):
    (folder / "NOTES.md").write_text("my notes")
    (folder / ".draft").mkdir()
    verify_folder(folder, "mine")
    (folder / "clip" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"clip/tokenizer\.json does not belong to the checkpoint"):
        verify_folder(folder, "mine")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"sha256": "x"}', '{"sha256": "x", "files": {}}', '{"files": {"a": 1, "a": 2}}']
)
def test_an_empty_or_forged_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        verify_folder(folder, "mine")


def test_a_manifest_that_points_outside_is_refused(folder, tmp_path):
    (tmp_path / "private").write_text("mine")
    from vlbias.checkpoints import manifest

    for name in ("../private", str(tmp_path / "private")):
        (folder / "manifest.json").write_text(manifest._text({name: "0" * 64}))
        with pytest.raises(CheckpointError, match="lies outside the checkpoint"):
            verify_folder(folder, "mine")


def test_a_folder_without_hashes_is_refused(folder):
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json.*names no editor of this package"):
        verify_folder(folder, "mine")


def test_the_editor_refuses_a_changed_part(tmp_path, repository):
    from vlbias import Editor

    copy = tmp_path / "copy"
    shutil.copytree(repository / "checkpoints" / "synthfaces-64", copy)
    config = json.loads((copy / "paths" / "config.json").read_text())
    (copy / "paths" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"paths/config\.json is not the file"):
        Editor.from_pretrained(str(copy))


def test_nothing_in_the_working_directory_stands_in_for_a_shipped_editor(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    for name in ("synthfaces-64", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert find_checkpoint("synthfaces-64") == repository / "checkpoints" / "synthfaces-64"
    assert find_checkpoint("./synthfaces-64").resolve() == tmp_path / "synthfaces-64"
    with pytest.raises(CheckpointError, match=r"No checkpoint 'mine'\. For the folder of that name write './mine'"):
        find_checkpoint("mine")
