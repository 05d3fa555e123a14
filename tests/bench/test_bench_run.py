"""Methods are entered: fits are made once, by whoever comes first, and a user's own arm is an arm like any other."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from vlbias.audit.arms import ARMS, Recipe, register_arm
from vlbias.bench import Variant, WorldTask, balanced_set, bench
from vlbias.bench import run as runs
from vlbias.bench.remembered import remembered
from vlbias.bench.sets import mislabelled
from vlbias.classify import FitSettings
from vlbias.cli import app
from vlbias.errors import ConfigError, UnknownNameError
from vlbias.images import load_pixels
from vlbias.optim import in_threads

TASK = "world-smile-skin-0.7"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Faces and fits that take a moment."""
    monkeypatch.setattr(runs, "QUICK_FACES", {"num_training": 40, "num_validation": 40, "num_test": 40})
    monkeypatch.setattr(runs, "QUICK_STEPS", 2)
    monkeypatch.setitem(runs.CLASSIFIERS, "small", FitSettings(image_size=16, batch_size=8))


def entered(methods, out, **changes):
    return bench(methods, out, tasks=TASK, budget="quick", num_seeds=1, show_progress=False, **changes)


def test_a_method_is_entered_beside_plain_training_and_the_oracle(out):
    table = entered("edits", out)
    assert table.labels == ["erm", "edits", "oracle"] and table.tasks == [TASK]
    counts = {one.label: one.counts for one in table.results}
    assert counts["erm"] == [[17, 3], [3, 17]] or counts["erm"] == [[3, 17], [17, 3]]
    assert np.array(counts["edits"]).sum() > 40 and counts["oracle"] == counts["edits"]


def test_nothing_is_fitted_twice(out, monkeypatch):
    before = entered("edits", out)
    monkeypatch.setattr(runs, "run_arm", lambda *_, **__: pytest.fail("fitted again"))
    after = entered("edits", out)
    assert [one.codes.tolist() for one in after.results] == [one.codes.tolist() for one in before.results]


def test_two_that_share_a_folder_share_the_work(tmp_path, monkeypatch):
    """Who comes second waits for the task, and then finds all of it done."""
    made, begun = [], Event()

    def slow(arm, *given, **options):
        begun.set()
        made.append(arm.name)
        return runs_arm(arm, *given, **options)

    def second():
        begun.wait(60)
        return entered("oversample", tmp_path)

    runs_arm = runs.run_arm
    monkeypatch.setattr(runs, "run_arm", slow)
    with ThreadPoolExecutor(2) as pool:
        tables = [pool.submit(entered, "oversample", tmp_path), pool.submit(second)]
        one, other = (table.result() for table in tables)
    assert sorted(made) == ["erm", "oracle", "oversample"]
    assert one.to_dict() == other.to_dict()


def test_a_row_is_made_by_one_thread_on_any_machine(tmp_path, monkeypatch):
    seen = set()

    def watched(*given, **options):
        seen.add(torch.get_num_threads())
        return runs_arm(*given, **options)

    runs_arm = runs.run_arm
    monkeypatch.setattr(runs, "run_arm", watched)
    with in_threads(3):
        entered("oversample", tmp_path)
        assert seen == {1} and torch.get_num_threads() == 3


def test_a_variant_is_a_row_of_its_own_and_leaves_plain_training(out):
    table = entered("edits", out, variant=Variant(share=0.5))
    assert table.labels == ["erm", "edits (share=0.5)", "oracle (share=0.5)"]
    whole = entered("edits", out)
    added = [np.array(one.counts).sum() - 40 for one in (whole.results[1], table.results[1])]
    assert added[1] == pytest.approx(added[0] / 2, abs=2)


def test_classifiers_see_pictures_of_another_size(out, monkeypatch):
    """As results of their own: what was measured at another size is not taken for it."""
    entered("oversample", out)
    seen = []
    truly = runs.run_arm
    monkeypatch.setattr(runs, "run_arm", lambda arm, task, **more: seen.append(task) or truly(arm, task, **more))
    table = entered("oversample", out, image_size=24)
    assert len(seen) == len(table.results) == 3
    assert {task.settings.fit.image_size for task in seen} == {24}
    with pytest.raises(ConfigError, match="image_size"):
        entered("oversample", out, image_size=8)


def test_an_arm_of_ones_own(out):
    @register_arm("half", "every second face")
    def half(task, trial):
        return Recipe(task.faces.take(range(0, len(task.faces), 2)))

    try:
        table = entered(["half"], out)
        assert np.array(next(one for one in table.results if one.label == "half").counts).sum() == 20
    finally:
        ARMS.pop("half")


def test_the_published_protocol_is_another_row(out, monkeypatch):
    """Found by the settings, so that no fit from scratch is taken for one."""

    def begun(arm, task, **options):
        raise RuntimeError(task.settings.protocol)

    whole = entered("oversample", out)
    monkeypatch.setattr(runs, "run_arm", begun)
    assert entered("oversample", out).to_dict() == whole.to_dict()
    with pytest.raises(RuntimeError, match="fine-tune"):
        entered("oversample", out, protocol="fine-tune")


def test_what_a_task_lacks_is_a_note(out):
    table = entered(["more-real"], out)
    assert table.labels == ["erm", "oracle"] and "'more-real' is not entered" in table.notes[0]


def test_unknown_methods_tasks_and_settings_are_refused(out):
    with pytest.raises(UnknownNameError, match="oversample"):
        entered("oversampel", out)
    with pytest.raises(ConfigError, match="`methods` is empty"):
        entered([], out)
    with pytest.raises(ConfigError, match="num_seeds"):
        bench("erm", out, num_seeds=0)


def test_command(out, tmp_path, monkeypatch):
    (tmp_path / "own_arms.py").write_text(
        "from vlbias.audit.arms import Recipe, register_arm\n"
        "@register_arm('first-half', 'the first faces')\n"
        "def arm(task, trial):\n"
        "    return Recipe(task.faces.take(range(len(task.faces) // 2)))\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--tasks", TASK, "--budget", "quick", "--seeds", "1", "--out", str(out), "--json", "table.json"]
    try:
        result = CliRunner().invoke(app, ["bench", "own_arms:arm", *arguments])
        assert result.exit_code == 0, result.output
        assert "first-half" in result.stdout and "equalised odds difference" in result.stdout
        assert '"first-half"' in (tmp_path / "table.json").read_text()
        for other in ("mine", '{"my": 1}'):
            (tmp_path / "mine.json").write_text(other)
            refused = CliRunner().invoke(app, ["bench", "own_arms:arm", *arguments[:-1], "mine.json"])
            assert "not a table of the benchmark" in str(refused.exception)
            assert (tmp_path / "mine.json").read_text() == other
    finally:
        ARMS.pop("first-half", None)
        sys.modules.pop("own_arms", None)
    for word in ("own_arms:nothing", "no_such_module:arm", "json:dumps"):
        assert CliRunner().invoke(app, ["bench", word, *arguments]).exit_code == 2
    assert CliRunner().invoke(app, ["bench", "edits", "--set", "share", *arguments]).exit_code == 2


# -- sets -------------------------------------------------------------------------------------------------------------


def test_labels_are_turned_round():
    faces = WorldTask("smile", "skin", num_training=40).faces().training
    wrong = mislabelled(faces, "skin", 0.25, seed=0)
    assert (wrong.table["skin"] != faces.table["skin"]).sum() == 10
    assert set(wrong.table["skin"]) == {"light", "dark"} and wrong.ids == faces.ids


def test_drawn_faces_are_remembered(monkeypatch):
    faces = WorldTask("smile", "skin", num_training=40).faces().training.select(ids_of(4))
    memory = {}
    kept = remembered(faces, memory)
    first = load_pixels(kept, kept.ids, 64)
    monkeypatch.setattr("vlbias.data.synthfaces.render", lambda *_: pytest.fail("drawn again"))
    assert load_pixels(kept.select(kept.ids[:2]), kept.ids[:2], 64).equal(first[:2])
    monkeypatch.undo()
    assert load_pixels(faces, faces.ids, 64).equal(first)
    changed = kept.counterfactual(skin="dark")
    assert not load_pixels(changed, changed.ids, 64).equal(first) and len(memory) == 8


def ids_of(count):
    return [f"synth-150000-{row:06d}" for row in range(count)]


def test_a_share_takes_as_much_of_every_cell(out):
    task = WorldTask("smile", "skin", 0.7, 40, 40, 40)
    training = task.faces().training
    whole = balanced_set(task, training, Variant(), out / "sets", show_progress=False)
    half = balanced_set(task, training, Variant(share=0.5), out / "sets", show_progress=False)
    cells = ["smile", "skin"]
    assert (half.table.groupby(cells).size() - whole.table.groupby(cells).size() / 2).abs().max() <= 0.5
    assert set(half.ids) <= set(whole.ids)
