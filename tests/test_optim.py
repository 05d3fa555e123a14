"""What all training loops share: the rate's course, averaged weights, denormal numbers, the state to go on from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from vlbias.errors import CheckpointError, ConfigError, TrainingError
from vlbias.optim import (
    TrainingState,
    WeightAverage,
    device_of,
    fits_beside,
    flush_denormals,
    held_for,
    is_flushing,
    set_learning_rate,
)


def rate_of(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_the_rate_warms_up_and_falls_along_a_cosine():
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "rate": 0.5}], lr=9.0)
    for share, warmup, floor, expected in [
        (0.0, 0.25, 0.0, 0.5),
        (0.0, 1.0, 0.0, 2.0),
        (0.5, 7.0, 0.0, 1.0),
        (1.0, 1.0, 0.0, 0.0),
        (1.5, 1.0, 0.1, 0.2),
        (1 / 3, 1.0, 0.0, 1.5),
    ]:
        set_learning_rate(optimizer, 2.0, share, warmup=warmup, floor=floor)
        assert rate_of(optimizer) == pytest.approx([expected, expected / 2])


def test_the_average_against_a_plain_loop():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = WeightAverage(net, 0.6)
    weight, mean = net[0].weight.detach().clone(), net[1].running_mean.clone()
    for n in range(1, 20):
        with torch.no_grad():
            net[0].weight.add_(torch.randn(3, 2))
        net(torch.randn(4, 2))
        decay = min(0.6, n / (n + 9))
        weight = decay * weight + (1 - decay) * net[0].weight.detach()
        mean = decay * mean + (1 - decay) * net[1].running_mean
        average.update()
    torch.testing.assert_close(average.module[0].weight, weight)
    torch.testing.assert_close(average.module[1].running_mean, mean)
    assert not average.module.training and not any(p.requires_grad for p in average.module.parameters())


def test_denormals_are_flushed_within_the_block_alone():
    small = torch.tensor(1e-40)
    assert not is_flushing() and small * 1 > 0
    with pytest.raises(KeyError), flush_denormals():
        assert is_flushing() and small * 1 == 0
        with flush_denormals():
            pass
        assert is_flushing()
        raise KeyError
    assert not is_flushing() and small * 1 > 0


def run(path, steps, *, rate=0.1, fail_at=None):
    """A few steps of Adam on a line; saves after each."""
    torch.manual_seed(1)
    net = nn.Linear(2, 1)
    optimizer, average = torch.optim.Adam(net.parameters(), rate), WeightAverage(net, 0.9)
    state = TrainingState(path, {"rate": rate, "shape": (2, 1)}, {"net": net, "optimizer": optimizer, "ema": average})
    counters = state.load() or {"step": 0}
    for step in range(counters["step"], steps):
        if step == fail_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (net(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        average.update()
        state.save(step=step + 1, note="ä")
    return torch.cat([net.weight.flatten(), average.module.weight.flatten()]).detach()


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    whole = run(None, 10)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", 10, fail_at=4)
    assert torch.equal(run(tmp_path / "state", 10), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_the_state_of_another_run_is_refused_by_name(tmp_path):
    run(tmp_path / "state", 1)
    with pytest.raises(TrainingError, match=r"state is the state of another run: rate differ\..*Delete it"):
        run(tmp_path / "state", 2, rate=0.2)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None, "half"])
def test_a_damaged_state_is_named(tmp_path, damage):
    path = tmp_path / "state"
    run(path, 1)
    if damage is None:
        torch.save({"format": "vlbias-training-1"}, path)
    else:
        path.write_bytes(path.read_bytes()[:900] if damage == "half" else damage)
    with pytest.raises(CheckpointError, match=r"state is damaged \(.*Delete it to start anew"):
        run(path, 2)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="state is not the state of a training run"):
        run(path, 2)


@pytest.mark.parametrize("counters", [{}, {"step": "3", "seconds": 1.0}, {"step": 3, "seconds": None}, {"step": 3}])
def test_damaged_counters_of_a_state_are_named(counters, tmp_path):
    state = TrainingState(tmp_path / "state", {}, {})
    state.save(**counters)
    with pytest.raises(CheckpointError, match=r"state is damaged \(.*Delete it to start anew"):
        state.load(step=int, seconds=float)
    state.save(step=3, seconds=1)
    assert state.load(step=int, seconds=float) == {"step": 3, "seconds": 1}


def test_states_are_saved_when_due(tmp_path, monkeypatch):
    state = TrainingState(tmp_path / "state", {}, {})
    state.save_when_due(step=1)
    assert not (tmp_path / "state").exists()
    monkeypatch.setattr("vlbias.optim.SAVE_INTERVAL_S", -math.inf)
    state.save_when_due(step=2)
    assert state.load() == {"step": 2}


def test_devices_that_there_are():
    assert device_of("cpu") == device_of(torch.device("cpu")) and device_of(None).type in ("cpu", "cuda")
    for wrong in ("nosuch", 3.5, "cuda:x"):
        with pytest.raises(ConfigError, match="`device` must be 'cpu', 'cuda'"):
            device_of(wrong)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no graphics card"):
            device_of("cuda")


def test_pictures_are_held_on_a_card_that_has_room():
    assert fits_beside(num_bytes=25, free_bytes=100) and not fits_beside(num_bytes=26, free_bytes=100)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert held_for(images, "cpu") is images
