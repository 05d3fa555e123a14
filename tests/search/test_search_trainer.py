from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from vlbias.errors import CheckpointError, ConfigError, LabelError, TrainingError, UnknownNameError
from vlbias.search.evaluation import Evaluation
from vlbias.search.metrics import identification_ranks
from vlbias.search.spaces import Configuration, laptop_space, space
from vlbias.search.task import make_task
from vlbias.search.trainer import Trainer, TrainSettings, embed

CELL = Configuration("dpn-cell", "cosface", "adamw", 3e-3, cell=(1, 0, 1))


def _trainer(task, small_space, configuration=CELL, seed=(0, 1)):
    settings = TrainSettings(batch_size=16, device="cpu")
    return Trainer(task, configuration, small_space, max_epochs=4, warmup_epochs=1, seed=seed, settings=settings)


def test_splits_never_share_a_person(tiny):
    task = make_task(tiny, protected="gender", image_size=16)
    people = task.table.groupby("split")["person"].agg(set)
    assert not people["train"] & people["test"] and not people["val"] & people["test"]
    assert len(task.classes) == len(people["train"]) and task.groups == ("female", "male")
    assert task.train.images.shape == (len(task.train), 3, 16, 16) and task.train.images.dtype == torch.uint8
    assert (task.train.labels >= 0).all() and (task.val.labels == -1).all()


def test_splits_by_image_are_dealt_again_by_person(make_tiny, tiny):
    table = tiny.table.assign(split=np.resize(["train", "val", "test"], len(tiny)))
    task = make_task(make_tiny(table), protected="gender", image_size=16)
    assert (task.table.groupby("person")["split"].nunique() == 1).all()
    assert make_task(make_tiny(table), protected="gender", image_size=16).table.equals(task.table)


def test_training_learns_and_continues_exactly(tiny, small_space, tmp_path):
    task = make_task(tiny, protected="gender", image_size=16)
    whole = _trainer(task, small_space)
    losses = []
    whole.advance(3, on_epoch=lambda trainer, loss: losses.append(loss))
    assert losses[-1] < losses[0]
    first = _trainer(task, small_space)
    first.advance(1)
    first.save(tmp_path / "a.pt")
    second = _trainer(task, small_space)
    second.load(tmp_path / "a.pt")
    assert second.epoch == 1
    second.advance(3)
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert whole.evaluate("val").objectives() == second.evaluate("val").objectives()


def test_embeddings_ignore_mirroring_and_batch_size(tiny, small_space):
    task = make_task(tiny, protected="gender", image_size=16)
    model = _trainer(task, small_space).model
    images = task.val.images
    z = embed(model, images)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(len(z)))
    torch.testing.assert_close(embed(model, images.flip(3), batch_size=3), z, rtol=1e-4, atol=1e-5)


def test_classification_goes_the_same_way(tiny, small_space):
    task = make_task(tiny, protected="gender", task="classify", target="smile", image_size=16)
    trainer = _trainer(task, small_space, dataclasses.replace(CELL, head="softmax", learning_rate=1e-2))
    trainer.advance(4)
    evaluation = trainer.evaluate("val")
    assert set(evaluation.objectives()) == set(task.objectives)
    assert evaluation.objectives()["error"] < 0.4 and not evaluation.is_collapsed


def test_objectives_of_a_classifier_equal_scikit_learn_and_hand_counts():
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(0, 3, 300), generator.integers(0, 3, 300)
    predicted[:150] = true[:150]
    groups = generator.integers(0, 2, 300)
    evaluation = Evaluation("classify", ("a", "b"), groups, np.arange(300), np.stack([true, predicted]), 3, 3.0)
    values = evaluation.objectives()
    f1 = [f1_score(true[groups == g], predicted[groups == g], average="macro") for g in (0, 1)]
    assert values["f1_gap"] == pytest.approx(abs(f1[0] - f1[1]))
    assert values["f1_error"] == pytest.approx(1 - f1_score(true, predicted, average="macro"))
    rate = [[np.mean(predicted[groups == g] == c) for g in (0, 1)] for c in range(3)]
    assert values["demographic_parity_gap"] == pytest.approx(np.mean([abs(a - b) for a, b in rate]))
    assert values["demographic_parity_ratio_gap"] == pytest.approx(1 - np.mean([min(r) / max(r) for r in rate]))
    tpr = [[np.mean(predicted[(groups == g) & (true == c)] == c) for g in (0, 1)] for c in range(3)]
    fpr = [[np.mean(predicted[(groups == g) & (true != c)] == c) for g in (0, 1)] for c in range(3)]
    odds = [max(abs(t[0] - t[1]), abs(f[0] - f[1])) for t, f in zip(tpr, fpr, strict=True)]
    assert values["equalized_odds_gap"] == pytest.approx(np.mean(odds))
    assert evaluation.table()["error"].to_numpy() == pytest.approx(
        [np.mean(predicted[groups == g] != true[groups == g]) for g in (0, 1)]
    )


def test_rates_without_each_person_are_those_of_the_others():
    generator = np.random.default_rng(1)
    persons, groups = np.repeat(np.arange(8), 5), np.repeat(np.arange(8) % 2, 5)
    z = generator.normal(size=(8, 3))[persons] + 0.8 * generator.normal(size=(40, 3))

    def evaluation(rows):
        ranks = identification_ranks(z[rows], persons[rows], groups[rows])
        outcome = np.stack([ranks.by_id, ranks.by_image])
        return Evaluation("identify", ("a", "b"), groups[rows], persons[rows], outcome, 0, 1.0, ranks.impostors)

    whole = evaluation(np.arange(40))
    without = whole.rates_without_each()
    for person in range(8):
        np.testing.assert_allclose(without[person], evaluation(np.flatnonzero(persons != person)).rates)
    table = whole.table()
    assert whole.objectives()["rank_gap"] == pytest.approx(np.ptp(table["rank_by_id"]))
    assert whole.objectives()["worst_error"] == pytest.approx(table["error"].max())
    true, predicted = generator.integers(0, 2, (2, 40))
    classified = Evaluation("classify", ("a", "b"), groups, persons, np.stack([true, predicted]), 2, 2.0)
    rest = persons != 3
    others = Evaluation("classify", ("a", "b"), groups[rest], persons[rest], np.stack([true, predicted])[:, rest], 2, 2)
    np.testing.assert_allclose(classified.rates_without_each()[3], others.rates)


def test_edits_enter_training_only_and_keep_the_number_of_steps(make_tiny, tiny, small_space):
    edits = make_tiny(
        tiny.table.assign(origin="edited", source_id=tiny.table.index).rename(index=lambda name: "edit_" + name[6:])
    )
    task = make_task(tiny, protected="gender", image_size=16, edits=edits, balance_gallery=False)
    assert (
        task.has_edits and len(task.edited) == len(task.train) and len(task.val) == (tiny.table["split"] == "val").sum()
    )
    trainer = _trainer(task, small_space, dataclasses.replace(CELL, augmentation=0.25))
    order, from_edits = trainer._draw(np.random.default_rng(0))
    assert from_edits.sum() == round(0.25 * len(task.train)) and len(order) == len(task.train)
    trainer.advance(1)
    plain = make_task(tiny, protected="gender", image_size=16)
    with pytest.raises(ConfigError, match="no edited images"):
        _trainer(plain, small_space, dataclasses.replace(CELL, augmentation=0.25))


def test_divergence_is_an_error(tiny, small_space):
    task = make_task(tiny, protected="gender", image_size=16)
    with pytest.raises(TrainingError, match="not finite|loss is nan"):
        trainer = _trainer(task, small_space, dataclasses.replace(CELL, optimizer="sgd", learning_rate=1e30))
        trainer.advance(3)
        trainer.evaluate("val")


def test_a_damaged_checkpoint_is_an_error(tiny, small_space, tmp_path):
    trainer = _trainer(make_task(tiny, protected="gender", image_size=16), small_space)
    (tmp_path / "x.pt").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"y\.pt does not exist; it should continue dpn-cell"):
        trainer.load(tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt is damaged .*Delete it"):
        trainer.load(tmp_path / "x.pt")


def test_a_collapsed_model_is_recognised():
    ranks = np.zeros((2, 4))
    same = Evaluation("identify", ("a", "b"), np.array([0, 0, 1, 1]), np.arange(4), ranks, diversity=0.0)
    assert same.is_collapsed and not dataclasses.replace(same, diversity=0.1).is_collapsed
    assert dataclasses.replace(same, diversity=float("nan")).is_collapsed
    outcome = np.array([[0, 1, 0, 1], [0, 0, 0, 0]])
    assert Evaluation("classify", ("a", "b"), same.groups, same.persons, outcome, 2, diversity=1.0).is_collapsed


def test_bad_datasets(make_tiny, tiny):
    def build(table, **options):
        return make_task(make_tiny(table), image_size=16, **{"protected": "gender", **options})

    table = tiny.table
    with pytest.raises(LabelError, match="`gender` is missing for 1 of 96"):
        build(table.assign(gender=[None, *table["gender"][1:]]))
    with pytest.raises(LabelError, match="single value"):
        build(table.assign(gender="male"))
    alone = table["gender"].where(np.arange(len(table)) != len(table) - 1, "other")
    with pytest.raises(LabelError, match="'other' of `gender`"):
        build(table.assign(gender=alone))
    with pytest.raises(LabelError, match="no person with two images"):
        build(table.assign(identity=np.arange(len(table))))
    with pytest.raises(LabelError, match="'val' has no images"):
        build(table[table["split"] != "val"])
    with pytest.raises(UnknownNameError, match="Did you mean 'gender'"):
        build(table, protected="gendre")
    with pytest.raises(UnknownNameError, match="Unknown task"):
        build(table, task="identification")
    with pytest.raises(ConfigError, match="`target`"):
        build(table, task="classify")


def test_spaces():
    chosen = space(["resnet18", "dpn-cell"], ["magface"], ["sgd", "adam"], augmentation=(0, 0.5))
    assert chosen.learning_rates["sgd"] == (0.09, 0.8, 0.1) and chosen.needs_edits
    assert chosen.default_parameters() == {
        "backbone": "resnet18", "optimizer": "sgd", "head": "magface", "learning_rate_sgd": 0.1, "augmentation": 0.0,
    }  # fmt: skip
    assert set(laptop_space().backbones) >= {"dpn-cell"}
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet18'"):
        space(["resnet-18"])
    with pytest.raises(UnknownNameError, match="head"):
        space(heads=["cosine"])
    with pytest.raises(UnknownNameError, match="optimizer"):
        space(optimizers=["lion"])
    with pytest.raises(ConfigError, match="augmentation"):
        space(augmentation=(0.5, 0.2))
    with pytest.raises(ConfigError, match="low <= default"):
        space(learning_rates={"sgd": (1.0, 0.1)})
    with pytest.raises(ConfigError, match="`cell` belongs"):
        Configuration("resnet18", "cosface", "sgd", 0.1, cell=(1, 0, 1))
    assert Configuration.from_dict(CELL.to_dict()) == CELL
    assert CELL.label() == "dpn-cell(1,0,1) cosface adamw 0.003"
