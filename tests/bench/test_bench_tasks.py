"""Tasks: the same for everybody, their sets apart from each other, the ties as they are promised."""

from __future__ import annotations

import os
import re
from itertools import combinations

import pytest
from doubles import run_command
from jobs import PRIVATE, note_owner, quickly
from PIL import Image

from vlbias.bench import CelebAHQTask, TaskFaces, UTKFaceTask, WorldTask, find_tasks, register_task
from vlbias.bench.photographs import _listed, name_digest
from vlbias.data.celebahq import ATTRIBUTE_FILE
from vlbias.errors import ConfigError, DatasetError, UnknownNameError


def cells(faces, task) -> list[int]:
    return faces.table.groupby([task.target, task.protected]).size().tolist()


def test_the_world_has_eight_pairs_at_two_strengths():
    names = [task.name for task in find_tasks("world-*")]
    assert len(names) == len(set(names)) == 16
    assert [task.strength for task in find_tasks("world-nose-*")] == [0.9, 0.9, 0.7, 0.7]


@pytest.mark.parametrize("task", find_tasks("world-*-0.9"), ids=lambda task: task.name)
def test_a_world_task_is_tied_in_training_and_even_in_the_test(task):
    faces = task.faces()
    assert [sorted(cells(part, task)) for part in vars(faces).values() if part] == [
        [50, 50, 950, 950], [25, 25, 475, 475], [1000] * 4
    ]  # fmt: skip
    assert cells(faces.training, task)[0] == cells(faces.training, task)[3]  # tied crosswise, not one label alone
    assert [set(part.table["split"]) for part in vars(faces).values() if part] == [{"train"}, {"val"}, {"test"}]


def test_nobody_is_in_two_sets_or_pairs():
    ids = [set(part.ids) for task in find_tasks("world-*-0.9") for part in list(vars(task.faces()).values())[:3]]
    assert all(not one & other for one, other in combinations(ids, 2))


def test_a_weaker_tie_is_tested_on_the_same_faces():
    strong, weak = find_tasks("world-gender-skin-*")
    assert sorted(cells(weak.faces().training, weak)) == [150, 150, 850, 850]
    assert strong.faces().test.table.equals(weak.faces().test.table)
    assert strong.faces().digest() != weak.faces().digest()


def test_tasks_are_found_by_pattern_and_names_are_taken_once():
    with pytest.raises(UnknownNameError, match="world-smile-skin-0.9"):
        find_tasks("world-smile-skin-0.8")
    with pytest.raises(ConfigError, match="registered already"):
        register_task(WorldTask("smile", "skin", num_test=8))
    register_task(WorldTask("smile", "skin"))  # as it stands
    with pytest.raises(UnknownNameError, match="beard x skin"):
        WorldTask("beard", "skin").faces()
    with pytest.raises(ConfigError, match="has no folder"):
        WorldTask("smile", "skin").faces("UTKFace/")


# -- photographs ------------------------------------------------------------------------------------------------------


def test_the_list_of_utkface_holds_each_photograph_once(repository):
    lines = (repository / "vlbias" / "bench" / "utkface_splits.txt").read_text().splitlines()[1:]
    assert len(lines) == len(_listed()) == 11_898  # a name that stood there twice would be lost
    counts = {split: list(_listed().values()).count(split) for split in ("train", "val", "test")}
    assert counts == {"train": 8112, "val": 1393, "test": 2393}
    assert name_digest("26_1_2_20170116184024662.jpg") == name_digest("26_1_2_20170116184024662 .jpg.chip.jpg")


def utkface(folder, monkeypatch, num: int):
    """Photographs of one colour, ``num`` in each cell of age group, gender and race, half of them for training."""
    listed = {}
    for age in (20, 60):
        for gender in (0, 1):
            for race in (0, 1):
                for number in range(num):
                    name = f"{age}_{gender}_{race}_{20170116000000000 + number}.jpg.chip.jpg"
                    Image.new("RGB", (8, 8), (number, age, 90 * race)).save(folder / name)
                    listed[name_digest(name)] = ("train", "train", "val", "test")[number % 4]
    monkeypatch.setattr("vlbias.bench.photographs._listed", lambda: listed)
    return folder


def test_a_planted_task_of_photographs(tmp_path, monkeypatch):
    root = utkface(tmp_path, monkeypatch, 24)
    monkeypatch.setattr("vlbias.bench.photographs.LARGE", 16)
    monkeypatch.setattr("vlbias.bench.photographs.SMALL", 4)
    task = UTKFaceTask("gender", "skin")
    faces: TaskFaces = task.faces(root)
    # female dark, female light, male dark, male light
    assert cells(faces.training, task) == [4, 16, 16, 4]
    assert cells(faces.validation, task) == [1, 4, 4, 1]
    assert cells(faces.test, task) == [12, 12, 12, 12]
    sets = [set(one.ids) for one in (faces.training, faces.validation, faces.test, faces.more)]
    assert all(not one & other for one, other in combinations(sets, 2))
    assert cells(faces.more, task) == [20, 8, 8, 20]  # what is left of 24 in each cell
    assert task.faces(root).digest() == faces.digest()
    assert UTKFaceTask("gender", "skin", seed=1).faces(root).digest() != faces.digest()


@pytest.mark.filterwarnings("ignore")
def test_results_of_photographs_say_nothing_of_who_took_them(tmp_path, monkeypatch):
    (tmp_path / "home-of-jane").mkdir()
    root, out = utkface(tmp_path / "home-of-jane", monkeypatch, 24), tmp_path / "out"
    for path in root.iterdir():
        note_owner(path)
    task = "utkface-age_group-gender-natural"
    words = ["edits", "--tasks", task, "--utkface", root, "--budget", "quick", "--seeds", 1]
    with quickly():
        told = run_command("bench", *words, "--out", out, "--json", out / "table.json")
    # pictures of one colour are no faces, so nothing is made of them, and plain training is entered all the same
    assert f"None of the edits planned for '{task}' was kept" in told and "erm" in told
    private = [*PRIVATE, b"home-of-jane", os.fsencode(tmp_path)]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files and [path for path in files if any(word in path.read_bytes() for word in private)] == []


def test_a_natural_task_takes_faces_as_they_come(tmp_path, monkeypatch):
    root = utkface(tmp_path, monkeypatch, 8)
    task = UTKFaceTask("age_group", "gender", planted=False, num_training=40)
    faces = task.faces(root)
    assert len(faces.training) == 32 and faces.more is None  # there are no more than that
    assert set(faces.test.table["split"]) == {"test"}


def test_photographs_that_lack_something_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="--utkface FOLDER"):
        find_tasks("utkface-gender-skin-planted")[0].faces()
    root = utkface(tmp_path, monkeypatch, 8)
    with pytest.raises(DatasetError, match="needs 10 faces with gender female and skin dark; there are 4"):
        find_tasks("utkface-gender-skin-planted")[0].faces(root)
    monkeypatch.setattr("vlbias.bench.photographs._listed", dict)
    with pytest.raises(DatasetError, match="none of the photographs"):
        find_tasks("utkface-gender-skin-planted")[0].faces(root)


def test_celebahq_on_drawn_placeholders(shared_dir, tmp_path, tmp_path_factory, monkeypatch):
    """The published annotation with pictures of one colour in the place of the faces."""
    source = shared_dir / "data" / "CelebAMask-HQ"
    if not source.is_dir():
        pytest.skip("the annotation of CelebA-HQ is not here")
    for name in ("CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    lines = (source / ATTRIBUTE_FILE).read_text().splitlines()
    kept = lines[2:602]
    (tmp_path / ATTRIBUTE_FILE).write_text("\n".join([str(len(kept)), lines[1], *kept]) + "\n")
    (tmp_path / "CelebA-HQ-img").mkdir()
    for line in kept:
        Image.new("RGB", (8, 8)).save(tmp_path / "CelebA-HQ-img" / line.split()[0])
    monkeypatch.setattr("vlbias.bench.photographs.LARGE", 24)
    monkeypatch.setattr("vlbias.bench.photographs.SMALL", 4)
    task = CelebAHQTask("Smiling", "Male")
    faces = task.faces(tmp_path)
    assert sorted(cells(faces.training, task)) == [4, 4, 24, 24]
    assert len(set(cells(faces.test, task))) == 1 and len(faces.test)
    assert task.name == "celebahq-smiling-male-planted" and task in find_tasks("celebahq-*-planted")
    out = tmp_path_factory.mktemp("out")  # nothing is written into the folder of a dataset
    words = ["oversample", "--tasks", task.name, "--budget", "quick", "--seeds", 1, "--out", out / "bench"]
    said = run_command("bench", *words, "--celebahq", tmp_path)
    assert re.search(r"^ *oversample +0\.", said, re.MULTILINE) and "'oracle' is not entered" in said
