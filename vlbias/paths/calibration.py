"""Calibration: make strength 1.0 mean the same for every path, and in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vlbias.clip import Clip
from vlbias.diffae import DiffAE
from vlbias.errors import ConfigError, ShapeError
from vlbias.images import to_float
from vlbias.paths.pathset import PathSet
from vlbias.paths.probes import Probes
from vlbias.paths.readings import clip_log_odds, pseudo_labels

__all__ = ["arc_length", "calibrate"]


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


@torch.no_grad()
def calibrate(
    paths: PathSet,
    z_sem: torch.Tensor,
    *,
    probes: Probes | None = None,
    diffae: DiffAE | None = None,
    clip: Clip | None = None,
    images: torch.Tensor | None = None,
    num_faces: int = 24,
    decode_steps: int = 6,
    longest: float = 3.0,
    grid: int = 7,
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
        diffae, clip, images: to decode walked faces and read them; ``images`` are the faces of ``z_sem``, float in
            [-1, 1] or uint8. Give all three or none.
        num_faces: faces of each pole that are decoded.
        decode_steps: network evaluations of each decode.
        longest: longest arc length tried, in units of the present ``lengths``.
        grid: lengths that are decoded, 0 included.
        seed: of the noise that faces are decoded from.

    Returns:
        ``paths``.

    Raises:
        ConfigError: nothing that reads was given.
        ShapeError: codes and images differ in number.
    """
    seeing = clip is not None and diffae is not None and images is not None
    if probes is None and not seeing:
        raise ConfigError("Calibration needs `probes`, or `diffae`, `clip` and `images`.")
    if images is not None and len(images) != len(z_sem):
        raise ShapeError(f"`images` ({len(images)}) and `z_sem` ({len(z_sem)}) must be the same faces.")
    z = paths.to_own_space(z_sem)
    for k, name in enumerate(paths.names):
        record: dict[str, Any] = {}
        labels = _labels(paths, name, z_sem, probes, clip, images)
        for column, sign in ((0, 1), (1, -1)):
            source = torch.nonzero(labels == (sign < 0)).flatten()
            other = torch.nonzero(labels == (sign > 0)).flatten()
            reach = float(paths.lengths[k, column]) * longest
            found: dict[str, float | None] = {}
            if not len(source) or not len(other):
                record["+" if sign > 0 else "-"] = {"faces": [len(source), len(other)], "reached": False}
                continue
            if probes is not None and name in probes.names:
                target = _median(probes, z_sem[other], name) * sign
                lengths = torch.linspace(0, reach, 25)

                def read_code(
                    codes: torch.Tensor, probes: Probes = probes, sign: int = sign, name: str = name
                ) -> float:
                    return _median(probes, paths.from_own_space(codes), name) * sign

                found["probe"] = _reach(paths, z[source[:512]], k, sign, lengths, read_code, target)
            if seeing and not found.get("probe"):
                found["clip"] = _by_sight(
                    paths, diffae, clip, images, z, k, sign, source[:num_faces], other[: 4 * num_faces],
                    torch.linspace(0, reach, grid), decode_steps, seed,
                )  # fmt: skip
            length = found.get("probe") or found.get("clip")
            paths.lengths[k, column] = length or reach
            record["+" if sign > 0 else "-"] = {"length": length or reach, "reached": bool(length), **found}
        paths.calibration[name] = record
    return paths


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


def _labels(
    paths: PathSet, name: str, z_sem: torch.Tensor, probes: Probes | None, clip: Any, images: torch.Tensor | None
) -> torch.Tensor:
    """Which faces stand at the positive pole, bool (n,)."""
    if probes is not None and name in probes.names:
        return probes.score(z_sem, name) > 0.5
    assert images is not None
    return pseudo_labels(_read(clip, images, paths, name).unsqueeze(1), unsure=0.0)[:, 0] > 0.5


def _median(probes: Probes, z_sem: torch.Tensor, name: str) -> float:
    return float(probes.logits(z_sem)[:, probes.index(name)].median())


def _read(clip: Clip, images: torch.Tensor, paths: PathSet, name: str) -> torch.Tensor:
    parts = [
        clip_log_odds(clip, clip.encode_image(to_float(chunk).to(clip.device)), {name: paths.dipoles[name]})[:, 0]
        for chunk in images.split(64)
    ]
    return torch.cat(parts)


def _by_sight(
    paths: PathSet,
    diffae: Any,
    clip: Any,
    images: Any,
    z: torch.Tensor,
    k: int,
    sign: int,
    source: torch.Tensor,
    other: torch.Tensor,
    lengths: torch.Tensor,
    decode_steps: int,
    seed: int,
) -> float | None:
    """Length at which decoded faces of one pole read like the other pole's, to CLIP."""
    name = paths.names[k]
    side = images.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    x_T = torch.randn(len(source), 3, side, side, generator=generator).to(z.device)

    def decoded(codes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        parts = [
            diffae.decode(paths.from_own_space(c), x, num_steps=decode_steps)
            for c, x in zip(codes.split(32), noise.split(32), strict=True)
        ]
        return torch.cat(parts)

    def read_face(codes: torch.Tensor) -> float:
        return float(_read(clip, decoded(codes, x_T[: len(codes)]), paths, name).median()) * sign

    # Both poles are read from decodes, so that what the decoder does to a picture cancels.
    target = read_face(z[other[: len(source)]])
    return _reach(paths, z[source], k, sign, lengths, read_face, target)
