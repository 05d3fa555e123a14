"""Run a search, join it, read it: the study as users see it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from vlbias.arguments import checked_call
from vlbias.classify import LabelledImages
from vlbias.engine import Engine, checked_engine, gpus_here, run_pieces
from vlbias.errors import ConfigError, LabelError, TrainingError, unknown
from vlbias.files import make_folder, write_file
from vlbias.search.baselines import BASELINES, baseline_names, baseline_number
from vlbias.search.export import save_model
from vlbias.search.front import Candidate, Front, Refits, held_out_front
from vlbias.search.halving import (
    SAMPLERS,
    HalvingSettings,
    check_trials,
    checkpoint_path,
    make_sampler,
    rung_values,
    work,
)
from vlbias.search.ledger import Ledger
from vlbias.search.pareto import front_ranks, rungs
from vlbias.search.plots import plot_study
from vlbias.search.reliability import HALF, choose, reliabilities, split_name
from vlbias.search.spaces import Configuration, Space, laptop_space
from vlbias.search.storage import CONFIGURATION, REASON, SURPLUS, Storage, attempts_of, roots
from vlbias.search.task import Task, make_task
from vlbias.search.trainer import Recipe, Trainer, TrainSettings
from vlbias.settings import MAX_DRAWS, MAX_RUNS, Settings, checked_number, number, with_changes
from vlbias.shown import Glance, Shown, plural

__all__ = ["SearchSettings", "Study", "open_study", "run"]

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
#: Columns that differ between two runs of the same study.
_TIMING = ("seconds", "attempts")


@dataclass(frozen=True)
class SearchSettings(Settings):
    """What a search trains, compares and stops; each has the default of a laptop.

    Args:
        task: "identify" (people never seen in training are told apart) or "classify" (a target column).
        target: column to predict, for "classify".
        identity: column of the person.
        image_size: side in pixels that images are brought to.
        objectives: two or more names of the objective table, all minimised; None takes ("error", "rank_gap") for
            "identify" and ("error", "equalized_odds_gap") for "classify".
        n_trials: trials in all, whoever runs them; a later call may ask for more.
        fidelity: ("epochs", lowest, highest) budget.
        eta: rungs are a factor of eta apart, and a trial is stopped at one if at least 1/eta of its peers lie on a
            better front. None trains every trial to the end.
        max_error: trials above are infeasible: a collapsed network has no gap, and is not fair.
        sampler: "tpe", "nsga2", "random", or a sampler of Optuna.
        training: how every configuration is trained.
        folder: of checkpoints; None puts it beside the Journal file.
        seed: of everything.
        balance_gallery: see :func:`vlbias.search.make_task`.
        rungs: budgets at which trials are compared, the last being the full one; None makes them of ``fidelity`` and
            ``eta``.

    Raises:
        UnknownNameError: another fidelity than epochs. ConfigError: budgets that make no sense.
    """

    task: Literal["identify", "classify"] = "identify"
    target: str | None = None
    identity: str = "identity"
    image_size: int = number(64, 16, 2048)
    objectives: Sequence[str] | None = None
    n_trials: int = number(20, 1, 1_000_000)
    fidelity: tuple[Literal["epochs"], int, int] = number(("epochs", 1, 9), 1)
    eta: float | None = number(3.0, above=1)
    max_error: float = number(0.5, above=0, high=1)
    sampler: str | BaseSampler = "tpe"
    training: TrainSettings = field(default_factory=TrainSettings)
    folder: str | os.PathLike[str] | None = None
    seed: int = number(0, 0)
    balance_gallery: bool = True
    rungs: Sequence[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.sampler, BaseSampler) and str(self.sampler) not in SAMPLERS:
            raise unknown("sampler", str(self.sampler), SAMPLERS)
        rungs(*self.fidelity[1:], self.eta or 3.0)
        if self.rungs is not None and (not self.rungs or list(self.rungs) != sorted({*self.rungs} - {0})):
            raise ConfigError(f"`rungs` must ascend from 1 or more, each once; got {tuple(self.rungs)}.")

    def halving(self, task: Task) -> HalvingSettings:
        """What is compared at which budgets.

        Raises:
            UnknownNameError: an objective that the task does not have.
        """
        gap = "rank_gap" if task.kind == "identify" else "equalized_odds_gap"
        names = tuple(self.objectives or ("error", gap))
        for name in names:
            if name not in task.objectives:
                raise unknown("objective", name, task.objectives, where=f"task '{task.kind}'")
        _, low, high = self.fidelity
        budgets = list(self.rungs) if self.rungs is not None else rungs(low, high, self.eta or 3.0)
        if self.eta is None:
            budgets = budgets[-1:]
        return HalvingSettings(names, tuple(budgets), self.eta, self.max_error)


class Study(Shown):
    """A search with its trials; made by :func:`run`, reopened by :func:`open_study`.

    Attributes:
        settings: what is compared at which budgets.
    """

    def __init__(self, study: optuna.Study, storage: Storage, settings: HalvingSettings, recipe: Recipe | None = None):
        self._study, self._storage, self._recipe = study, storage, recipe
        self.settings = settings
        self._ledger = Ledger(storage.folder)

    def _glance(self) -> Glance:
        table, objectives = self.table(), self.settings.objectives
        if table.empty:
            return Glance(f"no trial yet, objectives {', '.join(objectives)}")
        states = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
        best = table[table["on_front"]]
        columns = ["trial", "backbone", "head", "epochs", *objectives]
        line = f"{plural(len(table), 'trial')} ({states}), {len(best)} on the front of {' and '.join(objectives)}"
        return Glance(line, columns, best.reset_index()[columns].to_numpy().tolist())

    @property
    def task(self) -> Task | None:
        """The dataset it trains on; None when reopened for reading."""
        return None if self._recipe is None else self._recipe.task

    @property
    def optuna_study(self) -> optuna.Study:
        """The study as Optuna knows it, for its own visualisations."""
        return self._study

    @property
    def header(self) -> dict[str, Any]:
        """What all its workers agreed on, as plain values: task, objectives, rungs, space, training, seed."""
        return dict(self._study.user_attrs["vlbias"])

    @property
    def folder(self) -> Path | None:
        """Where checkpoints and refits lie; None for a study in memory."""
        return self._storage.folder

    @property
    def looks(self) -> list[dict[str, Any]]:
        """Looks at the test set so far: candidates and refits of each; see :mod:`vlbias.search.ledger`."""
        return self._ledger.looks

    def table(self) -> pd.DataFrame:
        """One row per trial, by number: state, epochs, every objective at the last budget it reached (validation),
        feasible, on_front, configuration, seconds, attempts, reason of a failure.
        """
        trials = self._study.get_trials(deepcopy=False)
        counts = [trial for trial in trials if SURPLUS not in trial.user_attrs]
        attempts = attempts_of(counts)
        rows = []
        for place, trial in roots(trials).items():
            reached = rung_values(trial)
            last = max(reached, default=0)
            values = {k: v for k, v in reached.get(last, {}).items() if k != "collapsed" and HALF not in k}
            rows.append(
                {
                    "trial": place,
                    "state": _STATES[trial.state],
                    "epochs": last,
                    **values,
                    "feasible": trial.state == TrialState.COMPLETE and values["error"] <= self.settings.max_error,
                    **trial.user_attrs.get(CONFIGURATION, {}),
                    "seconds": trial.user_attrs.get("seconds", float("nan")),
                    "attempts": attempts[place],
                    "reason": trial.user_attrs.get(REASON, ""),
                }
            )
        table = pd.DataFrame(rows)
        if table.empty:
            return table
        table = table.set_index("trial")
        table.insert(2, "on_front", False)
        feasible = table.index[table["feasible"]]
        if len(feasible):
            ranks = front_ranks(table.loc[feasible, list(self.settings.objectives)].to_numpy())
            table.loc[feasible[ranks == 0], "on_front"] = True
        return table

    def candidates(self) -> list[Candidate]:
        """Feasible finished trials that no other dominates on validation, best first objective first."""
        table = self.table()
        if table.empty or not table["on_front"].any():
            raise TrainingError(
                f"No finished trial has an error of at most {self.settings.max_error}. "
                "Run more trials, give more epochs or raise `max_error`."
            )
        chosen = table[table["on_front"]].sort_values(self.settings.objectives[0])
        return [self._candidate(int(number)) for number in chosen.index]

    def best(self, max_error: float | None = None) -> Candidate:
        """The finished trial to take among those within an error; ``why`` of the candidate says how it was found.

        The smallest validation gap (last objective) is mostly the luckiest. So of all trials whose gap may well be the
        smallest, given how reliably validation people tell trials apart, the one with the lowest error is taken: the
        less signal the gap has, the more the error decides. :meth:`front` gives held-out numbers.

        Raises:
            TrainingError: no trial is that good; the smallest error is in the message.
        """
        limit = self.settings.max_error if max_error is None else max_error
        table = self.table()
        complete = table[table["state"] == "complete"] if not table.empty else table
        within = complete[complete["error"] <= limit] if not complete.empty else complete
        if within.empty:
            found = f"the smallest is {complete['error'].min():.3f}" if not complete.empty else "none finished yet"
            raise TrainingError(f"No finished trial has an error of at most {limit}; {found}.")
        gap = self.settings.objectives[-1]
        row = self.reliability().loc[gap].to_dict()
        chosen = choose(within["error"].to_numpy(), within[gap].to_numpy(), row["reliability"])
        return replace(self._candidate(int(within.index[chosen])), why=row["advice"])

    def reliability(self) -> pd.DataFrame:
        """How well the validation people tell the finished trials apart, by each objective.

        Ask after a pilot of some ten trials, before the search goes on: an objective without reliability cannot be
        searched for, only drawn by chance. More validation people raise it.

        Returns:
            One row per objective: trials, reliability (0..1, see :func:`vlbias.search.reliability.reliability`),
            people in the validation set (NaN when reopened without the dataset), people_needed for a reliability of
            .8, advice in a sentence.
        """
        trials = roots(self._study.get_trials(deepcopy=False)).values()
        reached = [rung_values(trial) for trial in trials if trial.state == TrialState.COMPLETE]
        table = pd.DataFrame([values[max(values)] for values in reached])
        people = None if self.task is None else len(np.unique(self.task.val.persons))
        return reliabilities(table, self.settings.objectives, people)

    def front(
        self,
        refit: int = 3,
        split: str = "test",
        level: float = 0.95,
        *,
        baselines: Sequence[str] = (),
        num_resamples: int = 2000,
        show_progress: bool = True,
        engine: Engine | None = None,
    ) -> Front:
        """Refit the validation front from new seeds, evaluate each refit once on held-out data, with intervals.

        Args:
            refit: refits per candidate; 0 evaluates the search's own checkpoints, whose luck is part of the choice.
            split: "test", or "val" to see what choosing on it does.
            level: of the intervals.
            baselines: named networks to train alike and compare with, see :mod:`vlbias.search.baselines`; they have no
                validation values. They need ``refit`` >= 1.
            num_resamples: bootstrap draws over people.
            show_progress: whether a line on stderr tells how far it is.
            engine: whose workers refit; ``None`` for this process.

        Refits are stored beside the study: they are made once, and several workers share them. Each look at the test
        set is entered in a ledger; intervals are of ``level``, and claims of dominance must be the surer the more
        often one looked (``Front.claim_level``).

        Raises:
            ConfigError: the study was opened without its dataset, or baselines without a refit.
            UnknownNameError: no such baseline.
            TrainingError: no feasible trial.
        """
        names = baseline_names(baselines)
        if names and refit == 0:
            raise ConfigError("`baselines` are trained for the comparison, so they need `refit` >= 1.")
        checked_number("refit", refit, low=0, high=MAX_RUNS)
        checked_number("num_resamples", num_resamples, low=1, high=MAX_DRAWS)
        if not 0 < level < 1:
            raise ConfigError(f"`level` must lie in (0, 1); got {level}.")
        refits = Refits(self._needed_recipe("refit"), refit, split, self.folder)
        unseen = dict.fromkeys(self.settings.objectives, float("nan"))
        added = [Candidate(baseline_number(name), BASELINES[name], unseen, None, name) for name in names]
        candidates = [*self.candidates(), *added]
        look = self._ledger.enter([one.number for one in candidates], refit) if split == "test" else 0
        found = held_out_front(
            candidates,
            self.settings.objectives,
            refits,
            level=level,
            num_resamples=num_resamples,
            show_progress=show_progress,
            engine=engine,
        )
        return replace(found, look=look)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw every trial on the first two objectives, the front among them; the file's ending chooses the format."""
        return plot_study(self.table(), self.settings.objectives, self.settings.max_error, Path(path))

    def write(self, out_dir: str | os.PathLike[str], front: Front | None = None) -> Path:
        """Write trials.csv and trials.png; with a held-out front also front.csv, groups.csv, dominance.csv, front.png.

        How long each trial took and how often it was begun stands in timing.csv, so that everything else is the same
        for a study that was interrupted.

        Raises:
            OutputError: the folder cannot be made.
        """
        out = make_folder(out_dir)
        table = self.table()
        write_file(out / "trials.csv", table.drop(columns=list(_TIMING)).to_csv())
        write_file(out / "timing.csv", table[list(_TIMING)].to_csv())
        self.plot(out / "trials.png")
        if front is not None:
            for name in ("table", "groups", "dominance"):
                write_file(out / f"{'front' if name == 'table' else name}.csv", getattr(front, name).to_csv())
            front.plot(out / "front.png")
        return out

    def save(self, candidate: Candidate, folder: str | os.PathLike[str], front: Front | None = None) -> Path:
        """Write a candidate as a folder: weights, configuration and a card with its numbers by group.

        Args:
            candidate: from :meth:`best` or :meth:`candidates`.
            folder: made if absent.
            front: held-out numbers for the card.
        """
        recipe = self._needed_recipe("save a model")
        if candidate.checkpoint is None or not candidate.checkpoint.is_file():
            raise ConfigError(
                f"Trial {candidate.number} has no checkpoint here; it was trained where the study's folder is."
            )
        trainer = recipe.trainer(candidate.configuration, candidate.number)
        trainer.load(candidate.checkpoint)
        return save_model(trainer, candidate, self.settings.objectives, Path(folder), front)

    def _needed_recipe(self, what: str) -> Recipe:
        if self._recipe is None:
            raise ConfigError(f"This study was opened for reading; call search.run with its dataset to {what}.")
        return self._recipe

    def _candidate(self, number: int) -> Candidate:
        trial = roots(self._study.get_trials(deepcopy=False))[number]
        reached = rung_values(trial)
        return Candidate(
            number,
            Configuration.from_dict(trial.user_attrs[CONFIGURATION]),
            reached[max(reached)],
            checkpoint_path(self.folder, number),
        )


class _TrainedRun:
    """A trial in training: goes on from its checkpoint, writes one after each epoch."""

    def __init__(self, trainer: Trainer, path: Path | None, objectives: Sequence[str], on_epoch: Callable[[int], None]):
        self.trainer, self.path, self.objectives, self.on_epoch = trainer, path, objectives, on_epoch
        if path is not None and path.is_file():
            trainer.load(path)

    def advance(self, budget: int) -> dict[str, float]:
        def after(trainer: Trainer, loss: float) -> None:
            if self.path is not None:
                trainer.save(self.path)
            self.on_epoch(trainer.epoch)

        self.trainer.advance(budget, on_epoch=after)
        evaluation = self.trainer.evaluate("val")
        halves = {
            split_name(name, number): values[name]
            for number, values in enumerate(evaluation.halves(), start=1)
            for name in self.objectives
            if math.isfinite(values[name])
        }
        return {**evaluation.objectives(), **halves, "collapsed": float(evaluation.is_collapsed)}

    def finish(self, keep: bool) -> None:
        # Stopped and failed trials are never continued, so their weights would only fill the disk.
        if not keep and self.path is not None:
            self.path.unlink(missing_ok=True)


@checked_call
def run(
    dataset: LabelledImages,
    *,
    protected: str | Sequence[str],
    edits: LabelledImages | None = None,
    space: Space | None = None,
    storage: str | os.PathLike[str] | None = "study.log",
    settings: SearchSettings | None = None,
    show_progress: bool = True,
    **changes: object,
) -> Study:
    """Search for configurations with a low error and a low gap; the same call elsewhere joins, after a crash resumes.

    Args:
        dataset, protected, edits: see :func:`vlbias.search.make_task`.
        space: what is searched; a laptop's by default.
        storage: Journal file, or database URL, with ``#NAME`` behind it for one study among several; None keeps the
            study in memory.
        settings: what is trained, compared and stopped.
        show_progress: whether a line on stderr tells how far it is.
        changes: single settings on top (``max_error=0.3``); and ``engine``, a :class:`vlbias.engine.Engine` whose
            workers join the study.

    Started by ``accelerate launch``, its processes train each network together; only the first returns from here.

    Raises:
        ConfigError, UnknownNameError, LabelError: before any training, with what to change.
        TrainingError: the first trials all failed.
    """
    engine = checked_engine(changes.pop("engine", None))
    s = with_changes(SearchSettings, settings, changes)
    task = make_task(
        dataset,
        protected=protected,
        task=s.task,
        target=s.target,
        identity=s.identity,
        edits=edits,
        image_size=s.image_size,
        balance_gallery=s.balance_gallery,
    )
    halving = s.halving(task)
    chosen = space or laptop_space()
    if chosen.needs_edits and not task.has_edits:
        raise LabelError(
            "The space searches the share of edited images, but no edit belongs to a training image. "
            "Give `edits=`, or a dataset with an `origin` column, or augmentation=(0, 0)."
        )
    # At its first comparison every trial has trained at its full rate for a while.
    warmup = min(s.training.warmup_epochs, halving.rungs[0] / 2)
    recipe = Recipe(task, chosen, halving.rungs[-1], warmup, s.training, s.seed)
    recipe.share()
    place = Storage(os.fspath(storage) if storage is not None else None, folder=s.folder)
    optuna_study = place.study(len(halving.objectives), _header(task, halving, chosen, s))
    check_trials(optuna_study.get_trials(deepcopy=False), halving, place.path or "the database")
    optuna_study.sampler = make_sampler(s.sampler, s.seed, chosen.default_parameters())
    if place.folder is not None:
        make_folder(place.folder)

    num_gpus = gpus_here(s.training.device)
    if engine is not None and not engine.is_this_process(num_gpus):
        if place.folder is None:
            raise ConfigError(
                "The workers of an `engine` share the study: give a `storage`, and with a database a `folder`."
            )
        call = partial(run, dataset, protected=protected, edits=edits, space=space, storage=storage, settings=s)
        joined = _Joined(call, show_progress)
        list(run_pieces(engine, joined, None, num_gpus=num_gpus))

    def start(configuration: Configuration, number: int, on_epoch: Callable[[int], None]) -> _TrainedRun:
        path = checkpoint_path(place.folder, number)
        return _TrainedRun(recipe.trainer(configuration, number), path, halving.objectives, on_epoch)

    work(optuna_study, place, chosen, start, halving, n_trials=s.n_trials, show_progress=show_progress)
    return Study(optuna_study, place, halving, recipe)


@dataclass(frozen=True, eq=False)
class _Joined:
    """Joining a study, as work that can be sent; each piece is a worker, the first of which tells how far all are."""

    call: Callable[..., Study]
    show_progress: bool

    def open(self) -> Callable[[int], None]:
        """What works on the study until it is done."""

        def join(number: int) -> None:
            self.call(show_progress=self.show_progress and number == 0)

        return join


def _header(task: Task, halving: HalvingSettings, space: Space, settings: SearchSettings) -> dict[str, Any]:
    """What workers of one study must agree on."""
    return {
        "task": task.fingerprint(),
        "objectives": list(halving.objectives),
        "rungs": list(halving.rungs),
        "eta": halving.eta,
        "max_error": halving.max_error,
        "space": space.to_dict(),
        "training": {k: value for k, value in vars(settings.training).items() if k not in ("device", "num_workers")},
        "sampler": settings.sampler if isinstance(settings.sampler, str) else type(settings.sampler).__name__,
        "seed": settings.seed,
    }


@checked_call
def open_study(storage: str | os.PathLike[str], *, folder: str | os.PathLike[str] | None = None) -> Study:
    """Open a study to read its table, plot and best trial; no dataset is needed and nothing is trained.

    Raises:
        ConfigError: there is no study, or not one of ours.
    """
    if "://" not in os.fspath(storage) and not Path(storage).is_file():
        raise ConfigError(f"No study at {os.fspath(storage)}.")
    place = Storage(os.fspath(storage), folder=folder)
    optuna_study = place.study(2, None)
    settings = _stored_settings(optuna_study.user_attrs["vlbias"], place.path or "the database")
    check_trials(optuna_study.get_trials(deepcopy=False), settings, place.path or "the database")
    return Study(optuna_study, place, settings)


def _stored_settings(header: Mapping[str, Any], place: object) -> HalvingSettings:
    try:
        return HalvingSettings(tuple(header["objectives"]), tuple(header["rungs"]), header["eta"], header["max_error"])
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"The study in {place} does not say what it compares ({error}). Give another.") from error
