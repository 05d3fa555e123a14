"""How the codes of one pole's faces become those of the other's: not each by the same step, but as one cloud the other.

Where young faces have hair of every colour and old ones grey, the one direction that all faces are moved along turns
no hair grey: dark hair has to become lighter, fair hair duller. What the two clouds of codes look like says so, with no
face in both.
"""

from __future__ import annotations

import torch

from vlbias.paths.probes import logistic

__all__ = ["pole_flow"]

#: Least share of each pole's covariance that is taken from both together.
LEAST_SHRINK = 0.1
#: Variance that every direction has at least, as a share of the mean one.
LEAST_VARIANCE = 1e-3
#: A face counts at most so many times as much as it would if other readings did not go with this one.
MOST_WEIGHT = 5.0


@torch.no_grad()
def pole_flow(
    z: torch.Tensor, readings: torch.Tensor, column: int, *, shrink: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The flow that carries faces of an attribute's negative pole onto those of its positive one.

    Each pole is taken for a normal distribution. Between two of them the map that moves codes least is affine,
    T(z) = m_1 + M (z - m_0), with M symmetric (Peyré & Cuturi 2019, Remark 2.31). Its flow is dz/dt = v + A z with
    A = log M; followed for a time of 1 it is T, and backwards its inverse.

    Faces count by how sure the reading is, divided by how likely their other readings make it: where old faces are
    more often men, no face is made a man for its age.

    Args:
        z: codes (n, d).
        readings: of them (n, m) in 0..1, 1 at the positive pole.
        column: the attribute's, of ``readings``.
        shrink: share 0..1 of each covariance that is taken from both poles together; ``None`` for d / (d + faces of
            the smaller pole), since few faces do not settle d x d numbers, and at least a tenth. With a share of 1 the
            flow is a straight line.

    Returns:
        v (d,) and A (d, d), symmetric, as ``z``.
    """
    own, codes = readings[:, column].double(), z.double()
    likely = _likely(own, torch.cat([readings[:, :column], readings[:, column + 1 :]], dim=1).double())
    weights = own / likely, (1 - own) / (1 - likely)
    clouds = [_moments(codes, weight) for weight in weights]
    if shrink is None:
        fewest = min(float(weight.sum() ** 2 / weight.square().sum()) for weight in weights)
        shrink = max(LEAST_SHRINK, z.shape[1] / (z.shape[1] + fewest))
    pooled = (clouds[0][1] + clouds[1][1]) / 2
    least = LEAST_VARIANCE * pooled.diagonal().mean() * torch.eye(len(pooled)).to(pooled)
    (m_1, c_1), (m_0, c_0) = ((mean, (1 - shrink) * c + shrink * pooled + least) for mean, c in clouds)
    root, inverse = _power(c_0, 0.5), _power(c_0, -0.5)
    growth, axes = torch.linalg.eigh(inverse @ _power(root @ c_1 @ root, 0.5) @ inverse)
    rate = growth.log()
    # of v the part along each axis: what, with the growth, ends where T ends; 1 where nothing grows
    start = torch.where(rate.abs() < 1e-9, 1.0, rate / torch.expm1(rate))
    shift = m_1 - axes @ (growth * (axes.T @ m_0))
    return (axes @ (start * (axes.T @ shift))).to(z), ((axes * rate) @ axes.T).to(z)


def _likely(own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """How likely the positive pole is by the other readings (n,), away from 0 and 1."""
    if not others.shape[1]:
        return torch.full_like(own, 0.5)
    weight, bias = logistic(others, own[:, None], penalty=1e-3)
    edge = 0.5 / MOST_WEIGHT
    return (others @ weight[0].double() + bias[0].double()).sigmoid().clamp(edge, 1 - edge)


def _moments(z: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    share = (weight / weight.sum())[:, None]
    mean = (share * z).sum(dim=0)
    return mean, (share * (z - mean)).T @ (z - mean)


def _power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    """Of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * values.clamp_min(1e-12) ** exponent) @ vectors.T
