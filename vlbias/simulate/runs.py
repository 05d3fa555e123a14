"""Fit one classifier per run, keep its predictions: resumable, and shared by any number of workers."""

from __future__ import annotations

import base64
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch

from vlbias import classify
from vlbias.arguments import checked_call
from vlbias.engine import checked_engine, gpus_here, run_pieces
from vlbias.errors import ConfigError
from vlbias.files import AnyPath
from vlbias.postgres import PostgresStore, open_store
from vlbias.progress import track
from vlbias.runstore import RunStore
from vlbias.settings import with_changes
from vlbias.simulate.fill import Fill, as_fill
from vlbias.simulate.plans import SimulationPlan
from vlbias.simulate.result import SimulationResult
from vlbias.simulate.training import TrainingSet, TrainingSets

__all__ = ["run"]

#: Name of a timm backbone, or a callable that gives a label for each test image.
Model: TypeAlias = str | Callable[[TrainingSet], Sequence[object]]
#: Seconds between two looks at runs that other workers hold.
_POLL_S = 0.5


@checked_call
def run(
    plan: SimulationPlan,
    dataset: classify.LabelledImages,
    *,
    model: Model = "resnet10t",
    storage: AnyPath | None = "sim.log",
    folder: AnyPath | None = None,
    fill: Mapping[str, object] | None = None,
    settings: classify.FitSettings | None = None,
    show_progress: bool = True,
    **changes: object,
) -> SimulationResult:
    """Fit the classifiers of a plan; the same call elsewhere shares the work, after a crash it goes on.

    Args:
        plan: from :func:`vlbias.simulate.plan`; one with more repeats takes up the runs that are there.
        dataset: the dataset that was planned on.
        model: a timm backbone for :func:`vlbias.classify.fit`, which takes the same number of optimisation steps
            whatever the size of the set; or a callable ``TrainingSet -> predictions`` (m labels of the test images).
        storage: file of results, shared by workers, or a PostgreSQL database, ``postgresql+psycopg://user@host/name``
            (extra ``postgres``), for workers of several hosts; None keeps them in memory.
        folder: with a database, for edited pictures, on a disk that all workers share; None keeps them in memory.
        fill: name -> how the focal group's share is reached: None for its real images, a Balancer (or a callable,
            see :class:`vlbias.simulate.Fill`) for edits of the other groups. Default {"real": None}. The images
            at the smallest share are real in every fill, and runs there are fitted once.
        settings: of the classifier.
        show_progress: whether a line on stderr tells how far it is.
        changes: single settings on top (``num_steps=300``); and ``engine``, a :class:`vlbias.engine.Engine` whose
            workers fit the classifiers, for which the storage must be a file or a database.

    Raises:
        ConfigError: the storage belongs to another plan or model, or timm has no such backbone.
        PlanError: too few edits passed verification for a share; says how many.
    """
    fills = {
        name: None if way is None else as_fill(way) for name, way in ({"real": None} if fill is None else fill).items()
    }
    if not fills:
        raise ConfigError("`fill` names no way to reach the shares; leave it out for real images.")
    engine = checked_engine(changes.pop("engine", None))
    if engine is not None and storage is None:
        raise ConfigError("The workers of an `engine` share their results: give a file or a database as `storage`.")
    options = _options(model, settings or classify.FitSettings(), changes, len(plan.classes))
    work = _Runs(plan, dataset, model, options, fills, None if storage is None else os.fspath(storage), folder)
    jobs = _jobs(plan, fills)
    do, store = work.ready()
    with track(len(jobs), "simulate", "runs", show=show_progress) as progress:
        done = set(store.read()) & set(jobs)
        progress.resume_at(len(done))
        num_gpus = gpus_here(options.device)
        if engine is not None and not engine.is_this_process(num_gpus):
            missing = [name for name in jobs if name not in done]
            for place, _ in run_pieces(engine, work, missing, num_gpus=num_gpus):
                progress.update(1, run=missing[place])
            done = set(store.read()) & set(jobs)
        while len(done) < len(jobs):
            took = False
            for name in jobs:
                if name in done or not do(name):
                    continue
                took = True
                finished = set(store.read()) & set(jobs)
                progress.update(len(finished) - len(done), run=name)
                done = finished
            if not took:
                time.sleep(_POLL_S)
                done = set(store.read()) & set(jobs)
    finished_runs, seconds = store.read(), store.times()
    # in the order of the plan, whoever was first
    records = {name: {**finished_runs[name], "seconds": seconds.get(name, float("nan"))} for name in jobs}
    return SimulationResult(plan, records, list(fills))


@dataclass(frozen=True)
class _Runs:
    """The runs of a plan as work that can be sent; see :func:`run` for what it is made of."""

    plan: SimulationPlan
    dataset: classify.LabelledImages
    model: Model
    options: classify.FitSettings
    fills: Mapping[str, Fill | None]
    storage: str | None
    folder: AnyPath | None

    def open(self) -> Callable[[str], bool]:
        """What does a run by its name."""
        return self.ready()[0]

    def ready(self) -> tuple[Callable[[str], bool], RunStore | PostgresStore]:
        """What does a run, and where the records go."""
        plan, model = self.plan, self.model
        job = {
            "plan": plan.design(),
            "model": model if isinstance(model, str) else getattr(model, "__name__", type(model).__name__),
            "settings": self.options.of_result(),
        }
        decode = partial(_decoded, num_items=len(plan.test), num_classes=len(plan.classes))
        store = open_store(self.storage, "simulate", job, decode, folder=self.folder)
        sets = TrainingSets(plan, self.dataset, self.options.image_size, store.folder)
        return partial(self._do, store, sets, _jobs(plan, self.fills)), store

    def _do(
        self, store: RunStore | PostgresStore, sets: TrainingSets, jobs: Mapping[str, tuple[str, str]], name: str
    ) -> bool:
        """Fit one classifier and store what it predicts; False where it is done, or in another worker's hands."""
        lock = store.claim(name)
        if lock is None:
            return False
        with lock:
            fill_name, key = jobs[name]
            training = sets.make(fill_name, self.fills[fill_name], key)
            started = time.monotonic()
            predicted = _encode(_predict(training, self.model, self.options, self.plan))
            seconds = round(time.monotonic() - started, 3)
            store.add(name, {"predicted": predicted, "n": len(training.ids)}, seconds=seconds)
        return True


def _options(
    model: Model, settings: classify.FitSettings, changes: Mapping[str, object], num_classes: int
) -> classify.FitSettings:
    if not isinstance(model, str):
        if changes:
            raise ConfigError(
                f"Settings of the classifier ({', '.join(changes)}) have no meaning with a callable model."
            )
        return settings
    # An unknown name fails here, before edits are made or a run is claimed.
    with torch.random.fork_rng(devices=[]):
        classify.create_backbone(model, num_classes)
    return with_changes(classify.FitSettings, settings, {"backbone": model, **changes})


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


def _predict(training: TrainingSet, model: Model, options: classify.FitSettings, plan: SimulationPlan) -> np.ndarray:
    """Class codes (m,) of the test images."""
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


def _encode(codes: np.ndarray) -> str:
    """Class codes as text for a line of JSON."""
    return base64.b64encode(zlib.compress(np.asarray(codes).astype("<u2").tobytes())).decode()


def _decoded(record: dict[str, Any], *, num_items: int, num_classes: int) -> dict[str, Any]:
    """The inverse of :func:`_encode`, of a line that may be damaged: no more is unpacked than belongs there."""
    packed = base64.b64decode(record["predicted"])
    codes = np.frombuffer(zlib.decompressobj().decompress(packed, 2 * num_items + 2), dtype="<u2")
    if codes.shape != (num_items,) or codes.max(initial=0) >= num_classes:
        raise ValueError("predictions of other images")
    return {**record, "predicted": codes.astype(np.int64)}
