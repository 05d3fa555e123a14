"""The fast convolutions give what torch's give, and step aside where they do not apply."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vlbias.diffae import winograd
from vlbias.diffae.winograd import Conv1x1, Conv3x3, direct_convolutions, winograd_conv3x3


@pytest.mark.parametrize(("shape", "out"), [((2, 5, 8, 12), 3), ((1, 16, 4, 4), 16), ((3, 2, 20, 16), 7)])
def test_the_same_as_a_convolution(shape, out):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(out, shape[1], 3, 3, generator=generator)
    bias = torch.randn(out, generator=generator)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert torch.allclose(winograd_conv3x3(given, weight, bias).double(), exact, atol=1e-4)
    assert torch.allclose(winograd_conv3x3(x, weight), F.conv2d(x, weight, padding=1), atol=1e-4)


@pytest.mark.parametrize("band", [1, 100, 10**6])
def test_bands_of_any_height_join_without_a_seam(monkeypatch, band):
    x, weight = torch.randn(1, 4, 28, 8), torch.randn(4, 4, 3, 3)
    monkeypatch.setattr(winograd, "_BAND", band)
    assert torch.allclose(winograd_conv3x3(x, weight), F.conv2d(x, weight, padding=1), atol=1e-4)


def test_a_batch_changes_no_bit_of_an_item():
    x, weight = torch.randn(3, 8, 16, 16), torch.randn(8, 8, 3, 3)
    together = winograd_conv3x3(x, weight)
    assert all(torch.equal(together[i : i + 1], winograd_conv3x3(x[i : i + 1], weight)) for i in range(3))


def test_the_layer_takes_it_only_where_it_applies(monkeypatch):
    called = []
    monkeypatch.setattr(winograd, "winograd_conv3x3", lambda x, w, b: called.append(x.shape) or x)
    conv = Conv3x3(128, 128).requires_grad_(False)
    large = torch.randn(1, 128, 64, 64)
    conv(large)
    assert len(called) == 1
    conv(torch.randn(1, 128, 32, 32))  # small maps
    conv(torch.randn(1, 128, 66, 66))  # no whole tiles
    Conv3x3(64, 128).requires_grad_(False)(torch.randn(1, 64, 64, 64))  # few channels
    conv(large.clone().requires_grad_())  # a gradient is wanted
    with torch.autocast("cpu", torch.bfloat16):
        conv(large)
    with direct_convolutions():
        conv(large)
    assert len(called) == 1
    with torch.no_grad():
        Conv3x3(128, 128)(large)  # weights that could learn, but not now
    assert len(called) == 2


def test_gradients_are_those_of_a_convolution():
    for ours, plain in (
        (Conv3x3(6, 4), torch.nn.Conv2d(6, 4, 3, padding=1)),
        (Conv1x1(6, 4), torch.nn.Conv2d(6, 4, 1)),
    ):
        plain.load_state_dict(ours.state_dict())
        x = torch.randn(2, 6, 8, 8)
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
        for module, given in zip((ours, plain), inputs, strict=True):
            module(given).square().sum().backward()
        assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-4)
        assert torch.allclose(ours.weight.grad, plain.weight.grad, atol=1e-3)
