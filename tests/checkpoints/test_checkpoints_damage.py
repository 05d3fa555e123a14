"""Every file that a saved folder consists of, damaged behind the back of its manifest: a sentence names it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from doubles import tiny_editor

from vlbias import Editor
from vlbias.checkpoints import write_manifest
from vlbias.classify import Classifier, fit
from vlbias.errors import VlbiasError

FILES = {
    "editor": ["config.json", "diffae/config.json", "diffae/model.safetensors", "paths/config.json",
               "paths/paths.safetensors", "manifest.json"],
    "classifier": ["classifier.json", "classifier.safetensors", "manifest.json"],
}  # fmt: skip
LOADERS = {"editor": Editor.from_pretrained, "classifier": Classifier.from_pretrained}
CASES = [(kind, name) for kind, names in FILES.items() for name in names]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    base = tmp_path_factory.mktemp("saved")
    tiny_editor().save_pretrained(base / "editor")
    images = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    settings = {"image_size": 16, "batch_size": 4, "num_steps": 1}
    fit(images, ["a", "b"] * 4, classes=["a", "b"], seed=0, **settings).save_pretrained(base / "classifier")
    return base


def test_these_are_all_files(saved):
    for kind, names in FILES.items():
        assert {path.relative_to(saved / kind).as_posix() for path in (saved / kind).rglob("*.*")} == set(names)


def refused(saved, tmp_path, kind, name, content):
    """What is said of a folder in which one file holds something else, as its manifest has it."""
    folder = tmp_path / "folder"
    shutil.copytree(saved / kind, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(content)
    if name != "manifest.json":
        write_manifest(folder, [other for other in FILES[kind] if other != "manifest.json"])
    with pytest.raises(VlbiasError) as failure:
        LOADERS[kind](folder)
    return str(failure.value)


@pytest.mark.parametrize("damage", ["empty", "cut", "list", "null", "binary"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_damaged_file_is_named(kind, name, damage, saved, tmp_path):
    whole = (saved / kind / name).read_bytes()
    content = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "list": b"[]",
        "null": b"null",
        "binary": b"\xff\x00" * 50,
    }
    said = refused(saved, tmp_path, kind, name, content[damage])
    assert name in said or str(tmp_path / "folder" / name).rpartition("/")[0] in said, said


def numbers(values, place=()):
    """Where numbers stand in JSON."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from numbers(value, (*place, key))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield place


@pytest.mark.parametrize(("kind", "name"), [case for case in CASES if "config" in case[1] or "classifier.j" in case[1]])
def test_a_number_that_is_text_is_named(kind, name, saved, tmp_path):
    whole = json.loads((saved / kind / name).read_text())
    for place in numbers(whole):
        changed = json.loads(json.dumps(whole))
        part = changed
        for key in place[:-1]:
            part = part[key]
        part[place[-1]] = str(part[place[-1]])
        assert name.rpartition("/")[2] in refused(saved, tmp_path, kind, name, json.dumps(changed).encode()), place


@pytest.mark.parametrize("change", [{"name": None}, {"name": ["tiny"]}, {"license": 3}, {"image_size": 8}])
def test_what_an_editor_says_of_itself_is_looked_at(change, saved, tmp_path):
    whole = json.loads((saved / "editor" / "config.json").read_text())
    said = refused(saved, tmp_path, "editor", "config.json", json.dumps(whole | change).encode())
    assert "config.json" in said and str(*change) in said
