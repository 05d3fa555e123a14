"""Every command with something of a stranger in each place that takes a file: it does its work or says a sentence."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import sys
import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from corpus import EDITORS, Bomb, bomb, picture, sound_editor
from doubles import TINY, people, tree_hash
from jobs import PRIVATE, note_owner, quickly
from watch import watched

import vlbias.app
import vlbias.recipes
from vlbias.cli import app, main
from vlbias.errors import ConfigError, VlbiasError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel that tells is Linux")

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(mark) (w) file closefile showpage\n%%EOF\n"

# -- what strangers hand on -------------------------------------------------------------------------------------------


def _linked(place: Path, trap: Path, mark: Path) -> None:
    """A sound dataset, with a link to a picture, a folder and a pipe beside its pictures."""
    people(place)
    (place / "me.png").symlink_to(trap / "me.png")
    (place / "more").symlink_to(trap)
    os.mkfifo(place / "pipe.png")
    (place / "metadata.schema.json").symlink_to(trap / "facts.json")


def _elsewhere(place: Path, trap: Path, mark: Path) -> None:
    """A label table that names a picture of somebody else, and a script for a picture."""
    people(place)
    with (place / "metadata.csv").open("a") as file:
        file.write("../trap/me.png,train,male,1,3\n")
    (place / "00.png").write_bytes(POSTSCRIPT)


def _pickled_types(place: Path, trap: Path, mark: Path) -> None:
    people(place)
    extra = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb(mark))}
    table = pa.Table.from_pandas(pd.read_csv(place / "metadata.csv"))
    schema = pa.schema([field.with_metadata(extra) if field.name == "smile" else field for field in table.schema])
    (place / "metadata.csv").unlink()
    pq.write_table(table.cast(schema), place / "metadata.parquet")


def _escapes(place: Path, trap: Path, mark: Path) -> None:
    """Names of files, columns and values that a terminal or a page would act on."""
    people(place)
    evil = "\x1b]0;x\x07\x1b[2J\u202e<script>alert(1)</script>{{7*7}}$\\frac{$"
    table = pd.read_csv(place / "metadata.csv").assign(**{f"c{evil}": "=1+1"})
    os.rename(place / "01.png", place / f"{evil.replace('/', '')}.png")
    table.loc[1, "file_name"] = f"{evil.replace('/', '')}.png"
    table.loc[::2, "gender"] = f"male{evil}"
    table.to_csv(place / "metadata.csv", index=False)


def _editor(case: str):
    def make(place: Path, trap: Path, mark: Path) -> None:
        sound_editor(place)
        EDITORS[case](place, trap, mark)

    return make


def _classifier(place: Path, trap: Path, mark: Path) -> None:
    place.mkdir()
    file = bomb(place / "classifier.safetensors", mark)
    settings = {"backbone": "resnet10t", "image_size": 16, "backbone_options": {"checkpoint_path": str(file)}}
    described = {"format": 1, "classes": ["a", "b"], "settings": settings, "losses": []}
    (place / "classifier.json").write_text(json.dumps(described))


def _model_of_a_search(place: Path, trap: Path, mark: Path) -> None:
    place.mkdir()
    (place / "config.json").write_text('{"format": "vlbias-search-model", "configuration": {"backbone": "hf-hub:a/b"}}')
    bomb(place / "model.safetensors", mark)


def _published(place: Path, trap: Path, mark: Path) -> None:
    place.mkdir()
    bomb(place / "latent_paths_model.pt", mark)
    (place / "semantic_dipoles.json").symlink_to(trap / "facts.json")


def _folder_of_links(place: Path, trap: Path, mark: Path) -> None:
    """A folder for results in which links lie, and the record of a job that is another's."""
    place.mkdir()
    for name in ("state.pt", "study.log", "report.json", "metadata.csv", "samples", ".state", ".building", "balanced"):
        (place / name).symlink_to(trap / "facts.json" if "." in name[1:] else trap)


def _folder_of_noise(place: Path, trap: Path, mark: Path) -> None:
    """A folder for results whose every file begins like one of its kind, and is none."""
    names = "report.json metadata.csv plan.json plan.csv rejected.csv review.csv sim.log study.log front.csv state.pt"
    names += " results.jsonl log.jsonl config.json manifest.json .state/job.json .state/done.json balanced/report.json"
    names += " best/config.json .vlbias-demo.json .vlbias-simulate.json .vlbias-audit.json .vlbias-search.json"
    for name in names.split():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        start = {".csv": b'a,a\n"', ".pt": b"PK\3\4", ".log": b'{"op_code": 0, '}.get(Path(name).suffix, b'{"job": [')
        (place / name).write_bytes(start + b"\xff\0[" * 1000)


def _written(content: bytes):
    return lambda place, trap, mark: place.write_bytes(content)


def _bomb(place: Path, trap: Path, mark: Path) -> None:
    bomb(place, mark)


def _pipe(place: Path, trap: Path, mark: Path) -> None:
    os.mkfifo(place)


#: What is handed on in the place of each kind of file: how it is made from (place, trap, mark).
HOSTILE = {
    "dataset": {
        "links": _linked,
        "names elsewhere": _elsewhere,
        "pickled types": _pickled_types,
        "escapes": _escapes,
        "a pickle": _bomb,
    },
    "editor": {
        "a tokenizer with code": _editor("a tokenizer with code"),
        "a pickle for a picture model": _editor("a pickle for a picture model"),
        "weights elsewhere": _editor("weights elsewhere"),
        "a pickle": _bomb,
    },
    "network": {"a pickle": _bomb, "a classifier": _classifier, "a model": _model_of_a_search, "a pipe": _pipe},
    "paths": {"a pickle": _published, "a pipe": _pipe},
    "picture": {
        "a script.png": _written(POSTSCRIPT),
        "a drawing.png": _written(b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'),
        "a pipe.png": _pipe,
    },
    "out": {"links": _folder_of_links, "noise": _folder_of_noise},
    "file": {"taken.csv": lambda place, trap, mark: place.symlink_to(trap / "table.csv"), "a pipe": _pipe},
    "store": {"a pickle": _bomb, "a link": lambda place, trap, mark: place.symlink_to(trap / "note.txt")},
    "table": {
        "a pickle.bin": _bomb,
        "deep.json": _written(b"[" * 100_000),
        "many columns.csv": _written(b"file_name" + b",x" * 5000),
        "names elsewhere.csv": _written(b"first,second,same\n../trap/me.png,/proc/self/environ,1\n"),
        "a pipe.csv": _pipe,
    },
    "pem": {"a pickle.pem": _bomb, "a pipe.pem": _pipe},
}


def _sound(kind: str, place: Path) -> object:
    """What a command gets where nothing hostile is in this place."""
    if kind == "dataset":
        return people(place)
    if kind == "editor":
        sound_editor(place)
    elif kind == "picture":
        return picture(place.with_suffix(".png"))
    elif kind == "table":
        for who in ("a", "b"):
            for number in (1, 2):
                picture(place / who / f"{who}_{number:04d}.png", number)
        rows = [f"a/a_0001.png,{who}/{who}_0002.png,{int(who == 'a')}" for who in "ab" * 6]
        (place / "pairs.csv").write_text("\n".join(["first,second,same", *rows]))
        return place / "pairs.csv"
    elif kind == "pem":
        place.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    return place


# -- where they are handed over ---------------------------------------------------------------------------------------

FEW = "--steps 1 --image-size 16 --shares 0,0.5 --repeats 1"
SEARCH = "--epochs 1 --refit 0 --image-size 16 --trials 1 --backbones resnet10t"
#: Command => the words that are always there, and what it takes of files: parameter => (its words, kind of file).
#: Words with "{}" in them stand in the base and have a sound file there while another is tried.
DOORS: dict[str, tuple[str, dict[str, str]]] = {
    "demo": ("demo {out:out} --faces 100 --seeds 1 --editor {editor:editor}", {}),
    "balance": (
        "balance {dataset:dataset} {out:out} --target smile --protected gender --path age --poles female,male "
        "--limit 2 --editor {editor:editor} --checks goal=.1",
        {
            "identity": "--identity {network}",
            "scorer": "--scorer gender={network}",
            "landmarks": "--align --landmarks {table}",
            "pseudonyms": "--pseudonymise --pseudonyms {table}",
            "label": "--label gender={network}",
            "review": "--review {table}",
            "verify": "--verify {out}",
        },
    ),
    "review": ("review {out:out} train/edit-000000.png", {}),
    "edit": ("edit {paths:picture} out --age 1 --any-picture --editor {editor:editor}", {}),
    "strip": ("strip {image:picture} {out:file} --path age --any-picture --editor {editor:editor}", {}),
    "provenance": (
        "provenance {files:picture}",
        {"sign": "--sign {pem} --key key.pem", "key": "--sign {pem} --key {pem}"},
    ),
    "learn": (
        "learn beard --positive a --negative b --images {images:dataset} --out {out:out} --editor {editor:editor} "
        "--steps 1 --limit 16",
        {},
    ),
    "paths": ("paths {editor:editor} --images {images:dataset}", {"out": "--out {out}"}),
    "audit": (
        "audit {datasets:dataset} --target smile --protected gender --steps 1 --seeds 1 --out {out:out}",
        {
            "test": "--test {dataset}",
            "sets": "--set more={dataset}",
            "editor": "--arms edits --editor {editor}",
            "flips": "--flips {network} --editor synthfaces-64",
            "pretrained": "--backbone resnet10t --pretrained {network}",
        },
    ),
    "convert": ("convert {checkpoint:network} {out:out}", {"paths": "--paths {paths}"}),
    "doctor": ("doctor", {}),
    "simulate": (
        f"simulate {{dataset:dataset}} {{out:out}} --target smile --protected gender {FEW}",
        {
            "label_noise": "--label-noise {table}",
            "editor": "--poles gender:age=female,male --editor {editor}",
            "storage": "--storage {store}",
            "pretrained": "--model resnet10t --pretrained {network}",
        },
    ),
    "search": (
        f"search {{dataset:dataset}} {{out:out}} --protected gender {SEARCH}",
        {
            "edits": "--edits {dataset}",
            "pretrained": "--pretrained resnet10t={network}",
            "storage": "--storage {store}",
            "folder": "--folder {out}",
        },
    ),
    "bench": (
        "bench erm --tasks world-smile-skin-0.9 --budget quick --seeds 1 --no-tune --out {out:out}",
        {
            "utkface": "--tasks utkface-* --utkface {dataset}",
            "celebahq": "--tasks celebahq-* --celebahq {dataset}",
            "editor": "--set share=0.1 --editor {editor} edits",
            "json_file": "--json {file}",
        },
    ),
    "search evaluate": (
        "search evaluate {model:network} --pairs {pairs:table}",
        {"images": "--images {dataset}", "groups": "--groups {table}", "out": "--out {file}"},
    ),
    "search transfer": (
        "search transfer {study:store} --data {data:dataset} --protected gender --refit 0",
        {"out": "--out {out}"},
    ),
    "app": ("app {folders:dataset} --editor {editor:editor}", {}),
    "reproduce fr-nas": (
        "reproduce fr-nas {out:out} --budget tiny --dry-run",
        {"data": "--budget paper --data {dataset}"},
    ),
    "reproduce fer": (
        "reproduce fer {out:out} --budget tiny --dry-run",
        {
            "data": "--budget paper --data {dataset}",
            "groups": "--groups {table}",
            "label_noise": "--label-noise {table}",
        },
    ),
    "train editor": ("train editor {dataset:dataset} {out:out} --clip-images 16 --diffae-images 16", {}),
    "train clip": ("train clip {dataset:dataset} --out {out:out} --images 16", {}),
    "train diffae": ("train diffae {dataset:dataset} --out {out:out} --images 16", {"config": "--config {table}"}),
    "train prior": ("train prior {dataset:dataset} --diffae {diffae:network} --out {out:out}", {}),
    "train distill": ("train distill {editor:editor} {dataset:dataset} {out:out} --steps 1", {}),
    "train enlarge": ("train enlarge {editor:editor} {dataset:dataset} {out:out} --images 16", {}),
}
_PLACE = re.compile(r"\{(?:(\w+):)?(\w+)\}")


def _doors():
    """(command, parameter, kind of file, case), each once."""
    for command, (base, more) in DOORS.items():
        places = {name: kind for name, kind in _PLACE.findall(base)} | {name: None for name in more}
        for parameter, kind in places.items():
            kinds = [kind] if kind else {found for _, found in _PLACE.findall(more[parameter])}
            yield from ((command, parameter, one, case) for one in sorted(kinds) for case in HOSTILE[one])


def _words(command: str, parameter: str, hostile: Path, folder: Path) -> list[str]:
    base, more = DOORS[command]
    own = more.get(parameter)

    def filled(found: re.Match[str]) -> str:
        name, kind = found.groups()
        if (name or parameter) == parameter:
            return str(hostile)
        place = folder / name
        return str(place if place.exists() else _sound(kind, place))

    return [_PLACE.sub(filled, word) for word in f"{base} {own or ''}".split()]


def _leaves(group, name: str = ""):
    for word, command in group.commands.items():
        full = f"{name} {word}".strip()
        if hasattr(command, "commands"):
            yield from _leaves(command, full)
        else:
            yield full, command


#: A metavar that speaks of files has one of these words in it.
_FILES = re.compile(r"FILE|FOLDER|DATASET|OUT|IMAGE|EDITOR|MODEL|LABELLER|CLASSIFIER|URL|\.pem|\.ckpt")


def test_every_command_has_hostile_cases_for_every_file_that_it_takes():
    for name, command in _leaves(typer.main.get_command(app)):
        assert name in DOORS, f"`vlbias {name}` has no hostile case"
        base, more = DOORS[name]
        known = {parameter for parameter, _ in _PLACE.findall(base)} | set(more)
        takes = {one.name for one in command.params if one.name == "editor" or _FILES.search(str(one.metavar))}
        assert takes <= known, f"`vlbias {name}`: nothing hostile is tried for {sorted(takes - known)}"
    assert len(list(_doors())) > 150


def test_the_words_of_every_case_are_taken(tmp_path):
    """What is refused as it is typed reads nothing hostile."""
    commands = dict(_leaves(typer.main.get_command(app)))
    for number, (command, (_, more)) in enumerate(DOORS.items()):
        home = tmp_path / str(number)
        home.mkdir()
        (home / "given").touch()
        for parameter in ("", *more):
            words = _words(command, parameter, home / "given", home)[len(command.split()) :]
            with contextlib.suppress(VlbiasError):  # what is read at once
                commands[command].make_context(command, words)


@pytest.fixture
def page(monkeypatch):
    """`vlbias app` opens what it was given, and ends."""

    def serve(folders, editors, settings):
        from vlbias.app.browsing import Browser, open_faces
        from vlbias.app.editing import Shelf
        from vlbias.app.places import checked_roots
        from vlbias.app.reviewing import open_run

        roots = checked_roots(folders)
        shelf = Shelf(editors)
        calls = [lambda root=root: Browser(open_faces(str(root), roots)).counts(["smile"]) for root in roots]
        calls += [lambda root=root: open_run(str(root), roots).pairs for root in roots]
        for call in [*calls, lambda: shelf.editor(shelf.names[0])]:
            try:
                call()
            except VlbiasError as error:
                last = error
        raise last

    monkeypatch.setattr(vlbias.app, "serve", serve)


@pytest.fixture
def no_training(monkeypatch):
    """`vlbias train` and `bench` end when all is read: what follows takes minutes, and sees arrays alone."""
    read = vlbias.recipes.training_images

    def ends(*arguments, **named):
        read(*arguments, **named)
        raise ConfigError("all pictures are read.")

    def no_arm(*arguments, **named):
        raise ConfigError("all is read.")

    monkeypatch.setattr(vlbias.recipes, "training_images", ends)
    monkeypatch.setattr("vlbias.bench.run.run_arm", no_arm)


@pytest.mark.parametrize(("command", "parameter", "kind", "case"), list(_doors()))
@pytest.mark.usefixtures("page", "no_training")
def test_a_command_does_its_work_or_says_a_sentence(command, parameter, kind, case, tmp_path, trap, monkeypatch, capfd):
    mark, hostile = tmp_path / "mark", tmp_path / "given" / (case if "." in case else "given")
    hostile.parent.mkdir()
    HOSTILE[kind][case](hostile, trap, mark)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    words = _words(command, parameter, hostile, home)
    before = tree_hash(trap)
    monkeypatch.setattr(sys, "argv", ["vlbias", *words])
    with watched(home, hostile.parent, traps=(trap,)) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main()
        except SystemExit as stop:
            assert stop.code in (0, 1, 2, None)
    told = "".join(capfd.readouterr())
    assert seen.problems == [] and not mark.exists() and tree_hash(trap) == before
    assert "TOP-SECRET" not in told and not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", told.replace("\r", ""))
    assert "Traceback" not in told


RUNS = ["balance", "audit", "simulate", "search", "reproduce fr-nas", "reproduce fer"]


@pytest.mark.parametrize("command", [*RUNS, "learn", "paths", "train clip", "train diffae"])
def test_no_command_writes_where_on_the_disk_it_was_run(command, tmp_path, monkeypatch, capfd):
    """Neither in results nor in state, though all was given by its whole path; nor who took which picture."""
    home = tmp_path / "home-of-jane"
    home.mkdir()
    words = _words(command, "out" if command == "paths" else "", home / "out", home)
    if command == "train diffae":
        (home / "tiny.json").write_text(json.dumps(TINY.to_dict()))
        words += ["--config", str(home / "tiny.json")]
    for path in home.glob("*/*.png"):
        note_owner(path)
    monkeypatch.setattr(sys, "argv", ["vlbias", *words])
    with quickly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, capfd.readouterr().err
    written = [path for path in (home / "out").rglob("*") if path.is_file()]
    assert written
    private = [b"home-of-jane", os.fsencode(tmp_path), *PRIVATE]
    assert [path for path in written if any(word in path.read_bytes() for word in private)] == []


def test_the_workers_of_a_run_touch_nothing_elsewhere(tmp_path, trap, monkeypatch, capfd):
    """The kernel tells what other processes open, too."""
    home, hostile, mark = tmp_path / "home", tmp_path / "given", tmp_path / "mark"
    home.mkdir()
    HOSTILE["dataset"]["links"](hostile, trap, mark)
    (hostile / "metadata.schema.json").unlink()  # with it, nothing is begun
    table = pd.read_csv(hostile / "metadata.csv")
    table["smile"] = [int(i % 6 < (4 if i // 18 % 2 else 2)) for i in range(72)]  # men smile more often: two are edited
    table.to_csv(hostile / "metadata.csv", index=False)
    before = tree_hash(trap)
    checks = "goal=.1,reached=-99,target=-99,identity=-99,min_skill=-99"
    words = [*_words("balance", "dataset", hostile, home), "--checks", checks, "--workers", "2", "--chunk-size", "1"]
    words[words.index("female,male")] = "male,female"  # as this editor sees them
    monkeypatch.setattr(sys, "argv", ["vlbias", *words])
    with watched(home, traps=(trap,)) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, capfd.readouterr().err
    edits = json.loads((home / "out" / "report.json").read_text())["edits"]
    assert edits["planned"] == 2 and edits["kept"] >= 1
    assert not mark.exists() and tree_hash(trap) == before
    assert [text for text in seen.problems if "Popen" not in text] == []
