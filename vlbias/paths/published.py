"""Path sets of the published augmentation code: ``latent_paths_model.pt``, ``semantic_dipoles.json``, ``args.json``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch

from vlbias.checkpoints import check_finite, read_foreign_pickle, stays_inside
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError
from vlbias.files import read_json, read_object
from vlbias.paths.dipole import Dipole

__all__ = ["PublishedPaths", "read_published"]

WEIGHTS, DIPOLES, ARGUMENTS = "latent_paths_model.pt", "semantic_dipoles.json", "args.json"
SUPPORT, GAMMA = "L_WGS_SUPPORT_SETS", "L_WGS_LOGGAMMA"


class PublishedPaths(NamedTuple):
    """What a published path folder holds.

    Attributes:
        dipoles: name => dipole of each of k paths.
        field: "support" and "log_gamma" of an ``RbfField``, (k, 2, d) each.
    """

    dipoles: dict[str, Dipole]
    field: dict[str, torch.Tensor]


def read_published(folder: str | os.PathLike[str], names: Sequence[str] | None = None) -> PublishedPaths:
    """Read a published path set, without running anything of its pickle; see ``PathSet.from_published``.

    Args:
        folder: holds the three files.
        names: one for each path; ``None`` to make them from the words in which the poles differ ("age", "skin_tone").

    Raises:
        CheckpointNotFoundError: a file is missing.
        CheckpointError: the files disagree, or are of another kind of path network.
    """
    folder = stays_inside(folder)
    missing = [name for name in (WEIGHTS, DIPOLES) if not (folder / name).is_file()]
    if missing:
        raise CheckpointNotFoundError(f"{folder} lacks {' and '.join(missing)}, so it is not a published path set.")
    arguments = read_object(folder / ARGUMENTS) if (folder / ARGUMENTS).is_file() else {}
    if arguments.get("lwgs") is False:
        raise CheckpointError(f"{folder / ARGUMENTS} says lwgs=false: only the per-dimension network (lwgs) is known.")
    state = read_foreign_pickle(folder / WEIGHTS)
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not {SUPPORT, GAMMA} <= set(state):
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{folder / WEIGHTS} must hold {SUPPORT} and {GAMMA}; found {found}.")
    if extra := sorted(map(str, set(state) - {SUPPORT, GAMMA})):
        raise CheckpointError(f"{folder / WEIGHTS} contains unexpected entries: {', '.join(extra)}.")
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{folder / WEIGHTS} contains something other than tensors.")
    check_finite(state, str(folder / WEIGHTS))
    support, log_gamma = state[SUPPORT].float(), state[GAMMA].float()
    if support.ndim != 2 or support.shape[1] % 2 or not support.numel() or support.shape != log_gamma.shape:
        raise CheckpointError(
            f"{folder / WEIGHTS}: {SUPPORT} and {GAMMA} must both be (paths, 2 * dimensions); got "
            f"{tuple(support.shape)} and {tuple(log_gamma.shape)}."
        )
    pairs = read_json(folder / DIPOLES)
    if not isinstance(pairs, list) or len(pairs) != len(support):
        raise CheckpointError(f"{folder / DIPOLES} must list {len(support)} dipoles, one for each path of {WEIGHTS}.")
    try:
        dipoles = [Dipole.from_list(pair) for pair in pairs]
    except ConfigError as error:
        raise CheckpointError(f"{folder / DIPOLES}: {error}") from error
    if names is not None and (len(names) != len(dipoles) or len(set(names)) != len(names)):
        raise ConfigError(f"`names` must be {len(dipoles)} different names; got {list(names)}.")
    if names is None:
        names = _distinct([dipole.suggest_name() for dipole in dipoles])
    shape = (len(support), 2, -1)
    field = {"support": support.reshape(shape), "log_gamma": log_gamma.reshape(shape)}
    return PublishedPaths(dict(zip(names, dipoles, strict=True)), field)


def _distinct(names: Sequence[str]) -> list[str]:
    out: list[str] = []
    for name in names:
        number, candidate = 2, name
        while candidate in out:
            candidate, number = f"{name}_{number}", number + 1
        out.append(candidate)
    return out
