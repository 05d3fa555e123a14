"""What each path does: success, identity kept, and the drift of every other reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from vlbias.clip import Clip
from vlbias.diffae import DiffAE
from vlbias.errors import ShapeError
from vlbias.files import json_value
from vlbias.paths.dipole import Dipole
from vlbias.paths.pathset import PathSet
from vlbias.paths.preservation import EncoderConstraint, FeatureConstraint
from vlbias.paths.probes import Probes
from vlbias.paths.readings import clip_log_odds, otsu_threshold
from vlbias.progress import track

if TYPE_CHECKING:
    import pandas as pd

#: (rows of the faces, path, strength) => their readings (b, m) afterwards, and similarity (b,) to what they were.
Walk = Callable[[torch.Tensor, str, float], tuple[torch.Tensor, torch.Tensor]]

#: Pictures that go through the networks together.
BATCH_SIZE = 32

__all__ = ["PathReport", "drift_matrix", "measure_paths"]


@dataclass(frozen=True)
class PathReport:
    """Figures of a path set; rows are walks ("age +1": faces of the negative pole, strength +1).

    Attributes:
        summary: success (share that reads like the other pole afterwards), identity (mean cosine similarity), faces.
        changed: share of faces whose reading of each dipole changed sides.
        moved: mean change of each reading, in units of the distance between the medians of its poles.
    """

    summary: pd.DataFrame
    changed: pd.DataFrame
    moved: pd.DataFrame

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Table => walk => column => figure, as plain values; what is not known is ``None``."""
        return {
            name: {
                walk: {column: json_value(value) for column, value in row.items()}
                for walk, row in getattr(self, name).to_dict(orient="index").items()
            }
            for name in ("summary", "changed", "moved")
        }


def drift_matrix(paths: PathSet, probes: Probes, z_sem: torch.Tensor, strength: float = 1.0) -> PathReport:
    """Drift by the probes alone: codes are walked, nothing is decoded (identity is that of the codes).

    Args:
        paths, probes: what to measure, and the readings.
        z_sem: codes (n, d) of unseen faces, as the encoder gives them.
        strength: of the walks; each path is walked both ways, by the faces of the pole that it leaves.
    """
    before = probes.logits(z_sem)
    cosine = FeatureConstraint(lambda z: paths.to_own_space(z))

    def walk(rows: torch.Tensor, name: str, value: float) -> tuple[torch.Tensor, torch.Tensor]:
        walked = paths.walk(z_sem[rows], {name: value})
        return probes.logits(walked), cosine.similarity(z_sem[rows], walked)

    return _report(paths, list(probes.names), before, walk, strength)


@torch.no_grad()
def measure_paths(
    paths: PathSet,
    diffae: DiffAE,
    clip: Clip,
    dipoles: Mapping[str, Dipole],
    images: torch.Tensor,
    *,
    strength: float = 1.0,
    num_steps: int = 20,
    identity: FeatureConstraint | None = None,
) -> PathReport:
    """Drift of decoded edits, read by CLIP: each face is inverted once, walked and decoded; a line tells how far it is.

    Args:
        paths: what to measure.
        diffae, clip: the models.
        dipoles: every reading to watch; the paths' own are among them.
        images: unseen faces (n, 3, h, w) in [-1, 1].
        strength: of the walks.
        num_steps: of inversion and of each decode.
        identity: ``None`` for the autoencoder's encoder.

    Raises:
        ShapeError: ``images`` is not floating (n, 3, h, w).
    """
    if images.ndim != 4 or not images.is_floating_point():
        raise ShapeError(
            f"`images` must be floating (n, 3, h, w) in [-1, 1]; got {images.dtype} {tuple(images.shape)}."
        )
    constraint = identity or EncoderConstraint(diffae)
    watched = {**dict(paths.dipoles), **dict(dipoles)}
    # all are inverted and decoded as they are, and each path walks those of both of its poles
    with track(len(images) * (2 + len(paths.names)), "walking", "faces") as progress:
        codes, noises = [], []
        for x in images.to(diffae.device).split(BATCH_SIZE):
            codes.append(diffae.encode(x))
            noises.append(diffae.invert(x, codes[-1], num_steps=num_steps))
            progress.update(len(x))
        z_sem, x_T = torch.cat(codes), torch.cat(noises)

        def decode(z: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            decoded = []
            for a, b in zip(z.split(BATCH_SIZE), noise.split(BATCH_SIZE), strict=True):
                decoded.append(diffae.decode(a, b, num_steps=num_steps))
                progress.update(len(a))
            return torch.cat(decoded)

        def read(x: torch.Tensor) -> torch.Tensor:
            return torch.cat([clip_log_odds(clip, clip.encode_image(part), watched) for part in x.split(BATCH_SIZE)])

        plain = decode(z_sem, x_T)

        def walk(rows: torch.Tensor, name: str, value: float) -> tuple[torch.Tensor, torch.Tensor]:
            edited = decode(paths.walk(z_sem[rows], {name: value}), x_T[rows])
            return read(edited), constraint.similarity(plain[rows], edited)

        return _report(paths, list(watched), read(plain), walk, strength)


def _report(paths: PathSet, names: list[str], before: torch.Tensor, walk: Walk, strength: float) -> PathReport:
    # A scorer's own zero depends on its wording; the border is where its readings of these faces separate.
    borders = torch.tensor([otsu_threshold(column) for column in before.T]).to(before)
    side = before > borders
    unit = torch.stack(
        [
            (column[on].median() - column[~on].median()).abs().clamp_min(1e-6)
            for column, on in zip(before.T, side.T, strict=True)
        ]
    )
    summary, changed, moved = {}, {}, {}
    for name in paths.names:
        own = names.index(name)
        for value, leaving in ((strength, ~side[:, own]), (-strength, side[:, own])):
            rows = torch.nonzero(leaving).flatten()
            if not len(rows):
                continue
            after, similarity = walk(rows, name, value)
            flipped = (after > borders) != side[rows]
            label = f"{name} {value:+g}"
            summary[label] = {
                "success": float(flipped[:, own].float().mean()),
                "identity": float(similarity.mean()),
                "faces": len(rows),
            }
            changed[label] = dict(zip(names, flipped.float().mean(dim=0).tolist(), strict=True))
            moved[label] = dict(zip(names, ((after - before[rows]) / unit).mean(dim=0).tolist(), strict=True))
    import pandas as pd  # half a second, which a single edit does not need

    tables = (pd.DataFrame.from_dict(table, orient="index") for table in (summary, changed, moved))
    return PathReport(*tables)
