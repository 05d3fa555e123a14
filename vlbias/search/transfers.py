"""Whether what a search found holds elsewhere: its front on another attribute or dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from vlbias.arguments import checked_call
from vlbias.checkpoints import build_filled, read_foreign_pickle
from vlbias.classify import LabelledImages
from vlbias.errors import CheckpointError, ConfigError
from vlbias.files import make_folder, write_json
from vlbias.search.evaluation import Evaluation
from vlbias.search.front import Candidate, Front, Refits, held_out_front
from vlbias.search.spaces import Space
from vlbias.search.study import Study
from vlbias.search.task import make_task
from vlbias.search.trainer import Embedder, Recipe, TrainSettings, evaluate_model
from vlbias.settings import MAX_RUNS, checked_number
from vlbias.shown import Glance, Shown

__all__ = ["Transfer", "transfer"]

#: Orders of trials that are tried for the p-value of a rank correlation.
_PERMUTATIONS = 9999


@dataclass(frozen=True, repr=False)
class Transfer(Shown):
    """Candidates of a study on other data.

    Attributes:
        front: as :meth:`vlbias.search.Study.front` gives it; ``val_`` are the values that the study had seen on its own
            validation people.
        correlation: one row per objective: ``spearman`` of the study's values and those here over the candidates (NaN
            for fewer than three), its ``p_value`` (one-sided: how often a random order agrees as well), ``trials``.
        dataset, protected: what the data are.
        is_refitted: whether networks were trained anew on the other data; else they are those of the study.
    """

    front: Front
    correlation: pd.DataFrame
    dataset: str
    protected: str
    is_refitted: bool

    def _glance(self) -> Glance:
        how = f"{self.front.refits} refits each" if self.is_refitted else "the study's networks"
        line = f"{len(self.front.table)} candidates on {self.dataset}, groups by {self.protected} ({how})"
        return self.front._glance()._replace(line=line)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN is None."""
        return {
            "dataset": self.dataset,
            "protected": self.protected,
            "is_refitted": self.is_refitted,
            "refits": self.front.refits,
            "split": self.front.split,
            "level": self.front.level,
            "withheld": self.front.withheld,
            "rank_correlation": _records(self.correlation),
            "candidates": _records(self.front.table),
            "groups": _records(self.front.groups),
        }

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write :meth:`to_dict` as JSON; returns the file."""
        write_json(Path(path), self.to_dict())
        return Path(path)


@checked_call
def transfer(
    study: Study,
    dataset: LabelledImages,
    *,
    protected: str | Sequence[str],
    identity: str = "identity",
    target: str | None = None,
    refit: int = 2,
    device: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Transfer:
    """Take the validation front of a study to another dataset, or to another attribute of the same.

    Args:
        study: from :func:`vlbias.search.run` or :func:`vlbias.search.open_study`.
        dataset, protected, identity: the other data, see :func:`vlbias.search.make_task`.
        target: column to predict, of a study of "classify"; None for that of the study.
        refit: trainings of each candidate on the other training people, at the study's budget; 0 evaluates the study's
            own networks on the other test people ("identify" alone: a classifier's classes are its own).
        device: "cpu", "cuda", ...; None takes CUDA where there is one.
        folder: where evaluations are kept, so that a killed run goes on; None keeps none.

    Raises:
        ConfigError: the study does not say how it trains, or ``refit`` is 0 and its networks are not here.
        TrainingError: the study has no feasible trial.
        LabelError, UnknownNameError: see :func:`vlbias.search.make_task`.
    """
    checked_number("refit", refit, low=0, high=MAX_RUNS)
    (kind, size, own_target), recipe = _told(study.header)
    if refit == 0 and kind != "identify":
        raise ConfigError("A classifier tells its own classes apart. Take `refit` >= 1 for a study of task 'classify'.")
    task = make_task(
        dataset, protected=protected, task=kind, target=target or own_target, identity=identity, image_size=size
    )
    recipe = replace(recipe, task=task, settings=replace(recipe.settings, device=device))
    recipe.share()
    place = None if folder is None else make_folder(folder)
    kind_of_refits = Refits if refit else _SameNetworks
    candidates, objectives = study.candidates(), study.settings.objectives
    front = held_out_front(
        candidates,
        objectives,
        kind_of_refits(recipe, refit, "test", place),
        level=0.95,
        num_resamples=2000,
        show_progress=True,
    )
    name = str(getattr(dataset, "name", "unnamed"))
    return Transfer(front, _correlation(front, objectives), name, task.protected, refit > 0)


def _told(header: Mapping[str, Any]) -> tuple[tuple[Any, ...], Recipe]:
    """Kind, image size and target of a study's task, and how it trains; the task of that is still to be given."""
    try:
        asked = tuple(header["task"][name] for name in ("kind", "image_size", "target"))
        known = {item.name for item in fields(TrainSettings)}
        training = TrainSettings(**{name: value for name, value in header["training"].items() if name in known})
        rungs = header["rungs"]
        warmup = min(training.warmup_epochs, rungs[0] / 2)
        space = Space.from_dict(header["space"])
        return asked, Recipe(None, space, rungs[-1], warmup, training, int(header["seed"]))  # type: ignore[arg-type]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"The study does not say how it trains ({error}). Give the storage of another.") from error


@dataclass(frozen=True)
class _SameNetworks(Refits):
    """The study's own networks, whatever people they were trained on."""

    def _make(self, candidate: Candidate, refit: int) -> Evaluation:
        task, path = self.recipe.task, candidate.checkpoint
        if path is None or not path.is_file():
            raise ConfigError(f"Trial {candidate.number} has no checkpoint here; use refit >= 1.")
        try:
            weights = read_foreign_pickle(path)["parts"]["model"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is not the state of a training run.") from error
        device = self.recipe.settings.resolved_device()

        def network() -> Embedder:
            return Embedder(candidate.configuration, self.recipe.space, task.image_size)

        model = build_filled(network, weights, str(path)).to(device)
        workers = self.recipe.settings.num_workers
        return evaluate_model(model, None, task, task.sample(self.split), device, num_workers=workers)


def _correlation(front: Front, objectives: Sequence[str]) -> pd.DataFrame:
    rows = []
    for name in objectives:
        before, here = (front.table[column].to_numpy(float) for column in (f"val_{name}", name))
        rho, p = float("nan"), float("nan")
        if len(here) > 2 and np.ptp(before) > 0 and np.ptp(here) > 0:
            rho = float(stats.spearmanr(before, here).statistic)
            p = _p_value(before, here)
        rows.append({"objective": name, "spearman": rho, "p_value": p, "trials": len(here)})
    return pd.DataFrame(rows).set_index("objective")


def _p_value(before: np.ndarray, here: np.ndarray) -> float:
    def agreement(order: np.ndarray) -> float:
        return float(stats.spearmanr(order, here).statistic)

    found = stats.permutation_test(
        (before,),
        agreement,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.reset_index().astype(object)
    return [
        {str(name): value for name, value in row.items()} for row in plain.where(plain.notna(), None).to_dict("records")
    ]
