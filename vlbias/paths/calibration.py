"""Calibration: make strength 1.0 mean the same for every path, and in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vlbias.arguments import checked_call
from vlbias.clip import Clip
from vlbias.diffae import DiffAE
from vlbias.errors import ConfigError, ShapeError
from vlbias.images import to_float
from vlbias.paths.pathset import PathSet
from vlbias.paths.probes import Probes
from vlbias.paths.readings import clip_log_odds, pseudo_labels
from vlbias.seeds import drawn_places

__all__ = ["Sight", "arc_length", "calibrate"]

#: Codes of a pole that are walked where probes read them.
_WALKED = 512


def arc_length(lengths: torch.Tensor, readings: torch.Tensor, target: float) -> float | None:
    """Arc length at which a reading first reaches ``target``, linear between the measured lengths.

    Args:
        lengths: increasing arc lengths (s,), the first of which is 0.
        readings: reading at each (s,), oriented so that the walk should increase it.
        target: the reading to reach.

    Returns:
        The length; 0 if the start is beyond the target; ``None`` if no measured length reaches it.

    Example:
        >>> arc_length(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([-2.0, 0.0, 4.0]), 2.0)
        1.5
    """
    for i in range(len(lengths)):
        if readings[i] >= target:
            if i == 0:
                return 0.0
            share = (target - readings[i - 1]) / (readings[i] - readings[i - 1])
            return float(lengths[i - 1] + share * (lengths[i] - lengths[i - 1]))
    return None


@dataclass(frozen=True)
class Sight:
    """Calibration by looking: walked codes are decoded, and CLIP reads the pictures.

    Attributes:
        diffae, clip: the models.
        images: the faces whose codes are calibrated on (n, 3, h, w), float in [-1, 1] or uint8.
        num_faces: faces of each pole that are decoded.
        num_steps: network evaluations of each decode.
        grid: lengths that are decoded, 0 included.
        seed: of the noise that faces are decoded from.
    """

    diffae: DiffAE
    clip: Clip
    images: torch.Tensor
    num_faces: int = 24
    num_steps: int = 6
    grid: int = 7
    seed: int = 0

    def read(self, images: torch.Tensor, paths: PathSet, name: str) -> torch.Tensor:
        """Pictures (b, 3, h, w) => log-odds (b,) of the positive pole of a path's dipole."""
        dipole = {name: paths.dipoles[name]}
        parts = [self.clip.encode_image(to_float(chunk).to(self.clip.device)) for chunk in images.split(64)]
        return torch.cat([clip_log_odds(self.clip, part, dipole)[:, 0] for part in parts])


@torch.no_grad()
@checked_call
def calibrate(
    paths: PathSet,
    z_sem: torch.Tensor,
    *,
    probes: Probes | None = None,
    sight: Sight | None = None,
    longest: float = 3.0,
    seed: int = 0,
) -> PathSet:
    """Measure, for each path and direction, the arc length that carries the median face of one pole to the other.

    Faces of one pole are walked further and further; strength 1.0 is the length at which their median reading equals
    the median reading of the other pole's faces. The probes (from codes, cheap) decide; where a path has no probe, or
    no length tried reaches the other pole, CLIP does (from decoded faces); where it sees none either, the longest
    length tried is taken and the record says so.

    Args:
        paths: changed in place: ``lengths`` and ``calibration``.
        z_sem: codes (n, d) of faces of both poles, as the encoder gives them.
        probes: readings from codes; a path without a probe is calibrated by CLIP alone.
        sight: decodes walked faces and reads them; ``None`` for the probes alone.
        longest: longest arc length tried, in units of the present ``lengths``.
        seed: draws who stands for a pole that has more faces than are walked.

    Returns:
        ``paths``.

    Raises:
        ConfigError: nothing that reads was given.
        ShapeError: codes and images differ in number.
    """
    if probes is None and sight is None:
        raise ConfigError("Calibration needs `probes`, or a `sight` (autoencoder, CLIP and images).")
    if sight is not None and len(sight.images) != len(z_sem):
        raise ShapeError(f"`images` ({len(sight.images)}) and `z_sem` ({len(z_sem)}) must be the same faces.")
    for k, name in enumerate(paths.names):
        labels = _labels(paths, name, z_sem, probes, sight)
        record: dict[str, object] = {}
        for column, (key, sign) in enumerate((("+", 1), ("-", -1))):
            source = torch.nonzero(labels == (sign < 0)).flatten()
            other = torch.nonzero(labels == (sign > 0)).flatten()
            if not len(source) or not len(other):
                record[key] = {"faces": [len(source), len(other)], "reached": False}
                continue
            reach = float(paths.lengths[k, column]) * longest
            found: dict[str, float | None] = {}
            if probes is not None and name in probes.names:
                walked = z_sem[_some(source, _WALKED, seed)]
                found["probe"] = _by_probe(paths, probes, walked, z_sem[other], name, sign, reach)
            if sight is not None and not found.get("probe"):
                here, there = (z_sem[_some(rows, sight.num_faces, seed)] for rows in (source, other))
                found["clip"] = _by_sight(paths, sight, here, there, name, sign, reach)
            length = found.get("probe") or found.get("clip")
            paths.lengths[k, column] = length or reach
            record[key] = {"length": length or reach, "reached": bool(length), **found}
        paths.calibration[name] = record
    return paths


def _some(rows: torch.Tensor, most: int, seed: int) -> torch.Tensor:
    return rows[drawn_places(len(rows), most, seed=seed)]


def _walk(paths: PathSet, z: torch.Tensor, k: int, arc: float) -> torch.Tensor:
    """Codes of the own space, walked by a signed arc length in steps of the set's size at most."""
    steps = max(1, round(abs(arc) / paths.step_size + 0.4999)) if arc else 0
    for _ in range(steps):
        z = z + arc / steps * paths.direction(z, k)
    return z


def _reach(
    paths: PathSet,
    z: torch.Tensor,
    k: int,
    sign: int,
    lengths: torch.Tensor,
    read: Callable[[torch.Tensor], float],
    target: float,
) -> float | None:
    """Walk on from length to length until ``read`` reaches ``target``; see :func:`arc_length`."""
    readings = [read(z)]
    for before, length in zip(lengths[:-1].tolist(), lengths[1:].tolist(), strict=True):
        if readings[-1] >= target:
            break
        z = _walk(paths, z, k, sign * (length - before))
        readings.append(read(z))
    return arc_length(lengths[: len(readings)], torch.tensor(readings), target)


def _labels(paths: PathSet, name: str, z_sem: torch.Tensor, probes: Probes | None, sight: Sight | None) -> torch.Tensor:
    """Which faces stand at the positive pole, bool (n,)."""
    if probes is not None and name in probes.names:
        return probes.score(z_sem, name) > 0.5
    if sight is None:
        raise ConfigError(f"Path '{name}' has no probe; calibrating it needs a `sight`.")
    return pseudo_labels(sight.read(sight.images, paths, name).unsqueeze(1), unsure=0.0)[:, 0] > 0.5


def _by_probe(
    paths: PathSet, probes: Probes, source: torch.Tensor, other: torch.Tensor, name: str, sign: int, reach: float
) -> float | None:
    """Length at which codes of one pole read like the other pole's, to a probe."""

    def read(z_sem: torch.Tensor) -> float:
        return float(probes.logits(z_sem)[:, probes.index(name)].median()) * sign

    z, k = paths.to_own_space(source), paths.names.index(name)
    lengths = torch.linspace(0, reach, 25)
    return _reach(paths, z, k, sign, lengths, lambda codes: read(paths.from_own_space(codes)), read(other))


def _by_sight(
    paths: PathSet, sight: Sight, source: torch.Tensor, other: torch.Tensor, name: str, sign: int, reach: float
) -> float | None:
    """Length at which decoded faces of one pole read like the other pole's, to CLIP."""
    side, generator = sight.images.shape[-1], torch.Generator().manual_seed(sight.seed)
    x_T = torch.randn(max(len(source), len(other)), 3, side, side, generator=generator).to(source.device)

    def read_face(codes: torch.Tensor) -> float:
        pairs = zip(paths.from_own_space(codes).split(32), x_T[: len(codes)].split(32), strict=True)
        decoded = torch.cat([sight.diffae.decode(z, x, num_steps=sight.num_steps) for z, x in pairs])
        return float(sight.read(decoded, paths, name).median()) * sign

    # Both poles are read from decodes, so that what the decoder does to a picture cancels.
    target = read_face(paths.to_own_space(other))
    lengths = torch.linspace(0, reach, sight.grid)
    return _reach(paths, paths.to_own_space(source), paths.names.index(name), sign, lengths, read_face, target)
