"""Links, pipes, devices and names that lead elsewhere, at every level of a dataset and of a run, are not followed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny_editor
import torch
from corpus import DATASETS, RUNS, picture
from doubles import TINY, tree_hash
from doubles import tiny_editor as small_editor
from watch import watched

from vlbias import load_dataset, report
from vlbias.audit import Composition
from vlbias.balance import Balancer, verify_run
from vlbias.data import FaceDataset, open_dataset
from vlbias.data.pairs import load_pairs
from vlbias.demo import run_demo
from vlbias.diffae import DiffAE, DiffAETrainingSettings, train_diffae
from vlbias.engine import Engine
from vlbias.engine.worker import Worker, packed
from vlbias.errors import VlbiasError
from vlbias.locks import FileLock
from vlbias.runstore import RunStore
from vlbias.search.storage import Storage

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel that tells is Linux")


def without_harm(seen, trap, before):
    assert seen.problems == []
    assert tree_hash(trap) == before


# -- datasets ---------------------------------------------------------------------------------------------------------


def dataset(root: Path) -> Path:
    for number in range(4):
        picture(root / ("a", "b")[number % 2] / f"{number}.png", number)
    return root


@pytest.mark.parametrize("case", DATASETS)
def test_a_dataset_reads_nothing_elsewhere(case, tmp_path, trap):
    root = dataset(tmp_path / "set")
    DATASETS[case](root, trap)
    before = tree_hash(trap)
    with watched(traps=(trap,)) as seen:
        try:
            faces = open_dataset(root)
            names = set(faces.table["file_name"])
            faces.check_images(show_progress=False)
            faces.tensor(faces.ids[:9], 8)
        except VlbiasError as error:
            names, text = set(), str(error)
            assert "TOP-SECRET" not in text
    without_harm(seen, trap, before)
    assert not any("me.png" in name for name in names)


def test_links_are_followed_where_their_user_says_so(tmp_path):
    """A cache of the Hugging Face hub: ``snapshots`` is nothing but links into ``blobs``."""
    blobs, root = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "1"
    root.mkdir(parents=True)
    for number in range(3):
        blob = picture(blobs / f"{number}.png", number).rename(blobs / f"{number:064x}")
        (root / f"{number}.png").symlink_to(Path("../../blobs") / blob.name)
    (blobs / "t").write_text("file_name,smile\n" + "".join(f"{number}.png,{number % 2}\n" for number in range(3)))
    (root / "metadata.csv").symlink_to("../../blobs/t")
    with pytest.raises(VlbiasError, match="--follow-links"):
        open_dataset(root)
    faces = open_dataset(root, follow_links=True)
    assert len(faces.check_images(show_progress=False)) == 3 and not faces.problems


def pairs_of(root: Path, kind: str) -> Path:
    """Pairs of LFW, RFW or one's own, of pictures of two people."""
    data = root / "data" / "African" if kind == "rfw" else root
    for who in ("a", "b", "c"):
        for number in (1, 2):
            picture(data / who / f"{who}_{number:04d}.jpg", number)
    lines = ["a 1 2", "a 1 b 2", "b 1 2", "b 1 c 2", "c 1 2", "c 1 a 2"] * 4
    if kind == "csv":
        rows = [f"a/a_0001.jpg,{who}/{who}_0002.jpg,{int(who == 'a')}" for who in "abcabc" * 4]
        (root / "pairs.csv").write_text("\n".join(["first,second,same", *rows]))
        return root / "pairs.csv"
    place = root / "txts" / "African" / "African_pairs.txt" if kind == "rfw" else root / "pairs.txt"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("\n".join(lines))
    return root if kind == "rfw" else place


PAIRS = [(kind, place) for kind in ("lfw", "csv") for place in ("c", "b/b_0002.jpg")]
PAIRS += [("rfw", place) for place in ("data/African/c", "data/African/b/b_0002.jpg", "txts", "txts/African", "data")]


@pytest.mark.parametrize(("kind", "inside"), PAIRS)
def test_pairs_read_nothing_elsewhere(kind, inside, tmp_path, trap):
    given = pairs_of(tmp_path / "set", kind)
    shutil.move(tmp_path / "set" / inside, trap / "moved")
    (tmp_path / "set" / inside).symlink_to(trap / "moved")
    before = tree_hash(trap)
    with watched(traps=(trap,)) as seen:
        try:
            pairs = load_pairs(given)
            pairs.pictures.tensor(list(pairs.ids), 8)
            assert "link" in {problem.code for problem in pairs.problems}
        except VlbiasError as error:
            assert "--follow-links" in str(error)
    without_harm(seen, trap, before)
    followed = load_pairs(given, follow_links=True)
    assert not followed.problems or {problem.code for problem in followed.problems} == {"other_count"}


# -- runs -------------------------------------------------------------------------------------------------------------


def balance(faces, out, engine=None):
    balancer = Balancer(tiny_editor.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=3)
    return balancer.run(faces, balancer.plan(faces, limit=6), out, engine=engine, show_progress=False)


@pytest.fixture(scope="module")
def stages(tiny_faces, tmp_path_factory):
    """A run that was killed before anything was put in place, and a finished one."""
    folder = tmp_path_factory.mktemp("stages")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlbias.balance.run.assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            balance(tiny_faces, folder / "begun")
    balance(tiny_faces, folder / "done")
    report.write(folder / "done")
    return folder


# what a finished run has put in place has no chunks any more, and what is begun no list of its files
CASES = [(case, "begun") for case in RUNS if not case.startswith("a list")]
CASES += [(case, "done") for case in RUNS if "chunk" not in case]


@pytest.mark.parametrize(("case", "stage"), CASES)
def test_a_run_touches_nothing_elsewhere(case, stage, tiny_faces, stages, tmp_path, trap):
    out = tmp_path / "out"
    shutil.copytree(stages / stage, out)
    RUNS[case](out, trap)
    before, others = tree_hash(trap), {path.name for path in tmp_path.iterdir()}
    with watched(out, traps=(trap,)) as seen:
        for work in (lambda: balance(tiny_faces, out), lambda: verify_run(out), lambda: report.write(out)):
            try:
                work()
            except VlbiasError as error:
                assert "TOP-SECRET" not in str(error)
    without_harm(seen, trap, before)
    assert {path.name for path in tmp_path.iterdir()} == others
    written = [path for path in out.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not any(b"TOP-SECRET" in path.read_bytes() for path in written)


@pytest.mark.parametrize("place", ["", ".state/tmp", ".state/chunks", "train"])
def test_the_actors_of_a_cluster_touch_nothing_elsewhere(place, tiny_faces, tmp_path, trap, monkeypatch):
    """What an actor of Ray does, here: it unpacks the job, opens it, and does one chunk after another."""
    root, out, done = tmp_path / "set", tmp_path / "out", []
    shutil.copytree(tiny_faces.root, root)
    tiny_faces.table.to_csv(root / "metadata.csv", index=False)
    (root / "me.png").symlink_to(trap / "me.png")
    (root / "more").symlink_to(trap)
    os.mkfifo(root / "pipe.png")
    if place:
        (out / place).parent.mkdir(parents=True)
        (out / place).symlink_to(trap)
    before = tree_hash(trap)

    def on_ray(engine, work, pieces):
        worker = Worker({})
        for number, piece in enumerate(pieces):
            done.append(worker.run(work, packed(piece)))
            yield number, done[-1]

    monkeypatch.setattr("vlbias.engine.pool.run_on_ray", on_ray)
    with watched(out, traps=(trap,)) as seen:
        try:
            balance(load_dataset("folder", root), out, Engine(kind="ray", workers=2))
        except VlbiasError as error:
            assert place and "TOP-SECRET" not in str(error)
    without_harm(seen, trap, before)
    assert place or (len(done) > 1 and all(answer.error is None for answer in done))


def test_a_run_through_a_link_that_its_user_named(tiny_faces, stages, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert balance(tiny_faces, tmp_path / "out").complete and verify_run(tmp_path / "out") == []


def test_another_name_of_a_file_is_not_written_through(tiny_faces, stages, tmp_path):
    """A hard link cannot be told from a file; whatever is written takes its place and leaves the file alone."""
    out, mine = tmp_path / "out", tmp_path / "thesis.tex"
    mine.write_text("years of work")
    shutil.copytree(stages / "done", out)
    for name in ("report.html", ".report.html.draft", "report.json", "README.md", ".state/tmp/draft-job.json"):
        (out / name).unlink(missing_ok=True)
        (out / name).hardlink_to(mine)
    with pytest.raises(VlbiasError):
        report.write(out)  # report.json is none now
    shutil.copy(stages / "done" / "report.json", tmp_path / "report.json")
    (out / "report.json").unlink()
    shutil.move(tmp_path / "report.json", out / "report.json")
    report.write(out)
    balance(tiny_faces, out)
    assert mine.read_text() == "years of work"


def test_names_that_a_disk_confuses_or_refuses(tiny_faces, tmp_path):
    """Names that differ by case alone, are longer than a disk takes, or mean a device on another system."""
    names = ["X.png", "x.png", "CON.png", "a/" + "b" * 200 + "/" + "c" * 200 + ".png", "..hidden.png", "d e\nf.png"]
    table = tiny_faces.table.iloc[: len(names)].copy()
    for name, old in zip(names, table["file_name"], strict=True):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_faces.root / old, tmp_path / "set" / name)
    rest = tiny_faces.table.iloc[len(names) :]
    for old in rest["file_name"]:
        shutil.copy(tiny_faces.root / old, tmp_path / "set" / old)
    table["file_name"] = names
    table = pd.concat([table, rest])
    table.index = pd.Index([name.removesuffix(".png") for name in table["file_name"]])
    faces = FaceDataset("odd", table, root=tmp_path / "set")
    result = balance(faces, tmp_path / "out")
    written = result.table["file_name"].tolist()
    assert len({name.lower() for name in written}) == len(written) == len(faces) + result.report["edits"]["kept"]
    assert all(re.fullmatch(r"(train|test)/[A-Za-z0-9._-]{1,150}", name) for name in written)
    assert not any(Path(name).stem.lower() == "con" for name in written)
    assert len(load_dataset("folder", tmp_path / "out")) == len(written)


def test_a_name_of_thousands_of_folders_is_looked_up(stages, tmp_path):
    """In a list of what a run wrote, and in the table of a dataset."""
    out, deep = tmp_path / "out", "x/" * 3000 + "0.png"
    shutil.copytree(stages / "done", out)
    path = out / ".state" / "done.json"
    done = json.loads(path.read_text())
    done["files"][deep] = "0" * 64
    path.write_text(json.dumps(done))
    assert any(deep in problem for problem in verify_run(out))
    picture(tmp_path / "set" / "0.png")
    (tmp_path / "set" / "metadata.csv").write_text(f"file_name,smile\n0.png,1\n{deep},0\n")
    with pytest.raises(VlbiasError, match="lacks 1 of 2 pictures"):
        open_dataset(tmp_path / "set")


@pytest.mark.parametrize("place", ["balanced", "fits", "balanced/train"])
def test_a_demo_among_links_is_refused(place, tmp_path, trap):
    out = tmp_path / "out"
    (out / place).parent.mkdir(parents=True)
    (out / place).symlink_to(trap)
    before = tree_hash(trap)
    with watched(out, traps=(trap,)) as seen, pytest.raises(VlbiasError, match="is a link to"):
        run_demo(out, editor=small_editor())
    without_harm(seen, trap, before)


def test_an_audit_among_links_is_refused(tmp_path, trap):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").symlink_to(trap / "facts.json")
    shown = Composition("a", "smile", ["skin"], pd.DataFrame([[1, 2], [3, 4]], ["0", "1"], ["dark", "light"]), 0)
    with watched(tmp_path / "out", traps=(trap,)) as seen, pytest.raises(VlbiasError, match="is a link to"):
        report.write_audit(tmp_path / "out", compositions=[shown])
    without_harm(seen, trap, tree_hash(trap))


@pytest.mark.parametrize("place", ["a.log", "a.log.files", "a.log.files/locks", "a.log.files/locks/file.lock"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_store_among_links_is_refused(place, kind, tmp_path, trap):
    out = tmp_path / "out"
    (out / place).parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(out / place)
    else:
        (out / place).symlink_to(trap / "gone" if kind == "dangling" else trap / "note.txt")
    before = tree_hash(trap)
    with watched(out, traps=(trap,)) as seen:
        for kind_of_store in (lambda path: RunStore(path, "simulate", {"seed": 1}), Storage):
            with pytest.raises(VlbiasError, match="is a link to|neither a file nor a folder|a pipe or a device"):
                kind_of_store(out / "a.log")
    without_harm(seen, trap, before)


def test_a_lock_is_not_taken_through_a_link(tmp_path, trap):
    (tmp_path / "a.lock").symlink_to(trap / "new.lock")
    with pytest.raises(VlbiasError, match=r"Cannot open the lock file"):
        FileLock(tmp_path / "a.lock").acquire()
    assert not (trap / "new.lock").exists()


def test_a_training_writes_to_its_own_log(tmp_path, trap):
    """A log is appended to: what lies in its place, under another name of somebody's file too, is not."""
    out, mine = tmp_path / "out", tmp_path / "thesis.tex"
    mine.write_text("years of work\n")
    out.mkdir()
    for name in ("log.jsonl", "times.jsonl"):
        (out / name).hardlink_to(mine)
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    settings = DiffAETrainingSettings(batch_size=2, max_images=4, log_every=2, eval_every=4, save_every=4, device="cpu")
    train_diffae(DiffAE(TINY), images, settings, out)
    assert mine.read_text() == "years of work\n"
    first, *_ = (out / "log.jsonl").read_text().splitlines()
    assert json.loads(first)["step"] == 1
    (out / "samples" / "more").symlink_to(trap)
    with pytest.raises(VlbiasError, match="is a link to"):
        train_diffae(DiffAE(TINY), images, settings, out, resume=True)
