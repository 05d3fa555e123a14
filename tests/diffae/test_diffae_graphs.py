"""When evaluations are replayed, tried on the processor with a capture that only remembers the network."""

import copy

import pytest
import torch
from torch import nn

from vlbias.diffae import graphs
from vlbias.diffae.graphs import PATIENCE, evaluated, is_worth_it, plain_evaluations


@pytest.mark.parametrize(
    ("device", "batch", "wanted"),
    [("cuda", 1, True), ("cuda:2", 8, True), ("cuda", 9, False), ("cuda", 0, False), ("cpu", 1, False)],
)
def test_only_small_batches_on_a_card(device, batch, wanted):
    assert is_worth_it(torch.device(device), batch) is wanted


@pytest.fixture
def captured(monkeypatch):
    """Everything is worth it; batches that were captured."""
    sizes = []

    def capture(network, inputs):
        sizes.append(len(inputs[0]))
        return lambda *given: network(*given) if network[0].weight.sum() < 100 else network(*given) + 1

    monkeypatch.setattr(graphs, "is_worth_it", lambda device, batch: True)
    monkeypatch.setattr(graphs, "_capture", capture)
    return sizes


def network(fill=1.0):
    out = nn.Sequential(nn.Linear(3, 3)).requires_grad_(False).eval()
    nn.init.constant_(out[0].weight, fill)
    return out


def test_a_kind_that_repeats_is_captured_once(captured):
    net, x = network(), torch.randn(2, 3)
    wanted = net(x)
    for count in range(2 * PATIENCE):
        assert len(captured) == (count >= PATIENCE)
        torch.testing.assert_close(evaluated(net, x), wanted)
    for _ in range(PATIENCE):
        evaluated(net, x[:1])
    assert captured == [2, 1]
    with plain_evaluations():
        for size in range(3, 3 + PATIENCE):
            evaluated(net, torch.randn(size, 3))
    net.double()  # weights that lie elsewhere are captured anew
    for _ in range(PATIENCE):
        evaluated(net, x.double())
    assert captured == [2, 1, 2]
    copied = copy.deepcopy(net)
    assert evaluated(copied, x.double()).dtype == torch.float64
    assert captured == [2, 1, 2]


def test_few_kinds_are_kept_the_last_used(captured):
    net = network()
    for size in (1, 2, 3, 4, 1, 5):
        for _ in range(PATIENCE):
            evaluated(net, torch.randn(size, 3))
    assert captured == [1, 2, 3, 4, 5]
    for size, again in ((1, []), (2, [2])):
        for _ in range(PATIENCE):
            evaluated(net, torch.randn(size, 3))
        assert captured == [1, 2, 3, 4, 5, *again]


def test_training_and_gradients_are_never_replayed(captured):
    net, x = network(), torch.randn(2, 3, requires_grad=True)
    for _ in range(PATIENCE + 1):
        evaluated(net, x).sum().backward()
        evaluated(net.train(), x.detach())
        net.eval()
    assert captured == [] and x.grad is not None
    net.requires_grad_(True)
    for _ in range(PATIENCE + 1):
        evaluated(net, x.detach()).sum().backward()
    assert captured == [] and net[0].weight.grad is not None


def test_a_replay_that_differs_and_a_failed_capture_leave_plain_evaluations(captured, monkeypatch):
    net, x = network(fill=100.0), torch.randn(2, 3).mul(1e-3)
    wanted = net(x)
    for count in range(PATIENCE):
        if count == PATIENCE - 1:
            with pytest.warns(UserWarning, match="not replayed from CUDA graphs: a replay differs"):
                assert torch.equal(evaluated(net, x), wanted)
        else:
            evaluated(net, x)
    assert torch.equal(evaluated(net, x), wanted) and captured == [2]

    def fail(network, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "_capture", fail)
    other = network()
    for _ in range(PATIENCE - 1):
        evaluated(other, x)
    with pytest.warns(UserWarning, match="not permitted when stream is capturing"):
        assert torch.equal(evaluated(other, x), other(x))
    assert torch.equal(evaluated(other, x), other(x))


def test_the_processor_captures_nothing(tiny_config, make_model, monkeypatch):
    monkeypatch.setattr(graphs, "_capture", None)
    model, x, t = make_model(tiny_config), torch.randn(1, 3, 16, 16), torch.tensor([3])
    with torch.no_grad():
        z_sem = model.encode(x)
        for _ in range(PATIENCE + 1):
            assert torch.equal(model(x, t, z_sem), model.unet(x, t, z_sem))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_card_replays_what_it_evaluates(tiny_config, make_model):
    model, t = make_model(tiny_config).to("cuda"), torch.tensor([3, 900], device="cuda")
    with torch.no_grad(), plain_evaluations():
        pictures = [torch.randn(2, 3, 16, 16, device="cuda") for _ in range(2 * PATIENCE)]
        codes = [model.encode(x) for x in pictures]
        wanted = [model(x, t, z) for x, z in zip(pictures, codes, strict=True)]
    with torch.inference_mode():
        found = [model(x, t, z) for x, z in zip(pictures, codes, strict=True)]
    assert len(graphs._kinds[model.unet].replays) == 1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
