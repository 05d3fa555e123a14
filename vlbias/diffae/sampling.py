"""Running a scheduler over a network, and noise that depends on a seed alone."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vlbias.diffae.betas import Process
from vlbias.diffae.multistep import Network, solve
from vlbias.errors import ConfigError, unknown

__all__ = ["noise_to_sample", "sample_to_noise", "seeded_noise"]

#: First order, as published, and second order, the default.
SOLVERS = ("ddim", "dpm++2m")


def seeded_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise with a generator for each item: item i depends on ``seeds[i]`` and not on its neighbours.

    Returns:
        float32 (len(seeds), *shape), on the CPU.
    """
    draws = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s) % 2**63)) for s in seeds]
    return torch.stack(draws) if draws else torch.empty(0, *shape)


def noise_to_sample(
    network: Network,
    process: Process,
    noise: Tensor,
    num_steps: int,
    *,
    solver: str = "ddim",
    clip: bool = False,
    grad_steps: int = 0,
) -> Tensor:
    """Standard normal noise (b, ...) => what the network has learned, deterministic.

    Args:
        network, process: the network and what it was trained on.
        noise: where to start.
        num_steps: network evaluations, 1..T.
        solver: "ddim" or "dpm++2m".
        clip: limit the predicted sample to [-1, 1] in each step (DDIM only).
        grad_steps: so many of the last steps keep their gradient, the others do not.
    """
    if _is_multistep(solver, process, num_steps):
        return solve(network, process, noise, num_steps, to_noise=False, grad_steps=grad_steps)
    from vlbias.diffae.schedulers import decoder

    scheduler = decoder(**asdict(process), clip=clip)
    return _run(scheduler, network, noise, num_steps, grad_steps)


def sample_to_noise(
    network: Network, process: Process, sample: Tensor, num_steps: int, *, solver: str = "ddim", clip: bool = False
) -> Tensor:
    """The other direction: a sample (b, ...) => the noise from which :func:`noise_to_sample` finds it."""
    if _is_multistep(solver, process, num_steps):
        return solve(network, process, sample, num_steps, to_noise=True)
    from vlbias.diffae.schedulers import inverter

    scheduler = inverter(**asdict(process), clip=clip)
    return _run(scheduler, network, sample, num_steps, grad_steps=0)


def _is_multistep(solver: str, process: Process, num_steps: int) -> bool:
    if not 1 <= num_steps <= process.T:
        raise ConfigError(f"`num_steps` must be in 1..{process.T}; got {num_steps}.")
    if solver not in SOLVERS:
        raise unknown("solver", solver, SOLVERS)
    return solver == "dpm++2m"


def _run(scheduler: Any, network: Network, sample: Tensor, num_steps: int, grad_steps: int) -> Tensor:
    with warnings.catch_warnings():
        # diffusers hands a tensor to np.array in a way that NumPy 2 deprecates
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        scheduler.set_timesteps(num_steps, device=sample.device)
    # as in the published code, the noise that a DDIM step adds back follows from the clipped x_0
    takes_clipped = "use_clipped_model_output" in inspect.signature(scheduler.step).parameters
    extra = {"use_clipped_model_output": True} if takes_clipped else {}
    steps = list(scheduler.timesteps)
    for i, t in enumerate(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= len(steps) - grad_steps):
            prediction = network(sample, t.to(sample.device).expand(sample.shape[0]))
            sample = scheduler.step(prediction, t, sample, return_dict=False, **extra)[0]
    return sample
