from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from vlbias import search
from vlbias.engine import Engine
from vlbias.errors import CheckpointError, ConfigError, LabelError, TrainingError, UnknownNameError
from vlbias.report import write_search
from vlbias.search.baselines import baseline_number
from vlbias.search.evaluation import Evaluation
from vlbias.search.halving import HalvingSettings
from vlbias.search.inference import compare
from vlbias.search.spaces import space
from vlbias.search.storage import Storage
from vlbias.search.task import make_task
from vlbias.shown import plural

sys.path.insert(0, str(Path(__file__).parent))
from search_worker import Curve, slow_worker, start, table_study


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_the_loop_stops_the_worse_half(tmp_path, sampler):
    table = table_study(tmp_path, 24, sampler=sampler, name=None).table()
    assert list(table.index) == list(range(24)) and set(table["state"]) == {"complete", "stopped"}
    assert (table.loc[table["state"] == "stopped", "epochs"] < 9).all()
    assert table.loc[0, "learning_rate"] == 1e-3, "the first trial is the default"
    assert table["on_front"].sum() >= 1 and table.loc[table["on_front"], "feasible"].all()


def test_a_later_call_adds_trials_and_a_sampler_without_memory_draws_the_same(tmp_path):
    more = table_study(tmp_path, 5, n_more=4, name="a.log").table()
    once = table_study(tmp_path, 9, name="b.log").table()
    pd.testing.assert_frame_equal(more.drop(columns="seconds"), once.drop(columns="seconds"))


def test_failures_are_kept_with_their_reason(tmp_path):
    class Fails(Curve):
        def __init__(self, configuration, number):
            super().__init__(configuration, number, fail=(2, 5))

    study = table_study(tmp_path, 8, runner=Fails)
    table = study.table()
    assert table.loc[[2, 5], "state"].tolist() == ["failed", "failed"] and len(table) == 8
    assert table.loc[5, "reason"] == "RuntimeError: trial 5 ran out of memory"
    assert not table.loc[[2, 5], "feasible"].any()


def test_nan_and_collapse_fail_and_the_cap_keeps_off_the_front(tmp_path):
    class Strange(Curve):
        def advance(self, budget):
            values = dict(super().advance(budget))
            if self.number == 1:
                values["rank_gap"] = float("nan")
            if self.number == 2:
                values |= {"error": 0.85, "rank_gap": 0.0, "collapsed": float(budget == 9)}
            if self.number == 3:
                values |= {"error": 0.99, "rank_gap": 0.0}
            return values

    settings = HalvingSettings(("error", "rank_gap"), (1, 9), None, 0.9)
    table = table_study(tmp_path, 6, settings=settings, runner=Strange).table()
    assert table.loc[1, "state"] == "failed" and "'rank_gap' is nan" in table.loc[1, "reason"]
    assert table.loc[2, "state"] == "failed" and "collapsed" in table.loc[2, "reason"]
    assert table.loc[3, "state"] == "complete" and not table.loc[3, "feasible"] and not table.loc[3, "on_front"]


def test_a_hopeless_study_ends_with_the_reason(tmp_path):
    class Never(Curve):
        def advance(self, budget):
            raise RuntimeError("no such device")

    with pytest.raises(TrainingError, match="All of the first 5 trials failed. Last: RuntimeError: no such device"):
        table_study(tmp_path, 9, runner=Never)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return start(folder / "study.log", 5, eta=2.0), folder


def test_a_real_search(searched):
    study, folder = searched
    table = study.table()
    assert len(table) == 5 and {"error", "rank_gap", "worst_error", "cell"} <= set(table.columns)
    assert (table["state"] != "failed").all(), table["reason"].tolist()
    best = study.best(max_error=1.0)
    assert best.checkpoint.is_file() and best.values["rank_gap"] == table.loc[best.number, "rank_gap"]
    stopped = table.index[table["state"] == "stopped"]
    assert not any((folder / "study.log.files" / f"trial-{n:05d}.pt").exists() for n in stopped)
    assert study.plot(folder / "front.png").stat().st_size > 5000
    read = search.open_study(folder / "study.log")
    pd.testing.assert_frame_equal(read.table(), table)
    with pytest.raises(ConfigError, match="opened for reading"):
        read.front()
    with pytest.raises(TrainingError, match="at most 0.0; the smallest is"):
        study.best(max_error=0.0)


def test_the_held_out_front_is_made_once(searched):
    study, folder = searched
    front = study.front(refit=2, num_resamples=200, show_progress=False)
    files = sorted((folder / "study.log.files" / "refits").glob("*.npz"))
    assert len(files) == 2 * len(front.table)
    written = [file.stat().st_mtime_ns for file in files]
    again = study.front(refit=2, num_resamples=200, show_progress=False)
    pd.testing.assert_frame_equal(front.table, again.table)
    assert [file.stat().st_mtime_ns for file in files] == written
    packed = np.load(files[0])
    np.savez_compressed(files[0], **packed)  # such a file could be larger inside than any memory: it is made anew
    study.front(refit=2, num_resamples=200, show_progress=False)
    assert files[0].stat().st_mtime_ns != written[0] and not any(i.compress_type for i in ZipFile(files[0]).infolist())
    for file in files:
        file.unlink()
    workers = Engine(workers=2, cores=torch.get_num_threads())
    by_workers = study.front(refit=2, num_resamples=200, show_progress=False, engine=workers)
    pd.testing.assert_frame_equal(front.table, by_workers.table)
    for name in ("error", "rank_gap"):
        assert (front.table[f"{name}_low"] <= front.table[name]).all()
        assert (front.table[f"{name}_high"] >= front.table[name]).all()
    assert front.table["p_dominated"].between(0, 1).all() and np.diag(front.dominance).sum() == 0
    assert set(front.winners_curse().index) == {"error", "rank_gap"}
    assert front.verdict().startswith(
        f"{plural(len(front.table), 'candidate')} of the validation front on test (2 refits each)"
    )
    assert front.groups["images"].dtype.kind == "i"
    assert repr(front).startswith(f"<Front: {plural(len(front.table), 'candidate')} on test, ")
    assert "<td>" in front._repr_html_()
    assert repr(study).startswith("<Study: 5 trials (") and "rank_gap" in study._repr_html_()
    written = study.write(folder / "out", front)
    assert {p.name for p in written.iterdir()} == {
        "trials.csv", "timing.csv", "trials.png", "front.csv", "groups.csv", "dominance.csv", "front.png"
    }  # fmt: skip
    assert (written / "front.png").stat().st_size > 5000
    assert "seconds" not in (written / "trials.csv").read_text() and "seconds" in (written / "timing.csv").read_text()
    assert study.front(refit=0, num_resamples=50, show_progress=False).refits == 0


def test_published_networks_stand_beside_the_front(searched):
    study, folder = searched
    front = study.front(refit=1, baselines=["resnet50-cosface-sgd"], num_resamples=50, show_progress=False)
    number = baseline_number("resnet50-cosface-sgd")
    row = front.table.loc[number]
    assert row["label"] == "resnet50 cosface sgd 0.1" and 0 <= row["error"] <= 1 and np.isnan(row["val_error"])
    assert len(front.table) == len(study.candidates()) + 1 and front.winners_curse().notna().all()
    assert "beside 1 baseline, on test (1 refit each)" in front.verdict()
    assert (folder / "study.log.files" / "refits" / f"trial-{number}-refit-0-test.npz").is_file()
    assert front.plot(folder / "beside.png").stat().st_size > 5000
    assert "resnet50" in write_search(folder / "page", study, front).read_text()
    with pytest.raises(UnknownNameError, match=r"Unknown baseline 'resnet51-cosface-sgd'.*resnet50-cosface-sgd"):
        study.front(refit=1, baselines=["resnet51-cosface-sgd"])
    with pytest.raises(ConfigError, match="they need `refit` >= 1"):
        study.front(refit=0, baselines=["all"])


def test_save_and_load_the_best(searched):
    study, folder = searched
    best = study.best(max_error=1.0)
    place = study.save(best, folder / "best")
    model = search.load_model(place)
    z = search.embed(model, study.task.val.images)
    ranks = search.identification_ranks(z, study.task.val.persons)
    assert np.mean(ranks.by_id > 0) == pytest.approx(best.values["error"])
    card = (place / "README.md").read_text()
    assert "validation numbers flatter" in card and "| female |" in card
    for path in place.iterdir():  # the manifest among them
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=path.name):
                search.load_model(place)
        path.write_bytes(whole)
    (place / "config.json").write_text("{}")
    (place / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="not a model saved by a search"):
        search.load_model(place)


def test_classification_by_the_same_call(tmp_path, tiny, small_space):
    chosen = space(["dpn-cell"], ["softmax"], ["adamw"], skeleton=small_space.skeleton, embedding_size=16)
    study = search.run(
        tiny, protected="gender", task="classify", target="smile", space=chosen, storage=None, n_trials=2,
        image_size=16, fidelity=("epochs", 1, 2), eta=2.0, max_error=1.0, show_progress=False,
        training=search.TrainSettings(batch_size=16, device="cpu"),
    )  # fmt: skip
    assert {"equalized_odds_gap", "f1_gap"} <= set(study.table().columns) and study.folder is None


def test_kill_minus_nine_loses_nothing(tmp_path):
    """One of two workers dies in the middle of an epoch; the table is that of a study nobody disturbed."""
    storage, marker = tmp_path / "killed.log", tmp_path / "in_epoch"
    undisturbed = start(tmp_path / "calm.log", 4).table()
    processes = multiprocessing.get_context("fork")
    victim = processes.Process(target=slow_worker, args=(storage, 4, marker))
    victim.start()
    deadline = time.monotonic() + 600
    while not marker.exists():
        assert victim.is_alive() and time.monotonic() < deadline, "the worker never reached its second epoch"
        time.sleep(0.02)
    other = processes.Process(target=start, args=(storage, 4))
    other.start()
    time.sleep(0.3)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    other.join(timeout=600)
    assert other.exitcode == 0
    disturbed = search.open_study(storage).table()
    assert disturbed["attempts"].tolist() == [2, 1, 1, 1], "exactly one trial was taken up again"
    columns = [name for name in undisturbed.columns if name not in ("seconds", "attempts")]
    pd.testing.assert_frame_equal(disturbed[columns], undisturbed[columns])
    assert not list((tmp_path / "killed.log.files" / "workers").iterdir())


def test_locks_of_dead_workers_are_cleared_and_those_of_others_kept(tmp_path):
    dead, living, mine = (Storage(str(tmp_path / "study.log")) for _ in range(3))
    dead.sign_in()
    left = dead._lock.path
    dead._lock.release()  # as the system does it when a process dies
    living.sign_in()
    assert not left.exists()
    mine.sign_in()
    assert {path.stem for path in left.parent.iterdir()} == {living.worker, mine.worker}
    mine.sign_out()
    living.sign_out()
    assert not list(left.parent.iterdir())


def test_a_database_url_works_as_well(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    short = {"fidelity": ("epochs", 1, 1), "folder": tmp_path / "files"}
    study = start(url, 2, **short)
    assert len(study.table()) == 2 and len(list((tmp_path / "files").glob("trial-*.pt"))) == 2
    assert len(start(url, 3, **short).table()) == 3


def test_wrong_storages(tmp_path, searched):
    _study, folder = searched
    with pytest.raises(ConfigError, match="other settings: `seed` is 3 there and 4 here"):
        start(folder / "study.log", 5, eta=2.0, seed=4)
    garbage = tmp_path / "notes.txt"
    garbage.write_text("hello\n")
    with pytest.raises(ConfigError, match="is not a study"):
        start(garbage, 1)
    with pytest.raises(ConfigError, match="is a folder"):
        start(tmp_path, 1)
    with pytest.raises(ConfigError, match="No study at"):
        search.open_study(tmp_path / "missing.log")
    foreign = tmp_path / "foreign.log"
    backend = optuna.storages.journal.JournalFileBackend(str(foreign))
    other = optuna.create_study(
        storage=optuna.storages.JournalStorage(backend), study_name="search", directions=["minimize"] * 2
    )
    other.add_trial(optuna.trial.create_trial(values=[0.0, 1.0]))
    with pytest.raises(ConfigError, match="did not make"):
        start(foreign, 1)
    newer = tmp_path / "newer.log"
    lines = (folder / "study.log").read_text().splitlines()
    newer.write_text("\n".join(line.replace('"format":1', '"format":99') for line in lines) + "\n")
    with pytest.raises(ConfigError, match="format 99; this version reads 1"):
        start(newer, 5, eta=2.0)
    assert json.loads(lines[0])["op_code"] == 0


def test_wrong_calls(tiny, small_space, tmp_path):
    def call(**options):
        merged = {
            "protected": "gender",
            "space": small_space,
            "storage": None,
            "image_size": 16,
            "show_progress": False,
            **options,
        }
        return search.run(tiny, **merged)

    with pytest.raises(
        UnknownNameError, match="Unknown objective 'rank_gp' for task 'identify'. Did you mean 'rank_gap'"
    ):
        call(objectives=("error", "rank_gp"))
    with pytest.raises(ConfigError, match="two or more"):
        call(objectives=("error",))
    with pytest.raises(UnknownNameError, match="sampler"):
        call(sampler="bayes")
    with pytest.raises(ConfigError, match="`fidelity` of SearchSettings must be"):
        call(fidelity=("steps", 1, 9))
    with pytest.raises(ConfigError, match="`n_trials`"):
        call(n_trials=0)
    with pytest.raises(LabelError, match="no edit belongs"):
        call(space=space(["dpn-cell"], augmentation=(0, 1), skeleton=small_space.skeleton))


def test_evaluate_alone(tiny):
    generator = np.random.default_rng(0)
    z = generator.normal(size=(24, 8))[tiny.table["identity"]] + 0.6 * generator.normal(size=(96, 8))
    table = search.evaluate(z, tiny, "gender")
    summary = table.attrs["summary"]
    assert summary["published_rank_disparity"] == pytest.approx(summary["rank_gap"])
    assert summary["published_disparity"] == pytest.approx(summary["error_gap"]) and summary["num_singletons"] == 0
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 8))
    assert search.evaluate(model, tiny, "gender", image_size=16)["images"].sum() == 96
    model.image_size = 16  # as load_model's know
    assert search.evaluate(model, tiny, "gender")["images"].sum() == 96
    with pytest.raises(UnknownNameError, match="Did you mean 'gender'"):
        search.evaluate(z, tiny, "gendr")


def _evaluated(error, persons=60, images=5, seed=0):
    """A test set on which each probe of group g is missed with probability error[g]."""
    generator = np.random.default_rng([7, seed])
    groups = np.repeat(np.arange(persons) % 2, images)
    missed = generator.random(persons * images) < np.asarray(error)[groups]
    outcome = np.stack([missed, missed]).astype(float)
    return Evaluation("identify", ("a", "b"), groups, np.repeat(np.arange(persons), images), outcome, diversity=1.0)


def test_comparison_is_sure_where_it_may_be():
    good = [_evaluated((0.05, 0.05), seed=s) for s in range(3)]
    bad = [_evaluated((0.3, 0.7), seed=10 + s) for s in range(3)]
    twin = [_evaluated((0.05, 0.05), seed=20 + s) for s in range(3)]
    found = compare([good, bad, twin], ("error", "rank_gap"), num_resamples=500)
    mean, interval, dominance = found.mean, found.interval, found.dominance
    assert dominance[0, 1] > 0.95 and dominance[1, 0] == 0 and dominance[-1, 1] > 0.95
    assert dominance[0, 2] < 0.9 and dominance[2, 0] < 0.9
    assert (interval[..., 0] <= mean).all() and (mean <= interval[..., 1]).all()
    assert (interval[1, 0] < 0.65).all() and (interval[1, 0] > 0.35).all()


@pytest.mark.parametrize("torn", [b'{"op_code": 5, "wor', b"\0" * 32, None])
def test_a_journal_that_was_cut_off_goes_on(tmp_path, torn):
    path = tmp_path / "study.log"
    study = Storage(path).study(2, {"seed": 1})
    for _ in range(2):
        study.tell(study.ask(), [0.1, 0.2])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20] if torn is None else whole + torn)
    again = Storage(path).study(2, {"seed": 1})
    again.tell(again.ask(), [0.1, 0.3])
    trials = Storage(path).study(2, {"seed": 1}).get_trials()
    assert len(trials) == 3 and trials[0].values == [0.1, 0.2] and trials[-1].values == [0.1, 0.3]
    with path.open("ab") as file:  # by a worker that dies while others have the study open
        file.write(b'{"op_code": 5, "wor')
    again.tell(again.ask(), [0.2, 0.3])
    assert len(Storage(path).study(2, {"seed": 1}).get_trials()) == 4


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "study.log"
    Storage(path).study(2, {"seed": 1})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\0\n" + b"".join(lines[1:]))
    with pytest.raises(ConfigError, match=r"Line 2 of .*study.log is damaged"):
        Storage(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"rung_2"', '"rung_x"', r"Trial 0 of .*study.log is damaged: invalid literal"),
        ('"rung_2":{"error":0.5', '"rung_2":{"eror":0.5', "`rung_2` must hold numbers, of error, gap at least"),
        ('"error":0.5', '"error":"0.5"', "`rung_2` must hold numbers"),
        ('{"error":0.5,"gap":0.1}', "[1,2]", "is damaged"),
        ('{"error":0.5,"gap":0.1}', "null", "is damaged"),
        ('"rung_2"', '"rung_1"', "it is finished, but `rung_2` is missing"),
        ('"configuration"', '"configuratio"', "it is finished, but `configuration` is missing"),
        ('"head":"softmax"', '"hed":"softmax"', "is damaged: .*hed"),
        ('"seconds":1.0', '"seconds":"x"', "is damaged: could not convert"),
        ('"seconds":1.0', '"seconds":null', "is damaged"),
        ('"root":0', '"root":"0"', "`root` must be a whole number"),
        ('"worker":"', '"worker":"../../', "`worker` must be a name of letters and digits"),
        ('"values":[0.5,0.1]', '"values":[0.5]', "its values must be 2 finite numbers"),
        ('"values":[0.5,0.1]', '"values":["a","b"]', "is damaged"),
        ('"objectives":["error","gap"],', "", "does not say what it compares"),
        ('"rungs":[1,2]', '"rungs":3', "does not say what it compares"),
        ('{"format":1,"objectives":["error","gap"],"rungs":[1,2],"eta":null,"max_error":0.9}', "1", "has format None"),
    ],
)
def test_a_study_with_damaged_records_is_refused_in_a_sentence(tmp_path, old, new, message):
    path = tmp_path / "study.log"
    header = {"objectives": ["error", "gap"], "rungs": [1, 2], "eta": None, "max_error": 0.9}
    storage = Storage(path)
    study = storage.study(2, header)
    trial = study.ask()
    storage.sign(trial, 0)
    trial.set_user_attr("configuration", search.Configuration("resnet10t", "softmax", "adam", 0.01).to_dict())
    trial.set_user_attr("rung_2", {"error": 0.5, "gap": 0.1})
    trial.set_user_attr("seconds", 1.0)
    study.tell(trial, [0.5, 0.1])
    assert len(search.open_study(path).candidates()) == 1
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message):
        search.open_study(path)


def test_a_database_has_several_studies_by_name(tiny, small_space, tmp_path):
    from vlbias.search.storage import Storage

    url = f"sqlite:///{tmp_path / 'x.db'}"
    for name, seed in (("", 1), ("#second", 2)):
        Storage(url + name).study(2, {"seed": seed})
    assert Storage(url).study(2, {"seed": 1}).study_name == "search"
    assert Storage(f"{url}#second").folder == tmp_path / "x.db.files" / "second"
    with pytest.raises(ConfigError, match=r"`seed` is 2 there and 1 here.*--study-name, or #NAME at the end of"):
        Storage(f"{url}#second").study(2, {"seed": 1})
    with pytest.raises(ConfigError, match=r"got '../x'. In a password, # is written %23"):
        Storage(f"{url}#../x")


def test_a_target_without_its_task_is_told_how_to_be_given(tiny):
    for given in ({"target": "smile"}, {"task": "classify"}):
        with pytest.raises(ConfigError, match="Give both \\(--task classify --target COLUMN\\), or neither"):
            make_task(tiny, protected="gender", **given)


def test_edits_of_a_balanced_folder_are_those_of_its_training_faces(make_tiny, tiny):
    """There an original has a new name, and edits know it by the old one; none is lost, or of a test face."""
    table = tiny.table
    real = table.assign(origin="real", source_id=table.index).rename(index=lambda name: f"train/{name}.png")
    edits = table.assign(origin="edited", source_id=table.index, split="train").rename(
        index=lambda name: f"e_{name[6:]}"
    )
    options = {"protected": "gender", "task": "classify", "target": "smile", "image_size": 16}
    one = make_task(make_tiny(pd.concat([real, edits])), **options)
    two = make_task(make_tiny(real), **options, edits=make_tiny(edits))
    for task in (one, two):
        made = task.table[task.table["edited"]]
        assert set(made["source"]) == set(real.index[real["split"] == "train"]) and set(made["split"]) == {"train"}
