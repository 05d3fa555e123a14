"""The published solver, DDIM in both directions, on diffusers' schedulers.

diffusers takes seconds to import; only :mod:`vlbias.diffae.sampling` imports this file, when it first needs DDIM.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from vlbias.diffae.betas import betas

__all__ = ["PublishedDDIMInverseScheduler", "decoder", "inverter"]


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


def decoder(T: int, beta_schedule: str, prediction_type: str, *, clip: bool) -> Any:
    """Scheduler from noise to image. ``clip`` limits the predicted x_0 to [-1, 1]."""
    common = _common(T, beta_schedule, prediction_type)
    ddim = DDIMScheduler(**common, clip_sample=clip, set_alpha_to_one=True, timestep_spacing="leading")
    return _precise(ddim, beta_schedule)


def inverter(T: int, beta_schedule: str, prediction_type: str, *, clip: bool) -> Any:
    """Scheduler from image to noise; ``clip`` as for :func:`decoder`."""
    common = _common(T, beta_schedule, prediction_type)
    return _precise(PublishedDDIMInverseScheduler(**common, clip_sample=clip), beta_schedule)


def _common(T: int, beta_schedule: str, prediction_type: str) -> dict[str, Any]:
    return {
        "num_train_timesteps": T,
        "trained_betas": betas(beta_schedule, T).float().numpy(),
        "prediction_type": prediction_type,
    }


def _precise(scheduler: Any, beta_schedule: str) -> Any:
    # 1 - alpha_bar loses digits at small t in float32, which twenty steps of inversion make visible
    T = scheduler.config.num_train_timesteps
    scheduler.alphas_cumprod = torch.cumprod(1 - betas(beta_schedule, T), dim=0)
    return scheduler
