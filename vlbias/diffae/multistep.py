"""DPM-Solver++ (2M), the default solver, with steps of equal length in its own variable, log sigma.

The same arithmetic as diffusers' ``DPMSolverMultistepScheduler``, to which a test holds it. Three things are not:
diffusers rounds the time steps of this grid down, spends the last evaluation of an inversion on a step of length zero,
and takes seconds to import, several times as long as one edit.

Edits go along the inversion (:func:`trace`, :func:`retrace`): the way down keeps, step by step, what brings the donor
back exactly, as the source branch of Direct Inversion does (Ju et al. 2024). The evaluations of the way up serve for
both, so an edit of n steps costs 2 n of them, where inverting, decoding the edit and decoding the donor cost 3 n.

Edits spend no evaluation at the ends of the way. At its clean end a picture is all but its own prediction. At its noisy
end what an edit changes is lost in noise that both ways share: the next level sees it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from vlbias.diffae.betas import Process, betas

__all__ = ["Network", "draw", "retrace", "solve", "trace"]

#: A network: (x_t (b, ...), integer t (b,)) => prediction like x_t.
Network = Callable[[Tensor, Tensor], Tensor]

#: Shorter runs end in a step of first order, which is steadier there; so does every run that ends at the image.
FEW_STEPS = 15


def solve(
    network: Network, process: Process, sample: Tensor, num_steps: int, *, to_noise: bool, grad_steps: int = 0
) -> Tensor:
    """Integrate the probability-flow ODE (Lu et al. 2022, "DPM-Solver++", algorithm 2).

    Args:
        network, process: the network and what it was trained on.
        sample: where to start, (b, ...): noise, or with ``to_noise`` a picture.
        num_steps: network evaluations, >= 1.
        to_noise: the direction.
        grad_steps: so many of the last steps keep their gradient, the others do not.
    """
    timesteps, sigmas = _grid(process, num_steps + 1 if to_noise else num_steps)
    if to_noise:
        timesteps, sigmas = timesteps.flip(0)[:-1], sigmas.flip(0)
    else:
        sigmas = torch.cat([sigmas, torch.zeros(1)])
    x_0_before: Tensor | None = None
    for i, t in enumerate(timesteps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and i >= num_steps - grad_steps):
            x_0 = _predicted_x_0(network, process, sample, t, sigmas[i])
            is_first_order = i == num_steps - 1 and (num_steps < FEW_STEPS or not to_noise)
            sample = _step(sample, x_0, None if is_first_order else x_0_before, sigmas[max(i - 1, 0) : i + 2])
            x_0_before = x_0
    return sample


def trace(network: Network, process: Process, x_0: Tensor, num_steps: int, *, order: int = 2) -> tuple[Tensor, Tensor]:
    """Invert a picture, and note what each step back must add to end at the picture itself.

    Args:
        network, process: the network and what it was trained on.
        x_0: pictures (b, ...).
        num_steps: network evaluations, >= 1.
        order: 2, or 1 for the steps of DDIM.

    Returns:
        The picture at the noisiest of the levels (b, ...), and the residuals (b, num_steps, ...) that :func:`retrace`
        wants.
    """
    timesteps, sigmas = _between(process, num_steps)
    on_the_way = [x_0]
    predicted: list[Tensor] = []
    for i in reversed(range(num_steps)):  # from the least noise to the most
        predicted.insert(0, _predicted_x_0(network, process, on_the_way[0], timesteps[i], sigmas[i]))
        if i > 0:
            before = predicted[1] if order == 2 and 1 < i < num_steps - 1 else None
            up = sigmas[i - 1 : i + 2].flip(0)
            on_the_way.insert(0, _step(on_the_way[0], predicted[0], before, up))
    return on_the_way[0], _residuals([*on_the_way, x_0], predicted, sigmas, order)


def draw(
    network: Network, process: Process, x_T: Tensor, num_steps: int, *, order: int = 2
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Integrate from noise to a picture, and note on the way what :func:`trace` would find.

    Args:
        network, process: the network and what it was trained on.
        x_T: noise (b, ...).
        num_steps: network evaluations, >= 4; :func:`retrace` makes two less.
        order: 2, or 1 for the steps of DDIM.

    Returns:
        Pictures (b, ...) in [-1, 1], and what :func:`trace` gives of them.
    """
    timesteps, sigmas = _grid(process, num_steps)
    on_the_way, predicted = [x_T], list[Tensor]()
    ends = torch.cat([sigmas, torch.zeros(1)])
    for i, t in enumerate(timesteps):
        predicted.append(_predicted_x_0(network, process, on_the_way[i], t, sigmas[i]))
        before = predicted[i - 1] if order == 2 and 0 < i < num_steps - 1 else None
        on_the_way.append(_step(on_the_way[i], predicted[i], before, ends[max(i - 1, 0) : i + 2]))
    x_0 = on_the_way[-1].clamp(-1, 1)
    # edits go by the levels between both ends
    return x_0, (on_the_way[1], _residuals([*on_the_way[1:-2], x_0], predicted[1:-1], sigmas[1:-1], order))


def _residuals(on_the_way: list[Tensor], predicted: list[Tensor], sigmas: Tensor, order: int) -> Tensor:
    """What each step from the noisiest picture to the last one lacks, (b, n, ...); n + 1 pictures, n predictions."""
    sigmas, num_steps, residuals = torch.cat([sigmas, torch.zeros(1)]), len(predicted), []
    for i, wanted in enumerate(on_the_way[1:]):
        before = predicted[i - 1] if order == 2 and 0 < i < num_steps - 1 else None
        residuals.append(wanted - _step(on_the_way[i], predicted[i], before, sigmas[max(i - 1, 0) : i + 2]))
    return torch.stack(residuals, dim=1)


def retrace(network: Network, process: Process, x_T: Tensor, residuals: Tensor, *, order: int = 2) -> Tensor:
    """The way back of :func:`trace`, with a network that is conditioned otherwise.

    With the same condition it ends at the picture that was traced. What another condition changes is added to it at
    every step, so that all that the network cannot rebuild stays as it was.

    Args:
        network, process: see :func:`trace`.
        x_T, residuals: of :func:`trace`; as many evaluations as it made.
        order: the same as there.

    Returns:
        The edited pictures (b, ...).
    """
    num_steps = residuals.shape[1]
    timesteps, sigmas = _between(process, num_steps)
    sigmas = torch.cat([sigmas, torch.zeros(1)])
    sample, x_0_before = x_T, None
    for i, t in enumerate(timesteps):
        x_0 = _predicted_x_0(network, process, sample, t, sigmas[i])
        before = x_0_before if order == 2 and i < num_steps - 1 else None
        sample = _step(sample, x_0, before, sigmas[max(i - 1, 0) : i + 2]) + residuals[:, i]
        x_0_before = x_0
    return sample


def _grid(process: Process, num_points: int) -> tuple[Tensor, Tensor]:
    """Time steps (int64) and noise-to-signal ratios, evenly spaced in log sigma from the largest to the smallest."""
    alphas = torch.cumprod(1 - betas(process.beta_schedule, process.T).float(), dim=0).double()
    log_sigmas = ((1 - alphas) / alphas).sqrt().log().numpy()
    grid = np.linspace(log_sigmas[-1], log_sigmas[0], num_points)
    timesteps = np.interp(grid, log_sigmas, np.arange(len(log_sigmas))).round().astype(np.int64)
    return torch.from_numpy(timesteps), torch.from_numpy(np.exp(grid)).float()


def _between(process: Process, num_points: int) -> tuple[Tensor, Tensor]:
    """The levels between both ends of a grid with two points more; one alone does most a little above the middle."""
    if num_points == 1:
        timesteps, sigmas = _grid(process, 9)
        return timesteps[3:4], sigmas[3:4]
    timesteps, sigmas = _grid(process, num_points + 2)
    return timesteps[1:-1], sigmas[1:-1]


def _scales(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise at one noise-to-signal ratio, alpha_t and sigma_t with alpha_t^2 + sigma_t^2 = 1."""
    alpha_t = 1 / ((sigma**2 + 1) ** 0.5)
    return alpha_t, sigma * alpha_t


def _predicted_x_0(network: Network, process: Process, sample: Tensor, t: Tensor, sigma: Tensor) -> Tensor:
    prediction = network(sample, t.to(sample.device).expand(len(sample)))
    alpha_t, sigma_t = _scales(sigma)
    if process.prediction_type == "epsilon":
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
