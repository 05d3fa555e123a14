"""Trainings that mitigate bias do what they say, on drawn pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlbias.errors import ConfigError, UnknownNameError
from vlbias.search.baselines import BASELINES, baseline_names, baseline_number
from vlbias.search.export import load_model
from vlbias.search.heads import make_head
from vlbias.search.mitigations import MITIGATIONS, make_mitigation
from vlbias.search.spaces import Configuration, laptop_space
from vlbias.search.study import run
from vlbias.search.task import make_task
from vlbias.search.trainer import Trainer, TrainSettings, embed

PLAIN = Configuration("dpn-cell", "cosface", "adamw", 3e-3, cell=(1, 0, 1))
LABELS, GROUPS = np.repeat(np.arange(6), 4), np.repeat([0, 1], 12)


def _alone(values):
    return values


def _made(name, size=8):
    torch.manual_seed(0)
    return make_mitigation(name, size, labels=LABELS, groups=GROUPS, num_groups=2)


class _Shaded:
    """The tiny people, with one gender's pictures brighter: a group that is easy to read."""

    name = "shaded"

    def __init__(self, tiny):
        self.inner, self.table = tiny, tiny.table

    def path(self, item):
        return None

    def tensor(self, ids, size):
        shade = torch.tensor((self.table.loc[ids, "gender"] == "female").to_numpy())
        return (0.6 * self.inner.tensor(ids, size) + 0.3 * shade[:, None, None, None]).clamp(-1, 1)


@pytest.fixture
def shaded(tiny):
    return make_task(_Shaded(tiny), protected="gender", image_size=16)


def _trained(task, small_space, mitigation, epochs):
    configuration = dataclasses.replace(PLAIN, mitigation=mitigation)
    settings = TrainSettings(batch_size=16, device="cpu")
    trainer = Trainer(
        task, configuration, small_space, max_epochs=epochs, warmup_epochs=1, seed=(0, 1), settings=settings
    )
    trainer.advance(epochs)
    return trainer


def _readable(trainer):
    """Loss of a fresh probe that reads the group from embeddings of people it has not seen."""
    found = {
        part: (embed(trainer.model, sample.images).numpy(), sample.groups)
        for part, sample in (("fit", trainer.task.train), ("ask", trainer.task.val))
    }
    probe = LogisticRegression(max_iter=1000).fit(*found["fit"])
    z, groups = found["ask"]
    return float(-np.log(probe.predict_proba(z)[np.arange(len(z)), groups]).mean())


def test_a_group_is_harder_to_read_from_what_was_trained_against_a_reader(make_tiny, small_space):
    identity = np.repeat(np.arange(60), 4)
    table = pd.DataFrame(
        {
            "split": np.select([identity % 5 < 3, identity % 5 == 3], ["train", "val"], "test"),
            "identity": identity,
            "gender": np.where(identity % 2, "female", "male"),
        },
        index=[f"image_{i}" for i in range(len(identity))],
    )
    task = make_task(_Shaded(make_tiny(table)), protected="gender", image_size=16)
    loss = {name: _readable(_trained(task, small_space, name, 40)) for name in ("none", "discriminator")}
    assert loss["discriminator"] > 1.5 * loss["none"]


def test_a_group_is_harder_to_read_behind_what_removes_it(shaded, small_space):
    loss = {name: _readable(_trained(shaded, small_space, name, 10)) for name in ("none", "sensitivenets")}
    assert loss["sensitivenets"] > 1.5 * loss["none"]


def test_the_reversed_gradient_teaches_the_reader_and_misleads_the_embedding():
    mitigation = _made("discriminator")
    head = make_head("cosface", 8, 6)
    z = torch.randn(24, 8, requires_grad=True)
    groups, labels = torch.from_numpy(GROUPS), torch.from_numpy(LABELS)
    for parameter in head.parameters():
        parameter.requires_grad_(False)
    loss = mitigation(head, z, labels, groups, 1.0) - head(z, labels)
    (of_embedding,) = torch.autograd.grad(loss, z, retain_graph=True)
    of_reader = torch.autograd.grad(loss, list(mitigation.reader.parameters()))
    features = torch.nn.functional.normalize(z)
    plain = torch.nn.functional.cross_entropy(mitigation.reader(features), groups)
    (expected,) = torch.autograd.grad(plain, z, retain_graph=True)
    torch.testing.assert_close(of_embedding, -(2 / (1 + np.exp(-10.0)) - 1) * expected, atol=1e-6, rtol=1e-4)
    for mine, theirs in zip(of_reader, torch.autograd.grad(plain, list(mitigation.reader.parameters())), strict=True):
        torch.testing.assert_close(mine, theirs)
    # At the beginning nothing is hidden.
    (early,) = torch.autograd.grad(mitigation(head, z, labels, groups, 0.0) - head(z, labels), z)
    torch.testing.assert_close(early, torch.zeros_like(early), atol=1e-6, rtol=0)


def test_sensitivenets_wants_every_embedding_to_look_like_the_largest_group():
    mitigation = make_mitigation("sensitivenets", 8, labels=LABELS, groups=np.repeat([0, 1], [8, 16]), num_groups=2)
    head = make_head("cosface", 8, 6)
    z, labels, groups = torch.randn(24, 8), torch.from_numpy(LABELS), torch.from_numpy(GROUPS)
    p = mitigation.reader(torch.nn.functional.normalize(z)).softmax(1)[:, 1]
    early, late = (mitigation(head, z, labels, groups, share) for share in (0.04, 0.05))
    torch.testing.assert_close(late - early, torch.log(1 + (0.9 - p).abs()).mean())
    # The reader does not learn from that part: its gradient is that of reading alone.
    grads = [torch.autograd.grad(loss, list(mitigation.reader.parameters())) for loss in (early, late)]
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)
    assert mitigation.rate("sgd", 0.1) == pytest.approx(0.1) and mitigation.rate("adamw", 0.01) == pytest.approx(0.1)


def test_flipped_labels_are_other_people_of_the_group_ahead():
    mitigation = _made("flipped")
    generator = np.random.default_rng(0)
    assert mitigation.changed_labels(LABELS, GROUPS, generator) is LABELS  # nobody is ahead yet
    mitigation.lead.copy_(torch.tensor([1.0, 2.0]))
    for _ in range(20):
        changed = mitigation.changed_labels(LABELS, GROUPS, generator)
        wrong = np.flatnonzero(changed != LABELS)
        assert len(wrong) == 3 and (GROUPS[wrong] == 1).all()  # int(.3 * 12)
        assert np.isin(changed[wrong], [3, 4, 5]).all()
    np.testing.assert_array_equal(LABELS, np.repeat(np.arange(6), 4))


def test_who_is_ahead_is_by_how_far_the_own_class_leads():
    mitigation = _made("flipped", size=6)
    head = make_head("softmax", 6, 6)
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(6))
        head.linear.bias.zero_()
    z = torch.eye(6)[LABELS] * torch.from_numpy(np.where(GROUPS == 1, 3.0, 1.0)[:, None]).float()
    mitigation(head, z, torch.from_numpy(LABELS), torch.from_numpy(GROUPS), 0.0)
    mitigation.end_epoch(_alone)
    torch.testing.assert_close(mitigation.lead, torch.tensor([1.0, 3.0]))


def test_margins_grow_for_who_is_behind_and_go_back_for_who_is_ahead():
    mitigation = _made("angular")
    for lead, extra in (((1.0, 2.0), (0.02, 0.0)), ((1.0, 2.0), (0.04, 0.0)), ((3.0, 2.0), (0.02, 0.02))):
        mitigation._sums = torch.tensor([[lead[0], 1.0], [lead[1], 1.0]])
        mitigation.end_epoch(_alone)
        torch.testing.assert_close(mitigation.extra, torch.tensor(extra))
    for _ in range(30):
        mitigation._sums = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
        mitigation.end_epoch(_alone)
    torch.testing.assert_close(mitigation.extra, torch.tensor([0.2, 0.0]))


@pytest.mark.parametrize("name", ["arcface", "cosface", "magface"])
def test_an_extra_margin_is_that_of_a_head_with_a_larger_one(name):
    torch.manual_seed(0)
    head = make_head(name, 8, 6)
    z, labels = 20 * torch.nn.functional.normalize(torch.randn(24, 8)), torch.from_numpy(LABELS)
    plain, _ = head.margin_logits(z, labels)
    same, _ = head.margin_logits(z, labels, torch.zeros(24))
    torch.testing.assert_close(same, plain, atol=1e-3, rtol=1e-4)
    more, _ = head.margin_logits(z, labels, torch.full((24,), 0.1))
    if name == "magface":
        assert (more.gather(1, labels[:, None]) < plain.gather(1, labels[:, None])).all()
    else:
        larger = make_head(name, 8, 6, margin={"arcface": 0.5, "cosface": 0.35}[name] + 0.1)
        larger.load_state_dict(head.state_dict())
        torch.testing.assert_close(more, larger.margin_logits(z, labels)[0], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in MITIGATIONS if name != "none"])
def test_a_mitigated_training_goes_on_exactly_and_its_model_is_saved(shaded, small_space, tmp_path, name):
    whole = _trained(shaded, small_space, name, epochs=3)
    settings = TrainSettings(batch_size=16, device="cpu")
    arguments = (shaded, dataclasses.replace(PLAIN, mitigation=name), small_space)
    parts = [Trainer(*arguments, max_epochs=3, warmup_epochs=1, seed=(0, 1), settings=settings) for _ in range(2)]
    parts[0].advance(2)
    parts[0].save(tmp_path / "a.pt")
    parts[1].load(tmp_path / "a.pt")
    parts[1].advance(3)
    for a, b in zip(whole.model.state_dict().values(), parts[1].model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_search_over_mitigations_and_a_mitigated_baseline(tiny, small_space, tmp_path):
    chosen = dataclasses.replace(small_space, mitigations=("sensitivenets", "none"))
    training = TrainSettings(batch_size=16, device="cpu")
    study = run(
        tiny, protected="gender", space=chosen, storage=str(tmp_path / "s.log"), image_size=16, n_trials=2,
        fidelity=("epochs", 1, 1), max_error=1.0, sampler="random", training=training, show_progress=False,
    )  # fmt: skip
    assert study.table()["mitigation"].iloc[0] == "sensitivenets"
    best = next(one for one in study.candidates() if one.configuration.mitigation == "sensitivenets")
    model = load_model(study.save(best, tmp_path / "best"))
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 16)


def test_baselines_with_a_mitigation_stand_behind_those_without():
    assert baseline_names(["resnet50-cosface-sgd-angular"]) == ["resnet50-cosface-sgd-angular"]
    assert BASELINES["dpn-magface-adamw-flipped"].mitigation == "flipped"
    assert baseline_number("resnet50-cosface-sgd") == 1_000_000
    assert baseline_number("resnet50-cosface-sgd-flipped") == 1_000_000 + 30


def test_what_is_no_mitigation_is_refused():
    with pytest.raises(UnknownNameError, match=r"Unknown mitigation 'flip'.*flipped"):
        dataclasses.replace(PLAIN, mitigation="flip")
    with pytest.raises(UnknownNameError, match="Unknown mitigation 'flip'"):
        dataclasses.replace(laptop_space(), mitigations=("flip",))
    with pytest.raises(ConfigError, match="'softmax' has none"):
        dataclasses.replace(PLAIN, head="softmax", mitigation="angular")
    with pytest.raises(ConfigError, match="Leave one of them out"):
        dataclasses.replace(laptop_space(), heads=("softmax",), mitigations=("none", "angular"))
    assert "mitigation" not in PLAIN.to_dict() and "mitigations" not in laptop_space().to_dict()
