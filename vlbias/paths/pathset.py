"""``PathSet``: named, calibrated paths through the semantic space, and walking along them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from vlbias.arguments import checked_call
from vlbias.checkpoints import check_shapes, load_tensors, save_tensors, whole_folder, write_manifest
from vlbias.errors import CheckpointError, ConfigError, ShapeError, UnknownNameError, unknown
from vlbias.files import make_folder, read_object, write_file, write_json
from vlbias.hub import check_hub_name, find_or_fetch, is_hub_name, model_card, push_folder
from vlbias.paths.dipole import MAX_DIM, Dipole, read_dipoles
from vlbias.paths.fields import Field, field_shapes, make_field, unit
from vlbias.paths.published import read_published
from vlbias.settings import Settings, checked_number, number
from vlbias.shown import printable

__all__ = ["PathSet"]

CONFIG_FILE = "config.json"
TENSORS_FILE = "paths.safetensors"
SPACES = ("normalized", "raw")
#: A walk of strength 1 takes some twenty steps; a file that asks for more than this is damaged.
MAX_STEPS = 10_000


@dataclass(frozen=True)
class _PathsConfig(Settings):
    """What a path set's ``config.json`` says."""

    kind: Literal["paths"]
    network: Literal["rbf", "linear", "affine"]
    space: Literal["normalized", "raw"]
    dipoles: Mapping[str, Sequence[str | Sequence[str]]]
    calibration: Mapping[str, object]
    dim: int = number(low=1, high=MAX_DIM)
    step_size: float = number(above=0, high=1e6)

    def check(self, state: Mapping[str, torch.Tensor], num_paths: int, *, source: str) -> None:
        """Compare the shapes of a file with what is said of it.

        Raises:
            CheckpointError: names the tensors that are missing, unexpected or of another shape.
        """
        depth = state["guard_basis"].shape[1:2] if "guard_basis" in state else (0,)
        wanted = {"mean": (self.dim,), "std": (self.dim,), "lengths": (num_paths, 2)}
        wanted |= {"guard_basis": (num_paths, *depth, self.dim)}
        wanted |= {f"field.{name}": shape for name, shape in field_shapes(self.network, num_paths, self.dim).items()}
        check_shapes(wanted, {name: tuple(value.shape) for name, value in state.items()}, source)


class PathSet(nn.Module):
    """Paths in one semantic space; ``k`` numbers them in the order of ``names``.

    Args:
        dipoles: name => dipole of each path.
        dim: size d of z_sem.
        network: "rbf" (the paper's), "affine" (each face in its own way) or "linear" (baseline).
        space: the set's own space: "normalized" (each dimension of z_sem with mean 0 and deviation 1) or "raw" (z_sem
            as the encoder gives it, as in the published path sets).
        mean, std: (d,) of z_sem over the training faces; needed by a normalized set, not used by a raw one.
        step_size: longest Euler step of :meth:`walk`, in units of the set's own space.

    Attributes:
        lengths: buffer (k, 2), arc length of strength +1 and of strength -1 in the set's own space.
        guard_basis: buffer (k, g, d), orthonormal rows that path k never moves along (rows of zeros are unused).
        calibration: name => what calibration measured; a path that is missing here has default lengths.

    Raises:
        ConfigError: no path, a wrong name of space or network, statistics missing.
    """

    mean: torch.Tensor
    std: torch.Tensor
    lengths: torch.Tensor
    guard_basis: torch.Tensor

    @checked_call
    def __init__(
        self,
        dipoles: Mapping[str, Dipole],
        dim: int,
        *,
        network: str = "rbf",
        space: str = "normalized",
        mean: torch.Tensor | None = None,
        std: torch.Tensor | None = None,
        step_size: float = 0.25,
    ):
        super().__init__()
        if not dipoles:
            raise ConfigError("A path set needs at least one dipole.")
        if space not in SPACES:
            raise ConfigError(f"`space` must be one of {', '.join(SPACES)}; got '{space}'.")
        if not step_size > 0:
            raise ConfigError(f"`step_size` must be positive; got {step_size}.")
        if space == "normalized" and (mean is None or std is None):
            raise ConfigError("A normalized path set needs `mean` and `std` of z_sem, each (d,).")
        self.dipoles = read_dipoles(dipoles)
        dim = checked_number("dim", dim, low=1, high=MAX_DIM)
        self.dim, self.network, self.space, self.step_size = dim, network, space, step_size
        self.field: Field = make_field(network, len(dipoles), dim)
        for name, value in (("mean", mean), ("std", std)):
            default = torch.zeros(dim) if name == "mean" else torch.ones(dim)
            value = default if value is None or space == "raw" else value.detach().float().flatten().cpu().clone()
            if value.shape != (dim,):
                raise ShapeError(f"`{name}` must be ({dim},), one number per dimension; got {tuple(value.shape)}.")
            self.register_buffer(name, value)
        # Thirty steps of 0.05, the middle of what the published code walks, until calibration measures it.
        self.register_buffer("lengths", torch.full((len(dipoles), 2), 1.5 if space == "raw" else 6.0))
        self.register_buffer("guard_basis", torch.zeros(len(dipoles), 0, dim))
        self.calibration: dict[str, Any] = {}

    def __repr__(self) -> str:
        return printable(f"PathSet({', '.join(self.names)}; {self.network}, {self.dim} dimensions, {self.space} space)")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the paths, in order."""
        return tuple(self.dipoles)

    @checked_call
    def index(self, name: str) -> int:
        """Number of a path.

        Raises:
            UnknownNameError: no path of that name.
        """
        if name not in self.dipoles:
            raise unknown("path", name, self.names)
        return self.names.index(name)

    # -- the two spaces -----------------------------------------------------------------------------------------------

    def to_own_space(self, z_sem: torch.Tensor) -> torch.Tensor:
        """z_sem as the encoder gives it => codes in the set's own space."""
        return (z_sem - self.mean) / self.std if self.space == "normalized" else z_sem

    def from_own_space(self, z: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`to_own_space`."""
        return z * self.std + self.mean if self.space == "normalized" else z

    # -- walking ------------------------------------------------------------------------------------------------------

    def direction(self, z: torch.Tensor, k: torch.Tensor | int) -> torch.Tensor:
        """Direction of path ``k`` at codes ``z``, towards the positive pole.

        Args:
            z: codes (b, d) in the set's own space.
            k: path of each code, int64 (b,) or one number.

        Returns:
            Unit vectors (b, d), orthogonal to the path's ``guard_basis``.

        Raises:
            ShapeError: ``z`` is not (b, d), or ``k`` not (b,).
            UnknownNameError: a path number out of range.
        """
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ShapeError(f"`z` must be (b, {self.dim}); got {tuple(z.shape)}.")
        if torch.is_tensor(k) and k.ndim:
            if k.shape != z.shape[:1]:
                raise ShapeError(
                    f"`k` must be one number, or one for each of the {len(z)} codes; got {tuple(k.shape)}."
                )
            outside = k.numel() and (int(k.min()) < 0 or int(k.max()) >= len(self.names))
        else:
            k = int(k)
            outside = not 0 <= k < len(self.names)
        if outside:
            asked = k.tolist() if torch.is_tensor(k) else k
            raise UnknownNameError(f"`k` must hold path numbers 0..{len(self.names) - 1}; got {asked}.")
        direction = unit(self.field(z, k))
        if self.guard_basis.shape[1]:
            # Sums of products, not matrix products: a row's bits must not depend on the batch or on unused rows.
            basis = self.guard_basis[k]
            along = (basis * direction.unsqueeze(1)).sum(dim=-1, keepdim=True)
            direction = unit(direction - (along * basis).sum(dim=1))
        return direction

    def traverse(
        self,
        z: torch.Tensor,
        k: torch.Tensor | int,
        num_steps: int = 25,
        step_size: float = 0.05,
        direction: int = 1,
    ) -> torch.Tensor:
        """Walk ``num_steps`` Euler steps along path ``k``; the arc length is ``num_steps * step_size``.

        Args:
            z: codes (b, d) in the set's own space; not changed.
            k: path of each code, int64 (b,) or one number.
            num_steps: >= 0; 0 returns ``z`` as it is.
            step_size: length of a step, > 0, in units of the set's own space.
            direction: +1 towards the positive pole, -1 towards the negative one.

        Returns:
            Codes (b, d). Differentiable in ``z`` and in the network.

        Raises:
            ShapeError, UnknownNameError: see :meth:`direction`.
            ConfigError: ``num_steps``, ``step_size`` or ``direction`` out of range.
        """
        if num_steps < 0 or not step_size > 0 or direction not in (1, -1):
            raise ConfigError(
                "`num_steps` must be >= 0, `step_size` > 0 and `direction` 1 or -1; got "
                f"{num_steps}, {step_size} and {direction}."
            )
        for _ in range(num_steps):
            z = z + direction * step_size * self.direction(z, k)
        return z

    def walk(
        self, z_sem: torch.Tensor, strengths: Mapping[str, float | torch.Tensor | Sequence[float]]
    ) -> torch.Tensor:
        """Move raw semantic codes by calibrated strengths; all codes go together, each its own number of steps.

        Several paths are followed at once: every step moves along each of them by its share, so the order in which they
        are named does not matter.

        Args:
            z_sem: codes (b, d) as the encoder gives them, whatever the set's own space; not changed.
            strengths: path name => a number for all codes or (b,) numbers; +1 carries a median face of the negative
                pole to the positive one, -1 the other way.

        Returns:
            Codes (b, d) as the encoder gives them; a code whose strengths are all 0 is returned bit for bit.

        Raises:
            UnknownNameError: no path of that name.
            ShapeError: ``z_sem`` or a strength has another shape.
            ConfigError: a strength is not finite.
        """
        if z_sem.ndim != 2 or z_sem.shape[1] != self.dim:
            raise ShapeError(f"`z_sem` must be (b, {self.dim}); got {tuple(z_sem.shape)}.")
        arcs = {}
        for name, strength in strengths.items():
            k = self.index(name)
            value = torch.as_tensor(strength, dtype=z_sem.dtype, device=z_sem.device)
            if value.ndim > 1 or (value.ndim == 1 and len(value) != len(z_sem)):
                raise ShapeError(
                    f"The strength of '{name}' must be one number or {len(z_sem)}; got {tuple(value.shape)}."
                )
            if not torch.isfinite(value).all():
                raise ConfigError(f"The strength of '{name}' must be finite; got {value.tolist()}.")
            value = value.expand(len(z_sem))
            lengths = self.lengths[k].to(z_sem)
            arcs[k] = value * torch.where(value >= 0, lengths[0], lengths[1])
        moved = torch.zeros(len(z_sem), dtype=torch.bool, device=z_sem.device)
        if not arcs or not len(z_sem):
            return z_sem.clone()
        longest = torch.stack([arc.abs() for arc in arcs.values()]).amax(dim=0)
        # The small tolerance keeps an arc of a whole number of steps from gaining one through rounding.
        steps = torch.ceil(longest / self.step_size - 1e-4).long().clamp_min(1) * (longest > 0)
        moved = steps > 0
        z = self.to_own_space(z_sem)
        for step in range(int(steps.max())):
            rows = torch.nonzero(step < steps).flatten()  # codes that have arrived cost nothing more
            here = z if len(rows) == len(z) else z[rows]
            change = torch.zeros_like(here)
            for k, arc in arcs.items():
                share = arc[rows] / steps[rows]
                change = change + share.unsqueeze(1) * self.direction(here, k)
            z = z + change if len(rows) == len(z) else z.index_add(0, rows, change)
        return torch.where(moved.unsqueeze(1), self.from_own_space(z), z_sem)

    # -- putting sets together ----------------------------------------------------------------------------------------

    @checked_call
    def join(self, other: PathSet) -> PathSet:
        """A new set with the paths of both.

        Raises:
            ConfigError: the sets live in different spaces, have other networks, or share a name.
        """
        for what in ("dim", "network", "space"):
            if getattr(self, what) != getattr(other, what):
                raise ConfigError(f"The sets differ in `{what}`: {getattr(self, what)} and {getattr(other, what)}.")
        if shared := sorted(set(self.names) & set(other.names)):
            raise ConfigError(f"Both sets have a path named {', '.join(shared)}.")
        if not (torch.allclose(self.mean, other.mean) and torch.allclose(self.std, other.std)):
            raise ConfigError("The sets were made for different autoencoders: their `mean` and `std` of z_sem differ.")
        joined = PathSet(
            {**self.dipoles, **other.dipoles},
            self.dim,
            network=self.network,
            space=self.space,
            mean=self.mean,
            std=self.std,
            step_size=self.step_size,
        )
        mine, theirs = self.field.state_dict(), other.field.state_dict()
        joined.field.load_state_dict({key: torch.cat([mine[key], theirs[key].to(mine[key])]) for key in mine})
        joined.lengths = torch.cat([self.lengths, other.lengths.to(self.lengths)]).cpu()
        depth = max(self.guard_basis.shape[1], other.guard_basis.shape[1])
        rows = [
            torch.cat([b.cpu(), b.new_zeros(len(b), depth - b.shape[1], self.dim).cpu()], dim=1)
            for b in (self.guard_basis, other.guard_basis)
        ]
        joined.guard_basis = torch.cat(rows)
        joined.calibration = {**self.calibration, **other.calibration}
        joined.requires_grad_(False)
        return joined.to(self.mean.device)

    # -- files --------------------------------------------------------------------------------------------------------

    @checked_call
    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``paths.safetensors`` (float32: the fields are small and steep).

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = make_folder(folder)
        save_tensors(folder / TENSORS_FILE, self.state_dict(), torch.float32)
        config = {
            "kind": "paths",
            "dim": self.dim,
            "network": self.network,
            "space": self.space,
            "step_size": self.step_size,
            "dipoles": {name: dipole.to_list() for name, dipole in self.dipoles.items()},
            "calibration": self.calibration,
        }
        write_json(folder / CONFIG_FILE, config)
        write_manifest(folder, [CONFIG_FILE, TENSORS_FILE])

    def push_to_hub(self, name: str, *, license: str | None = None, private: bool = True) -> str:
        """Send the paths to the Hugging Face hub, with a card.

        Args:
            name: ``"user/name"``; made if it is not there.
            license: of the data that they were learned from, in its owners' words.
            private: whether a repository that is made shows itself to its owner alone.

        Returns:
            The address of the repository.

        Raises:
            ConfigError: ``name`` is not ``user/name``.
            CheckpointError: the hub cannot be reached, or refuses.
        """
        check_hub_name(name)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            card = model_card(
                name,
                license=license,
                dipoles=self.dipoles,
                load=f'from vlbias import Editor\n\neditor = Editor.from_pretrained("EDITOR", paths="{name}")',
                facts={"kind": f"paths through semantic codes of {self.dim} numbers"},
                tags=["latent-paths"],
            )
            write_file(Path(folder) / "README.md", card)
            return push_folder(folder, name, kind="model", private=private)

    @classmethod
    @checked_call
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> PathSet:
        """Load a set written by :meth:`save_pretrained`, or sent to the hub by :meth:`push_to_hub`.

        Args:
            folder: its folder, or ``"user/name"`` of the hub, which is asked for it if no folder is called so.

        Raises:
            CheckpointError: a file is missing, changed, or does not fit the other.
        """
        folder = find_or_fetch(folder) if is_hub_name(folder) else whole_folder(folder)
        if (folder / "latent_paths_model.pt").is_file() and not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder} contains published paths; load it with PathSet.from_published.")
        try:
            config = _PathsConfig.from_dict(read_object(folder / CONFIG_FILE))
            dipoles = read_dipoles(config.dipoles)
            if not dipoles:
                raise ConfigError("it names no path.")
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE} does not describe a path set: {error}") from error
        state = load_tensors(folder / TENSORS_FILE)
        # compared before memory is taken for it
        config.check(state, len(dipoles), source=f"{folder / TENSORS_FILE} of {CONFIG_FILE}")
        paths = cls(
            dipoles,
            config.dim,
            network=config.network,
            space=config.space,
            mean=state["mean"],
            std=state["std"],
            step_size=config.step_size,
        )
        paths.guard_basis = torch.zeros_like(state["guard_basis"])
        paths.load_state_dict(state)
        paths._check_numbers(folder / TENSORS_FILE)
        paths.calibration = dict(config.calibration)
        return paths.requires_grad_(False)

    def _check_numbers(self, source: Path) -> None:
        """Numbers of a file with which no walk comes to an end, or to a code.

        Raises:
            CheckpointError: a deviation that is not positive, or a walk of too many steps.
        """
        if not (self.std > 0).all():
            raise CheckpointError(f"{source}: `std` must be positive in every dimension.")
        longest = float(self.lengths.abs().max())
        if longest / self.step_size > MAX_STEPS:
            raise CheckpointError(
                f"{source}: a strength of 1 would take more than {MAX_STEPS:,} steps (length {longest:g} in steps of "
                f"{self.step_size:g})."
            )

    @classmethod
    @checked_call
    def from_published(cls, folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> PathSet:
        """Read a folder of the published path training.

        Those paths were learned on codes as the encoder gives them, so the set's space is "raw": ``direction`` and
        ``traverse`` take raw codes, and ``walk`` converts nothing. The first text of a pair is the positive pole. The
        files hold no calibration; until :func:`vlbias.paths.calibrate` measures it, strength 1 is an arc length of 1.5
        (30 steps of 0.05, the middle of the 20 to 40 that the published code takes).

        Args:
            folder: holds the three files; nothing of the pickle is run.
            names: one for each path; ``None`` to make them from the words in which the poles differ.

        Raises:
            CheckpointNotFoundError: a file is missing.
            CheckpointError: the files disagree, or are of another kind of path network.
        """
        dipoles, field = read_published(folder, names)
        paths = cls(dipoles, field["support"].shape[-1], space="raw", step_size=0.05)
        paths.field.load_state_dict(field)
        return paths.requires_grad_(False)
