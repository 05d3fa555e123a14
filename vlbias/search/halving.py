"""The loop of a worker: draw a configuration, train it rung by rung, stop it when enough peers are better.

Optuna draws and stores; what it lacks for several objectives (``trial.report`` raises) is here: at each rung the
objectives go into user attributes, and :func:`vlbias.search.pareto.should_stop` compares them with the peers that
reached the same rung. Any Optuna sampler works below it.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from vlbias.errors import ConfigError, TrainingError, VlbiasError, unknown
from vlbias.progress import Progress, track
from vlbias.search.pareto import should_stop
from vlbias.search.spaces import Configuration, Space
from vlbias.search.storage import CONFIGURATION, REASON, SURPLUS, Storage, quiet_optuna, root_of, roots
from vlbias.settings import Settings, number

__all__ = [
    "SAMPLERS",
    "HalvingSettings",
    "NumberedSampler",
    "Run",
    "Runner",
    "check_trials",
    "make_sampler",
    "rung_values",
    "work",
]

SAMPLERS = ("tpe", "nsga2", "random")
#: A study whose first trials all fail is set up wrongly; going on would only fill the table.
_HOPELESS_FAILURES = 5


class Run(Protocol):
    """One configuration under way."""

    def advance(self, budget: int) -> Mapping[str, float]:
        """Train up to ``budget`` in all and return the objective table, with "collapsed" 0 or 1 in it."""
        ...

    def finish(self, keep: bool) -> None:
        """Called once at the end: keep the checkpoint (finished or interrupted) or drop it (stopped or failed)."""
        ...


class Runner(Protocol):
    """Starts runs; the trainer in earnest, a table of recorded curves in benchmarks."""

    def __call__(self, configuration: Configuration, number: int, on_epoch: Callable[[int], None]) -> Run:
        """Start a run; ``number`` is its place in the study, ``on_epoch`` is called after each epoch."""


@dataclass(frozen=True)
class HalvingSettings(Settings):
    """What the loop compares and when.

    Args:
        objectives: names in the objective table, two or more, minimised.
        rungs: budgets, ascending; the last is the full one.
        eta: see :func:`vlbias.search.pareto.should_stop`; None never stops a trial early.
        max_error: cap on "error"; a trial above it is infeasible and never on the front.
        min_peers: nothing is stopped at a rung before this many peers reached it.
    """

    objectives: tuple[str, ...]
    rungs: tuple[int, ...] = number(low=1)
    eta: float | None = number(3.0, above=1)
    max_error: float = number(0.5, above=0, high=1)
    min_peers: int = number(2, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.objectives) < 2 or len(set(self.objectives)) != len(self.objectives):
            raise ConfigError(f"`objectives` must be two or more distinct names; got {self.objectives}.")


class NumberedSampler(BaseSampler):
    """Any Optuna sampler, seeded anew for each trial from (seed, its place in the study).

    So two workers never draw the same "random" start, a trial that was lost and queued again draws the same
    configuration, and with a sampler that ignores the past the table does not depend on how many workers there were.
    The study's first trial is the default configuration: every study then holds the baseline.
    """

    def __init__(self, factory: Callable[[int], BaseSampler], seed: int, first: Mapping[str, object] | None = None):
        self._factory, self._seed, self._first = factory, seed, dict(first or {})
        self._inner = factory(seed)
        self._root: int | None = None

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._root = root_of(trial, study.get_trials(deepcopy=False))
        self._inner = self._factory(int(np.random.SeedSequence([self._seed, self._root]).generate_state(1)[0]))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """The inner sampler's; nothing for the first trial."""
        return {} if self._is_first else self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """The inner sampler's draw; nothing for the first trial."""
        return {} if self._is_first else self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """The default for the first trial, else the inner sampler's draw."""
        if self._is_first and param_name in self._first:
            return self._first[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the inner sampler."""
        self._inner.after_trial(study, trial, state, values)

    @property
    def _is_first(self) -> bool:
        return self._root == 0 and bool(self._first)


def make_sampler(sampler: str | BaseSampler, seed: int, first: Mapping[str, object] | None = None) -> BaseSampler:
    """A sampler by name, or one of Optuna's as it is. Infeasible trials are known to it by their constraint.

    Raises:
        UnknownNameError: no such sampler.
    """
    if isinstance(sampler, BaseSampler):
        return sampler
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)

    def factory(number: int) -> BaseSampler:
        with warnings.catch_warnings():
            # Grouped sampling is marked experimental in Optuna.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if sampler == "random":
                return optuna.samplers.RandomSampler(seed=number)
            if sampler == "nsga2":
                return optuna.samplers.NSGAIISampler(population_size=16, seed=number)
            return optuna.samplers.TPESampler(seed=number, multivariate=True, group=True, constant_liar=True)

    return NumberedSampler(factory, seed, first)


def rung_values(trial: FrozenTrial) -> dict[int, dict[str, float]]:
    """Budget -> objective table, for every rung a trial has reached."""
    return {
        int(key.removeprefix("rung_")): dict(value)
        for key, value in trial.user_attrs.items()
        if key.startswith("rung_")
    }


def check_trials(trials: Iterable[FrozenTrial], settings: HalvingSettings, place: object) -> None:
    """Refuse a study with a trial that no worker wrote as it stands.

    Args:
        trials: as they were read.
        settings: what is compared in the study.
        place: what messages call the study.

    Raises:
        ConfigError: names the first such trial and what is wrong with it.
    """
    for trial in trials:
        try:
            why = _fault(trial, settings)
        except (VlbiasError, TypeError, ValueError, AttributeError) as error:
            why = str(error)
        if why:
            raise ConfigError(
                f"Trial {trial.number} of {place} is damaged: {why:.300} "
                "Restore the file from a copy, or give another `storage`."
            )


def _fault(trial: FrozenTrial, settings: HalvingSettings) -> str:
    """What is wrong with a stored trial, as a sentence; "" if nothing is."""
    said = trial.user_attrs
    for key in ("root", "retry_of"):
        if key in said and (type(said[key]) is not int or said[key] < 0):
            return f"`{key}` must be a whole number >= 0."
    for key in ("worker", REASON):
        if not isinstance(said.get(key, ""), str):
            return f"`{key}` must be a text."
    if not str(said.get("worker", "0")).isalnum():
        return "`worker` must be a name of letters and digits."  # a file has this name
    if not 0 <= float(said.get("seconds", 0)) < math.inf:
        return "`seconds` must be a number >= 0."
    if CONFIGURATION in said:
        Configuration.from_dict(said[CONFIGURATION])
    names = {"error", *settings.objectives}
    reached = rung_values(trial)
    for rung, values in reached.items():
        known = all(type(value) in (int, float) for value in values.values()) and names <= set(values)
        if not known or not all(math.isfinite(values[name]) for name in names):
            return f"`rung_{rung}` must hold numbers, of {', '.join(sorted(names))} at least."
    if trial.state == TrialState.COMPLETE:
        missing = [f"rung_{settings.rungs[-1]}"] if settings.rungs[-1] not in reached else []
        missing += [CONFIGURATION] if CONFIGURATION not in said else []
        if missing:
            return f"it is finished, but `{missing[0]}` is missing."
        if len(trial.values) != len(settings.objectives) or not all(map(math.isfinite, trial.values)):
            return f"its values must be {len(settings.objectives)} finite numbers."
    return ""


class _Surplus(Exception):
    """This trial is one too many; it trains nothing."""


def work(
    study: optuna.Study,
    storage: Storage,
    space: Space,
    runner: Runner,
    settings: HalvingSettings,
    *,
    n_trials: int,
    show_progress: bool = False,
    poll_s: float = 0.5,
) -> None:
    """Work on a study until it has ``n_trials`` finished trials, beside any number of other workers.

    Returns only when no trial is left open anywhere: while others finish theirs, this worker waits and takes over
    what they drop.

    Args:
        study, storage: where trials are drawn and kept.
        space: draws configurations.
        runner: trains them.
        settings: what is compared, and when.
        n_trials: in all, whoever runs them.
        show_progress: whether a line on stderr tells how far it is.
        poll_s: seconds between two looks at trials that others run.

    Raises:
        TrainingError: the first trials all failed; the reason of the last is in the message.
    """
    storage.sign_in()
    try:
        with quiet_optuna(), track(n_trials, "search", "trials", show=show_progress) as progress:
            _Worker(study, storage, space, runner, settings, n_trials, progress).loop(poll_s)
    finally:
        storage.sign_out()


@dataclass
class _Worker:
    """One worker at its study."""

    study: optuna.Study
    storage: Storage
    space: Space
    runner: Runner
    settings: HalvingSettings
    n_trials: int
    progress: Progress

    def loop(self, poll_s: float) -> None:
        shown = 0
        while True:
            self.storage.recover(self.study)
            trials = self.study.get_trials(deepcopy=False)
            counted = roots(trials)
            finished = [trial for trial in counted.values() if trial.state.is_finished()]
            if len(finished) != shown:
                self.progress.update(len(finished) - shown, **_summary(finished, self.settings))
                shown = len(finished)
            _refuse_hopeless(finished)
            states = {trial.state for trial in trials}
            if len(counted) < self.n_trials or TrialState.WAITING in states:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self.study.optimize(self.one_trial, n_trials=1, catch=(Exception,))
            elif TrialState.RUNNING in states:
                time.sleep(poll_s)
            else:
                return

    def one_trial(self, trial: optuna.Trial) -> list[float]:
        """Optuna's objective function: the trial's values at the full budget."""
        root = self._sign(trial)
        run: Run | None = None
        keep = True  # an interrupted trial is taken up again
        try:
            configuration = self.space.suggest(trial)
            trial.set_user_attr(CONFIGURATION, configuration.to_dict())
            run = self.runner(configuration, root, lambda epoch: self.progress.update(0, trial=root, epoch=epoch))
            values = self._climb(trial, root, run)
            if values["collapsed"]:
                raise TrainingError(
                    "The model collapsed: everything looks the same to it, so its gap of zero means nothing."
                )
            trial.set_constraint("error", _violation(values, self.settings))
            return [values[name] for name in self.settings.objectives]
        except optuna.TrialPruned:
            keep = False
            raise
        except Exception as error:
            keep = False
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}")
            raise
        finally:
            if run is not None:
                run.finish(keep)

    def _sign(self, trial: optuna.Trial) -> int:
        """Put this worker's name under a trial; returns its place in the study, or stops it as one too many."""
        trials = self.study.get_trials(deepcopy=False)
        frozen = next(other for other in trials if other.number == trial.number)
        root = root_of(frozen, trials)
        self.storage.sign(trial, root)
        if _is_surplus(frozen, root, trials, self.n_trials):
            trial.set_user_attr(SURPLUS, True)
            trial.set_user_attr(REASON, "surplus")
            raise _Surplus
        return root

    def _climb(self, trial: optuna.Trial, root: int, run: Run) -> dict[str, float]:
        """Train from rung to rung; returns the objective table of the last."""
        started, before = time.monotonic(), float(trial.user_attrs.get("seconds", 0.0))
        last = self.settings.rungs[-1]
        values: dict[str, float] = {}
        for rung in self.settings.rungs:
            if rung != last and f"rung_{rung}" in trial.user_attrs:
                continue  # passed before its worker died
            values = {key: float(value) for key, value in run.advance(rung).items()}
            _check_values(values, self.settings, rung)
            trial.set_user_attr("seconds", before + time.monotonic() - started)
            trial.set_user_attr(f"rung_{rung}", values)
            if rung != last and _stopped(root, values, self.study, self.settings, rung):
                trial.set_constraint("error", _violation(values, self.settings))
                raise optuna.TrialPruned(f"stopped at {rung}")
        return values


def _refuse_hopeless(finished: Sequence[FrozenTrial]) -> None:
    failures = [trial for trial in finished if trial.state == TrialState.FAIL]
    if len(finished) >= _HOPELESS_FAILURES and len(failures) == len(finished):
        reason = failures[-1].user_attrs[REASON]
        raise TrainingError(f"All of the first {len(finished)} trials failed. Last: {reason}")


def _is_surplus(trial: FrozenTrial, root: int, trials: Sequence[FrozenTrial], n_trials: int) -> bool:
    """Whether another attempt holds the same place already, or all ``n_trials`` places are taken."""
    if "retry_of" not in trial.user_attrs:
        return root >= n_trials
    open_or_done = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
    return any(
        other.number < trial.number
        and other.state in open_or_done
        and SURPLUS not in other.user_attrs
        and root_of(other, trials) == root
        for other in trials
    )


def _check_values(values: Mapping[str, float], settings: HalvingSettings, rung: int) -> None:
    for name in ("error", *settings.objectives):
        if name not in values:
            raise unknown("objective", name, values)
        if not math.isfinite(values[name]):
            raise TrainingError(f"Objective '{name}' is {values[name]} at budget {rung}.")


def _stopped(root: int, values: Mapping[str, float], study: optuna.Study, settings: HalvingSettings, rung: int) -> bool:
    if settings.eta is None:
        return False
    peers = []
    for other, frozen in roots(study.get_trials(deepcopy=False)).items():
        reached = frozen.user_attrs.get(f"rung_{rung}")
        if other != root and reached is not None and REASON not in frozen.user_attrs:
            peers.append(reached)
    return should_stop(
        [values[name] for name in settings.objectives],
        [[peer[name] for name in settings.objectives] for peer in peers],
        eta=settings.eta,
        own_violation=_violation(values, settings),
        peer_violations=[_violation(peer, settings) for peer in peers],
        min_peers=settings.min_peers,
    )


def _violation(values: Mapping[str, float], settings: HalvingSettings) -> float:
    """How far above the error cap; a collapsed model is further away than any other."""
    return 2.0 if values.get("collapsed") else values["error"] - settings.max_error


def _summary(finished: Sequence[FrozenTrial], settings: HalvingSettings) -> dict[str, Any]:
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    fields: dict[str, Any] = {"stopped": sum(trial.state == TrialState.PRUNED for trial in finished)}
    if failed := sum(trial.state == TrialState.FAIL for trial in finished):
        fields["failed"] = failed
    if complete:
        fields["best_error"] = min(trial.user_attrs[f"rung_{settings.rungs[-1]}"]["error"] for trial in complete)
    return fields


def checkpoint_path(folder: Path | None, number: int) -> Path | None:
    """Where the training state of a trial lies; None if the study has no folder."""
    return None if folder is None else folder / f"trial-{number:05d}.pt"
