"""The flow between two poles carries the one cloud of codes onto the other, and takes no other attribute along."""

from __future__ import annotations

import pytest
import torch

from vlbias.paths.transport import pole_flow

DIM = 5


def _clouds(n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of two normal distributions, and how each is read."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, DIM, DIM, generator=generator) / 2 + torch.eye(DIM)
    centres = 2 * torch.randn(2, DIM, generator=generator)
    z = torch.randn(2, n, DIM, generator=generator) @ mixing + centres[:, None]
    return z.flatten(0, 1), torch.cat([torch.zeros(n), torch.ones(n)])[:, None]


def _followed(z: torch.Tensor, v: torch.Tensor, a: torch.Tensor, time: float = 1.0) -> torch.Tensor:
    """Where dz/dt = v + A z leads, by the matrix exponential of one larger matrix."""
    larger = torch.zeros(DIM + 1, DIM + 1, dtype=torch.float64)
    larger[:DIM, :DIM], larger[:DIM, DIM] = a.double(), v.double()
    larger = torch.linalg.matrix_exp(time * larger)
    return z.double() @ larger[:DIM, :DIM].T + larger[:DIM, DIM]


def test_the_flow_carries_one_cloud_onto_the_other_and_back():
    z, readings = _clouds()
    v, a = pole_flow(z, readings, 0, shrink=0)
    negative, positive = z.split(len(z) // 2)
    for time, source, other in ((1.0, negative, positive), (-1.0, positive, negative)):
        arrived = _followed(source, v, a, time)
        torch.testing.assert_close(arrived.mean(0), other.double().mean(0), atol=0.02, rtol=0.01)
        torch.testing.assert_close(torch.cov(arrived.T), torch.cov(other.T).double(), atol=0.05, rtol=0.02)
    torch.testing.assert_close(a, a.T)


def test_no_other_map_of_its_kind_moves_codes_less():
    """Of the affine maps between the two clouds: any other turns the codes about their centre first."""
    z, readings = _clouds(2000)
    v, a = pole_flow(z, readings, 0, shrink=0)
    negative, positive = (part.double() for part in z.split(len(z) // 2))
    moved = (_followed(negative, v, a) - negative).square().sum(1).mean()
    roots = [torch.linalg.cholesky(torch.cov(part.T)) for part in (negative, positive)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=generator, dtype=torch.float64))[0]
        other = (negative - negative.mean(0)) @ torch.linalg.inv(roots[0]).T @ turn @ roots[1].T + positive.mean(0)
        assert moved < (other - negative).square().sum(1).mean()


def test_what_goes_along_with_the_attribute_is_not_moved():
    """Nine of ten faces of the positive pole have the other attribute as well: the first two dimensions."""
    generator = torch.Generator().manual_seed(0)
    own = (torch.rand(8000, generator=generator) < 0.5).float()
    follows = torch.rand(8000, generator=generator) < 0.8
    other = torch.where(follows, own, 1 - own)
    z = torch.randn(8000, DIM, generator=generator) * 0.3
    z[:, 0] += 2 * own
    z[:, 1] += 2 * other
    v, a = pole_flow(z, torch.stack([own, other], 1), 0)
    faces = z[own == 0]
    moved = (_followed(faces, v, a) - faces).mean(0)
    assert float(moved[0]) == pytest.approx(2, abs=0.05) and abs(float(moved[1])) < 0.1
    alone = pole_flow(z, own[:, None], 0)
    assert float((_followed(faces, *alone) - faces).mean(0)[1]) > 1, "the test has something to find"


def test_poles_of_one_shape_are_a_straight_line_apart():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, DIM, generator=generator)
    z = torch.cat([z, z + torch.arange(DIM)])
    readings = torch.cat([torch.zeros(4000), torch.ones(4000)])[:, None]
    v, a = pole_flow(z, readings, 0)
    torch.testing.assert_close(v, torch.arange(DIM).float(), atol=1e-4, rtol=0)
    assert float(a.abs().max()) < 1e-5


def test_few_faces_give_a_straight_line():
    """Eight faces of each pole say nothing of how 64 numbers vary: noise must not become a curve."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(16, 64, generator=generator)
    z[8:] += 3
    readings = torch.cat([torch.zeros(8), torch.ones(8)])[:, None]
    v, a = pole_flow(z, readings, 0)
    assert float((z @ a).norm(dim=1).mean() / v.norm()) < 0.1
    noisy = pole_flow(z, readings, 0, shrink=0)
    assert float((z @ noisy[1]).norm(dim=1).mean() / noisy[0].norm()) > 0.3, "the test has something to find"
