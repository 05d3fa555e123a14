"""Direction fields on the semantic space: the paper's RBF network, affine flows, and straight lines as the baseline."""

from __future__ import annotations

import math

import torch
from torch import nn

from vlbias.errors import ConfigError

__all__ = ["AffineField", "Field", "LinearField", "RbfField", "field_shapes", "make_field", "unit"]


def unit(v: torch.Tensor) -> torch.Tensor:
    """Rows of unit length; a row of zeros stays zero (the published code divides by zero there)."""
    return v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)


class RbfField(nn.Module):
    """Gradient of a sum of one-dimensional radial basis functions, two in each dimension.

    f_k(z) = sum over i of exp(-gamma_{k,1,i} (z_i - s_{k,1,i})^2) + exp(-gamma_{k,2,i} (z_i - s_{k,2,i})^2);
    the direction of path k at z is grad f_k(z) / |grad f_k(z)|. A code is drawn towards the support vectors.

    Parameters:
        support: (k, 2, d) support vectors s.
        log_gamma: (k, 2, d).

    Source: Tzelepis et al. 2022, ContraCLIP, Sect. 3.2, in the per-dimension form of the published latent-path network.
    """

    network = "rbf"

    def __init__(self, num_paths: int, dim: int):
        super().__init__()
        self.support = nn.Parameter(torch.empty(num_paths, 2, dim))
        self.log_gamma = nn.Parameter(torch.empty(num_paths, 2, dim))
        self.start_at_extremes(torch.full((dim,), -3.0), torch.full((dim,), 3.0))

    @torch.no_grad()
    def start_at_extremes(self, low: torch.Tensor, high: torch.Tensor, beta: float = 0.5) -> None:
        """Start as published: support vectors at the extremes (d,) of each dimension, gamma = -log(beta) / range^2."""
        self.support[:, 0], self.support[:, 1] = low, high
        self.log_gamma[:] = (-math.log(beta) / (high - low) ** 2).log()

    @torch.no_grad()
    def start_along(self, directions: torch.Tensor, *, reach: float = 40.0, gamma: float = 1e-4) -> None:
        """Set the field so that near the origin it points along ``directions`` (k, d).

        The first support vector of a dimension stands ``reach`` away on the side where the direction points, its gamma
        grows with the size of the component; the second one starts weak on the other side. Both then learn. With
        support vectors this far beyond the codes (deviation 1) the field starts nearly straight.
        """
        share = (directions.abs() / directions.abs().amax(dim=1, keepdim=True)).clamp_min(1e-3)
        sign = torch.where(directions < 0, -1.0, 1.0)
        self.support[:, 0], self.support[:, 1] = reach * sign, -reach * sign
        self.log_gamma[:, 0] = (gamma * share).log()
        self.log_gamma[:, 1] = (gamma * 1e-3 * share).log()

    def forward(self, z: torch.Tensor, k: torch.Tensor | int) -> torch.Tensor:
        """Codes (b, d) and path indices (b,), or one for all => gradients (b, d), not normalised."""
        if torch.is_grad_enabled() and (z.requires_grad or self.support.requires_grad):
            support, gamma = self.support[k], self.log_gamma[k].exp()
            difference = z.unsqueeze(1) - support
            return -2.0 * (gamma * torch.exp(-gamma * difference**2) * difference).sum(dim=-2)
        if not torch.is_tensor(k):
            return self._gradient(z, k)
        total = torch.empty_like(z)
        for j in range(len(self.support)):
            rows = torch.nonzero(k == j).flatten()
            if len(rows) == len(z):
                return self._gradient(z, j)
            if len(rows):
                total[rows] = self._gradient(z[rows], j)
        return total

    def _gradient(self, z: torch.Tensor, k: int) -> torch.Tensor:
        """One path, in place: on a large batch the time goes into fetching fresh memory."""
        total = torch.zeros_like(z)
        for support, log_gamma in zip(self.support[k], self.log_gamma[k], strict=True):
            difference, gamma = z - support, log_gamma.exp()
            kernel = difference.square().mul_(-gamma).exp_().mul_(difference)
            total.addcmul_(kernel, gamma, value=-2.0)
        return total


class LinearField(nn.Module):
    """One fixed direction for each path.

    Parameters:
        vectors: (k, d), any length.
    """

    network = "linear"

    def __init__(self, num_paths: int, dim: int):
        super().__init__()
        # Any direction will do: training or ``start_along`` sets it; equal numbers favour no dimension.
        self.vectors = nn.Parameter(torch.full((num_paths, dim), dim**-0.5))

    @torch.no_grad()
    def start_along(self, directions: torch.Tensor) -> None:
        """Take the unit vectors of ``directions`` (k, d)."""
        self.vectors.copy_(unit(directions))

    def forward(self, z: torch.Tensor, k: torch.Tensor | int) -> torch.Tensor:
        """Codes (b, d) and path indices (b,), or one for all => vectors (b, d)."""
        return self.vectors[k] + torch.zeros_like(z)


class AffineField(nn.Module):
    """A vector and a matrix for each path: the direction at z is v_k + A_k z, so that each face moves in its own way.

    Parameters:
        vectors: (k, d).

    Buffers, which no training changes:
        matrices: (k, d, d).
    """

    network = "affine"
    matrices: torch.Tensor

    def __init__(self, num_paths: int, dim: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.full((num_paths, dim), dim**-0.5))
        self.register_buffer("matrices", torch.zeros(num_paths, dim, dim))

    @torch.no_grad()
    def start_along(self, directions: torch.Tensor) -> None:
        """Straight lines along the unit vectors of ``directions`` (k, d)."""
        self.vectors.copy_(unit(directions))
        self.matrices.zero_()

    @torch.no_grad()
    def start_flows(self, vectors: torch.Tensor, matrices: torch.Tensor) -> None:
        """Take vectors (k, d) and matrices (k, d, d), see :func:`vlbias.paths.transport.pole_flow`."""
        self.vectors.copy_(vectors)
        self.matrices.copy_(matrices)

    def forward(self, z: torch.Tensor, k: torch.Tensor | int) -> torch.Tensor:
        """Codes (b, d) and path indices (b,), or one for all => vectors (b, d)."""
        rows = k.tolist() if torch.is_tensor(k) and k.ndim else [int(k)] * len(z)
        if torch.is_grad_enabled() and (z.requires_grad or self.vectors.requires_grad):
            moved = torch.einsum("bij,bj->bi", self.matrices[rows], z)
        else:
            # row by row: the bits of a product of matrices depend on how many rows there are
            moved = torch.empty_like(z)
            matrices = self.matrices.unbind()
            for one, code, place in zip(rows, z.unbind(), moved.unbind(), strict=True):
                torch.mv(matrices[one], code, out=place)
        return self.vectors[k] + moved


#: Any of them.
Field = RbfField | LinearField | AffineField
_FIELDS: dict[str, type[Field]] = {kind.network: kind for kind in (RbfField, LinearField, AffineField)}


def field_shapes(network: str, num_paths: int, dim: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a field's tensors by name, without making any."""
    if network == "linear":
        return {"vectors": (num_paths, dim)}
    if network == "affine":
        return {"vectors": (num_paths, dim), "matrices": (num_paths, dim, dim)}
    return dict.fromkeys(("support", "log_gamma"), (num_paths, 2, dim))


def make_field(network: str, num_paths: int, dim: int) -> Field:
    """A field by name: "rbf", "linear" or "affine".

    Raises:
        ConfigError: another name.
    """
    if network not in _FIELDS:
        raise ConfigError(f"`network` must be one of {', '.join(_FIELDS)}; got '{network}'.")
    return _FIELDS[network](num_paths, dim)
