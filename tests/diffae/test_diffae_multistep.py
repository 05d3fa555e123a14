"""The second-order solver does what diffusers' one does on the same grid, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler

from vlbias.diffae.betas import betas
from vlbias.diffae.multistep import solve

T = 1000


def network(x, t):
    return torch.tanh(1.3 * x + 0.2 * x.roll(1, -1)) * (1 + t[:, None, None, None] / (2 * T))


def grid(scheduler, num_points):
    """Time steps and sigmas evenly spaced in log sigma, the noisiest first."""
    alphas = scheduler.alphas_cumprod.double().numpy()
    log_sigmas = np.log(np.sqrt((1 - alphas) / alphas))
    points = np.linspace(log_sigmas[-1], log_sigmas[0], num_points)
    timesteps = np.interp(points, log_sigmas, np.arange(len(alphas))).round().astype(int)
    return torch.from_numpy(timesteps), torch.from_numpy(np.exp(points)).float()


def by_diffusers(x, num_steps, beta_schedule, prediction_type, *, to_noise):
    kind = DPMSolverMultistepInverseScheduler if to_noise else DPMSolverMultistepScheduler
    options = {} if to_noise else {"final_sigmas_type": "zero"}
    values = betas(beta_schedule, T).float().numpy()
    scheduler = kind(num_train_timesteps=T, trained_betas=values, prediction_type=prediction_type, **options)
    scheduler.set_timesteps(num_steps)
    timesteps, sigmas = grid(scheduler, num_steps + to_noise)
    if to_noise:
        scheduler.timesteps, scheduler.sigmas, scheduler._step_index = timesteps.flip(0)[:-1], sigmas.flip(0), 0
    else:
        scheduler.timesteps, scheduler.sigmas = timesteps, torch.cat([sigmas, torch.zeros(1)])
        scheduler.set_begin_index(0)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(len(x))), t, x, return_dict=False)[0]
    return x


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("to_noise", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("num_steps", [1, 2, 6, 14, 15, 20])
def test_steps_are_those_of_diffusers(num_steps, prediction_type, to_noise):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(num_steps))
    ours = solve(network, x, num_steps, T=T, beta_schedule="linear", prediction_type=prediction_type, to_noise=to_noise)
    theirs = by_diffusers(x, num_steps, "linear", prediction_type, to_noise=to_noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_last_steps_alone_keep_their_gradient():
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    calls = []

    def watched(x, t):
        calls.append(torch.is_grad_enabled())
        return network(x, t)

    solve(watched, x, 5, T=T, beta_schedule="linear", prediction_type="epsilon", to_noise=False, grad_steps=2)
    assert calls == [False, False, False, True, True]
