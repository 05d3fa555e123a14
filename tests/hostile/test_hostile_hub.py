"""Repositories of the hub that somebody with bad intentions made: plain data is fetched, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest
from corpus import EDITORS, SECRET, picture
from doubles import tree_hash
from hub_server import hub_server
from watch import watched

from vlbias import Editor
from vlbias.checkpoints import write_manifest
from vlbias.cli import main
from vlbias.data import open_dataset
from vlbias.errors import CheckpointError, VlbiasError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel that tells is Linux")

NAME = "eve/faces"
#: What an editor or a set of paths consists of.
PLAIN = (".json", ".safetensors", ".gz")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub; a connection to anywhere else fails the test."""
    connect = socket.socket.connect

    def checked(self, address):
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    with hub_server() as (address, server):
        monkeypatch.setattr(socket.socket, "connect", checked)
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # others import it under another setting
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.chdir(tmp_path)
        yield server


def sent(hub, folder: Path, **more: bytes) -> None:
    """Lay a folder into the repository as it stands, whatever it is, with more files in their own words."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.repositories["model", NAME] = files | more


def fetched(tmp_path: Path) -> set[str]:
    found = tmp_path.glob("hf/models--*/snapshots/*/**/*")
    return {path.name for path in found if path.is_file()}


def asked_elsewhere(hub) -> list[str]:
    assert hub.asked
    return [line for line in hub.asked if NAME not in line]


IN_FILES = [case for case, change in EDITORS.items() if not any(w in case for w in ("elsewhere", "device", "pipe"))]


@pytest.mark.parametrize("case", IN_FILES)
def test_a_fetched_editor_runs_nothing_and_asks_for_no_other(case, sound, hub, tmp_path, trap):
    folder, mark = tmp_path / "made", tmp_path / "mark"
    shutil.copytree(sound, folder)
    EDITORS[case](folder, trap, mark)
    write_manifest(folder)  # every hash is right
    sent(hub, folder)
    shutil.rmtree(folder)
    before = tree_hash(trap)
    try:
        Editor.from_pretrained(NAME)
    except VlbiasError as error:
        assert SECRET.decode() not in str(error)
    assert not mark.exists() and tree_hash(trap) == before and asked_elsewhere(hub) == []
    assert all(name.endswith(PLAIN) for name in fetched(tmp_path))


@pytest.mark.parametrize("part", ["diffae", "paths", "clip", "base", "name"])
def test_a_config_that_names_another_repository_is_not_followed(part, sound, hub, tmp_path):
    folder = tmp_path / "made"
    shutil.copytree(sound, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {part: "other/editor"}))
    if (folder / part).is_dir():
        shutil.rmtree(folder / part)
    write_manifest(folder)
    sent(hub, folder)
    shutil.rmtree(folder)
    try:
        Editor.from_pretrained(NAME)
    except VlbiasError as error:
        assert str(error)
    assert asked_elsewhere(hub) == []


ODD = ["../../up.json", "/etc/up.json", "diffae/../../up.json", "a\\..\\up.json", "diffae/up.py", "setup.py",
       "paths/latent_paths_model.pt", "pytorch_model.bin", "model.onnx", ".git/config.json", "train/face.png",
       "README.md", "x.json\n"]  # fmt: skip


def test_what_is_no_part_of_an_editor_is_not_fetched(hub, tmp_path, sound, monkeypatch, capfd):
    """Scripts, pickles, names that lead elsewhere, and a page that would act in a terminal or a browser."""
    page = b"---\nlicense: mit\n---\n<script>alert(1)</script>\x1b]0;x\x07\x1b[2J\n![](https://example.org/a)"
    sent(hub, sound, **dict.fromkeys(ODD, page))
    before = {path for path in tmp_path.rglob("*") if "hf" not in path.parts}
    face = picture(tmp_path / "face.png")
    words = ["vlbias", "edit", face, tmp_path / "out", "--age", "1", "--any-picture", "--editor", NAME]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with contextlib.suppress(SystemExit):
        main()
    told = "".join(capfd.readouterr())
    assert "\x1b" not in told and "script" not in told and (tmp_path / "out" / "face.png").is_file()
    new = {path for path in tmp_path.rglob("*") if "hf" not in path.parts} - before
    assert {path.relative_to(tmp_path).parts[0] for path in new} == {"face.png", "out"}
    assert not {"up.json", "up.py", "setup.py", "README.md", "pytorch_model.bin", "model.onnx"} & fetched(tmp_path)
    assert asked_elsewhere(hub) == []


@pytest.mark.parametrize("place", ["config.json", "diffae/model.safetensors", "paths", "manifest.json", "blobs"])
def test_links_in_a_snapshot_that_leave_the_cache_are_refused(place, sound, hub, tmp_path, trap):
    sent(hub, sound)
    Editor.from_pretrained(NAME)
    (snapshot,) = tmp_path.glob("hf/models--eve--faces/snapshots/*")
    at = snapshot / place if place != "blobs" else snapshot.parents[1] / "blobs"
    if at.is_dir() and not at.is_symlink():
        shutil.move(at, trap / "moved")
        at.symlink_to(trap / "moved")
    else:
        content = at.read_bytes()
        at.unlink()
        (trap / "moved").write_bytes(content)
        at.symlink_to(trap / "moved")
    refused = pytest.raises(CheckpointError, match="leads out of the checkpoint's folder")
    with watched(traps=(trap,)) as seen, refused:
        Editor.from_pretrained(str(snapshot))
    assert seen.problems == []
    with pytest.raises(CheckpointError, match="leads out of the checkpoint's folder"):
        Editor.from_pretrained(NAME)


@pytest.mark.parametrize(
    "manifest", [None, b"{}", b"[" * 10**5, b'{"sha256": "", "files": {}}', b'{"files": {"a": 1}}']
)
def test_an_editor_without_a_manifest_is_refused(manifest, sound, hub):
    sent(hub, sound)
    files = hub.repositories["model", NAME]
    if manifest is None:
        del files["manifest.json"]
    else:
        files["manifest.json"] = manifest
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        Editor.from_pretrained(NAME)


@pytest.mark.parametrize("name", [NAME, "datasets/eve/faces", "hf://datasets/eve/faces", "hf-hub:eve/faces"])
def test_a_dataset_by_the_name_of_a_repository_is_asked_for_nowhere(name, hub, tmp_path):
    hub.repositories["dataset", NAME] = {"metadata.csv": b"file_name,smile\n", "loader.py": b"raise SystemExit"}
    with pytest.raises(VlbiasError):
        open_dataset(name)
    assert hub.asked == [] and os.listdir(tmp_path) == []
