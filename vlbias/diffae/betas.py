"""Noise schedules: how much noise each time step adds, and the diffusion that a network was trained on."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlbias.errors import ConfigError

__all__ = ["Process", "alphas_cumprod", "betas"]


@dataclass(frozen=True)
class Process:
    """The diffusion that a network was trained on.

    Attributes:
        T: time steps.
        beta_schedule: see :func:`betas`.
        prediction_type: what the network predicts, "epsilon" or "v_prediction".
    """

    T: int
    beta_schedule: str
    prediction_type: str = "epsilon"


def betas(schedule: str, T: int) -> Tensor:
    """Noise variances beta_1..beta_T, float64 (T,).

    ``linear``: 1e-4 to 2e-2 at T = 1000, scaled for another T; ``cosine``: Nichol & Dhariwal 2021, eq. 17;
    ``constB``: B throughout (the published latent prior: ``const0.008``). ``NAME/K``: for pictures K times as wide.
    In means over K x K pixels noise is K times weaker, so it is K times stronger here, and the means are those that
    NAME knows (Hoogeboom et al. 2023, "Simple diffusion", section 3.1).
    """
    schedule, _, enlargement = schedule.partition("/")
    if schedule == "linear":
        values = np.linspace(1e-4 * 1000 / T, 0.02 * 1000 / T, T, dtype=np.float64)
    elif schedule == "cosine":
        f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
        values = np.minimum(1 - f[1:] / f[:-1], 0.999)
    elif match := re.fullmatch(r"const(\d*\.?\d+)", schedule):
        values = np.full(T, float(match[1]) * 1000 / T)
    else:
        raise ConfigError(f"`beta_schedule` must be linear, cosine or const<number>; got {schedule!r}.")
    if enlargement:
        alphas = np.cumprod(1 - values)
        alphas = alphas / (alphas + int(enlargement) ** 2 * (1 - alphas))
        values = 1 - alphas / np.concatenate([[1.0], alphas[:-1]])
    if not ((values > 0) & (values < 1)).all():
        raise ConfigError(f"`beta_schedule` {schedule!r} with T={T} gives variances outside (0, 1).")
    return torch.from_numpy(values)


def alphas_cumprod(schedule: str, T: int) -> Tensor:
    """alpha_bar_t, the product of 1 - beta_1..t (Ho et al. 2020, after eq. 4), float32 (T,)."""
    return torch.cumprod(1 - betas(schedule, T), dim=0).float()
