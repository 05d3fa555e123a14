"""Arms compared: each is tuned on validation faces, fitted with several seeds, and tested once on the same faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.audit.arms import ArmRun, ArmTask, find_arms, run_arm
from vlbias.audit.composition import labels_of, people_of
from vlbias.audit.results import ArmSummary, AuditResult, TrainingSummary
from vlbias.fairness import EvaluationSettings
from vlbias.fairness.counts import check_cells, count
from vlbias.files import AnyPath
from vlbias.labels import in_order
from vlbias.progress import track

__all__ = ["compare_arms"]


@checked_call
def compare_arms(
    task: ArmTask,
    arms: Any = "all",
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    cache: AnyPath | None = None,
    evaluation: EvaluationSettings | None = None,
    show_progress: bool = True,
) -> AuditResult:
    """Compare arms on one task.

    Args:
        task: what they are compared on.
        arms: their names; the first is what the others are compared with. ``"all"`` for those that lack nothing.
        seeds: of the fits.
        cache: folder of finished fits; what an interrupted run had finished is not done again.
        evaluation: of the predictions; ``None`` for the defaults.
        show_progress: whether a line on stderr tells how far it is.

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
    runs: dict[str, list[ArmRun]] = {arm.name: [] for arm in found}
    with track(len(found) * len(seeds), "comparing arms", "fits", show=show_progress) as bar:
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
        arms={arm.name: ArmSummary(arm.summary, _chosen(runs[arm.name])) for arm in found},
        validation_counts=pd.DataFrame(task.counts(task.validation_faces), index=task.classes, columns=task.groups),
    )


def _training(task: ArmTask, run: ArmRun) -> TrainingSummary:
    missing = len(task.train) - len(task.held_out) - len(task.faces)
    return TrainingSummary(int(run.counts.to_numpy().sum()), missing, run.num_made, 0, run.counts)


def _chosen(runs: Sequence[ArmRun]) -> Mapping[str, float]:
    """What was chosen, the same for all seeds, and what it reached, their mean."""
    return {name: float(np.mean([run.chosen[name] for run in runs])) for name in runs[0].chosen}
