"""Fit one classifier per run, keep its predictions: resumable, and shared by any number of workers."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlbias import classify
from vlbias.errors import ConfigError, PlanError
from vlbias.files import make_folder
from vlbias.images import to_uint8
from vlbias.progress import track
from vlbias.simulate.fill import Fill, as_fill, donors_of
from vlbias.simulate.plans import SimulationPlan
from vlbias.simulate.result import SimulationResult
from vlbias.simulate.store import ResultStore

__all__ = ["TrainingSet", "run"]

#: Donors edited beyond those needed, as a share, so that rejected edits can be replaced.
_RESERVE = 0.5


@dataclass(frozen=True)
class TrainingSet:
    """What one classifier is fitted on; a ``model`` callable receives it.

    Attributes:
        key: of the run, with the fill in front.
        images: uint8 (n, 3, s, s), drawn on first use.
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
        return self.load_images()

    @property
    def test_images(self) -> Tensor:
        return self.load_test_images()


class _Pictures:
    """Images of a simulation, each read once: real ones by id, edits by (group, donor)."""

    def __init__(self, dataset: Any, plan: SimulationPlan, size: int):
        self.dataset, self.plan, self.size = dataset, plan, size
        self._real: dict[str, Tensor] = {}
        self._edits: dict[tuple[str, str, str], Tensor] = {}

    def real(self, ids: list[str] | tuple[str, ...]) -> Tensor:
        self._keep([item for item in ids if item not in self._real], self.dataset, self._real.__setitem__)
        return _stack([self._real[item] for item in ids], self.size)

    def add_edits(self, fill: str, to: str, edits: Any) -> None:
        donor_of = dict(zip(edits.table.index, edits.table["source_id"].astype(str), strict=True))
        self._keep(
            list(edits.table.index),
            edits,
            lambda item, image: self._edits.__setitem__((fill, to, donor_of[item]), image),
        )

    def edits(self, fill: str, to: str, donors: list[str]) -> Tensor:
        return _stack([self._edits[fill, to, donor] for donor in donors], self.size)

    def has_edit(self, fill: str, to: str, donor: str) -> bool:
        return (fill, to, donor) in self._edits

    def _keep(self, ids: list[str], source: Any, put: Callable[[str, Tensor], None], chunk: int = 512) -> None:
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            for item, image in zip(part, to_uint8(source.tensor(part, self.size)), strict=True):
                put(item, image)


def _stack(images: list[Tensor], size: int) -> Tensor:
    return torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)


def run(
    plan: SimulationPlan,
    dataset: Any,
    *,
    model: str | Callable[[TrainingSet], Any] = "resnet10t",
    storage: str | os.PathLike[str] | None = "sim.log",
    fill: Mapping[str, Any] | None = None,
    settings: classify.FitSettings | None = None,
    workers_wait: bool = True,
    progress: bool = True,
    **changes: Any,
) -> SimulationResult:
    """Fit the classifiers of a plan; the same call elsewhere shares the work, after a crash it goes on.

    Args:
        plan: from :func:`vlbias.simulate.plan`.
        dataset: the dataset that was planned on.
        model: a timm backbone for :func:`vlbias.classify.fit`, which takes the same number of optimisation steps
            whatever the size of the set; or a callable ``TrainingSet -> predictions`` (m labels of the test images).
        storage: file of results, shared by workers; None keeps them in memory.
        fill: name -> how the focal group's share is reached: None for its real images, a Balancer (or a callable,
            see :class:`vlbias.simulate.fill.Fill`) for edits of the other groups. Default {"real": None}. The images
            at the smallest share are real in every fill, and runs there are fitted once.
        settings: of the classifier; ``changes`` are single settings on top (``num_steps=300``).
        workers_wait: return only when no run is left open; False returns when no run is free to take.
        progress: show it on stderr.

    Raises:
        ConfigError: the storage belongs to another plan or model, or timm has no such backbone.
        PlanError: too few edits passed verification for a share; says how many.
    """
    fills: dict[str, Fill | None] = {
        str(name): None if source is None else as_fill(source)
        for name, source in ({"real": None} if fill is None else fill).items()
    }
    if not fills:
        raise ConfigError("`fill` names no way to reach the shares; leave it out for real images.")
    options = settings or classify.FitSettings()
    if isinstance(model, str):
        options = classify.FitSettings(**{**vars(options), "backbone": model, **changes})
        # An unknown name fails here, before edits are made or a run is claimed.
        with torch.random.fork_rng(devices=[]):
            classify.create_backbone(model, len(plan.classes))
    elif changes:
        raise ConfigError(f"Settings of the classifier ({', '.join(changes)}) have no meaning with a callable model.")
    header = {
        "plan": plan.digest(),
        "model": model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__),
        "settings": {key: value for key, value in vars(options).items() if key != "device"},
    }
    store = ResultStore(storage, header)
    pictures = _Pictures(dataset, plan, options.image_size)
    jobs = _jobs(plan, fills)
    prepared: set[tuple[str, str]] = set()
    done = set(store.read()) & set(jobs)
    with track(len(jobs), "simulate", "runs") if progress else nullcontext() as shown:
        if shown is not None:
            shown.resume_at(len(done))
        while True:
            took = False
            for name, (fill_name, key) in jobs.items():
                if name in done or (lock := store.claim(name)) is None:
                    continue
                try:
                    took = True
                    source = fills[fill_name]
                    focal = str(plan.runs.loc[key, "focal"])
                    if source is not None and (fill_name, focal) not in prepared:
                        _edit(plan, dataset, pictures, fill_name, source, focal, store)
                        prepared.add((fill_name, focal))
                    training = _training_set(plan, pictures, fill_name if source is not None else None, key)
                    started = time.monotonic()
                    predicted = _predict(training, model, options, plan, pictures)
                    store.add(name, predicted, seconds=round(time.monotonic() - started, 3), n=len(training.ids))
                finally:
                    lock.release()
                finished = set(store.read()) & set(jobs)
                if shown is not None:
                    shown.update(len(finished) - len(done), run=name)
                done = finished
            if len(done) == len(jobs) or (not took and not workers_wait):
                break
            if not took:
                time.sleep(0.5)
            done = set(store.read()) & set(jobs)
    records = {name: record for name, record in store.read().items() if name in jobs}
    return SimulationResult(plan, records, list(fills))


def _jobs(plan: SimulationPlan, fills: Mapping[str, Fill | None]) -> dict[str, tuple[str, str]]:
    """Name -> (fill, run). Where a fill adds nothing, the run is that of the real images and is fitted once."""
    jobs: dict[str, tuple[str, str]] = {}
    real = next((name for name, source in fills.items() if source is None), None)
    for name, source in fills.items():
        for key in plan.runs.index:
            row = plan.runs.loc[key]
            if source is not None and (row["mode"] == "control" or not row["focal"]):
                continue
            if source is not None and plan.baseline(key) == key and real is not None:
                continue
            jobs[f"{name}|{key}"] = (name, str(key))
    return jobs


def _edit(
    plan: SimulationPlan, dataset: Any, pictures: _Pictures, name: str, source: Fill, focal: str, store: ResultStore
) -> None:
    """Make every edit that the runs of one focal group need, with some in reserve."""
    wanted: dict[str, None] = {}
    for key in plan.runs.index[(plan.runs["focal"] == focal) & (plan.runs["mode"] != "control")]:
        baseline = plan.quotas[plan.baseline(key)]
        for cell, candidates in donors_of(plan, key).items():
            needed = plan.quotas[key][cell] - baseline.get(cell, 0)
            wanted |= dict.fromkeys(candidates[: needed + max(2, round(_RESERVE * needed))])
    folder = None
    if store.folder is not None:
        folder = store.folder / "edits" / f"{name}-{zlib.crc32(focal.encode()):08x}"
        make_folder(folder.parent)
    if wanted:
        pictures.add_edits(name, focal, source(dataset, list(wanted), focal, folder))


def _training_set(plan: SimulationPlan, pictures: _Pictures, fill: str | None, key: str) -> TrainingSet:
    ids, donors = plan.files(key), []
    focal = str(plan.runs.loc[key, "focal"])
    if fill is not None:
        own = {item for item in ids if plan.labels[item][0] == focal}
        first = set(plan.files(plan.baseline(key)))
        ids = [item for item in ids if item not in own or item in first]
        baseline = plan.quotas[plan.baseline(key)]
        for cell, candidates in donors_of(plan, key).items():
            needed = plan.quotas[key][cell] - baseline.get(cell, 0)
            passed = [donor for donor in candidates if pictures.has_edit(fill, focal, donor)][:needed]
            if len(passed) < needed:
                raise PlanError(
                    f"Run '{key}' needs {needed} edits towards '{focal}' labelled '{cell[1]}' and {len(passed)} passed "
                    "verification. Ask for smaller shares or a smaller n, or loosen the balancer's checks."
                )
            donors += passed
    labels = [plan.labels[item][1] for item in (*ids, *donors)]
    groups = [plan.labels[item][0] for item in ids] + [focal] * len(donors)

    def load() -> Tensor:
        real = pictures.real(ids)
        return torch.cat([real, pictures.edits(str(fill), focal, donors)]) if donors else real

    return TrainingSet(
        key=f"{fill or 'real'}|{key}",
        ids=(*ids, *donors),
        labels=np.asarray(labels, dtype=object),
        groups=np.asarray(groups, dtype=object),
        edited=np.arange(len(ids) + len(donors)) >= len(ids),
        classes=plan.classes,
        # Runs of one repeat share their seed: along a curve only the composition changes.
        seed=int(plan.settings["seed"]) * 1000 + plan.repeat_of(key),
        load_images=load,
        load_test_images=lambda: pictures.real(plan.test),
    )


def _predict(
    training: TrainingSet,
    model: str | Callable[[TrainingSet], Any],
    options: classify.FitSettings,
    plan: SimulationPlan,
    pictures: _Pictures,
) -> np.ndarray:
    if isinstance(model, str):
        classifier = classify.fit(
            training.images, training.labels, classes=list(plan.classes), settings=options, seed=training.seed
        )
        return classifier.predict_proba(training.test_images).argmax(1).numpy()
    predicted = [str(label) for label in model(training)]
    codes = {label: code for code, label in enumerate(plan.classes)}
    if len(predicted) != len(plan.test) or not set(predicted) <= set(codes):
        raise ConfigError(f"The model must give {len(plan.test)} labels out of {plan.classes}; got {len(predicted)}.")
    return np.asarray([codes[label] for label in predicted])
