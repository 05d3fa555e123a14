"""Linear readings of attributes from semantic codes: cheap, differentiable, and honest about how well they read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.arguments import checked_call
from vlbias.checkpoints import fill, load_tensors, save_tensors, whole_folder, write_manifest
from vlbias.errors import CheckpointError, ConfigError, LabelError, ShapeError, unknown
from vlbias.files import make_folder, read_object, write_json
from vlbias.paths.dipole import MAX_DIM, Dipole, read_dipoles
from vlbias.settings import Settings, checked_number, number
from vlbias.shown import printable

__all__ = ["Probes", "effect_directions", "logistic"]

CONFIG_FILE, TENSORS_FILE = "probes.json", "probes.safetensors"


@dataclass(frozen=True)
class _ProbesConfig(Settings):
    """What ``probes.json`` says."""

    kind: Literal["probes"]
    names: tuple[str, ...]
    dipoles: Mapping[str, Sequence[str | Sequence[str]]]
    accuracy: Mapping[str, float | None]
    dim: int = number(low=1, high=MAX_DIM)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.names)) < len(self.names):
            raise ConfigError("`names` of probes contains a name twice.")
        for value in self.accuracy.values():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"`accuracy` of a probe must be a number or null; got {value!r:.80}.")


def effect_directions(z: torch.Tensor, readings: torch.Tensor) -> torch.Tensor:
    """Change of the codes per unit of each reading with the other readings held: (m, d).

    Least squares of codes z (n, d) on readings (n, m) and a constant. Unlike a probe's weights, which say where to
    *look*, its rows say where faces *lie*: walking along them stays among real codes.
    """
    centred = readings - readings.mean(dim=0)
    design = torch.cat([centred, torch.ones_like(centred[:, :1])], dim=1).double()
    ridge = 1e-3 * len(z) * torch.eye(design.shape[1], dtype=torch.float64, device=z.device)
    ridge[-1, -1] = 0
    solution = torch.linalg.solve(design.T @ design + ridge, design.T @ z.double())
    return solution[:-1].to(z.dtype)


class Probes(nn.Module):
    """One logistic regression for each attribute on normalised z_sem. Make them with :meth:`fit`.

    Attributes:
        names: attributes that can be read.
        dipoles: name => dipole, for those that were given one.
        accuracy: name => balanced accuracy on faces that were held out (NaN where one pole had none there).
    """

    mean: torch.Tensor
    std: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    effects: torch.Tensor

    @checked_call
    def __init__(
        self,
        names: tuple[str, ...],
        dim: int,
        *,
        dipoles: Mapping[str, Dipole] | None = None,
        accuracy: Mapping[str, float] | None = None,
    ):
        super().__init__()
        self.names, self.dim = tuple(names), checked_number("dim", dim, low=1, high=MAX_DIM)
        self.dipoles = read_dipoles(dipoles or {})
        self.accuracy = dict(accuracy or {})
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("weight", torch.zeros(len(self.names), dim))
        self.register_buffer("bias", torch.zeros(len(self.names)))
        # change of the normalised code per unit of each log-odds, the others held
        self.register_buffer("effects", torch.zeros(len(self.names), dim))

    def __repr__(self) -> str:
        return f"Probes({', '.join(f'{printable(n)} {self.accuracy.get(n, math.nan):.3f}' for n in self.names)})"

    @classmethod
    def fit(
        cls,
        z_sem: torch.Tensor,
        labels: Mapping[str, torch.Tensor | object],
        *,
        dipoles: Mapping[str, Dipole] | None = None,
        penalty: float = 1e-3,
        held_out: float = 0.2,
        seed: int = 0,
    ) -> Probes:
        """Fit on codes and labels, keep the held-out accuracy, then fit again on everything.

        Args:
            z_sem: codes (n, d) as the encoder gives them.
            labels: name => (n,) numbers in [0, 1]: 1 positive pole, 0 negative, between them how sure a scorer was; NaN
                for missing.
            dipoles: the texts behind the names, kept with the probes.
            penalty: of the squared weights (mean loss + penalty * |w|^2).
            held_out: share of the faces on which accuracy is measured.
            seed: of that split.

        Raises:
            ShapeError: shapes differ.
            LabelError: values outside [0, 1], or a pole without faces.
        """
        if z_sem.ndim != 2 or len(z_sem) < 4:
            raise ShapeError(f"`z_sem` must be (n, d) with n >= 4; got {tuple(z_sem.shape)}.")
        z_sem = z_sem.detach().float()
        n, dim = z_sem.shape
        targets = {}
        for name, values in labels.items():
            y = torch.as_tensor(values, dtype=torch.float32).to(z_sem.device)
            if y.shape != (n,):
                raise ShapeError(f"Labels of '{name}' must be ({n},); got {tuple(y.shape)}.")
            known = y[~y.isnan()]
            if len(known) and (known.min() < 0 or known.max() > 1):
                raise LabelError(
                    f"Labels of '{name}' must lie in [0, 1] or be NaN; got {float(known.min())}..{float(known.max())}."
                )
            if not ((known > 0.5).any() and (known < 0.5).any()):
                raise LabelError(f"Labels of '{name}' have one pole only; a probe needs faces of both.")
            targets[name] = y
        probes = cls(tuple(targets), dim, dipoles=dipoles)
        probes.mean.copy_(z_sem.mean(dim=0))
        probes.std.copy_(z_sem.std(dim=0).clamp_min(1e-6))
        probes.to(z_sem.device)
        z = (z_sem - probes.mean) / probes.std
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(z.device)
        cut = max(1, round(held_out * n))
        test, train = order[:cut], order[cut:]
        y_all = torch.stack(list(targets.values()), dim=1)
        weight, bias = logistic(z[train], y_all[train], penalty)
        predicted = z[test] @ weight.T + bias > 0
        for j, name in enumerate(targets):
            probes.accuracy[name] = _balanced_accuracy(predicted[:, j], y_all[test, j])
        weight, bias = logistic(z, y_all, penalty)
        probes.weight.copy_(weight)
        probes.bias.copy_(bias)
        probes.effects.copy_(effect_directions(z, z @ weight.T + bias))
        return probes

    def logits(self, z_sem: torch.Tensor) -> torch.Tensor:
        """Codes (b, d) => log-odds of the positive poles (b, number of names); differentiable.

        Raises:
            ShapeError: ``z_sem`` is not (b, d).
        """
        if z_sem.ndim != 2 or z_sem.shape[1] != self.dim:
            raise ShapeError(f"`z_sem` must be (b, {self.dim}); got {tuple(z_sem.shape)}.")
        return (z_sem - self.mean) / self.std @ self.weight.T + self.bias

    def shift(self, z_sem: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """Move codes so that their readings change as asked, staying where faces lie.

        Args:
            z_sem: codes (b, d).
            change: wanted change of every log-odds (b, number of names), in the order of ``names``.

        Returns:
            Codes (b, d), moved along the regression of codes on readings; see :func:`effect_directions`.

        Raises:
            ShapeError: ``change`` is not (b, number of names).
        """
        if change.shape != (len(z_sem), len(self.names)):
            raise ShapeError(f"`change` must be ({len(z_sem)}, {len(self.names)}); got {tuple(change.shape)}.")
        return z_sem + change @ self.effects * self.std

    def score(self, z_sem: torch.Tensor, name: str) -> torch.Tensor:
        """Probability (b,) of the positive pole.

        Raises:
            UnknownNameError: no probe of that name.
        """
        return self.logits(z_sem)[:, self.index(name)].sigmoid()

    @checked_call
    def index(self, name: str) -> int:
        """Column of a probe.

        Raises:
            UnknownNameError: no probe of that name.
        """
        if name not in self.names:
            raise unknown("probe", name, self.names)
        return self.names.index(name)

    def normals(self, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Weights (number of names, d) for codes normalised with another ``mean`` and ``std``.

        Moving such a code orthogonally to a row leaves that reading exactly as it was.
        """
        del mean  # it moves the offset only
        return self.weight * (std.to(self.weight) / self.std)

    def join(self, other: Probes) -> Probes:
        """Probes of both; where a name is in both, the other's.

        Raises:
            ConfigError: codes of another size.
        """
        if self.dim != other.dim:
            raise ConfigError(f"The probes read codes of {self.dim} and of {other.dim} numbers.")
        mine = [name for name in self.names if name not in other.names]
        joined = Probes(
            (*mine, *other.names),
            self.dim,
            dipoles={**self.dipoles, **other.dipoles},
            accuracy={**{name: self.accuracy.get(name, float("nan")) for name in mine}, **other.accuracy},
        ).to(self.weight.device)
        joined.mean.copy_(self.mean)
        joined.std.copy_(self.std)
        # The other's readings, written for this set's normalisation.
        weight = other.weight.to(self.weight) * (self.std / other.std.to(self.std))
        bias = other.bias.to(self.bias) + other.weight.to(self.weight) @ (
            (self.mean - other.mean.to(self.mean)) / other.std.to(self.std)
        )
        rows = [self.index(name) for name in mine]
        joined.weight.copy_(torch.cat([self.weight[rows], weight]))
        joined.bias.copy_(torch.cat([self.bias[rows], bias]))
        effects = other.effects.to(self.effects) * (other.std.to(self.std) / self.std)
        joined.effects.copy_(torch.cat([self.effects[rows], effects]))
        return joined

    @checked_call
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``probes.json`` and ``probes.safetensors`` into a folder.

        Raises:
            OutputError: it cannot be written.
        """
        folder = make_folder(folder)
        save_tensors(folder / TENSORS_FILE, self.state_dict(), torch.float32)
        config = {
            "kind": "probes",
            "dim": self.dim,
            "names": list(self.names),
            "dipoles": {name: dipole.to_list() for name, dipole in self.dipoles.items()},
            "accuracy": {name: value if value == value else None for name, value in self.accuracy.items()},
        }
        write_json(folder / CONFIG_FILE, config)
        write_manifest(folder, [CONFIG_FILE, TENSORS_FILE])

    @classmethod
    @checked_call
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> Probes:
        """Read what :meth:`save_pretrained` wrote.

        Raises:
            CheckpointError: a file is missing, changed, or does not fit the other.
        """
        folder = whole_folder(folder)
        try:
            config = _ProbesConfig.from_dict(read_object(folder / CONFIG_FILE))
            accuracy = {name: float("nan") if value is None else value for name, value in config.accuracy.items()}
            with torch.device("meta"):  # compared before memory is taken for it
                probes = cls(config.names, config.dim, dipoles=read_dipoles(config.dipoles), accuracy=accuracy)
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE} does not describe probes: {error}") from error
        state = load_tensors(folder / TENSORS_FILE)
        fill(probes, state, f"{folder / TENSORS_FILE} of {CONFIG_FILE}", assign=True)
        if not (probes.std > 0).all():
            raise CheckpointError(f"{folder / TENSORS_FILE}: `std` must be positive in every dimension.")
        return probes


def logistic(z: torch.Tensor, y: torch.Tensor, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regressions of all columns of ``y`` (n, k; NaN missing) at once, poles weighted alike."""
    z, y = z.double(), y.double()
    known = ~y.isnan()
    y = torch.where(known, y, 0.5)
    positive = (known & (y > 0.5)).sum(dim=0).clamp_min(1)
    negative = (known & (y <= 0.5)).sum(dim=0).clamp_min(1)
    row_weight = known * torch.where(y > 0.5, 0.5 / positive, 0.5 / negative)
    weight = torch.zeros(y.shape[1], z.shape[1], dtype=z.dtype, device=z.device, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=z.dtype, device=z.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-7, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(z @ weight.T + bias, y, reduction="none")
        value = (errors * row_weight).sum() + penalty * (weight**2).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach().float(), bias.detach().float()


def _balanced_accuracy(predicted: torch.Tensor, y: torch.Tensor) -> float:
    known = ~y.isnan()
    rates = []
    for pole in (True, False):
        members = known & ((y > 0.5) == pole)
        rates.append(float((predicted[members] == pole).float().mean()) if members.any() else float("nan"))
    return sum(rates) / 2
