"""Which trial is taken, how often one may look, and what a study keeps."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from vlbias import search
from vlbias.errors import CheckpointError, ConfigError, UnknownNameError
from vlbias.search.evaluation import Evaluation
from vlbias.search.ledger import Ledger, level_of_look
from vlbias.search.reliability import choose, reliabilities, reliability
from vlbias.search.spaces import Configuration
from vlbias.search.storage import Storage
from vlbias.search.trainer import Embedder

sys.path.insert(0, str(Path(__file__).parent))
from search_worker import Curve, start, table_study


def test_reliability_of_signal_and_of_noise():
    generator = np.random.default_rng(0)
    truth, error = generator.normal(size=400), generator.normal(size=400)
    halves = truth + generator.normal(size=(2, 400))
    assert reliability(*halves) == pytest.approx(2 / 3, abs=0.08)  # r = 1/2 in a half, 2 r / (1 + r) in all
    assert reliability(*generator.normal(size=(2, 400))) < 0.2
    # Bad networks have large gaps: what the error says already is no signal of the gap.
    by_error = 3 * error + generator.normal(size=(2, 400))
    assert reliability(*by_error) > 0.9 and reliability(*by_error, error) < 0.2
    assert np.isnan(reliability(*halves[:, :5])) and reliability(np.zeros(9), np.ones(9)) == 0


def test_advice_on_sample_size():
    generator = np.random.default_rng(1)
    truth, error = generator.normal(size=(2, 4000))
    values = {"error": error}
    for half in (1, 2):
        values[f"error@{half}"] = error + 0.1 * generator.normal(size=4000)
        values[f"rank_gap@{half}"] = truth + generator.normal(size=4000)
        values[f"error_gap@{half}"] = generator.normal(size=4000)
    found = reliabilities(pd.DataFrame(values), ("error", "rank_gap", "error_gap", "rank"), 50)
    assert "tells these trials apart" in found.loc["error", "advice"] and found.loc["error", "people_needed"] == 50
    # Spearman-Brown: from 2/3 to .8 takes .8 (1/3) / ((2/3) .2) = twice the people.
    assert found.loc["rank_gap", "people_needed"] == pytest.approx(100, rel=0.2)
    assert "no signal" in found.loc["error_gap", "advice"] and "not known yet" in found.loc["rank", "advice"]


def test_the_choice_follows_the_signal():
    error, gap = np.array([0.2, 0.3, 0.5, 0.6]), np.array([0.5, 0.13, 0.4, 0.1])
    assert choose(error, gap, 0.0) == choose(error, gap, float("nan")) == 0, "no signal: the lowest error"
    assert choose(error, gap, 1.0) == 3, "no noise: the smallest gap"
    assert choose(error, gap, 0.9) == 1, "nearly the smallest gap, at half the error"


def test_halves_are_the_same_people_for_every_model():
    persons = np.repeat(np.arange(12), 2)
    missed = (persons < 6).astype(float)
    one = Evaluation("identify", ("a", "b"), persons % 2, persons, np.stack([missed, missed]))
    first, second = one.halves()
    assert (first["error"] + second["error"]) / 2 == pytest.approx(one.objectives()["error"])
    other = dataclasses.replace(one, outcome=one.outcome[::-1]).halves()
    assert other[0]["error"] == first["error"]


def test_best_is_not_the_luckiest_gap(tmp_path):
    """Gaps are pure chance; the smallest belongs to the worst network that is allowed."""

    class Lucky(Curve):
        def advance(self, budget):
            values = {"error": 0.2 + 0.05 * self.number, "rank_gap": 0.5 - 0.03 * self.number, "collapsed": 0.0}
            luck = float(np.random.default_rng(self.number).normal())
            return values | {"rank_gap@1": luck, "rank_gap@2": -luck, "error@1": 0.1, "error@2": 0.1}

    study = table_study(tmp_path, 12, runner=Lucky)
    best = study.best(0.9)
    assert best.number == 0 and "no signal" in best.why
    assert not any("@" in column for column in study.table().columns)
    assert np.isnan(study.reliability().loc["rank_gap", "people"])


def test_a_search_knows_its_reliability_and_counts_looks(tmp_path):
    study = start(tmp_path / "study.log", 6, eta=None, fidelity=("epochs", 1, 1))
    found = study.reliability()
    assert found.loc["rank_gap", "trials"] == 6 and found.loc["rank_gap", "people"] == 4
    assert found["reliability"].between(0, 1).all()
    options = {"num_resamples": 50, "show_progress": False}
    first, again = study.front(refit=0, **options), study.front(refit=0, **options)
    assert first.look == again.look == 1 and first.claim_level == pytest.approx(0.975)
    second = study.front(refit=2, **options)
    assert second.look == 2 and second.claim_level == pytest.approx(0.9875) and "look 2" in second.verdict()
    assert [look["refits"] for look in study.looks] == [0, 2]
    assert study.front(refit=0, split="val", **options).look == 0 and len(study.looks) == 2
    assert search.open_study(tmp_path / "study.log").looks == study.looks


def test_all_looks_together_hold_the_level(tmp_path):
    assert sum(1 - level_of_look(0.95, look) for look in range(1, 40)) <= 0.05
    ledger = Ledger(None)
    assert [ledger.enter(each, 2) for each in ([3, 1], [1, 3], [2], [3, 1])] == [1, 1, 2, 1]
    (tmp_path / "looks.json").write_text('{"a": 1}')
    with pytest.raises(CheckpointError, match="looks.json is not a ledger"):
        Ledger(tmp_path).enter([1], 2)


def test_a_database_file_keeps_its_checkpoints_beside_it(tmp_path):
    study = start(f"sqlite:///{tmp_path / 'study.db'}", 1, fidelity=("epochs", 1, 1))
    assert study.folder == tmp_path / "study.db.files" and study.best().checkpoint.is_file()
    assert Storage("sqlite:///:memory:").folder is None


def test_magface_sees_lengths_in_its_range(small_space):
    chosen = dataclasses.replace(small_space, embedding_size=64)
    lengths = {}
    for head in ("magface", "arcface"):
        torch.manual_seed(0)
        model = Embedder(Configuration("dpn-cell", head, "adamw", 1e-3, (1, 0, 1)), chosen, 16).train()
        lengths[head] = model(torch.randn(64, 3, 16, 16)).norm(dim=1)
    assert lengths["arcface"].max() < 16 and lengths["arcface"].median() < 10
    assert lengths["magface"].quantile(0.05) > 10 and lengths["magface"].max() < 110


def test_trials_are_compared_after_the_warm_up(tmp_path):
    study = start(tmp_path / "study.log", 1, eta=3.0, fidelity=("epochs", 1, 4))
    assert study._recipe.warmup_epochs == 0.5 and study.settings.rungs == (1, 3, 4)


def test_rungs_of_ones_own(tmp_path):
    study = start(tmp_path / "study.log", 1, eta=3.0, rungs=(1, 2))
    assert study.settings.rungs == (1, 2) and study.table()["epochs"].tolist() == [2]
    with pytest.raises(ConfigError, match="must ascend"):
        search.SearchSettings(rungs=(3, 1))


def test_weights_that_a_backbone_starts_from(tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weights = timm.create_model("resnet10t").state_dict()
    file = tmp_path / "weights.safetensors"
    save_file(weights, file)
    chosen = search.space(["resnet10t"], ["cosface"], ["adamw"], pretrained={"resnet10t": str(file)})
    model = Embedder(Configuration("resnet10t", "cosface", "adamw", 1e-3), chosen, 32)
    torch.testing.assert_close(model.backbone.state_dict()["conv1.0.weight"], weights["conv1.0.weight"])
    with pytest.raises(UnknownNameError, match="pretrained backbone"):
        search.space(["resnet10t"], pretrained={"resnet18": str(file)})


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "coat_lite_tiny", "convit_tiny", "tnt_s_patch16_224"],
)
def test_transformers_are_backbones(name):
    torch.manual_seed(0)
    chosen = search.space([name], ["cosface"], ["adamw"], embedding_size=8)
    model = Embedder(Configuration(name, "cosface", "adamw", 1e-3), chosen, 64).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 8)
