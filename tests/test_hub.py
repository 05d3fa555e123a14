"""Editors, paths and datasets go to a stand-in for the hub and come back; nothing else is asked of it."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import hub_server
from typer.testing import CliRunner

from vlbias import Dipole, Editor
from vlbias.balance import Balancer, push_dataset
from vlbias.cli import app
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError, OutputError
from vlbias.hub import is_hub_name
from vlbias.paths import PathSet

sys.path.insert(0, str(Path(__file__).parent / "balance"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server() as (address, server):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # others import it under another setting
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.fixture
def loopback_only(monkeypatch):
    """A connection to anywhere else fails the test."""
    connect = socket.socket.connect

    def checked(self, address):
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1"), address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", checked)


def path_set(label="old"):
    return PathSet({"age": Dipole(label, "young")}, 4, space="raw").requires_grad_(False)


def head(hub, key):
    """The front matter of a card, as YAML reads it, and the text below."""
    _, matter, text = hub.repositories[key]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(matter), text


def test_an_editor_comes_back_as_it_was(hub, loopback_only, face):
    editor = Editor.from_pretrained("synthfaces-64", clip=False)
    address = editor.push_to_hub("anna/faces-64")
    assert address.endswith("/anna/faces-64") and hub.private["model", "anna/faces-64"]
    files = hub.repositories["model", "anna/faces-64"]
    assert {"README.md", "config.json", "manifest.json", "diffae/model.safetensors"} <= set(files)
    again = Editor.from_pretrained("anna/faces-64")
    assert again.attributes == editor.attributes
    assert torch.equal(again.encode(face).z_sem, editor.encode(face).z_sem)
    matter, text = head(hub, ("model", "anna/faces-64"))
    assert matter["license"] == "mit" and matter["library_name"] == "vlbias" and "research-only" not in matter["tags"]
    assert 'Editor.from_pretrained("anna/faces-64")' in text and "a photo of an old person" in text


@pytest.fixture
def face():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_paths_come_back_and_say_whose_they_are(hub, loopback_only):
    paths = path_set("old\n---\nlicense: mit | <script>")
    paths.push_to_hub("anna/age.paths", license="research only: ask\n---\n'me'", private=False)
    again = PathSet.from_pretrained("anna/age.paths")
    assert again.names == ("age",) and not hub.private["model", "anna/age.paths"]
    assert torch.equal(again.state_dict()["mean"], paths.state_dict()["mean"])
    matter, text = head(hub, ("model", "anna/age.paths"))
    assert matter["license"] == "other" and matter["license_name"] == "research only: ask --- 'me'"
    assert "research-only" in matter["tags"] and "<script>" not in text


def test_what_stands_there_is_replaced_and_only_plain_data_is_fetched(hub, loopback_only, tmp_path):
    hub.repositories["model", "anna/p"] = {"evil.py": b"x", "paths/latent_paths_model.pt": b"x", "old.json": b"{}"}
    path_set().push_to_hub("anna/p")
    PathSet.from_pretrained("anna/p")
    fetched = {path.name for path in (tmp_path / "hf").rglob("*") if path.is_symlink()}
    assert fetched == {"config.json", "manifest.json", "paths.safetensors", "old.json"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda files: files.update({"paths.safetensors": files["paths.safetensors"] + b"x"}), "SHA-256 differs"),
        (lambda files: files.pop("paths.safetensors"), "paths.safetensors is missing"),
        (lambda files: files.pop("manifest.json"), "no manifest.json"),
        (lambda files: files.pop("config.json"), "no config.json"),
        (lambda files: files.update({f"{n}.json": b"{}" for n in range(101)}), "104 files.*at most 100"),
        (lambda files: files.update({"manifest.json": b"{}"}), "was changed or is damaged"),
    ],
)
def test_what_is_not_what_was_sent_is_refused(hub, loopback_only, change, said):
    path_set().push_to_hub("anna/p")
    change(hub.repositories["model", "anna/p"])
    with pytest.raises(CheckpointError, match=said):
        PathSet.from_pretrained("anna/p")


def test_nothing_is_asked_for_what_is_here_or_is_no_name(hub, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in ("mine/editor", "./anna/p", "../anna/p", "/anna/p", "~/p", "anna", "a/p/q", "-anna/p", Path("anna/p")):
        with pytest.raises((CheckpointNotFoundError, CheckpointError)):
            Editor.from_pretrained(name)
    assert hub.asked == [] and is_hub_name("anna/p") and not is_hub_name(Path("anna/p"))
    with pytest.raises(CheckpointNotFoundError, match="no such folder is here, and http://127.* shows no such"):
        Editor.from_pretrained("anna/p")
    assert len(hub.asked) == 1
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="anna/p at http://127.0.0.1:9 cannot be reached"):
        Editor.from_pretrained("anna/p")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        Editor.from_pretrained("anna/p")


@pytest.mark.parametrize("name", ["anna", "", "anna/", "a/b/c", "anna/p q", "https://hub/anna/p", "anna/../p"])
def test_a_repository_is_called_user_and_name(hub, name):
    with pytest.raises(ConfigError, match="is called user/name"):
        path_set().push_to_hub(name)
    assert hub.asked == []


def test_a_balanced_set_is_sent_without_what_it_keeps_for_itself(hub, loopback_only, tmp_path):
    import tiny_editor

    def run(out, **options):
        faces = tiny_editor.make_faces(tmp_path / "faces", tiny_editor.CELLS)
        balancer = Balancer(tiny_editor.TinyEditor(), target="smile", protected="skin", chunk_size=4, **options)
        return balancer.run(faces, balancer.plan(faces, limit=4), out, show_progress=False)

    result = run(tmp_path / "named")
    with pytest.raises(ConfigError, match="--pseudonymise"):
        push_dataset(tmp_path / "named", "anna/set")
    assert hub.asked == []
    run(tmp_path / "out", pseudonymise=True)
    (tmp_path / "out" / "review.csv").write_text("picture,donor,decision,reviewer\n")
    address = push_dataset(tmp_path / "out", "anna/set")
    assert address.endswith("/datasets/anna/set") and hub.private["dataset", "anna/set"]
    here = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(hub.repositories["dataset", "anna/set"]) == {n for n in here if n[0] != "." and n != "review.csv"}
    matter, _ = head(hub, ("dataset", "anna/set"))
    assert matter["license"] == "mit" and matter["pretty_name"] == "tiny faces, balanced"
    assert "synthetic" in matter["tags"] and "research-only" not in matter["tags"]
    push_dataset(tmp_path / "named", "anna/set", show_names=True)  # in its place, not beside it
    there = hub.repositories["dataset", "anna/set"]
    assert set(result.table["file_name"]) == {name for name in there if name.endswith(".png")}
    assert json.loads(there["report.json"]) == result.report
    (tmp_path / "named" / result.table["file_name"][0]).unlink()
    with pytest.raises(OutputError, match="is missing"):
        push_dataset(tmp_path / "named", "anna/set", show_names=True)


# -- from the command line --------------------------------------------------------------------------------------------


def typed(*words, code=0):
    told = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=code != 0)
    assert told.exit_code == code, told.output
    return str(told.exception) if isinstance(told.exception, ConfigError) else told.output


@pytest.fixture
def editor(monkeypatch):
    """The editor that commands open and make; what they learn is no matter here."""
    import vlbias.cli.editors
    import vlbias.recipes

    found = Editor.from_pretrained("synthfaces-64", clip=False)
    monkeypatch.setattr(vlbias.cli.editors, "open_editor", lambda name: found)
    monkeypatch.setattr(vlbias.recipes, "build_editor", lambda *_, **__: found)
    monkeypatch.setattr(Editor, "learn", lambda *_, **__: None)
    return found


LEARN = ("learn", "hat", "--positive", "a hat", "--negative", "no hat", "--images", "synthfaces:16", "--out", "hat")


@pytest.mark.parametrize("words", [LEARN, ("train", "editor", "synthfaces:16", "made")])
def test_a_command_sends_an_editor_where_that_is_typed(hub, loopback_only, editor, words):
    typed(*words)
    assert hub.asked == []
    address = typed(*words, "--overwrite", "--push-to-hub", "anna/hat").splitlines()[-1]
    assert address.endswith("/anna/hat") and hub.private["model", "anna/hat"]
    assert Editor.from_pretrained("anna/hat", clip=False).attributes == editor.attributes


def test_a_command_sends_a_balanced_set_where_that_is_typed(hub, loopback_only, tmp_path, monkeypatch):
    import tiny_editor

    import vlbias.cli.balance

    monkeypatch.setattr(vlbias.cli.balance, "open_editor", lambda name: tiny_editor.TinyEditor())
    monkeypatch.setattr(vlbias.cli.balance, "open_faces", lambda *_, **__: faces)
    faces = tiny_editor.make_faces(tmp_path / "faces", tiny_editor.CELLS)
    words = ("balance", "faces", "out", "--target", "smile", "--protected", "skin", "--limit", 4)
    assert "add --pseudonymise" in typed(*words, "--push-to-hub", "anna/set", code=2)
    assert "is called user/name" in typed(*words, "--push-to-hub", "anna", code=1)
    assert not Path("out").exists()
    typed(*words, "--pseudonymise")
    assert hub.asked == []
    address = typed(*words, "--pseudonymise", "--push-to-hub", "anna/set").splitlines()[-1]
    assert address.endswith("/datasets/anna/set") and hub.private["dataset", "anna/set"]
    assert "metadata.csv" in hub.repositories["dataset", "anna/set"]
