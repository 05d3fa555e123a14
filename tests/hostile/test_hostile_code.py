"""Editors, networks, pickles and pictures that want to run code or to ask the network: they leave no mark."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpus import EDITORS, Bomb, bomb, picture
from doubles import people, tree_hash
from watch import watched

from vlbias import Editor
from vlbias.checkpoints import write_manifest
from vlbias.classify import Classifier
from vlbias.cli import main
from vlbias.clip import load as load_clip
from vlbias.data import open_dataset
from vlbias.data.pairs import load_pairs
from vlbias.diffae import DiffAE
from vlbias.errors import VlbiasError
from vlbias.networks import load_network
from vlbias.optim import TrainingState
from vlbias.paths import PathSet, Probes
from vlbias.search import load_model

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel that tells is Linux")


@pytest.fixture
def mark(tmp_path):
    """What appears if anything is run."""
    return tmp_path / "mark"


@pytest.fixture
def transformers(monkeypatch, mark):
    """The real package if there is one, else a stand-in that marks that it was asked to load anything."""
    try:
        import transformers
    except ImportError:
        transformers = types.ModuleType("transformers")

        class Loader:
            @staticmethod
            def from_pretrained(*_, **__):
                mark.touch()
                raise OSError("asked")

        for name in ("AutoTokenizer", "AutoModel", "AutoConfig", "PretrainedConfig", "PreTrainedTokenizerFast"):
            setattr(transformers, name, Loader)
        monkeypatch.setitem(sys.modules, "transformers", transformers)
    return transformers


def typed(monkeypatch, *words):
    """A command as it is typed; errors end in an exit status."""
    monkeypatch.setattr(sys, "argv", ["vlbias", *map(str, words)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


def tried(*calls):
    """Each call ends well or in a sentence."""
    for call in calls:
        try:
            call()
        except VlbiasError as error:
            assert "TOP-SECRET" not in str(error)


def test_the_sound_editor_loads(sound):
    assert Editor.from_pretrained(f"{sound}/").attributes == ["age", "skin_tone"]


@pytest.mark.parametrize("case", EDITORS)
def test_an_editor_runs_nothing(case, sound, tmp_path, trap, mark, transformers, monkeypatch, capsys):
    folder, face = tmp_path / "editor", picture(tmp_path / "face.png")
    shutil.copytree(sound, folder)
    EDITORS[case](folder, trap, mark)
    if not any(path.is_symlink() or path.is_fifo() for path in folder.rglob("*")):
        write_manifest(folder)  # every hash is right
    before = tree_hash(trap)
    parts = {
        "clip": lambda: load_clip(folder / "clip"),
        "diffae": lambda: DiffAE.from_pretrained(folder / "diffae"),
        "paths": lambda: Editor.from_pretrained(str(sound), paths=folder / "paths"),
    }
    with watched(tmp_path / "out", traps=(trap,)) as seen:
        tried(lambda: Editor.from_pretrained(str(folder)), lambda: load_clip(folder))
        # whoever names a link wants what is behind it
        tried(*(load for name, load in parts.items() if not (folder / name).is_symlink()))
        typed(monkeypatch, "edit", face, tmp_path / "out", "--age", "1", "--editor", folder, "--any-picture")
        typed(monkeypatch, "paths", folder, "--images", "synthfaces:2")
    capsys.readouterr()
    assert seen.problems == [] and not mark.exists() and tree_hash(trap) == before


def test_an_editor_out_of_a_cache_of_the_hub_loads(sound, tmp_path, trap):
    """``snapshots/REVISION`` is nothing but links into ``blobs`` beside it; links to any other place are refused."""
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1f2e"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(path for path in sound.rglob("*") if path.is_file())):
        place = snapshot / file.relative_to(sound)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / f"{number:064x}")
        place.symlink_to(os.path.relpath(blobs / f"{number:064x}", place.parent))
    assert Editor.from_pretrained(str(snapshot)).attributes == ["age", "skin_tone"]
    shutil.move(blobs, trap / "blobs")
    blobs.symlink_to(trap / "blobs")
    with watched(traps=(trap,)) as seen, pytest.raises(VlbiasError, match="leads out of the checkpoint's folder"):
        Editor.from_pretrained(str(snapshot))
    assert seen.problems == []


PICKLES = ["ckpt", "paths", "state", "network", "classifier", "classifier of the hub", "timm", "pairs"]


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_of_a_stranger_runs_nothing(case, tmp_path, mark, monkeypatch, capsys, transformers):
    file, out = bomb(tmp_path / "last.ckpt", mark), tmp_path / "out"
    face, plain = shutil.copy(file, tmp_path / "face.pt"), tmp_path / "lfw.bin"
    plain.write_bytes(pickle.dumps(([Bomb(mark)], [True])))
    folder = tmp_path / "network"
    folder.mkdir()
    options = {"checkpoint_path": str(file)} if case == "classifier" else {}
    backbone = "hf-hub:somebody/model" if case == "classifier of the hub" else "resnet10t"
    settings = {"backbone": backbone, "image_size": 16, "backbone_options": options}
    described = {"format": 1, "classes": ["a", "b"], "settings": settings, "losses": []}
    (folder / "classifier.json").write_text(json.dumps(described))
    shutil.copy(file, folder / "classifier.safetensors")
    timm = tmp_path / "timm"
    timm.mkdir()
    asked = {"architecture": "hf-hub:a/b", "model_args": {"checkpoint_path": str(file)}}
    (timm / "config.json").write_text(json.dumps(asked))
    shutil.copy(file, timm / "model.pt")
    calls = {
        "ckpt": [lambda: Editor.from_pretrained(str(file)), lambda: DiffAE.from_published(file)],
        "paths": [lambda: PathSet.from_published(tmp_path)],
        "state": [lambda: TrainingState(file, {}, {}).load()],
        "network": [lambda: load_network(face)],
        "classifier": [lambda: Classifier.from_pretrained(folder), lambda: load_network(folder)],
        "classifier of the hub": [lambda: Classifier.from_pretrained(folder), lambda: load_network(folder)],
        "timm": [lambda: load_network(timm)],
        "pairs": [lambda: load_pairs(plain), lambda: open_dataset(plain)],
    }
    if case == "paths":
        shutil.copy(file, tmp_path / "latent_paths_model.pt")
    with watched(out) as seen:
        tried(*calls[case])
        if case == "ckpt":
            assert typed(monkeypatch, "convert", file, out) == 1
    assert seen.problems == [] and not mark.exists()


LOADERS = {
    "published paths": (PathSet.from_published, "semantic_dipoles.json"),
    "paths": (PathSet.from_pretrained, "config.json"),
    "probes": (Probes.from_pretrained, "config.json"),
    "an autoencoder": (DiffAE.from_pretrained, "config.json"),
    "a classifier": (Classifier.from_pretrained, "classifier.json"),
    "a network": (load_network, "config.json"),
    "a model of a search": (load_model, "config.json"),
    "a CLIP": (load_clip, "open_clip_config.json"),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_a_part_reads_nothing_elsewhere(kind, tmp_path, trap, monkeypatch, capsys):
    load, name = LOADERS[kind]
    folder = tmp_path / "part"
    folder.mkdir()
    (folder / name).symlink_to(trap / "facts.json")
    for other in ("latent_paths_model.pt", "model.safetensors", "classifier.safetensors"):
        (folder / other).write_bytes(b"x")
    with watched(tmp_path / "out", traps=(trap,)) as seen:
        with pytest.raises(VlbiasError, match="leads out of the checkpoint's folder"):
            load(folder)
        if kind == "a model of a search":
            assert typed(monkeypatch, "search", "evaluate", folder, "--pairs", folder / "x.bin") != 0
    assert seen.problems == []


def test_a_folder_of_the_working_directory_is_not_the_shipped_editor(tmp_path, monkeypatch, mark):
    bomb(tmp_path / "synthfaces-64" / "diffae" / "model.safetensors", mark)
    (tmp_path / "synthfaces-64" / "config.json").write_text('{"kind": "editor"}')
    monkeypatch.chdir(tmp_path)
    with watched() as seen:
        assert Editor.from_pretrained("synthfaces-64").name == "synthfaces-64"
    assert seen.problems == [] and not mark.exists()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(mark) (w) file closefile showpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["face.jpg", "face.png", "face.eps", "face.tif"])
def test_a_picture_starts_no_program(name, tmp_path, monkeypatch, sound, capsys):
    root, out = tmp_path / "set", tmp_path / "out"
    for number in range(3):
        picture(root / "a" / f"{number}.png", number)
    (root / "a" / name).write_bytes(POSTSCRIPT)
    with watched(out) as seen:
        faces = open_dataset(root).check_images(show_progress=False)
        typed(monkeypatch, "edit", root / "a" / name, out, "--age", "1", "--editor", sound)
        typed(monkeypatch, "strip", root / "a" / name, out / "s.png", "--path", "age", "--editor", sound)
    assert len(faces) == 3 and seen.problems == []


def test_a_table_runs_nothing(tmp_path, mark):
    """Arrow once unpickled the types of columns that a Parquet file names."""
    root = tmp_path / "set"
    picture(root / "0.png")

    extra = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb(mark))}
    schema = pa.schema([pa.field("file_name", pa.string()), pa.field("smile", pa.int64(), metadata=extra)])
    pq.write_table(pa.table({"file_name": ["0.png"], "smile": [1]}, schema=schema), root / "metadata.parquet")
    with watched() as seen:
        tried(lambda: open_dataset(root))
    assert seen.problems == [] and not mark.exists()


def test_journals_run_nothing(tmp_path, mark, monkeypatch, capsys, sound):
    """The journal of a search, the store of a simulation, the state of a training run, in the folder of a stranger."""
    faces, out = people(tmp_path / "people"), tmp_path / "out"
    out.mkdir()
    bomb(out / "state.pt", mark)
    shutil.copy(out / "state.pt", out / "sim.log")
    line = {"op_code": 0, "worker_id": "$(touch mark)", "study_name": "../../x"}
    (out / "study.log").write_text(json.dumps(line) + "\n")
    with watched(out) as seen:
        words = ("--target", "smile", "--protected", "gender", "--steps", 1, "--image-size", 16, "--shares", "0,0.5")
        assert typed(monkeypatch, "simulate", faces, out, *words, "--repeats", 1, "--overwrite") == 1
        words = ("--protected", "gender", "--epochs", 1, "--refit", 0, "--image-size", 16, "--trials", 1)
        assert typed(monkeypatch, "search", faces, out, *words, "--overwrite") == 1
        assert typed(monkeypatch, "train", "diffae", faces, "--out", out, "--images", 16, "--overwrite") == 1
    assert seen.problems == [] and not mark.exists()


def test_a_run_shows_that_it_can_fail(tmp_path, mark):
    """The watch and the bomb work: without care the mark appears, and what is asked and written is noticed."""
    file = bomb(tmp_path / "a.ckpt", mark)
    with watched(tmp_path / "out", traps=(tmp_path,)) as seen:
        torch.load(file, weights_only=False)
        with pytest.raises(PermissionError):
            __import__("socket").getaddrinfo("example.org", 80)
        (tmp_path / "b").write_text("b")
    assert mark.exists()
    for word in ("a.ckpt", "getaddrinfo", "open /"):
        assert any(word in text for text in seen.problems)
