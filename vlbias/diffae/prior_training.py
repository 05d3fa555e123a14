"""Training the latent prior on the codes of a trained diffusion autoencoder: minutes, also on a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlbias.arguments import checked_call
from vlbias.diffae.betas import alphas_cumprod
from vlbias.diffae.config import PriorConfig
from vlbias.diffae.model import DiffAE, with_prior
from vlbias.diffae.prior import LatentPrior
from vlbias.errors import ShapeError, TrainingError
from vlbias.optim import WeightAverage, flush_denormals, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["SMALL_PRIOR", "PriorTrainingSettings", "train_prior"]

#: A prior that goes with codes of 128-256 numbers and some thousand images; the published one is 100 times larger.
SMALL_PRIOR = PriorConfig(num_layers=6, hidden_channels=512, skip_layers=(1, 2, 3, 4, 5), dropout=0.1)


@dataclass(frozen=True)
class PriorTrainingSettings(Settings):
    """Settings of :func:`train_prior`. ``num_steps`` optimiser steps of ``batch_size`` codes, cosine decay.

    The published loss is the L1 distance of the noise; a learning rate of 1e-3 with decay replaces its constant 1e-4,
    which would take a hundred times as many steps.
    """

    num_steps: int = number(4_000, 1)
    batch_size: int = number(256, 1, 65_536)
    learning_rate: float = number(1e-3, above=0)
    weight_decay: float = number(0.01, 0)
    ema_decay: float = number(0.999, 0, 1)
    seed: int = 0


@checked_call
def train_prior(
    model: DiffAE, z_sem: Tensor, config: PriorTrainingSettings | None = None, prior: PriorConfig | None = None
) -> DiffAE:
    """Fit a latent prior to codes and return ``model`` with it.

    Args:
        model: a diffusion autoencoder whose ``z_mean`` and ``z_std`` are set (``fit_normalization``).
        z_sem: its codes of the training images, (n, d), not normalised.
        prior: architecture; None for :data:`SMALL_PRIOR`.

    Returns:
        A model that shares the weights of ``model``, with a prior in its config.

    Raises:
        ShapeError: ``z_sem`` is not (n, d). TrainingError: the loss is not finite.
    """
    config, prior = config or PriorTrainingSettings(), prior or SMALL_PRIOR
    d = model.config.embed_channels
    if z_sem.ndim != 2 or z_sem.shape[1] != d or not len(z_sem):
        raise ShapeError(f"`z_sem` must be (n, {d}) with at least one row; got {tuple(z_sem.shape)}.")
    device = model.device
    z = model.normalize(z_sem.detach().to(device)).float()
    alphas = alphas_cumprod(prior.beta_schedule, prior.T).to(device)
    with torch.random.fork_rng(devices=[]), flush_denormals():
        torch.manual_seed(config.seed)
        net = LatentPrior(prior, d).to(device)
        average = WeightAverage(net, config.ema_decay)
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        with track(config.num_steps, "train prior", "steps") as progress:
            for step in range(config.num_steps):
                set_learning_rate(optimizer, config.learning_rate, step / config.num_steps, warmup=(step + 1) / 100)
                z_0 = z[torch.randint(len(z), (config.batch_size,)).to(device)]
                t = torch.randint(prior.T, (len(z_0),)).to(device)
                eps = torch.randn(z_0.shape).to(device)
                signal, noise = alphas[t, None].sqrt(), (1 - alphas[t, None]).sqrt()
                loss = F.l1_loss(net.predict_noise(signal * z_0 + noise * eps, t), eps)
                if not math.isfinite(loss.item()):
                    raise TrainingError(f"The loss of the prior is not finite at step {step}; lower `learning_rate`.")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average.update()
                progress.update(1, loss=loss.item())
    return with_prior(model, average.module)
