"""Files of users are safe: what a command reads stays as it is, and what it finds is not replaced."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from doubles import failing, people, run_command, tiny_editor, tree_hash
from jobs import ONCE, PRIVATE, SILENT, TIMES, make_inputs, quickly, run_job, small_jobs
from PIL import Image
from typer.main import get_command

from vlbias.cli import app
from vlbias.cli.outputs import claim_folder
from vlbias.errors import OutputError

#: Commands that replace a file of somebody else only where they are told to, and a file that each writes.
CAREFUL = {
    "edit": "face.png",
    "strip": "age.png",
    "simulate": "plan.json",
    "search": "front.csv",
    "audit": "report.json",
    "train clip": "config.json",
    "train prior": "config.json",
    "train distill": "config.json",
    "train enlarge": "config.json",
    "reproduce fer": "comparison.csv",
}
CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("made") / "inputs")


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("editor") / "tiny"
    tiny_editor().save_pretrained(folder)
    return folder


@pytest.fixture
def inputs(tmp_path):
    """A folder with a picture, which is written to as well."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    Image.linear_gradient("L").convert("RGB").resize((40, 36)).save(folder / "face.png")
    return folder


def registered(command, words=()):
    """The names of all commands of a family."""
    if not hasattr(command, "commands"):
        return [" ".join(words)]
    return [name for word, inner in command.commands.items() for name in registered(inner, (*words, word))]


def test_every_command_is_tried():
    assert sorted(small_jobs(Path("in"), Path("out"))) == sorted(registered(get_command(app)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", small_jobs(Path("in"), Path("out")))
def test_nothing_outside_of_the_results_changes(name, made, tmp_path, monkeypatch):
    home, here, out = tmp_path / "home", tmp_path / "here", tmp_path / "out"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("VLBIAS_CACHE", str(home))
    monkeypatch.chdir(here)
    before = tree_hash(made, home, here, CHECKPOINTS)
    run_job(name, made, out)
    assert tree_hash(made, home, here, CHECKPOINTS) == before
    if name in SILENT:
        assert not out.exists()
        return
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files and not [path for path in files if path.name.endswith(".draft")]
    # where on this disk something lies is nobody's business, nor is who took a picture where
    private = [*PRIVATE, os.fsencode(tmp_path)]
    assert [path for path in files if any(word in path.read_bytes() for word in private)] == []
    if name not in ONCE:
        written = tree_hash(out)
        run_job(name, made, out)  # the same job again is its own
        changed = {path for path, digest in tree_hash(out).items() if written.get(path) != digest}
        assert {Path(path).name for path in changed} <= set(TIMES)
    assert tree_hash(made, home, here, CHECKPOINTS) == before


@pytest.mark.parametrize("name", CAREFUL)
def test_results_of_others_are_not_replaced(name, made, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    other.mkdir()
    mine = other / CAREFUL[name]
    mine.write_text("mine")
    before = tree_hash(other, made)
    words = small_jobs(made, other)[name]
    with quickly():
        assert "--overwrite" in failing(monkeypatch, capsys, *words)
        assert tree_hash(other, made) == before
        if name in ("edit", "strip"):
            run_command(*words, "--overwrite")
            assert mine.read_bytes() != b"mine"


def test_a_table_of_somebody_else_is_not_replaced(made, tmp_path, monkeypatch, capsys):
    for name, file in (("bench", "table.json"), ("search evaluate", "pairs.csv")):
        (tmp_path / file).write_text("mine")
        assert f"{file} already exists" in failing(monkeypatch, capsys, *small_jobs(made, tmp_path)[name])
        assert (tmp_path / file).read_text() == "mine"


@pytest.mark.parametrize("name", ["edit", "strip", "simulate", "search", "audit"])
def test_links_among_the_results_are_refused(name, made, tmp_path, monkeypatch, capsys):
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    links = {"edit": "face.png", "strip": "age.png", "simulate": "sim.log.files", "search": "study.log"}
    out.mkdir()
    place = links.get(name, "fits")
    (out / place).symlink_to(mine if place in ("sim.log.files", "fits") else mine / "thesis.tex")
    before = tree_hash(mine, out)
    for words in ((), ("--overwrite",)):
        assert "is a link to" in failing(monkeypatch, capsys, *small_jobs(made, out)[name], *words)
        assert {path: hash for path, hash in tree_hash(mine, out).items() if ".vlbias" not in path} == before


@pytest.mark.parametrize(
    "name",
    [
        "audit",
        "simulate",
        "search",
        "train prior",
        "train clip",
        "train distill",
        "train enlarge",
        "learn",
        "search transfer",
    ],
)
def test_results_in_what_is_read_are_refused(name, tmp_path, monkeypatch, capsys):
    read, editor = people(tmp_path / "read"), tmp_path / "editor"
    (read / "a").mkdir()
    tiny_editor().save_pretrained(editor)
    tiny_editor().renderer.diffae.save_pretrained(tmp_path / "diffae")
    before = tree_hash(tmp_path)
    words = small_jobs(tmp_path, read / "a" / "out")[name]
    words = [str(read) if word in ("synthfaces:64", "synthfaces:16", str(tmp_path / "people"))
             else str(editor) if word == str(tmp_path / "mine") else word for word in words]  # fmt: skip
    monkeypatch.setattr("vlbias.search.open_study", lambda *_, **__: None)
    said = failing(monkeypatch, capsys, *words)
    assert "which is read" in said
    if name == "learn":
        words[words.index("--images") + 1 : words.index("--out") + 2] = ["synthfaces:16", "--out", str(editor / "new")]
        assert f"lies in {editor}, which is read" in failing(monkeypatch, capsys, *words)
    assert tree_hash(tmp_path) == before


def test_another_edit_of_the_same_name_is_not_replaced(inputs, editor, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    run_command("edit", inputs / "face.png", out, "--age", "1", "--editor", editor)
    before = tree_hash(out)
    error = failing(monkeypatch, capsys, "edit", inputs / "face.png", out, "--age", "-1", "--editor", editor)
    assert "face.png already exists, made with other options" in error and tree_hash(out) == before
    run_command("edit", inputs / "face.png", out, "--age", "-1", "--editor", editor, "--overwrite")
    assert tree_hash(out) != before


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_a_picture_is_never_replaced_by_its_own_edit(options, inputs, editor, monkeypatch, capsys):
    picture = inputs / "face.png"
    before = tree_hash(inputs)
    for words in (("edit", picture, inputs, "--age", "1"), ("strip", picture, picture, "--path", "age")):
        assert "is the picture itself" in failing(monkeypatch, capsys, *words, "--editor", editor, *options)
    link = inputs / "face.jpg"
    link.symlink_to(picture)
    assert "is the picture itself" in failing(
        monkeypatch, capsys, "edit", link, inputs, "--age", "1", "--editor", editor, *options
    )
    link.unlink()
    assert tree_hash(inputs) == before


def test_an_editor_folder_of_somebody_else_is_not_written_over(editor, tmp_path, monkeypatch, capsys):
    other = tmp_path / "other"
    tiny_editor().save_pretrained(other)
    before = tree_hash(other)
    words = ("learn", "smile", "--positive", "a", "--negative", "b", "--images", "synthfaces:40", "--out", other)
    assert "--overwrite" in failing(monkeypatch, capsys, *words, "--editor", editor)
    published = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}}, published)
    monkeypatch.setattr("vlbias.editor.Editor.from_pretrained", lambda *_, **__: tiny_editor())
    assert "--overwrite" in failing(monkeypatch, capsys, "convert", published, other)
    assert tree_hash(other) == before
    run_command("convert", published, tmp_path / "new")
    run_command("convert", published, tmp_path / "new")
    run_command("convert", published, other, "--overwrite")


def test_a_folder_knows_its_job(tmp_path):
    out = tmp_path / "out"
    claim_folder(out, "bake", {"seed": 1, "names": ("a",)})
    (out / "cake.txt").write_text("cake")
    claim_folder(out, "bake", {"seed": 1, "names": ["a"]})
    with pytest.raises(OutputError, match=r"cake.txt of another job \(`seed` is 1 there and 2 here\)"):
        claim_folder(out, "bake", {"seed": 2, "names": ["a"]})
    with pytest.raises(OutputError, match="cake.txt that this job did not write"):
        claim_folder(out, "fry", {"seed": 1})
    claim_folder(out, "fry", {"seed": 1}, names=["fish.txt"])
    record = out / ".vlbias-bake.json"
    assert json.loads(record.read_text())["job"]["seed"] == 1
    for damaged in ("", "[]", "{", '{"job": 3}'):
        record.write_text(damaged)
        with pytest.raises(OutputError, match="cake.txt of a job that .* damaged"):
            claim_folder(out, "bake", {"seed": 1, "names": ["a"]})
    claim_folder(out, "bake", {"seed": 2, "at": [f"folder:{tmp_path / 'a'}", "~/b"]}, overwrite=True)
    assert str(tmp_path) not in record.read_text() and "a (" in record.read_text()
    claim_folder(out, "bake", {"seed": 2, "at": [f"folder:{tmp_path}/x/../a", "~/b"]})
    claim_folder(tmp_path / "latin", "bake", {"at": "faces-\udcff", "from": "/faces-\udcff"})
    with pytest.raises(OutputError, match="`at` is"):
        claim_folder(out, "bake", {"seed": 2, "at": [f"folder:{tmp_path / 'c'}", "~/b"]})
    claim_folder(out, "bake", {"seed": 2}, overwrite=True)
    claim_folder(out, "bake", {"seed": 2})


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"job": 3}', b'{"vlbias": "demo", "job"', b"\xff\x00"])
def test_a_damaged_note_of_the_job_is_named_and_can_be_overwritten(tmp_path, content):
    claim_folder(tmp_path, "demo", {"seed": 1})
    (tmp_path / "report.html").write_text("a page")
    record = tmp_path / ".vlbias-demo.json"
    record.write_bytes(content)
    with pytest.raises(OutputError, match=r"of a job that .vlbias-demo.json does not tell.*--overwrite"):
        claim_folder(tmp_path, "demo", {"seed": 1})
    claim_folder(tmp_path, "demo", {"seed": 1}, overwrite=True)
    claim_folder(tmp_path, "demo", {"seed": 1})
