"""The second-order solver does what diffusers' one does on the same grid, in both directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler

from vlbias.diffae.betas import Process, betas
from vlbias.diffae.multistep import draw, retrace, solve, trace

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
    ours = solve(network, Process(T, "linear", prediction_type), x, num_steps, to_noise=to_noise)
    theirs = by_diffusers(x, num_steps, "linear", prediction_type, to_noise=to_noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_last_steps_alone_keep_their_gradient():
    x = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    calls = []

    def watched(x, t):
        calls.append(torch.is_grad_enabled())
        return network(x, t)

    solve(watched, Process(T, "linear"), x, 5, to_noise=False, grad_steps=2)
    assert calls == [False, False, False, True, True]


# -- along the inversion -----------------------------------------------------------------------------------------------


def conditioned(shift):
    return lambda x, t: network(x + shift, t)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 7, 16])
def test_the_same_condition_leads_back_to_the_picture(num_steps, order):
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    calls = []

    def counted(x, t):
        calls.append(len(x))
        return network(x, t)

    x_T, residuals = trace(counted, Process(T, "linear"), x, num_steps, order=order)
    assert x_T.shape == x.shape and residuals.shape == (2, num_steps, 3, 4, 4)
    back = retrace(counted, Process(T, "linear"), x_T, residuals, order=order)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-4)
    assert sum(calls) == 2 * num_steps * len(x)


def test_an_edit_spends_no_evaluation_at_either_end():
    seen = []

    def watched(x, t):
        seen.append(int(t[0]))
        return network(x, t)

    retrace(watched, Process(T, "linear"), *trace(watched, Process(T, "linear"), torch.zeros(1, 3, 4, 4), 3))
    assert seen[:3] == seen[:2:-1] == sorted(seen[:3]) and seen[0] > 0 and seen[2] < T - 1


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("num_steps", [4, 5, 7])
def test_a_drawn_picture_is_edited_along_its_own_way(num_steps, order):
    x_T = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    process, calls = Process(T, "linear", "v_prediction"), []

    def counted(x, t):
        calls.append(len(x))
        return network(x, t)

    x_0, traced = draw(counted, process, x_T, num_steps, order=order)
    assert sum(calls) == num_steps * len(x_T)
    if order == 2:
        assert torch.equal(x_0, solve(network, process, x_T, num_steps, to_noise=False).clamp(-1, 1))
    torch.testing.assert_close(retrace(counted, process, *traced, order=order), x_0, rtol=0, atol=1e-4)
    assert sum(calls) == (2 * num_steps - 2) * len(x_T)
    assert (retrace(conditioned(0.1), process, *traced, order=order) != x_0).any()


def test_an_edit_tends_to_that_of_a_fine_inversion():
    """Inverting, then decoding with the new condition, plus what decoding with the old one loses: the plain way."""
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 2 - 1
    process, old, new = Process(T, "linear", "v_prediction"), conditioned(0.0), conditioned(0.1)
    x_T = solve(old, process, x, 300, to_noise=True)
    fine = x + solve(new, process, x_T, 300, to_noise=False) - solve(old, process, x_T, 300, to_noise=False)
    errors = []
    for num_steps in (5, 20, 80):
        traced = trace(old, process, x, num_steps)
        errors.append(float((retrace(new, process, *traced) - fine).abs().mean()))
    assert errors[2] < errors[1] < errors[0] < float((fine - x).abs().mean())
    assert errors[2] < 0.1 * errors[0]
