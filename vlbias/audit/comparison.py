"""Arms compared: each is tuned on validation faces, fitted with several seeds, and tested once on the same faces."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.audit.arms import Arm, ArmRun, ArmTask, find_arm, find_arms, run_arm
from vlbias.audit.composition import labels_of, people_of, weights_of
from vlbias.audit.results import ArmSummary, AuditResult, TrainingSummary
from vlbias.engine import Engine, gpus_here, run_pieces
from vlbias.fairness import EvaluationSettings
from vlbias.fairness.counts import check_cells, count
from vlbias.files import AnyPath
from vlbias.labels import in_order
from vlbias.progress import track

__all__ = ["compare_arms", "fit_engine"]

#: Steps of a classifier that pay for the start of a worker: on a processor they take twice as long.
WORKER_STEPS = 200


@checked_call
def compare_arms(
    task: ArmTask,
    arms: Any = "all",
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    cache: AnyPath | None = None,
    evaluation: EvaluationSettings | None = None,
    show_progress: bool = True,
    engine: Engine | None = None,
) -> AuditResult:
    """Compare arms on one task.

    Args:
        task: what they are compared on.
        arms: their names; the first is what the others are compared with. ``"all"`` for those that lack nothing.
        seeds: of the fits.
        cache: folder of finished fits; what an interrupted run had finished is not done again.
        evaluation: of the predictions; ``None`` for the defaults.
        show_progress: whether a line on stderr tells how far it is.
        engine: whose workers fit; ``None`` for this process.

    Raises:
        UnknownNameError, ConfigError: no such arm, or it lacks something.
        LabelError: a cell of the test faces is empty (unless ``min_cell``).
    """
    found = find_arms(arms, task)
    evaluation = evaluation or EvaluationSettings()
    # Raises for empty cells, one group or an unknown positive class before anything is trained.
    labels = pd.DataFrame(dict(zip("yg", labels_of(task.test, task.target, task.protected), strict=True))).dropna()
    groups = in_order(set(labels["g"]))
    check_cells(count(labels["y"], labels["y"], labels["g"], task.classes, groups), evaluation.min_cell)
    code = evaluation.for_counts(task.classes)["positive"]
    weights_of(task.test, task.settings.weight)  # refused before anything is trained
    runs: dict[str, list[ArmRun]] = {arm.name: [] for arm in found}
    with ExitStack() as stack, track(len(found) * len(seeds), "comparing arms", "fits", show=show_progress) as bar:
        num_gpus = gpus_here(task.settings.fit.device)
        engine = fit_engine(engine, len(found) * len(seeds), task.settings.fit.num_steps, num_gpus)
        if not engine.is_this_process(num_gpus):
            cache = cache or stack.enter_context(tempfile.TemporaryDirectory())
            for wave in _waves(found, seeds, task.settings.tune):
                for place, _ in run_pieces(engine, _ArmFits(task, cache), wave, num_gpus=num_gpus):
                    bar.update(0, fitted=wave[place][0].name)
        for seed in seeds:
            for arm in found:
                bar.fields["fit"] = f"({arm.name}, seed {seed})"
                runs[arm.name].append(run_arm(arm, task, seed=seed, cache=cache))
                bar.update(1)
    tested = task.test_faces
    people = people_of(task.test, task.settings.person)[tested.ids]
    return AuditResult(
        target=task.target,
        protected=list(task.protected),
        classes=task.classes,
        groups=groups,
        y_true=tested.y,
        group=pd.Index(groups).get_indexer(pd.Index(task.groups))[tested.g],
        predictions={name: np.stack([run.codes for run in made]) for name, made in runs.items()},
        training={name: _training(task, made[0]) for name, made in runs.items()},
        seeds=list(seeds),
        settings=task.settings.fit,
        evaluation=replace(evaluation, positive=None if code is None else task.classes[code]),
        num_test_missing=len(task.test) - len(tested),
        persons=None if people.is_unique else np.asarray(pd.factorize(people)[0]),
        weights=weights_of(task.test.select(tested.ids), task.settings.weight),
        arms={arm.name: ArmSummary(arm.summary, _chosen(runs[arm.name])) for arm in found},
        validation_counts=pd.DataFrame(task.counts(task.validation_faces), index=task.classes, columns=task.groups),
    )


def fit_engine(engine: Engine | None, num_fits: int, num_steps: int, num_gpus: int) -> Engine:
    """Who makes some fits of so many steps each; this process where nobody was asked for, or they are short."""
    return (engine or Engine(workers=1)).sized(num_fits, num_gpus, least=math.ceil(WORKER_STEPS / num_steps))


@dataclass(frozen=True, eq=False)
class _ArmFits:
    """Fits of arms as work that can be sent; what others have done is found in the cache."""

    task: ArmTask
    cache: AnyPath

    def open(self) -> Callable[[tuple[Arm, int]], None]:
        """What does the fit of an arm with a seed."""
        return lambda piece: self.fit(*piece)

    def fit(self, arm: Arm, seed: int) -> None:
        """Leave a fit in the cache."""
        run_arm(arm, self.task, seed=seed, cache=self.cache)


def _waves(arms: Sequence[Arm], seeds: Sequence[int], tune: bool) -> list[list[tuple[Arm, int]]]:
    """Fits by what they wait for: plain training, whose settings all arms take; each arm's own choice; the rest.

    Example:
        >>> [[(arm.name, seed) for arm, seed in wave] for wave in _waves([find_arm("mixup")], [3, 4], True)]
        [[('erm', 3)], [('mixup', 3)], [('mixup', 4)]]
    """
    fits = [(arm, seed) for seed in seeds for arm in arms]
    if not tune:
        return [fits]
    plain = find_arm("erm")
    first = [(arm, seeds[0]) for arm in arms if arm.name != plain.name]
    later = [fit for fit in fits if fit[1] != seeds[0]]
    return [wave for wave in ([(plain, seeds[0])], first, later) if wave]


def _training(task: ArmTask, run: ArmRun) -> TrainingSummary:
    missing = len(task.train) - len(task.held_out) - len(task.faces)
    return TrainingSummary(int(run.counts.to_numpy().sum()), missing, run.num_made, 0, run.counts)


def _chosen(runs: Sequence[ArmRun]) -> Mapping[str, float]:
    """What was chosen, the same for all seeds, and what it reached, their mean."""
    return {name: float(np.mean([run.chosen[name] for run in runs])) for name in runs[0].chosen}
