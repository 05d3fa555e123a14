"""Run the benchmark: what is missing is made, what is there is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from vlbias.arguments import checked_call
from vlbias.audit.arms import ARMS, Arm, ArmSettings, ArmTask, find_arm, run_arm
from vlbias.bench.remembered import remembered
from vlbias.bench.results import Entry, Result, key_of, open_store
from vlbias.bench.sets import Variant, balanced_set, mislabelled, open_editor
from vlbias.bench.table import BenchTable
from vlbias.bench.tasks import Task, WorldTask, find_tasks
from vlbias.classify import FitSettings
from vlbias.data import FaceDataset
from vlbias.data.synthfaces import SynthFaces
from vlbias.errors import ConfigError, PlanError
from vlbias.files import AnyPath, make_folder, refuse_links, sha256_json
from vlbias.locks import FileLock
from vlbias.optim import in_threads
from vlbias.progress import track
from vlbias.runstore import RunStore
from vlbias.settings import Settings, number, with_changes

__all__ = ["CLASSIFIERS", "BenchSettings", "bench"]

#: What each classifier of the benchmark is. "small" takes a fraction of the time; how far it ranks arms alike:
#: docs/evidence.md.
CLASSIFIERS = {
    "standard": FitSettings(),
    "small": FitSettings(
        num_steps=300,
        batch_size=16,
        learning_rate=4e-3,
        backbone_options={"channels": [16, 24, 32, 48], "stem_width": 8},
    ),
}
#: Which sets are made how, by the name that arms ask for.
SETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "prior": {"source": "prior"},
    "amplified": {"mode": "amplify"},
}


#: Of the budget "quick": faces and steps.
QUICK_FACES = {"num_training": 200, "num_validation": 120, "num_test": 400}
QUICK_STEPS = 100


@dataclass(frozen=True)
class BenchSettings(Settings):
    """How the benchmark is run.

    Attributes:
        num_seeds: fits of each arm on each task.
        budget: ``full``, or ``quick`` for a look at whether all works: few faces, few steps, nothing tuned.
        classifier: ``small`` for the wide table, or ``standard``, see :data:`CLASSIFIERS`.
        image_size: edge in pixels of what classifiers see; ``None`` for 64. Drawn faces and their edits are 64 px wide,
            photographs and theirs are larger.
        tune: whether learning rate, weight decay and knobs are chosen on validation faces.
        protocol: ``scratch``, or ``fine-tune``, the published one, see ``vlbias.audit.ArmSettings``.
        roots: folders of photographs by kind of dataset, such as ``{"utkface": "UTKFace/"}``.
        editor: edits the faces in the place of each task's own; ``None`` for that.
        show_progress: whether lines on stderr tell how far it is.
    """

    num_seeds: int = number(3, 1, 1000)
    budget: Literal["full", "quick"] = "full"
    classifier: Literal["small", "standard"] = "small"
    image_size: int | None = number(None, 16, 2048)
    tune: bool = True
    protocol: Literal["scratch", "fine-tune"] = "scratch"
    roots: Mapping[str, str] = field(default_factory=dict)
    editor: str | None = None
    show_progress: bool = True

    @property
    def arms(self) -> ArmSettings:
        """How arms are tuned and fitted."""
        fit = CLASSIFIERS[self.classifier]
        fit = replace(fit, image_size=self.image_size or fit.image_size)
        if self.budget == "quick":
            return ArmSettings(fit=replace(fit, num_steps=QUICK_STEPS), tune=False, protocol=self.protocol)
        return ArmSettings(fit=fit, tune=self.tune, protocol=self.protocol)

    def of_task(self, task: Task) -> Task:
        """The task in the size of the budget, with the editor that was asked for."""
        changes: dict[str, Any] = {} if self.editor is None else {"editor": self.editor}
        if self.budget == "quick" and isinstance(task, WorldTask):
            changes |= QUICK_FACES
        return replace(task, **changes) if changes else task  # type: ignore[type-var]  # tasks are dataclasses


@checked_call
def bench(
    methods: str | Arm | Sequence[str | Arm],
    out: AnyPath,
    *,
    tasks: str | Sequence[str] = "world-*-0.9",
    variant: Variant | None = None,
    settings: BenchSettings | None = None,
    **changes: object,
) -> BenchTable:
    """Enter methods; what an earlier run finished is read, whatever it was entered with.

    Args:
        methods: arms, or their names; ``"all"`` for those that are registered. Plain training (``erm``) and, where the
            truth is known, true counterfactuals (``oracle``) are always entered beside them.
        out: folder of the results, of the balanced sets, and of single fits; several processes may share it.
        tasks: names of tasks, or patterns as the shell has them.
        variant: how balanced sets are made, where that is not as usual.
        settings: everything else; ``None`` for the defaults.
        changes: fields of :class:`BenchSettings` that replace those of ``settings``.

    Returns:
        The table of these methods; ``notes`` say what could not be entered on a task, and why.

    Raises:
        UnknownNameError: no such method or task.
        ConfigError: a setting out of range, or no folder for a task of photographs.
    """
    settings = with_changes(BenchSettings, settings, changes)
    chosen = [settings.of_task(task) for task in find_tasks(*([tasks] if isinstance(tasks, str) else tasks))]
    arms = _arms(methods)
    out = make_folder(out)
    refuse_links(out / RESULTS_FILE, out / "locks")
    store = open_store(out / RESULTS_FILE)
    entrants = [_Entrants(task, arms, variant or Variant(), settings, out, store) for task in chosen]
    for wait in (False, True):  # tasks that another process works on come last
        for one in entrants:
            one.run(wait=wait)
    notes = dict.fromkeys(note for one in entrants for note in one.notes)  # each seed and each wait finds the same
    return BenchTable([result for one in entrants for result in one.results()], list(notes))


#: The file of the results in the folder of a benchmark.
RESULTS_FILE = "results.jsonl"
#: Entered whatever else is.
BASELINE, ORACLE = "erm", "oracle"


def _arms(methods: str | Arm | Sequence[str | Arm]) -> list[Arm]:
    names = [methods] if isinstance(methods, str | Arm) else list(methods)
    if names == ["all"]:
        names = list(ARMS)
    if not names:
        raise ConfigError("`methods` is empty; name at least one arm.")
    found = {arm.name: arm for arm in map(find_arm, [BASELINE, *names, ORACLE])}
    return list(found.values())


class _Entrants:
    """The methods on one task."""

    def __init__(
        self, task: Task, arms: Sequence[Arm], variant: Variant, settings: BenchSettings, out: Path, store: RunStore
    ):
        self.task, self.variant, self.settings, self.out, self.store = task, variant, settings, out, store
        self.notes: list[str] = []
        self._memory: dict[str, torch.Tensor] = {}
        self._arm_tasks: dict[Variant, ArmTask] = {}
        self.faces = task.faces(None if task.pictures is None else settings.roots.get(task.pictures))
        self.entries = [Entry(arm, self._variant_of(arm)) for arm in arms if self._can_enter(arm)]
        # who fits otherwise has nothing in common but the balanced sets, which several processes may make
        how = sha256_json(settings.arms.of_result())[:8]
        self.lock = FileLock(out / "locks" / f"{task.name}-{how}.lock")

    def _variant_of(self, arm: Arm) -> Variant:
        """What is seen of the variant by an arm that learns from no balanced set."""
        if set(arm.needs) & set(SETS) or arm.name == ORACLE:
            return self.variant
        return Variant(wrong_labels=self.variant.wrong_labels)

    def _can_enter(self, arm: Arm) -> bool:
        lacks = {
            "counterfactuals": not isinstance(self.faces.training, SynthFaces),
            "more": self.faces.more is None,
        }
        missing = [need for need in arm.needs if lacks.get(need, False)]
        if missing:
            self.notes.append(f"{self.task.name}: '{arm.name}' is not entered, there are no {missing[0]}.")
        return not missing

    @cached_property
    def keys(self) -> dict[str, tuple[Entry, int]]:
        """Digest => entry and seed."""
        arms = self.settings.arms
        return {
            key_of(self.task, self.faces, entry, arms, seed): (entry, seed)
            for seed in range(self.settings.num_seeds)
            for entry in self.entries
        }

    def results(self) -> list[Result]:
        """Those that are there."""
        stored = self.store.read()
        return [Result.from_dict(stored[key]) for key in self.keys if key in stored]

    def run(self, *, wait: bool) -> None:
        """Make what is missing; nothing, where another process works on this task and is not to be waited for."""
        if not self.keys.keys() - self.store.read().keys() or not self.lock.acquire(wait=wait):
            return
        try:
            waiting = [key for key in self.keys if key not in self.store.read()]
            # one thread, so that a row is the same on a machine of more; several processes share the work
            with (
                in_threads(1),
                track(len(waiting), self.task.name, "fits", show=self.settings.show_progress) as progress,
            ):
                for key in waiting:
                    self._enter(key, *self.keys[key])
                    progress.update(1, method=self.keys[key][0].label)
        finally:
            self.lock.release()
            self._memory.clear()
            self._arm_tasks.clear()

    def _enter(self, key: str, entry: Entry, seed: int) -> None:
        task = self._arm_task(entry.variant)
        if (lack := entry.arm.missing(task)) is not None:
            self.notes.append(f"{self.task.name}: {lack} {task.sets.refused}".strip())  # type: ignore[attr-defined]
            return
        run = run_arm(entry.arm, task, seed=seed, cache=self.out / "fits")
        result = Result(
            task=self.task.name,
            label=entry.label,
            seed=seed,
            y=task.test_faces.y,
            group=task.test_faces.g,
            codes=run.codes,
            classes=task.classes,
            groups=task.groups,
            chosen=run.chosen,
            counts=run.counts.to_numpy().tolist(),
        )
        self.store.add(key, result.to_dict())

    def _arm_task(self, variant: Variant) -> ArmTask:
        """What arms are given; one for all that learn from the same sets."""
        if variant not in self._arm_tasks:
            training = self.faces.training
            if variant.wrong_labels:
                training = mislabelled(training, self.task.protected, variant.wrong_labels, variant.seed)
            self._arm_tasks[variant] = ArmTask(
                train=remembered(training, self._memory),
                validation=remembered(self.faces.validation, self._memory),
                test=remembered(self.faces.test, self._memory),
                target=self.task.target,
                protected=self.task.protected,
                sets=_Sets(self, training, variant),
                editor=open_editor(self.task.editor),
                settings=self.settings.arms,
            )
        return self._arm_tasks[variant]


class _Sets(Mapping[str, FaceDataset]):
    """The sets that arms ask for, made when they do."""

    def __init__(self, entrants: _Entrants, training: FaceDataset, variant: Variant):
        self.entrants, self.training, self.variant = entrants, training, variant
        self.refused = ""
        more = entrants.faces.more
        self._made: dict[str, FaceDataset | None] = {} if more is None else {"more": more}

    def __getitem__(self, name: str) -> FaceDataset:
        if name not in self._made:
            self._made[name] = self._make(name)
        found = self._made[name]
        if found is None:
            raise KeyError(name)
        return found

    def _make(self, name: str) -> FaceDataset | None:
        """None where the editor cannot make the set, or made nothing of it."""
        if name not in SETS:
            return None
        recipe = replace(self.variant, **SETS[name])
        one = self.entrants
        try:
            return balanced_set(
                one.task, self.training, recipe, one.out / "sets", show_progress=one.settings.show_progress
            )
        except PlanError as error:
            self.refused = str(error)
            return None

    def __iter__(self) -> Iterator[str]:
        return (name for name in (*SETS, "more") if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
