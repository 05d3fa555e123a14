"""Arms: what each gives a fit, counted by hand; how they are chosen; what users register."""

import importlib
import json
import linecache
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from doubles import tiny_editor

from vlbias import audit, classify, load_dataset
from vlbias.audit.arms import ARMS, BUILT_IN, find_arm, find_arms
from vlbias.audit.arms.catalogue import FIRST_FIT
from vlbias.errors import CheckpointError, ConfigError, DatasetError, LabelError, UnknownNameError

TINY = classify.FitSettings(
    backbone_options={"channels": [8, 8, 8, 8], "stem_width": 4}, image_size=16, num_steps=3, batch_size=8, shift_px=1
)
CELLS = {(1, "light"): 20, (0, "light"): 5, (1, "dark"): 5, (0, "dark"): 10}


def in_split(faces, split):
    return replace(faces, table=faces.table.assign(split=split))


def drawn(cells, split, seed=0):
    return in_split(load_dataset("synthfaces", cells={("smile", "skin"): cells}, seed=seed, image_size=16), split)


@pytest.fixture(scope="module")
def faces():
    return drawn(CELLS, "train")


@pytest.fixture(scope="module")
def test_set():
    return drawn(dict.fromkeys(CELLS, 6), "test", seed=1)


@pytest.fixture(scope="module")
def validation():
    return drawn(dict.fromkeys(CELLS, 3), "val", seed=2)


@pytest.fixture
def task(faces, test_set, validation):
    """With 20, 5, 5 and 10 faces to learn from, none of them held out."""
    return audit.ArmTask(faces, test_set, "smile", "skin", validation, settings=audit.ArmSettings(fit=TINY))


def edits_of(faces, donors, value, split="train", origin="edited"):
    """Counterfactuals that stand for edits, as `vlbias balance` names them."""
    made = faces.counterfactual(donors, skin=value)
    return replace(made, table=made.table.assign(origin=origin, split=split))


def recipe_of(name, task, value=None, seed=0):
    arm = find_arm(name)
    return arm.build(task, audit.Trial(seed, value if value is not None else (*arm.values, None)[0], task.settings.fit))


def table_of(task, faces):
    return {(task.classes[y], task.groups[g]): int(n) for (y, g), n in np.ndenumerate(task.counts(faces)) if n}


def test_what_each_arm_learns_from(task):
    short = {("0", "dark"): 10, ("0", "light"): 5, ("1", "dark"): 5, ("1", "light"): 20}
    even = {("0", "dark"): 10, ("0", "light"): 10, ("1", "dark"): 20, ("1", "light"): 20}
    same = ("erm", "reweight", "trivial-augment", "mixup", "just-train-twice")
    expected = dict.fromkeys(same, short) | dict.fromkeys(("oversample", "group-dro", "oracle"), even)
    expected["undersample"] = dict.fromkeys(short, 5)
    for name, counts in expected.items():
        assert table_of(task, recipe_of(name, task).faces) == counts, name
    weights = recipe_of("reweight", task).hooks.weights.numpy()
    for y, g in short:
        mine = (task.faces.y == task.classes.index(y)) & (task.faces.g == task.groups.index(g))
        # A cell weighs what it would weigh with its repeats: 10/10, 10/5, 20/5 and 20/20.
        assert weights[mine].sum() == pytest.approx(even[y, g])
    repeats = Counter(recipe_of("oversample", task).faces.ids)
    assert set(repeats.values()) <= {1, 2, 4} and set(repeats) == set(task.faces.ids)  # as even as can be


def test_the_oracle_draws_the_donors_anew(task):
    recipe = recipe_of("oracle", task)
    assert recipe.num_made == 20 == len(task.orders)
    added = recipe.faces.take(range(len(task.faces), len(recipe.faces)))
    assert all("~skin=" in item for item in added.ids)
    donor = added.ids[0].split("~")[0]
    wanted = task.train.counterfactual([donor], skin=task.groups[added.g[0]])
    shown = ((wanted.tensor(wanted.ids, 16) + 1) * 127.5).round()
    assert torch.equal(added.images[0].float(), shown[0])


def test_every_arm_adds_as_many_faces_to_each_cell_as_there_are_edits(faces, test_set, validation):
    donors = [item for item in faces.ids if faces.table.at[item, "skin"] == "light" and faces.table.at[item, "smile"]]
    balanced = edits_of(faces, donors[:4], "dark")
    more = drawn({(1, "dark"): 3, (0, "dark"): 9}, "train", seed=3)
    task = audit.ArmTask(
        faces, test_set, "smile", ["skin"], validation, {"balanced": balanced, "more": more, "amplified": balanced},
        settings=audit.ArmSettings(fit=TINY),
    )  # fmt: skip
    four = {("0", "dark"): 10, ("0", "light"): 5, ("1", "dark"): 9, ("1", "light"): 20}
    for name in ("edits", "oversample", "oracle", "edits+group-dro", "edits+oversample", "amplify"):
        assert table_of(task, recipe_of(name, task).faces) == four, name
    mixed = recipe_of("edits+oversample", task)
    own = set(faces.ids[: len(task.faces)])
    added = mixed.faces.ids[len(task.faces) :]
    assert mixed.num_made == sum(item not in own for item in added) == 2  # half of four
    # A set that has fewer gives what it has; it never gives another cell.
    assert table_of(task, recipe_of("more-real", task).faces) == four | {("1", "dark"): 8}
    assert set(task.faces.ids[task.orders["donor"]]) == set(donors[:4])
    assert torch.equal(recipe_of("edits", task).faces.images, recipe_of("oracle", task).faces.images)


def test_arms_that_make_pictures_themselves(faces, test_set, validation):
    donors = [item for item in faces.ids if faces.table.at[item, "skin"] == "light" and faces.table.at[item, "smile"]]
    sets = {"balanced": edits_of(faces, donors[:3], "dark")}
    task = audit.ArmTask(faces, test_set, "smile", "skin", validation, sets, tiny_editor(), audit.ArmSettings(fit=TINY))
    plain = len(task.faces)
    trip = recipe_of("round-trip", task)
    assert trip.num_made == 3 and table_of(task, trip.faces) == table_of(task, recipe_of("edits", task).faces)
    pushed = recipe_of("random-direction", task).faces.take(range(plain, plain + 3))
    edits = recipe_of("edits", task).faces.take(range(plain, plain + 3))
    assert (pushed.ids == edits.ids).all() and (pushed.g == edits.g).all()
    assert not torch.equal(pushed.images, edits.images)
    both = recipe_of("edits+round-trip", task)
    assert both.num_made == len(both.faces) == plain + 3
    # A face is rebuilt alike wherever it stands.
    rebuilt = dict(zip(both.faces.ids, both.faces.images, strict=True))
    for item, image in zip(trip.faces.ids[plain:], trip.faces.images[plain:], strict=True):
        assert torch.equal(rebuilt[item], image)


def test_pictures_that_arms_make_are_made_once_and_do_not_depend_on_who_came_first(
    faces, test_set, validation, monkeypatch
):
    donors = [item for item in faces.ids if faces.table.at[item, "skin"] == "light" and faces.table.at[item, "smile"]]
    sets = {"balanced": edits_of(faces, donors[:3], "dark")}
    editor, settings = tiny_editor(), audit.ArmSettings(fit=TINY)
    one, other = (audit.ArmTask(faces, test_set, "smile", "skin", validation, sets, editor, settings) for _ in range(2))
    names = ["round-trip", "edits+round-trip", "random-direction"]
    first = {name: recipe_of(name, one) for name in names}
    then = {name: recipe_of(name, other) for name in reversed(names)}
    assert all(first[name].faces.digest == then[name].faces.digest for name in names)
    recipe_of("random-direction", one, seed=1)
    assert set(one.pushed) == {0, 1}  # each seed has directions of its own
    monkeypatch.setattr("vlbias.audit.arms.catalogue._edited", lambda *_: pytest.fail("made again"))
    assert all(recipe_of(name, one).faces.digest == first[name].faces.digest for name in names)


def test_faces_that_are_held_out_or_tested_lend_no_edit(faces, test_set):
    balanced = edits_of(faces, faces.ids, "dark")
    task = audit.ArmTask(faces, test_set, "smile", "skin", sets={"balanced": balanced})
    assert len(task.held_out) == 4 + 1 + 1 + 2  # a fifth of each cell
    assert not set(task.faces.ids) & task.held_out and set(task.validation_faces.ids) == task.held_out
    sources = {item.split("~")[0] for item in task.added("balanced").ids}
    assert sources == set(task.faces.ids)
    tested = audit.ArmTask(faces, in_split(faces, "test"), "smile", "skin", sets={"balanced": balanced})
    with pytest.raises(DatasetError, match="'balanced' adds no picture"):
        tested.added("balanced")


def test_nor_do_they_under_the_names_of_a_balanced_folder(faces, test_set):
    """There an original has a new name, and its edits know it by the old one."""
    balanced = edits_of(faces, faces.ids, "dark")
    real = faces.table.assign(origin="real", source_id=faces.ids)
    renamed = replace(faces, table=real.set_axis([f"train/{item}.png" for item in faces.ids]))
    task = audit.ArmTask(renamed, test_set, "smile", "skin", sets={"balanced": balanced})
    assert len(task.held_out) == 4 + 1 + 1 + 2
    sources = {f"train/{item.split('~')[0]}.png" for item in task.added("balanced").ids}
    assert sources == set(task.faces.ids) and task.orders["donor"].ge(0).all()
    tested = audit.ArmTask(faces, in_split(renamed, "test"), "smile", "skin", sets={"balanced": balanced})
    with pytest.raises(DatasetError, match="'balanced' adds no picture"):
        tested.added("balanced")


def test_people_are_held_out_as_a_whole(faces, test_set):
    people = faces.with_column("identity", [f"p{row // 4}" for row in range(len(faces))])
    task = audit.ArmTask(people, test_set, "smile", "skin")
    who = people.table["identity"]
    assert task.held_out and not set(who[list(task.held_out)]) & set(who[task.faces.ids])


def test_learning_rate_decay_and_knob_are_chosen_on_validation_faces_alone(task, tmp_path, monkeypatch):
    seen = []

    def validated(classifier, shown, num_groups):
        seen.append(classifier.settings)
        best = classifier.settings.learning_rate == 1e-3 and classifier.settings.weight_decay == pytest.approx(0.2)
        return 0.9 if best else 0.5 + 0.01 * (classifier.settings.learning_rate == 1e-3), 0.1

    monkeypatch.setattr("vlbias.audit.arms.fitting.validate", validated)
    monkeypatch.setattr(audit.ArmTask, "test_faces", property(lambda self: pytest.fail("looked at the test faces")))
    with pytest.raises(pytest.fail.Exception, match="looked"):
        audit.run_arm("mixup", task, cache=tmp_path)
    # Rates and one beyond the lowest, which was the best; decays; mixup's own rates about that; further alphas.
    assert [one.seed for one in seen].count(0) == 3 + 1 + 2 + 3 + 2
    # The two best of each with two more seeds; of the two best decays and alphas one is the best rate, which has them.
    assert [one.seed for one in seen].count(1) == [one.seed for one in seen].count(2) == 2 + 1 + 2 + 1
    assert len(list(tmp_path.iterdir())) == len(seen) == 11 + 2 * 6
    monkeypatch.undo()
    run = audit.run_arm("mixup", task, seed=2, cache=tmp_path)
    assert (run.chosen["learning_rate"], run.chosen["weight_decay"]) == (1e-3, pytest.approx(0.2))
    assert run.chosen["alpha"] == 0.2 and len(run.codes) == 24
    assert len(list(tmp_path.iterdir())) == len(seen) + 1  # what it predicts


@pytest.mark.parametrize(
    ("arm", "best", "chosen"),
    [
        ("erm", 16e-3, 16e-3),  # twice beyond the highest of the first three
        ("erm", 0.5e-3, 0.5e-3),
        ("erm", 1.0, 64e-3),  # not without end
        ("oversample", 1e-3, 1e-3),  # though its loss is that of plain training
        ("reweight", 1e-3, 1e-3),  # from 8e-3 down, over 4 and 2
        ("group-dro", 32e-3, 32e-3),
        ("just-train-twice", 2e-3, 2e-3),
    ],
)
def test_learning_rates_are_looked_for_beyond_the_first_ones(task, monkeypatch, arm, best, chosen):
    """Validation accuracy falls with the distance to the best rate: 8e-3 for plain training, ``best`` for the arm."""
    rates = []
    name = []
    real_build = find_arm(arm).build

    def validated(classifier, shown, num_groups):
        rates.append(classifier.settings.learning_rate)
        peak = best if name or arm == "erm" else 8e-3
        return -abs(float(np.log2(rates[-1] / peak))), 0.0

    def build(task, trial):
        name.append(arm)
        return real_build(task, trial)

    monkeypatch.setattr("vlbias.audit.arms.fitting.validate", validated)
    monkeypatch.setitem(ARMS, arm, replace(ARMS[arm], build=build))
    assert audit.run_arm(arm, task).chosen["learning_rate"] == pytest.approx(chosen)


def test_fits_are_named_by_settings_that_decide_them():
    named = audit.ArmSettings(fit=classify.FitSettings(device="cpu")).of_result()
    assert named == audit.ArmSettings().of_result() and "amp" not in named["fit"]  # it is off
    assert named != audit.ArmSettings(fit=classify.FitSettings(amp=True)).of_result()


def test_a_finished_fit_is_not_done_again(task, tmp_path, monkeypatch):
    first = audit.run_arm("oversample", task, seed=1, cache=tmp_path)
    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", lambda *a, **k: pytest.fail("fitted again"))
    again = audit.run_arm("oversample", task, seed=1, cache=tmp_path)
    assert (again.codes == first.codes).all() and again.chosen == first.chosen and again.counts.equals(first.counts)
    with pytest.raises(pytest.fail.Exception):
        audit.run_arm("oversample", task, seed=9, cache=tmp_path)
    tested = [path for path in tmp_path.iterdir() if "codes" in json.loads(path.read_text())]
    whole = json.loads(tested[0].read_text())
    wrong = [[], {"codes": [7]}, {"codes": None}, {"codes": {}}, {"codes": [9] * len(first.codes)}, {"counts": []}]
    wrong += [{"counts": [[1], 2]}, {"validation_accuracy": "1"}, {"validation_loss": None}, {"num_made": -1}, {"x": 1}]
    for change in wrong:
        tested[0].write_text(json.dumps(change if isinstance(change, list) else whole | change))
        with pytest.raises(CheckpointError, match=rf"{tested[0].name} is not a finished fit.*delete it"):
            audit.run_arm("oversample", task, seed=1, cache=tmp_path)


def test_nothing_is_tuned_twice(task, monkeypatch):
    seeds = []
    real_fit = classify.fit

    def counted(*arguments, settings, **options):
        seeds.append(settings.seed)
        return real_fit(*arguments, settings=replace(settings, num_steps=1), **options)

    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", counted)
    monkeypatch.setattr("vlbias.audit.arms.fitting.FURTHER_RATES", 0)
    fresh = replace(task)
    audit.compare_arms(fresh, ["erm", "oversample"], seeds=[0, 4], show_progress=False)
    # Five fits to tune plain training and three for the rate of oversample; the best of each, and both once more.
    assert seeds.count(0) == 5 + 3 and seeds.count(4) == 2
    # The two best rates of both, and one or two decays that were not among them.
    assert seeds.count(1) == seeds.count(2) in (2 + 2 + 1, 2 + 2 + 2)


@pytest.mark.parametrize(("choosing_seeds", "chosen"), [(1, 4e-3), (3, 2e-3)])
def test_a_rate_that_did_well_once_is_not_chosen_for_that(task, monkeypatch, choosing_seeds, chosen):
    made = []

    def validated(classifier, shown, num_groups):
        rate, seed = classifier.settings.learning_rate, classifier.settings.seed
        made.append((rate, seed))
        reached = {1e-3: 0.8, 2e-3: 0.9, 4e-3: 0.95 if seed == 0 else 0.5}  # at the highest a fit may learn nothing
        return reached.get(rate, 0.1), 0.1

    monkeypatch.setattr("vlbias.audit.arms.fitting.validate", validated)
    settings = replace(task.settings, choosing_seeds=choosing_seeds, decay_factors=(1.0,))
    settings = replace(settings, fit=replace(settings.fit, learning_rate=2e-3))
    careful = replace(task, settings=settings)
    assert [audit.run_arm("erm", careful, seed=seed).chosen["learning_rate"] for seed in range(3)] == [chosen] * 3
    assert len(made) == len(set(made))  # what was fitted to choose is not fitted again


def test_the_published_protocol_goes_on_from_plain_training(task, monkeypatch):
    starts = []
    real_fit = classify.fit

    def watched(*arguments, hooks, settings, **options):
        starts.append((hooks.start is not None, settings.num_steps, settings.learning_rate))
        return real_fit(*arguments, hooks=hooks, settings=settings, **options)

    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", watched)
    settings = replace(task.settings, tune=False, protocol="fine-tune")
    audit.run_arm("oversample", replace(task, settings=settings), seed=1)
    assert starts == [(False, 3, 2e-3), (True, 2, pytest.approx(2e-4))]


def test_an_arm_is_known_by_the_text_that_was_loaded(tmp_path, monkeypatch):
    """Whoever edits a module while fits of it run must not have them taken for fits of what it says now."""
    text = "from vlbias.audit import Recipe, register_arm\n@register_arm('kept', 'all faces')\ndef arm(task, trial):\n"
    (tmp_path / "kept_arm.py").write_text(text + "    return Recipe(task.faces)\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        loaded = importlib.import_module("kept_arm").arm
        (tmp_path / "kept_arm.py").write_text(text + "    return Recipe(task.faces.take([0]))\n")
        linecache.checkcache()
        first = loaded.digest
        again = importlib.reload(sys.modules["kept_arm"]).arm
        assert first == loaded.digest != again.digest
    finally:
        ARMS.pop("kept", None)
        sys.modules.pop("kept_arm", None)


def test_every_arm_has_as_many_steps_of_as_many_faces(task, monkeypatch):
    made = {}
    real_fit = classify.fit

    def watched(*arguments, **options):
        settings = options["settings"]
        made.setdefault(arm, []).append((settings.num_steps, settings.batch_size))
        return real_fit(*arguments, **options)

    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", watched)
    monkeypatch.setattr("vlbias.audit.arms.catalogue.fit", watched)
    quick = replace(task, settings=replace(task.settings, tune=False))
    for arm in [one.name for one in find_arms("all", quick)]:
        audit.run_arm(arm, quick, seed=0)
    steps, size = TINY.num_steps, TINY.batch_size
    first = (max(1, round(FIRST_FIT * steps)), size)  # comes on top, as the page of arms says
    assert made.pop("just-train-twice") == [first, (steps, size)]
    assert len(made) >= 7 and set(map(tuple, made.values())) == {((steps, size),)}


def test_the_same_seed_gives_the_same_predictions(task):
    quick = replace(task, settings=replace(task.settings, tune=False))
    for name in ("trivial-augment", "mixup", "group-dro", "just-train-twice"):
        runs = [audit.run_arm(name, replace(quick), seed=3) for _ in range(2)]
        assert (runs[0].codes == runs[1].codes).all() and runs[0].chosen == runs[1].chosen, name


def test_group_dro_follows_the_worst_cell(task):
    recipe = recipe_of("group-dro", task, value=1.0)
    rows = torch.arange(len(recipe.faces))
    targets = torch.from_numpy(recipe.faces.y)
    in_one = torch.from_numpy((recipe.faces.y == 0) & (recipe.faces.g == 0))
    logits = torch.zeros(len(rows), 2).scatter_(1, targets[:, None], 4.0)
    logits[in_one] = -logits[in_one]
    # Losses of the cells are 4.018 and three times 0.018: shares exp(4.018) : exp(0.018) after one step.
    shares = np.exp([4.01815, 0.01815, 0.01815, 0.01815])
    shares /= shares.sum()
    assert float(recipe.hooks.loss(logits, targets, rows)) == pytest.approx(
        shares @ [4.01815, 0.01815, 0.01815, 0.01815]
    )
    later = float(recipe.hooks.loss(logits, targets, rows))
    assert later > float(shares @ [4.01815, 0.01815, 0.01815, 0.01815])


def test_mixup_mixes_pictures_and_labels_alike(task):
    x = torch.arange(8.0)[:, None, None, None].expand(8, 3, 16, 16)
    y = torch.tensor([0, 1] * 4)
    mixed, labels = recipe_of("mixup", task, value=1.0).hooks.change_batch(x, y, torch.Generator().manual_seed(0))
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    own = labels.gather(1, y[:, None])[:, 0]
    assert ((mixed[:, 0, 0, 0] != x[:, 0, 0, 0]) | (own == 1)).all() and (own < 1).any()


def test_users_register_arms_of_their_own(task):
    @audit.register_arm("only-the-rare", "faces of the rarest cell twice", knob="times", values=[2, 3])
    def only_the_rare(task, trial):
        counts = task.counts(task.faces)[task.faces.y, task.faces.g]
        rare = np.flatnonzero(counts == counts.min())
        return audit.Recipe(task.faces.take([*range(len(task.faces)), *np.tile(rare, int(trial.value) - 1)]))

    try:
        run = audit.run_arm("only-the-rare", task)
        assert run.counts.to_numpy().sum() in (50, 60) and run.chosen["times"] in (2, 3)
        assert find_arms(["erm", "only-the-rare"], task)[1].summary == "faces of the rarest cell twice"
    finally:
        audit.ARMS.pop("only-the-rare")


def test_the_page_says_what_arms_there_are_and_its_example_runs(task):
    page = (Path(__file__).parents[2] / "docs" / "arms.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z+-]+)` \| ([^|]+) \|", page, re.M))
    assert rows == {name: find_arm(name).summary for name in BUILT_IN}
    example = page.split("## An arm of your own")[1].split("```python")[1].split("audit.compare(")[0]
    assert len(example.strip().splitlines()) <= 20
    try:
        exec(example, {})
        counts = table_of(task, recipe_of("rarest-often", task, value=2).faces)
        assert counts["1", "dark"] == 10 and counts["1", "light"] == 20
    finally:
        audit.ARMS.pop("rarest-often", None)


def test_what_an_arm_lacks_is_said(task, faces, test_set):
    with pytest.raises(ConfigError, match=r"The arm 'edits' needs edits of the training faces; pass `balanced=`"):
        audit.run_arm("edits", task)
    with pytest.raises(UnknownNameError, match="Unknown arm 'oversampl'.*Did you mean 'oversample'"):
        audit.run_arm("oversampl", task)
    with pytest.raises(ConfigError, match="`arms` must be different names"):
        find_arms(["erm", "erm"], task)
    assert [arm.name for arm in find_arms("all", task)] == [
        name for name in BUILT_IN if not find_arm(name).missing(task)
    ]
    with pytest.raises(ConfigError, match="needs a name without commas"):
        audit.register_arm("a,b", "two")
    with pytest.raises(UnknownNameError, match="Unknown need 'luck'"):
        audit.register_arm("lucky", "", needs=["luck"])
    with pytest.raises(LabelError, match="which the test set lacks"):
        audit.ArmTask(faces, test_set.select(test_set.table["smile"] == 1), "smile", "skin")
    with pytest.raises(ConfigError, match="focal loss"):
        recipe_of("mixup", replace(task, settings=replace(task.settings, fit=replace(TINY, loss="focal"))))
    with pytest.raises(ConfigError, match="must hold at least one number"):
        audit.ArmSettings(rate_factors=())


def compare(faces, test_set, **options):
    return audit.compare(
        faces,
        target="smile",
        protected="skin",
        test=test_set,
        settings=TINY,
        tune=False,
        seeds=2,
        bootstrap=20,
        show_progress=False,
        **options,
    )


def test_arms_are_compared_on_the_same_faces(faces, test_set, validation, tmp_path, monkeypatch):
    donors = [item for item in faces.ids if faces.table.at[item, "skin"] == "light" and faces.table.at[item, "smile"]]
    options = {
        "arms": ["erm", "oversample", "edits"],
        "balanced": edits_of(faces, donors[:6], "dark"),
        "validation": validation,
        "cache": tmp_path,
    }
    result = compare(faces, test_set, **options)
    assert list(result.predictions) == ["erm", "oversample", "edits"] and result.seeds == [0, 1]
    assert result.training["edits"].num_made == 6 and result.training["oversample"].num_images == 46
    assert result.y_true.tolist() == [int(label) for label in test_set.table["smile"]]
    values = result.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["classifiers"]["edits"]["chosen"]["learning_rate"] == TINY.learning_rate
    assert values["classifiers"]["oversample"]["arm"] == "faces of short cells are repeated"
    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", lambda *a, **k: pytest.fail("fitted again"))
    assert compare(faces, test_set, **options).to_dict() == values


def test_bad_comparisons_fail_before_any_training(faces, test_set, monkeypatch):
    monkeypatch.setattr("vlbias.audit.arms.fitting.fit", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ConfigError, match="nothing to compare with: give the balanced set, or `arms`"):
        audit.compare(faces, target="smile", protected="skin")
    with pytest.raises(UnknownNameError, match="Unknown arm 'ermm'"):
        compare(faces, test_set, arms=["ermm"])
    with pytest.raises(UnknownNameError, match="positive class"):
        compare(faces, test_set, arms=["erm"], positive="grin")
    with pytest.raises(ConfigError, match="Unknown setting 'protocoll'"):
        compare(faces, test_set, arms=["erm"], protocoll="scratch")
    with pytest.raises(DatasetError, match="are also in the test set"):
        compare(faces, in_split(faces, "test"), arms=["erm"])
    one_cell = test_set.select((test_set.table["smile"] == 1) | (test_set.table["skin"] == "dark"))
    with pytest.raises(LabelError, match=r"cell \('0', 'light'\) has no item"):
        compare(faces, one_cell, arms=["erm"])


def test_who_is_dominated(faces, test_set):
    result = compare(faces, test_set, arms=["erm", "oversample", "reweight"], cache=None)
    right, group = result.y_true, result.group
    unfair = np.where(group == 0, right, 1 - right)
    result.predictions.update({"erm": np.stack([unfair] * 2), "oversample": np.stack([right] * 2)})
    result.predictions["reweight"] = np.stack([1 - right] * 2)
    assert result.dominated() == {"erm": ["oversample"], "oversample": [], "reweight": ["oversample"]}
