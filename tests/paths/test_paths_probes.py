"""Probes and pseudo-labels."""

from __future__ import annotations

import json

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from vlbias.errors import CheckpointError, ConfigError, LabelError, ShapeError, UnknownNameError
from vlbias.paths import Dipole, Probes, clip_log_odds, pseudo_labels
from vlbias.paths.readings import otsu_threshold


@pytest.fixture(scope="module")
def probes(z_sem, dipoles):
    labels = {"age": (z_sem[:, 0] > -0.5).float(), "smile": (z_sem[:, 2] > 0).float()}
    return Probes.fit(z_sem, labels, dipoles={"age": dipoles["age"], "smile": dipoles["smile"]})


def test_probes_read_what_they_were_taught(probes, z_sem):
    assert probes.names == ("age", "smile")
    assert min(probes.accuracy.values()) > 0.97
    assert float(((probes.score(z_sem, "age") > 0.5) == (z_sem[:, 0] > -0.5)).float().mean()) > 0.98


def test_same_as_scikit_learn(z_sem):
    labels = (z_sem[:, 0] + torch.randn(400, generator=torch.Generator().manual_seed(0)) > -0.5).float()
    ours = Probes.fit(z_sem, {"a": labels}, penalty=1e-2)
    z = ((z_sem - ours.mean) / ours.std).numpy()
    # mean loss + p |w|^2, each pole weighing half  <=>  C = 1 / (2 p) with weights that sum to 1
    weight = torch.where(labels > 0.5, 0.5 / (labels > 0.5).sum(), 0.5 / (labels < 0.5).sum())
    theirs = LogisticRegression(C=1 / (2 * 1e-2), tol=1e-8, max_iter=1000).fit(z, labels, sample_weight=weight)
    torch.testing.assert_close(ours.weight[0], torch.tensor(theirs.coef_[0]).float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.bias, torch.tensor(theirs.intercept_).float(), atol=1e-3, rtol=0)


def test_missing_labels_are_left_out(z_sem):
    labels = (z_sem[:, 0] > -0.5).float()
    hidden = labels.clone()
    hidden[::2] = float("nan")
    spoiled = labels.clone()
    spoiled[::2] = 1 - spoiled[::2]
    assert Probes.fit(z_sem, {"a": hidden}).accuracy["a"] > 0.95
    assert Probes.fit(z_sem, {"a": spoiled}).accuracy["a"] < 0.8


def test_a_shift_changes_the_readings_as_asked_and_no_others(probes, z_sem):
    change = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    change[:25, 1] = 0
    moved = probes.logits(probes.shift(z_sem[:50], change)) - probes.logits(z_sem[:50])
    torch.testing.assert_close(moved, change, atol=0.05, rtol=0.02)
    assert torch.equal(probes.shift(z_sem, torch.zeros(len(z_sem), 2)), z_sem)
    with pytest.raises(ShapeError, match=r"`change` must be \(400, 2\)"):
        probes.shift(z_sem, change)


def test_folder_round_trip_and_join(probes, z_sem, dipoles, tmp_path):
    probes.save_pretrained(tmp_path)
    again = Probes.from_pretrained(tmp_path)
    assert torch.equal(again.logits(z_sem), probes.logits(z_sem))
    assert (again.names, again.dipoles, again.accuracy) == (probes.names, probes.dipoles, probes.accuracy)
    shifted = z_sem[:200] * 1.5 + 1
    more = Probes.fit(shifted, {"glasses": (shifted[:, 3] > 1).float()}, dipoles={"glasses": dipoles["glasses"]})
    both = probes.join(more)
    assert both.names == ("age", "smile", "glasses")
    torch.testing.assert_close(both.score(z_sem, "glasses"), more.score(z_sem, "glasses"), atol=1e-4, rtol=0)
    torch.testing.assert_close(both.score(z_sem, "smile"), probes.score(z_sem, "smile"))
    change = torch.tensor([[0.0, 0.0, 2.0]]).expand(len(z_sem), 3)
    torch.testing.assert_close(both.shift(z_sem, change), more.shift(z_sem, change[:, 2:]), atol=1e-4, rtol=0)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    (tmp_path / "probes.json").write_text(json.dumps({"kind": "other"}))
    with pytest.raises(CheckpointError, match="does not describe probes"):
        Probes.from_pretrained(tmp_path)
    probes.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "probes.json").read_text())
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    (tmp_path / "probes.json").write_text(json.dumps({**config, "names": ["age", "smile", "beard"]}))
    with pytest.raises(CheckpointError, match=r"probes\.safetensors of probes\.json does not fit"):
        Probes.from_pretrained(tmp_path)


def test_moving_orthogonally_to_a_normal_changes_no_reading(probes, z_sem):
    mean, std = torch.full((8,), 0.3), torch.linspace(1, 2, 8)
    normal = probes.normals(mean, std)[0]
    move = torch.randn(8, generator=torch.Generator().manual_seed(4))
    move -= (move @ normal) / (normal @ normal) * normal
    moved = ((z_sem - mean) / std + move) * std + mean
    torch.testing.assert_close(probes.logits(moved)[:, 0], probes.logits(z_sem)[:, 0], atol=1e-3, rtol=0)


def test_pseudo_labels_split_where_groups_separate():
    generator = torch.Generator().manual_seed(0)
    low, high = torch.randn(300, generator=generator) + 5, torch.randn(100, generator=generator) + 12
    values = torch.cat([low, high])
    assert 7 < otsu_threshold(values) < 10
    labels = pseudo_labels(values[:, None], unsure=0.1)[:, 0]
    assert float(labels.isnan().float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((labels[:300] == 1).float().mean()) < 0.02
    assert not (labels[300:] == 0).any()
    assert not pseudo_labels(values[:, None], unsure=0.0).isnan().any()


def test_clip_log_odds_are_those_of_two_classes(clip, dipoles, images):
    features = clip.encode_image(images[:5])
    got = clip_log_odds(clip, features, dipoles).sigmoid()
    for j, dipole in enumerate(dipoles.values()):
        both = torch.stack([clip.text_embedding(pole) for pole in (dipole.positive, dipole.negative)])
        want = (clip.logit_scale * features @ both.T).softmax(dim=1)[:, 0]
        torch.testing.assert_close(got[:, j], want)


def test_bad_arguments(probes, z_sem):
    with pytest.raises(LabelError, match="Labels of 'a' have one pole only"):
        Probes.fit(z_sem, {"a": torch.ones(400)})
    with pytest.raises(LabelError, match=r"must lie in \[0, 1\] or be NaN; got -1"):
        Probes.fit(z_sem, {"a": torch.linspace(-1, 1, 400)})
    with pytest.raises(ShapeError, match=r"Labels of 'a' must be \(400,\)"):
        Probes.fit(z_sem, {"a": torch.ones(3)})
    with pytest.raises(ShapeError, match="n >= 4"):
        Probes.fit(z_sem[:3], {})
    with pytest.raises(UnknownNameError, match="Unknown probe 'beard'"):
        probes.score(z_sem, "beard")
    with pytest.raises(ShapeError, match=r"`z_sem` must be \(b, 8\)"):
        probes.logits(z_sem[:, :5])
    with pytest.raises(ConfigError, match="codes of 8 and of 5 numbers"):
        probes.join(Probes.fit(z_sem[:, :5], {"a": (z_sem[:, 0] > 0).float()}))
    assert Dipole("a", "b") != Dipole("b", "a")
