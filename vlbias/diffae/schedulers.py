"""The one place that builds diffusers' schedulers: decoding and inverting, first and second order.

diffusers takes seconds to import; only :mod:`vlbias.diffae.sampling` imports this file, when it first samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DPMSolverMultistepInverseScheduler,
    DPMSolverMultistepScheduler,
)
from torch import Tensor

from vlbias.diffae.betas import betas
from vlbias.errors import unknown

__all__ = [
    "SOLVERS",
    "LogSigmaDPMInverseScheduler",
    "LogSigmaDPMScheduler",
    "PublishedDDIMInverseScheduler",
    "decoder",
    "inverter",
]

SOLVERS = ("ddim", "dpm++2m")


class PublishedDDIMInverseScheduler(DDIMInverseScheduler):
    """DDIM inversion as the published code does it.

    The network is evaluated at the *lower* of the two time steps and the last step ends at alpha 0, that is at the
    predicted noise itself; ``DDIMInverseScheduler`` evaluates at the upper one and ends at alpha_T. The noise is
    recomputed from the clipped x_0.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Steps 0, r, 2r, ... with r = T // num_inference_steps."""
        self.num_inference_steps = num_inference_steps
        self.stride = self.config.num_train_timesteps // num_inference_steps
        self.timesteps = torch.arange(num_inference_steps, device=device) * self.stride

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> Any:
        """From time ``timestep`` to the next higher one of the chain."""
        t = int(timestep)
        above = t + self.stride
        alpha = self.alphas_cumprod[t]
        is_last = above >= self.stride * self.num_inference_steps
        alpha_next = torch.zeros_like(alpha) if is_last else self.alphas_cumprod[above]
        if self.config.prediction_type == "epsilon":
            x_0 = (sample - (1 - alpha) ** 0.5 * model_output) / alpha**0.5
        else:
            x_0 = alpha**0.5 * sample - (1 - alpha) ** 0.5 * model_output
        if self.config.clip_sample:
            x_0 = x_0.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        eps = (sample - alpha**0.5 * x_0) / (1 - alpha) ** 0.5
        out = alpha_next**0.5 * x_0 + (1 - alpha_next) ** 0.5 * eps
        return out if return_dict else (out, x_0)


def _log_sigma_grid(scheduler: Any, num_points: int) -> tuple[Tensor, Tensor]:
    """Time steps (int64) and noise-to-signal ratios, evenly spaced in log sigma from the largest to the smallest."""
    alphas = scheduler.alphas_cumprod.double()
    log_sigmas = ((1 - alphas) / alphas).sqrt().log().numpy()
    grid = np.linspace(log_sigmas[-1], log_sigmas[0], num_points)
    timesteps = np.interp(grid, log_sigmas, np.arange(len(log_sigmas))).round().astype(np.int64)
    return torch.from_numpy(timesteps), torch.from_numpy(np.exp(grid)).float()


class LogSigmaDPMScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ (2M) from noise to image with steps of equal length in log sigma, the solver's own variable.

    ``use_exponential_sigmas`` of diffusers is the same grid, but rounds time steps down.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """One evaluation at each of ``num_inference_steps`` noise levels; the last step ends at the image."""
        super().set_timesteps(num_inference_steps, device=device)
        timesteps, sigmas = _log_sigma_grid(self, num_inference_steps)
        self.timesteps, self.sigmas = timesteps.to(device), torch.cat([sigmas, torch.zeros(1)])
        self.num_inference_steps = num_inference_steps
        self.set_begin_index(0)


class LogSigmaDPMInverseScheduler(DPMSolverMultistepInverseScheduler):
    """The other direction on the same kind of grid, from sigma_min (the image) to sigma_max (the noise).

    diffusers' own grid spends its last evaluation on a step of length zero, and loses its place where two of its
    steps round to one time.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """``num_inference_steps`` steps between neighbouring noise levels, each evaluated at its lower end."""
        super().set_timesteps(num_inference_steps, device=device)
        timesteps, sigmas = _log_sigma_grid(self, num_inference_steps + 1)
        self.timesteps, self.sigmas = timesteps.flip(0)[:-1].to(device), sigmas.flip(0)
        self.num_inference_steps = num_inference_steps
        self._step_index = 0


def _precise(scheduler: Any, beta_schedule: str) -> Any:
    # 1 - alpha_bar loses digits at small t in float32, which twenty steps of inversion make visible
    T = scheduler.config.num_train_timesteps
    scheduler.alphas_cumprod = torch.cumprod(1 - betas(beta_schedule, T), dim=0)
    return scheduler


def _common(T: int, beta_schedule: str, prediction_type: str) -> dict[str, Any]:
    return {
        "num_train_timesteps": T,
        "trained_betas": betas(beta_schedule, T).float().numpy(),
        "prediction_type": prediction_type,
    }


def decoder(solver: str, T: int, beta_schedule: str, prediction_type: str, *, clip: bool) -> Any:
    """Scheduler from noise to image. ``clip`` limits the predicted x_0 to [-1, 1] (DDIM only)."""
    common = _common(T, beta_schedule, prediction_type)
    if solver == "ddim":
        ddim = DDIMScheduler(**common, clip_sample=clip, set_alpha_to_one=True, timestep_spacing="leading")
        return _precise(ddim, beta_schedule)
    if solver == "dpm++2m":
        return LogSigmaDPMScheduler(**common, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero")
    raise unknown("solver", solver, SOLVERS)


def inverter(solver: str, T: int, beta_schedule: str, prediction_type: str, *, clip: bool) -> Any:
    """Scheduler from image to noise; ``clip`` as for :func:`decoder`."""
    common = _common(T, beta_schedule, prediction_type)
    if solver == "ddim":
        return _precise(PublishedDDIMInverseScheduler(**common, clip_sample=clip), beta_schedule)
    if solver == "dpm++2m":
        return LogSigmaDPMInverseScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)
    raise unknown("solver", solver, SOLVERS)
