"""The training set of each run as images: real ones, and edits in place of their donors."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlbias.classify import LabelledImages
from vlbias.errors import PlanError
from vlbias.files import make_folder
from vlbias.images import to_uint8
from vlbias.simulate.fill import Fill, donors_of
from vlbias.simulate.plans import SimulationPlan

__all__ = ["TrainingSet", "TrainingSets"]

#: Donors edited beyond those needed, as a share, so that rejected edits can be replaced.
_RESERVE = 0.5
_CHUNK = 512


@dataclass(frozen=True)
class TrainingSet:
    """What one classifier is fitted on; a ``model`` callable receives it.

    Attributes:
        key: of the run, with the fill in front.
        images: uint8 (n, 3, s, s), read on first use.
        labels, groups: (n,) as text.
        ids: (n,); an edit has its donor's id and stands in ``edited``.
        edited: bool (n,).
        test_images: uint8 (m, 3, s, s).
        classes: label of each class code.
        seed: for this run.
    """

    key: str
    ids: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray
    edited: np.ndarray
    classes: tuple[str, ...]
    seed: int
    load_images: Callable[[], Tensor]
    load_test_images: Callable[[], Tensor]

    @cached_property
    def images(self) -> Tensor:
        """uint8 (n, 3, s, s), read on first use."""
        return self.load_images()

    @property
    def test_images(self) -> Tensor:
        """uint8 (m, 3, s, s)."""
        return self.load_test_images()


class TrainingSets:
    """Makes the training set of any run; each image is read once, each edit made once.

    Args:
        plan: the plan.
        dataset: the dataset that was planned on.
        size: side of the images in pixels.
        folder: for edits; None keeps them in memory.
    """

    def __init__(self, plan: SimulationPlan, dataset: LabelledImages, size: int, folder: Path | None):
        self.plan, self.dataset, self.size, self.folder = plan, dataset, size, folder
        self._real: dict[str, Tensor] = {}
        #: (fill, focal group) -> for each repeat: donor -> its edit, of donors that no repeat before it asked for
        self._edits: dict[tuple[str, str], list[dict[str, Tensor]]] = {}

    def make(self, name: str, fill: Fill | None, key: str) -> TrainingSet:
        """The training set of run ``key`` by the fill of that name.

        Raises:
            PlanError: too few edits passed verification; says how many.
        """
        plan, focal = self.plan, str(self.plan.runs.loc[key, "focal"])
        ids, donors, edits = plan.files(key), list[str](), dict[str, Tensor]()
        if fill is not None:
            edits = self._edited(name, fill, focal, plan.repeat_of(key))
            first = set(plan.files(plan.baseline(key)))
            ids = [item for item in ids if plan.labels[item][0] != focal or item in first]
            donors = self._donors(key, edits)
        labels = [plan.labels[item][1] for item in (*ids, *donors)]
        groups = [plan.labels[item][0] for item in ids] + [focal] * len(donors)
        return TrainingSet(
            key=f"{'real' if fill is None else name}|{key}",
            ids=(*ids, *donors),
            labels=np.asarray(labels, dtype=object),
            groups=np.asarray(groups, dtype=object),
            edited=np.arange(len(labels)) >= len(ids),
            classes=plan.classes,
            # Runs of one repeat share their seed: along a curve only the composition changes.
            seed=plan.settings.seed * 1000 + plan.repeat_of(key),
            load_images=lambda: torch.stack([*self._photographs(ids), *(edits[donor] for donor in donors)]),
            load_test_images=lambda: torch.stack(self._photographs(plan.test)),
        )

    def _photographs(self, ids: Sequence[str]) -> list[Tensor]:
        new = [item for item in ids if item not in self._real]
        self._real |= zip(new, self._read(self.dataset, new), strict=True)
        return [self._real[item] for item in ids]

    def _read(self, source: LabelledImages, ids: Sequence[str]) -> Iterable[Tensor]:
        for start in range(0, len(ids), _CHUNK):
            yield from to_uint8(source.tensor(list(ids[start : start + _CHUNK]), self.size))

    def _edited(self, name: str, fill: Fill, focal: str, repeat: int) -> dict[str, Tensor]:
        """The edits that the runs of one focal group need up to a repeat, with some in reserve, by donor.

        They are made repeat by repeat, so that a simulation with more repeats finds those of the others.
        """
        made = self._edits.setdefault((name, focal), [])
        while len(made) <= repeat:
            number = len(made)
            known = {donor for earlier in range(number) for donor in self._wanted(focal, earlier)}
            new = [donor for donor in self._wanted(focal, number) if donor not in known]
            made.append(self._make_edits(f"{name}-{zlib.crc32(focal.encode()):08x}-r{number}", fill, focal, new))
        return {donor: edit for part in made[: repeat + 1] for donor, edit in part.items()}

    def _wanted(self, focal: str, repeat: int) -> list[str]:
        """Donors whose edits the runs of one repeat may need."""
        wanted: dict[str, None] = {}
        runs = self.plan.runs
        for key in runs.index[(runs["focal"] == focal) & (runs["mode"] != "control") & (runs["repeat"] == repeat)]:
            for cell, candidates in donors_of(self.plan, key).items():
                needed = self.plan.gain(key, cell)
                wanted |= dict.fromkeys(candidates[: needed + max(2, round(_RESERVE * needed))])
        return list(wanted)

    def _make_edits(self, name: str, fill: Fill, focal: str, donors: list[str]) -> dict[str, Tensor]:
        if not donors:
            return {}
        folder = None if self.folder is None else make_folder(self.folder / "edits") / name
        edits = fill(self.dataset, donors, focal, folder)
        return dict(zip(edits.table["source_id"].astype(str), self._read(edits, list(edits.table.index)), strict=True))

    def _donors(self, key: str, edits: dict[str, Tensor]) -> list[str]:
        """The donors whose edits join a run."""
        donors = []
        for (focal, label), candidates in donors_of(self.plan, key).items():
            needed = self.plan.gain(key, (focal, label))
            passed = [donor for donor in candidates if donor in edits][:needed]
            if len(passed) < needed:
                raise PlanError(
                    f"Run '{key}' needs {needed} edits towards '{focal}' labelled '{label}' and {len(passed)} passed "
                    "verification. Ask for smaller shares or a smaller n, or loosen the balancer's checks."
                )
            donors += passed
        return donors
