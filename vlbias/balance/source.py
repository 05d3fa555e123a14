"""Where donors come from: the user's own pictures, or the latent prior.

Real pictures are encoded; the stochastic code is found by inversion only for those that an edit can reach. Sampled
faces are read in the latent space *before* anything is decoded, so the UNet works for no face that is thrown away, and
a face is stored as its seed.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import torch

from vlbias.balance.plan import GROUP_JOINT, item_seed
from vlbias.balance.readings import AttributeJudge, read
from vlbias.data import FaceDataset
from vlbias.errors import ImageError, PlanError
from vlbias.images import to_tensor
from vlbias.types import Backend

__all__ = ["PriorFaces", "encode_faces", "open_faces"]


def open_faces(
    faces: FaceDataset, ids: Sequence[str], backend: Backend
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Open pictures of a dataset, cropped and scaled to the editor's size.

    Args:
        faces: dataset with ``image(id)``.
        ids: items, in order.
        backend: gives the size and the device.

    Returns:
        (id -> x_0 (3, h, w), id -> what is wrong with it); each id is in one of the two.
    """
    found, failures = {}, {}
    for item in ids:
        try:
            # one by one: pictures of a dataset may have several sizes, and full-size ones are not kept
            found[item] = to_tensor(faces.image(item), backend.image_size)[0].to(backend.device)
        except ImageError as error:
            failures[item] = str(error)
    return found, failures


def encode_faces(backend: Backend, faces: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Faces (3, h, w) => (x_0 (b, 3, h, w), z_sem (b, d)) on the editor's device."""
    x_0 = torch.stack(list(faces))
    return x_0, backend.encode(x_0)


class PriorFaces:
    """Faces drawn from the latent prior and sorted into cells by the latent probes alone.

    Args:
        backend: has the prior and the probes.
        target: judge of the target attribute.
        protected: judges of the protected attributes, in the plan's order.
        seed_parts: what the seeds are derived from (plan seed, chunk): face i depends on these and i alone.
        margin: a face counts for a cell if every latent margin is at least this; faces between groups are left out,
            for a picture often reads a little nearer to the border than its code.
        max_faces: give up on a cell after so many draws in all.

    Raises:
        PlanError: an attribute that no latent probe reads.
    """

    BATCH_SIZE = 256

    def __init__(
        self,
        backend: Backend,
        target: AttributeJudge,
        protected: Sequence[AttributeJudge],
        *,
        seed_parts: Sequence[Any],
        margin: float,
        max_faces: int,
    ):
        for judge in (target, *protected):
            if judge.latent is None:
                raise PlanError(
                    f"No latent probe reads '{judge.column}', so sampled faces cannot be sorted before decoding. "
                    "Use source='real'."
                )
        self.backend, self.target, self.protected = backend, target, list(protected)
        self.seed_parts, self.margin, self.max_faces = tuple(seed_parts), margin, max_faces
        self.num_drawn = 0
        self._cells: dict[tuple[str, str], deque[tuple[int, torch.Tensor]]] = defaultdict(deque)

    def take(self, target: str, group: str) -> tuple[int, torch.Tensor] | None:
        """The next unused face of a cell as (seed, z_sem (d,)); ``None`` when too many draws found none."""
        cell = self._cells[target, group]
        while not cell and self.num_drawn < self.max_faces:
            self._draw()
        return cell.popleft() if cell else None

    def _draw(self) -> None:
        numbers = range(self.num_drawn, self.num_drawn + self.BATCH_SIZE)
        seeds = [item_seed(*self.seed_parts, number) for number in numbers]
        z_sem = self.backend.sample_codes(seeds)
        self.num_drawn += len(seeds)
        columns = [self._sort(judge, z_sem) for judge in (self.target, *self.protected)]
        for index, (target, *values) in enumerate(zip(*columns, strict=True)):
            if target is not None and all(value is not None for value in values):
                self._cells[target, GROUP_JOINT.join(values)].append((seeds[index], z_sem[index]))

    def _sort(self, judge: AttributeJudge, z_sem: torch.Tensor) -> list[str | None]:
        """The label whose group each code is inside of by ``margin``, else ``None``."""
        reading = judge.latent
        assert reading is not None  # checked on construction
        raw = read(self.backend, reading, "latent", z_sem)
        margins = torch.stack([reading.margin(raw, [label] * len(z_sem)) for label in reading.labels])
        best, index = margins.max(dim=0)
        pairs = zip(best.tolist(), index.tolist(), strict=True)
        return [reading.labels[i] if value >= self.margin else None for value, i in pairs]


def calibration_ids(cells: Sequence[tuple[str, tuple[str, str]]], per_cell: int, seed: int) -> list[str]:
    """Items for calibrating the judges: up to ``per_cell`` of each (class, group) cell, drawn by seed.

    Args:
        cells: (item id, (class, group)) of the labelled originals.
        per_cell: items of each cell.
        seed: of the draw.
    """
    ordered = sorted(cells, key=lambda pair: (pair[1], item_seed(seed, "calibrate", pair[0])))
    chosen = []
    for _, members in itertools.groupby(ordered, key=lambda pair: pair[1]):
        chosen += [item for item, _ in itertools.islice(members, per_cell)]
    return chosen
