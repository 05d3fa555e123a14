"""DPM-Solver++ (2M), the default solver of both directions, with steps of equal length in its own variable, log sigma.

The same arithmetic as diffusers' ``DPMSolverMultistepScheduler``, to which a test holds it. Three things are not:
diffusers rounds the time steps of this grid down, spends the last evaluation of an inversion on a step of length zero,
and takes seconds to import, several times as long as one edit.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vlbias.diffae.betas import betas

__all__ = ["solve"]

#: Shorter runs end in a step of first order, which is steadier there; so does every run that ends at the image.
FEW_STEPS = 15


def solve(
    network: Callable[[Tensor, Tensor], Tensor],
    sample: Tensor,
    num_steps: int,
    *,
    T: int,
    beta_schedule: str,
    prediction_type: str,
    to_noise: bool,
    grad_steps: int = 0,
) -> Tensor:
    """Integrate the probability-flow ODE (Lu et al. 2022, "DPM-Solver++", algorithm 2).

    Args:
        network: (x_t (b, ...), integer t (b,)) => prediction like x_t.
        sample: where to start, (b, ...): noise, or with ``to_noise`` a picture.
        num_steps: network evaluations, >= 1.
        T, beta_schedule, prediction_type: what the network was trained on, see ``Process``.
        to_noise: the direction.
        grad_steps: so many of the last steps keep their gradient, the others do not.
    """
    alphas_cumprod = torch.cumprod(1 - betas(beta_schedule, T).float(), dim=0)
    timesteps, sigmas = _grid(alphas_cumprod, num_steps + 1 if to_noise else num_steps)
    if to_noise:
        timesteps, sigmas = timesteps.flip(0)[:-1], sigmas.flip(0)
    else:
        sigmas = torch.cat([sigmas, torch.zeros(1)])
    x_0_before: Tensor | None = None
    for i, t in enumerate(timesteps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= num_steps - grad_steps):
            prediction = network(sample, t.to(sample.device).expand(len(sample)))
            x_0 = _predicted_x_0(prediction, sample, sigmas[i], prediction_type)
            is_first_order = i == num_steps - 1 and (num_steps < FEW_STEPS or not to_noise)
            sample = _step(sample, x_0, None if is_first_order else x_0_before, sigmas[max(i - 1, 0) : i + 2])
            x_0_before = x_0
    return sample


def _grid(alphas_cumprod: Tensor, num_points: int) -> tuple[Tensor, Tensor]:
    """Time steps (int64) and noise-to-signal ratios, evenly spaced in log sigma from the largest to the smallest."""
    alphas = alphas_cumprod.double()
    log_sigmas = ((1 - alphas) / alphas).sqrt().log().numpy()
    grid = np.linspace(log_sigmas[-1], log_sigmas[0], num_points)
    timesteps = np.interp(grid, log_sigmas, np.arange(len(log_sigmas))).round().astype(np.int64)
    return torch.from_numpy(timesteps), torch.from_numpy(np.exp(grid)).float()


def _scales(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise at one noise-to-signal ratio, alpha_t and sigma_t with alpha_t^2 + sigma_t^2 = 1."""
    alpha_t = 1 / ((sigma**2 + 1) ** 0.5)
    return alpha_t, sigma * alpha_t


def _predicted_x_0(prediction: Tensor, sample: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    alpha_t, sigma_t = _scales(sigma)
    if prediction_type == "epsilon":
        return (sample - sigma_t * prediction) / alpha_t
    return alpha_t * sample - sigma_t * prediction


def _step(sample: Tensor, x_0: Tensor, x_0_before: Tensor | None, sigmas: Tensor) -> Tensor:
    """One step; ``sigmas`` are those before (if there was a step before), at and after it."""
    scales = [_scales(sigma) for sigma in sigmas]
    lambdas = [torch.log(alpha) - torch.log(sigma) for alpha, sigma in scales]
    lengths = [after - before for before, after in pairwise(lambdas)]
    (_, sigma_now), (alpha_next, sigma_next) = scales[-2:]
    gain = alpha_next * (torch.exp(-lengths[-1]) - 1.0)
    moved = (sigma_next / sigma_now) * sample - gain * x_0
    if x_0_before is None:
        return moved
    slope = (1.0 / (lengths[-2] / lengths[-1])) * (x_0 - x_0_before)
    return moved - 0.5 * gain * slope
