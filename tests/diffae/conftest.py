"""A diffusion autoencoder small enough for tests: 16 px, some ten thousand weights."""

from __future__ import annotations

from dataclasses import replace

import doubles
import pytest
import torch
from doubles import TINY_PRIOR

from vlbias.diffae import DiffAE, DiffAEConfig, PriorConfig

TINY = replace(doubles.TINY, attention_resolutions=(8,), num_heads=2)


def randomized(config: DiffAEConfig, seed: int = 0) -> DiffAE:
    """A model whose zero-initialised layers have weights too, so that every part matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DiffAE(config)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture
def tiny_config() -> DiffAEConfig:
    return TINY


@pytest.fixture
def tiny_prior() -> PriorConfig:
    return TINY_PRIOR


@pytest.fixture
def make_model():
    """Callable: config (and seed) => model with random weights everywhere."""
    return randomized


@pytest.fixture(scope="session")
def tiny_images() -> torch.Tensor:
    """uint8 (12, 3, 16, 16): smooth colour ramps, each its own."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(12, 3, 2, 2, generator=generator)
    return (torch.nn.functional.interpolate(corners, 16, mode="bilinear") * 255).round().to(torch.uint8)
