"""Class folders: what torchvision reads, what everybody else reads, and a run that goes on in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torchvision.datasets import ImageFolder

from vlbias import load_dataset, report
from vlbias.balance import Balancer
from vlbias.balance.layout import placing
from vlbias.errors import ConfigError, PlanError


def balance(editor, faces, out, **options):
    balancer = Balancer(editor, target="smile", protected="skin", chunk_size=4, **options)
    return balancer.run(faces, balancer.plan(faces, limit=8), out, show_progress=False)


def files(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folders(tiny, faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "folders"
    return balance(tiny.TinyEditor(leak=0.12), faces, out, layout="class-folders")


def test_torchvision_reads_the_classes_and_nothing_else(folders):
    seen = ImageFolder(folders.out_dir / "train")
    train = folders.table[folders.table["split"] == "train"]
    assert seen.classes == ["0", "1"] and len(seen) == len(train)
    labels = {name: str(label) for name, label in zip(train["file_name"], train["smile"], strict=True)}
    for path, index in seen.samples:
        assert labels[f"train/{path.split('/train/')[1]}"] == seen.classes[index]


def test_everybody_else_reads_the_same_as_before(editor, faces, folders, tmp_path):
    flat = balance(editor, faces, tmp_path / "flat")
    ours, theirs = load_dataset("folder", folders.out_dir), load_dataset("folder", flat.out_dir)
    assert not ours.problems and ours.table["split"].value_counts().equals(theirs.table["split"].value_counts())
    same = ["smile", "skin", "origin", "source_id"]
    assert folders.table[same].equals(flat.table[same])
    assert folders.report["layout"] == "class-folders" and "layout" not in flat.report


def test_a_killed_run_goes_on_in_its_folders(tiny, faces, folders, tmp_path):
    class Killed(Exception):
        pass

    class Once(tiny.TinyEditor):
        calls = 0

        def render(self, *arguments, **options):
            Once.calls += 1
            if Once.calls == 2:
                raise Killed
            return super().render(*arguments, **options)

    with pytest.raises(Killed):
        balance(Once(leak=0.12), faces, tmp_path / "again", layout="class-folders")
    again = balance(tiny.TinyEditor(leak=0.12), faces, tmp_path / "again", layout="class-folders")
    assert again.complete and files(again.out_dir) == files(folders.out_dir)
    assert "accepted" in report.write(again.out_dir).read_text("utf-8") or again.rejected.empty


def test_a_face_without_a_class_is_refused_before_the_work(editor, faces, tmp_path):
    table = faces.table.astype({"smile": object})
    table.loc[table.index[0], "smile"] = None
    with pytest.raises(PlanError, match=r"1 have no 'smile'.*--layout flat"):
        balance(editor, replace(faces, table=table), tmp_path / "out", layout="class-folders")
    assert not (tmp_path / "out").exists()


def test_labels_make_visible_folders_that_stay_inside():
    place = placing("class-folders")
    labels = ["..", "a/b", ".git", "a b", " a", "%", "é", "a\\b", "x:y"]
    folders = [place("train", label) for label in labels]
    assert len(set(folders)) == len(labels)
    assert all(name.count("/") == 1 and "/." not in name and "\\" not in name for name in folders)
    assert place("train", "a b") == "train/a b" and placing("flat")("train", "..") == "train"


def test_an_unknown_layout_is_named(editor):
    with pytest.raises((ConfigError, PlanError), match="layout"):
        Balancer(editor, target="smile", protected="skin", layout="nested")
