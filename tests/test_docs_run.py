"""What README, docs and notebooks tell people to type is typed, in an empty folder for each page."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from documented import (
    ELSEWHERE,
    IN_COMMANDS,
    OTHERS,
    PAGES,
    SMALLER,
    Block,
    blocks_of,
    check_parsed,
    pages_with_blocks,
    text_of,
)
from schemas import problems_below
from typer.testing import CliRunner

from vlbias import Balancer, Editor, audit, load_dataset
from vlbias.alignment import LAYOUTS, DetectedFace, default_detector
from vlbias.cli import app
from vlbias.editor_folder import read_editor
from vlbias.images import to_pil

REPOSITORY = Path(__file__).resolve().parents[1]


class WholePicture:
    """A detector for drawn faces, which fill their pictures."""

    name = "whole picture"

    def __call__(self, photo, /):
        landmarks = np.array(LAYOUTS["synthfaces"]) * photo.width
        low, high = 0.1 * photo.width, 0.9 * photo.width
        return [DetectedFace(landmarks, (low, low, high, high), 0.9)]


# -- what pages take for granted --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def editor():
    return Editor.from_pretrained("synthfaces-64", device="cpu")


@pytest.fixture(scope="module")
def faces():
    return load_dataset("synthfaces", n=60, seed=1, bias={("smile", "skin"): 0.3}, image_size=64)


@pytest.fixture(scope="module")
def stock(tmp_path_factory, editor, faces):
    """A folder with a thing of each name that pages use."""
    stock = tmp_path_factory.mktemp("stock")
    table = faces.table
    turn = table.groupby(["smile", "skin"]).cumcount() % 5  # each cell is in every split
    words = {
        "sex": table["gender"].map({"male": "m", "female": "f"}),
        "older": table["age_group"].map({"young": "no", "old": "yes"}),
        "split": turn.map({0: "train", 1: "test", 2: "val", 3: "train", 4: "train"}),
    }
    columns = [*words, "skin", "smile", "gender", "age_group", "glasses"]
    table = table.assign(**words, file_name=[f"{item}.png" for item in faces.ids])
    (stock / "photos").mkdir()
    (stock / "UTKFace").mkdir()
    pictures = to_pil(faces.tensor(faces.ids, 64))
    for number, (name, picture) in enumerate(zip(table["file_name"], pictures, strict=True)):
        picture.save(stock / "photos" / name)
        row = table.iloc[number]
        age, gender, race = round(row["age"]), int(row["gender"] == "female"), 2 * int(row["skin"] == "dark")
        picture.save(stock / "UTKFace" / f"{age}_{gender}_{race}_20170109142408{number:03d}.jpg.chip.jpg")
        person = stock / "people" / f"person-{number // 6}"
        person.mkdir(parents=True, exist_ok=True)
        picture.save(person / f"{number}.png")
    table[["file_name", *columns]].to_csv(stock / "photos" / "metadata.csv", index=False)
    people = [f"person-{number}" for number in range(10)]
    labels = {"identity": people, "gender": ["male", "female"] * 5}
    pd.DataFrame(labels).to_csv(stock / "people" / "identities.csv", index=False)
    pictures[0].save(stock / "face.png")
    pictures[1].resize((160, 160)).save(stock / "holiday.jpg")
    photos = load_dataset("folder", stock / "photos")
    balancer = Balancer(editor, target="smile", protected="skin")
    balancer.run(photos, balancer.plan(photos, limit=4), stock / "balanced", show_progress=False)
    return stock


@pytest.fixture
def page(request, stock, editor, faces, tmp_path, monkeypatch):
    """The page's name; the folder of the process holds what it speaks of."""
    name = request.param
    text = text_of(REPOSITORY / name) + PAGES[name].before
    for item in stock.iterdir():
        if re.search(rf"(?<![\w-]){re.escape(item.name)}\b", text):
            shutil.copytree(item, tmp_path / item.name) if item.is_dir() else shutil.copy(item, tmp_path)
    monkeypatch.chdir(tmp_path)
    # one editor for all, loaded once; learning puts another renderer into its own facade
    monkeypatch.setattr("vlbias.editor.read_editor", lambda *place, **options: read(editor, *place, **options))
    monkeypatch.setattr("vlbias.alignment.CenterFace", WholePicture)
    default_detector.cache_clear()
    arms = dict(audit.ARMS)
    if "hub" in name:
        request.getfixturevalue("hub")
    yield name
    default_detector.cache_clear()
    audit.ARMS.clear()
    audit.ARMS.update(arms)


def read(editor, name, *, paths=None, **options):
    is_shipped = name in ("synthfaces-64", "utkface-64") and paths is None
    return editor.renderer if is_shipped else read_editor(name, paths=paths, **options)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from hub_server import hub_server

    with hub_server() as (address, server):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_token")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        yield server


# -- running ----------------------------------------------------------------------------------------------------------


def run_command(line):
    for pattern, other in IN_COMMANDS.items():
        line = re.sub(pattern, other, line)
    words = shlex.split(line, comments=True)[1:]
    if "--flips" not in words:
        words += SMALLER.get(words[0], "").split() * ("--help" not in words)
    told = CliRunner().invoke(app, words)
    allowed = (0, 1) if words[0] == "doctor" else (0,)  # it says what is missing here
    assert told.exit_code in allowed, f"vlbias {shlex.join(words)}\n{told.output}\n{told.exception!r}"


def check_other(line):
    """A command of another program."""
    program, *words = shlex.split(line, comments=True)
    name = next((name for name in OTHERS if program == name or name == program[: program.find("=") + 1]), None)
    assert name is not None, f"{program}: what is it?"
    if name == "make":
        makefile = (REPOSITORY / "Makefile").read_text("utf-8")
        assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words if "=" not in word), line
    elif name == "pip":
        extras = re.findall(r"vlbias\[([\w,]+)\]", line)
        setup = (REPOSITORY / "setup.cfg").read_text("utf-8")
        assert all(re.search(rf"^{extra} =", setup, re.MULTILINE) for part in extras for extra in part.split(",")), line
    elif name == "python":
        assert words[0] == "-c" or (REPOSITORY / words[0]).is_file(), line


class Reader:
    """Runs the blocks of one page, and notes which of its entries were of use."""

    def __init__(self, name: str):
        self.name, self.page = name, PAGES[name]
        self.used: set[str] = set()
        self.namespace: dict[str, object] = {}

    def _left(self, text: str) -> bool:
        found = [start for start in self.page.left if text.startswith(start)]
        self.used |= set(found)
        return bool(found)

    def _small(self, text: str) -> str:
        for shown, other in self.page.small.items():
            if shown in text:
                self.used.add(shown)
                text = text.replace(shown, other)
        return text

    def read(self, block: Block) -> None:
        if block.language == "bash":
            for line in block.commands:
                self._command(line)
            return
        compile(block.text, self.name, "exec")
        if self._left(block.text):
            return
        lines = [line for line in block.text.splitlines() if not self._left(line)]
        exec(compile(self._small("\n".join(lines)), self.name, "exec"), self.namespace)

    def _command(self, line: str) -> None:
        if not line.startswith("vlbias "):
            self._left(line)
            check_other(line)
            return
        check_parsed(shlex.split(line, comments=True)[1:])
        if not self._left(line):
            run_command(self._small(line))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # so few faces, edited so far
@pytest.mark.parametrize("page", sorted(set(PAGES) - set(ELSEWHERE)), indirect=True)
def test_what_a_page_tells_people_to_type_runs(page, editor, faces):
    reader = Reader(page)
    reader.namespace |= {"editor": Editor._with(editor.renderer), "faces": faces, "repository": REPOSITORY}
    exec(compile(reader.page.before, f"before {page}", "exec"), reader.namespace)
    for block in blocks_of(REPOSITORY / page):
        reader.read(block)
    assert reader.used == {*reader.page.small, *reader.page.left}, "entries that nothing on the page matches"
    assert problems_below(Path.cwd())[1] == []


def test_every_page_and_every_reason_is_accounted_for():
    assert pages_with_blocks(REPOSITORY) == sorted(
        name for name in {*PAGES, *ELSEWHERE} if list(blocks_of(REPOSITORY / name))
    )
    reasons = [*OTHERS.values(), *ELSEWHERE.values(), *(why for page in PAGES.values() for why in page.left.values())]
    assert [why for why in reasons if why.startswith("tests/") and not (REPOSITORY / why).is_file()] == []
    assert os.environ["VLBIAS_CACHE"]  # what they fetch or find stays in a folder of the tests


def test_what_does_not_run_would_be_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reader = Reader("docs/own_dataset.md")
    with pytest.raises(NameError, match="no_such_name"):
        reader.read(Block("python", "no_such_name()"))
    with pytest.raises(Exception, match="--targets"):
        reader.read(Block("bash", "vlbias balance a b --targets x --protected y"))
    with pytest.raises(AssertionError, match="nowhere"):
        reader.read(Block("bash", "vlbias balance nowhere/ out --target x --protected y"))
    with pytest.raises(AssertionError, match="curl"):
        reader.read(Block("bash", "curl example.org"))
