"""Walking: laws, plain loops, the two spaces, folders."""

from __future__ import annotations

import json
import math

import pytest
import torch
from clip_and_paths import rbf_direction
from clip_and_paths import walk as reference_walk
from safetensors.torch import load_file, save_file

from vlbias.errors import CheckpointError, ConfigError, ShapeError, UnknownNameError
from vlbias.paths import PathSet, RbfField

DIM = 8


def codes(n=6, seed=3):
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed))


def test_rbf_direction_is_the_gradient(rbf_paths):
    z, k = codes().double(), torch.tensor([0, 1, 2, 0, 1, 2])
    paths = rbf_paths.double()
    got = paths.direction(z, k)
    for i in range(len(z)):
        want = rbf_direction(z[i].tolist(), paths.field.support[k[i]].tolist(), paths.field.log_gamma[k[i]].tolist())
        torch.testing.assert_close(got[i], torch.tensor(want, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(6, dtype=torch.float64))


def test_field_starts_where_asked():
    field = RbfField(2, DIM).requires_grad_(False)
    assert float(field.support.abs().min()) == 3.0
    assert math.exp(float(field.log_gamma[0, 0, 0])) == pytest.approx(math.log(2) / 36)
    wanted = torch.nn.functional.normalize(codes(2), dim=1)
    field.start_along(wanted)
    got = torch.nn.functional.normalize(field(torch.zeros(2, DIM), torch.tensor([0, 1])), dim=1)
    assert float((got * wanted).sum(dim=1).min()) > 0.97


def test_a_code_far_from_all_supports_has_a_direction_without_nan(rbf_paths):
    z = torch.full((1, DIM), 1e4)
    assert torch.equal(rbf_paths.direction(z, 0), torch.zeros(1, DIM))


def test_no_steps_and_no_strength_change_nothing(rbf_paths):
    z = codes()
    assert torch.equal(rbf_paths.traverse(z, 0, num_steps=0), z)
    assert torch.equal(rbf_paths.walk(z, {"age": 0.0}), z)
    assert torch.equal(rbf_paths.walk(z, {}), z)
    assert rbf_paths.walk(z[:0], {"age": 1.0}).shape == (0, DIM)
    mixed = rbf_paths.walk(z, {"age": torch.tensor([0, 1.0, 0, -1, 0, 2])})
    assert torch.equal(mixed[[0, 2, 4]], z[[0, 2, 4]])


def test_one_batch_equals_single_walks(rbf_paths):
    z = codes()
    strengths = {"age": torch.tensor([0.5, -1, 0, 2, 0.1, 1]), "smile": torch.tensor([0, 1.0, 0, -0.3, 1, 1])}
    together = rbf_paths.walk(z, strengths)
    for i in range(len(z)):
        alone = rbf_paths.walk(z[i : i + 1], {name: float(value[i]) for name, value in strengths.items()})
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=0)


def test_walk_against_plain_loops(rbf_paths):
    z_sem, strengths = codes(3), {"tone": [0.4, -0.7, 0.0], "smile": [1.0, 0.2, 0.0]}
    got = rbf_paths.walk(z_sem, strengths)
    for i, z in enumerate(rbf_paths.to_own_space(z_sem).tolist()):
        arcs = {}
        for name, values in strengths.items():
            k = rbf_paths.index(name)
            arcs[k] = values[i] * float(rbf_paths.lengths[k, 0 if values[i] >= 0 else 1])

        def direction(point, k):
            return rbf_paths.direction(torch.tensor([point]), k)[0].tolist()

        want = torch.tensor([reference_walk(z, arcs, rbf_paths.step_size, direction)])
        torch.testing.assert_close(rbf_paths.to_own_space(got[i : i + 1]), want, atol=1e-4, rtol=0)


def test_strength_is_calibrated_arc_length_in_normalised_space(linear_paths):
    z = codes()
    moved = linear_paths.to_own_space(linear_paths.walk(z, {"age": 1.0, "tone": -0.5})) - linear_paths.to_own_space(z)
    want = torch.zeros(DIM)
    want[0], want[1] = 3.0, -0.5 * 2.0
    torch.testing.assert_close(moved, want.expand(6, DIM), atol=1e-4, rtol=0)


def test_order_of_names_does_not_matter(rbf_paths):
    z = codes()
    one, other = {"age": 1.0, "tone": -1.0}, {"tone": -1.0, "age": 1.0}
    torch.testing.assert_close(rbf_paths.walk(z, one), rbf_paths.walk(z, other), atol=1e-5, rtol=0)


def test_guard_basis_is_never_walked_along(rbf_paths):
    basis = torch.linalg.qr(codes(2, seed=9).T)[0].T
    rbf_paths.guard_basis = basis.expand(3, 2, DIM).clone()
    z = codes()
    moved = rbf_paths.to_own_space(rbf_paths.walk(z, {"age": 1.0})) - rbf_paths.to_own_space(z)
    torch.testing.assert_close(moved @ basis.T, torch.zeros(6, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(rbf_paths.direction(z, 1).norm(dim=1), torch.ones(6))


def test_raw_space_walks_raw_codes(dipoles):
    raw = PathSet({"age": dipoles["age"]}, DIM, network="linear", space="raw", step_size=0.05)
    raw.field.start_along(torch.eye(DIM)[:1])
    z = codes()
    moved = raw.walk(z, {"age": 2.0}) - z
    torch.testing.assert_close(moved[:, 0], torch.full((6,), 3.0), atol=1e-5, rtol=0)
    assert torch.equal(raw.to_own_space(z), z)


def test_walk_has_gradients(rbf_paths):
    z = codes().requires_grad_()
    rbf_paths.walk(z, {"age": 1.0}).sum().backward()
    assert torch.isfinite(z.grad).all()


def test_folder_round_trip(rbf_paths, tmp_path):
    rbf_paths.guard_basis = torch.linalg.qr(codes(2).T)[0].T.expand(3, 2, DIM).clone()
    rbf_paths.calibration = {"age": {"+": {"length": 6.0, "reached": True}}}
    rbf_paths.save_pretrained(tmp_path)
    again = PathSet.from_pretrained(tmp_path)
    z = codes()
    assert torch.equal(again.walk(z, {"smile": 0.7}), rbf_paths.walk(z, {"smile": 0.7}))
    assert again.dipoles == rbf_paths.dipoles
    assert again.calibration == rbf_paths.calibration
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "paths.safetensors"):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_damaged_folders(rbf_paths, tmp_path):
    with pytest.raises(CheckpointError, match="config.json does not exist"):
        PathSet.from_pretrained(tmp_path)
    rbf_paths.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()  # it would notice every change
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"dim": 9}, r"paths\.safetensors of config\.json does not fit its architecture.*mis-shaped: mean"),
        ({"network": "linear"}, r"paths\.safetensors of config\.json does not fit"),
        ({"dim": 10**9}, r"`dim` of _PathsConfig must be a whole number in 1\.\.65,536"),
        ({"step_size": 1e-9}, r"would take more than 10,000 steps"),
        ({"calibration": []}, "`calibration` of _PathsConfig must be a mapping"),
        ({"kind": "probes"}, "does not describe a path set"),
        ({"extra": 1}, "does not describe a path set"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=message):
            PathSet.from_pretrained(tmp_path)
    (tmp_path / "latent_paths_model.pt").write_bytes(b"")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="PathSet.from_published"):
        PathSet.from_pretrained(tmp_path)


def test_join_keeps_both(rbf_paths, dipoles):
    other = PathSet({"glasses": dipoles["glasses"]}, DIM, mean=rbf_paths.mean, std=rbf_paths.std).requires_grad_(False)
    other.guard_basis = torch.linalg.qr(codes(1).T)[0].T.expand(1, 1, DIM).clone()
    both = rbf_paths.join(other)
    assert both.names == ("age", "tone", "smile", "glasses")
    z = codes()
    for paths, name in ((rbf_paths, "tone"), (other, "glasses")):
        torch.testing.assert_close(both.walk(z, {name: 1.0}), paths.walk(z, {name: 1.0}), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="Both sets have a path named age"):
        rbf_paths.join(rbf_paths)
    with pytest.raises(ConfigError, match="differ in `network`: rbf and linear"):
        rbf_paths.join(PathSet({"x": dipoles["age"]}, DIM, network="linear", mean=rbf_paths.mean, std=rbf_paths.std))
    with pytest.raises(ConfigError, match="different autoencoders"):
        rbf_paths.join(PathSet({"x": dipoles["age"]}, DIM, mean=torch.ones(DIM), std=rbf_paths.std))


def test_bad_arguments(rbf_paths, dipoles):
    z = codes()
    with pytest.raises(ShapeError, match=r"`z` must be \(b, 8\); got \(6, 7\)"):
        rbf_paths.direction(z[:, :7], 0)
    with pytest.raises(ShapeError, match="one for each of the 6 codes"):
        rbf_paths.direction(z, torch.tensor([0, 1]))
    with pytest.raises(UnknownNameError, match=r"path numbers 0\.\.2; got 3"):
        rbf_paths.direction(z, 3)
    with pytest.raises(ConfigError, match="`num_steps` must be >= 0"):
        rbf_paths.traverse(z, 0, num_steps=-1)
    with pytest.raises(UnknownNameError, match="Unknown path 'agee'. Did you mean 'age'?"):
        rbf_paths.walk(z, {"agee": 1.0})
    with pytest.raises(ShapeError, match="one number or 6; got"):
        rbf_paths.walk(z, {"age": torch.ones(5)})
    with pytest.raises(ConfigError, match="must be finite"):
        rbf_paths.walk(z, {"age": float("nan")})
    with pytest.raises(ShapeError, match=r"`z_sem` must be \(b, 8\)"):
        rbf_paths.walk(z[0], {"age": 1.0})
    with pytest.raises(ConfigError, match="at least one dipole"):
        PathSet({}, DIM)
    with pytest.raises(ConfigError, match="`space` must be one of normalized, raw"):
        PathSet(dipoles, DIM, space="w+")
    with pytest.raises(ConfigError, match="needs `mean` and `std`"):
        PathSet(dipoles, DIM)
    with pytest.raises(ShapeError, match=r"`mean` must be \(8,\)"):
        PathSet(dipoles, DIM, mean=torch.zeros(3), std=torch.ones(8))
    with pytest.raises(ConfigError, match="`network` must be one of rbf, linear, affine; got 'mlp'"):
        PathSet(dipoles, DIM, space="raw", network="mlp")
    with pytest.raises(ConfigError, match="`step_size` must be positive"):
        PathSet(dipoles, DIM, space="raw", step_size=0)


def test_the_gradient_is_the_same_with_and_without_autograd(rbf_paths):
    z, k = codes(), torch.tensor([0, 1, 2, 0, 1, 2])
    quick = rbf_paths.field(z, k)
    assert torch.equal(quick[1::3], rbf_paths.field(z[1::3], 1))
    torch.testing.assert_close(rbf_paths.field(z.clone().requires_grad_(), k).detach(), quick, atol=1e-6, rtol=1e-5)


# -- affine fields ----------------------------------------------------------------------------------------------------


@pytest.fixture
def affine_paths(rbf_paths) -> PathSet:
    """Three paths along each of which every code moves in its own way."""
    paths = PathSet(rbf_paths.dipoles, DIM, network="affine", mean=rbf_paths.mean, std=rbf_paths.std)
    generator = torch.Generator().manual_seed(6)
    paths.field.start_flows(
        torch.randn(3, DIM, generator=generator), 0.3 * torch.randn(3, DIM, DIM, generator=generator)
    )
    return paths.requires_grad_(False)


def test_an_affine_direction_is_a_vector_and_a_matrix(affine_paths):
    z, k = codes(), torch.tensor([0, 1, 2, 0, 1, 2])
    field = affine_paths.field
    want = torch.stack([field.vectors[one] + field.matrices[one] @ row for one, row in zip(k, z, strict=True)])
    torch.testing.assert_close(affine_paths.direction(z, k), want / want.norm(dim=1, keepdim=True))


def test_an_affine_walk_is_the_same_alone_and_with_gradients(affine_paths):
    z = codes()
    together = affine_paths.walk(z, {"age": 1.0, "smile": -0.5})
    for row in range(len(z)):
        assert torch.equal(affine_paths.walk(z[row : row + 1], {"age": 1.0, "smile": -0.5})[0], together[row])
    wanted = z.clone().requires_grad_()
    with_gradients = affine_paths.walk(wanted, {"age": 1.0, "smile": -0.5})
    torch.testing.assert_close(with_gradients.detach(), together, atol=1e-5, rtol=0)
    with_gradients.sum().backward()
    assert torch.isfinite(wanted.grad).all()


def test_affine_paths_are_written_read_and_joined(affine_paths, dipoles, tmp_path):
    affine_paths.save_pretrained(tmp_path)
    again = PathSet.from_pretrained(tmp_path)
    z = codes()
    assert torch.equal(again.walk(z, {"tone": 0.7}), affine_paths.walk(z, {"tone": 0.7}))
    new = {"glasses": dipoles["glasses"]}
    other = PathSet(new, DIM, network="affine", mean=again.mean, std=again.std).requires_grad_(False)
    other.field.start_along(torch.eye(DIM)[:1])
    both = again.join(other)
    for paths, name in ((again, "tone"), (other, "glasses")):
        assert torch.equal(both.walk(z, {name: 1.0}), paths.walk(z, {name: 1.0}))


def test_matrices_of_another_shape_are_refused(affine_paths, tmp_path):
    affine_paths.save_pretrained(tmp_path)
    (tmp_path / "manifest.json").unlink()
    state = load_file(tmp_path / "paths.safetensors")
    save_file(state | {"field.matrices": torch.zeros(3, DIM, DIM + 1)}, tmp_path / "paths.safetensors")
    with pytest.raises(CheckpointError, match=r"mis-shaped: field\.matrices"):
        PathSet.from_pretrained(tmp_path)
