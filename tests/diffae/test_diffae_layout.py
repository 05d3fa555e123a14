"""One memory layout a device, and group norms that keep the type of their input."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from vlbias.diffae import DiffAE, blocks, encoder, unet
from vlbias.diffae.blocks import GroupNorm, memory_layout
from vlbias.diffae.winograd import direct_convolutions


class Copies(TorchDispatchMode):
    """Counts the tensors of at least ``size`` numbers that are copied within it."""

    def __init__(self, size):
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.count += name in ("clone", "copy_", "_to_copy", "contiguous") and args[0].numel() >= self.size
        return out


def kernels(model):
    return [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]


@pytest.fixture
def as_on_a_card(monkeypatch):
    """The layout that a network has on CUDA, on the processor."""
    for module in (blocks, encoder, unet):
        monkeypatch.setattr(module, "memory_layout", lambda device: torch.contiguous_format)


@pytest.mark.parametrize(
    ("device", "wanted"),
    [("cpu", torch.channels_last), ("cuda", torch.contiguous_format), ("cuda:3", torch.contiguous_format)],
)
def test_layout_of_a_device(device, wanted):
    assert memory_layout(torch.device(device)) == wanted


def test_networks_are_laid_out_where_they_are_moved(tiny_config, make_model, tmp_path):
    model = make_model(tiny_config)
    model.save_pretrained(tmp_path)
    for found in (model, DiffAE.from_pretrained(tmp_path), model.double().float()):
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels(found))
    # meta stands for a card here: it is not the processor
    for part in (model.to("meta"), model.unet, model.encoder):
        assert all(p.is_contiguous() for p in kernels(part))
    back = model.to_empty(device="cpu")
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels(back))


def test_both_layouts_give_one_result(tiny_config, make_model, request):
    x, t = torch.randn(2, 3, 16, 16).clamp(-1, 1), torch.tensor([3, 900])
    here = make_model(tiny_config)
    z_sem = here.encode(x)
    wanted = here(x, t, z_sem)
    request.getfixturevalue("as_on_a_card")
    there = make_model(tiny_config)
    there.load_state_dict(here.state_dict())
    assert all(p.is_contiguous() for p in kernels(there))
    torch.testing.assert_close(there.encode(x), z_sem, rtol=1e-4, atol=1e-5)
    found = there(x, t, z_sem)
    assert found.is_contiguous()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_card", [False, True])
def test_no_feature_map_is_copied(tiny_config, make_model, request, is_card):
    if is_card:
        request.getfixturevalue("as_on_a_card")
    model, t = make_model(tiny_config), torch.tensor([3, 900])
    x = torch.randn(2, 3, 16, 16).contiguous(memory_format=memory_layout(torch.device("cpu")))
    if is_card:
        x = x.contiguous()
    with torch.no_grad():
        z_sem = model.encode(x)
        with direct_convolutions() if is_card else nullcontext(), Copies(model.config.model_channels * 16) as copies:
            model.unet(x, t, z_sem)
    assert copies.count == 0
    if is_card:  # products of pixels by channels, as the processor does them, would copy: they are counted
        with torch.no_grad(), Copies(model.config.model_channels * 16) as copies:
            model.unet(x, t, z_sem)
        assert copies.count > 0


def test_group_norm_keeps_the_type_of_its_input():
    norm = GroupNorm(4, 16)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = 3 * torch.randn(2, 16, 8, 8) + 1
    plain = F.group_norm(x, 4, norm.weight, norm.bias, norm.eps)
    assert torch.equal(norm(x), plain)
    low = x.bfloat16().requires_grad_()
    exact = F.group_norm(low.float(), 4, norm.weight, norm.bias, norm.eps)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(low)
    assert found.dtype == torch.bfloat16
    # weight, bias, mean, scale and result are each rounded to 8 bits
    torch.testing.assert_close(found.float(), exact, rtol=2**-6, atol=2**-5)
    found.sum().backward()
    assert norm.weight.grad.dtype == torch.float32 and norm.weight.grad.abs().sum() > 0 and low.grad is not None
