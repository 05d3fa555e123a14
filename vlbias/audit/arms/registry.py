"""Arms: ways to train on an unfair dataset, each a name, a line and a function that says what a fit gets."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pickle import PicklingError

import numpy as np

from vlbias.audit.arms.task import ArmTask, LabelledFaces
from vlbias.classify import FitHooks, FitSettings
from vlbias.errors import ConfigError, unknown

__all__ = ["ARMS", "Arm", "Recipe", "Trial", "find_arm", "find_arms", "register_arm"]

#: What an arm can need, and what to say where it is missing.
MISSING = {
    "balanced": "edits of the training faces; pass `balanced=` (--set balanced=FOLDER), the folder that "
    "`vlbias balance` wrote",
    "prior": "edits of faces from the prior; pass `prior=` (--set prior=FOLDER), written by "
    "`vlbias balance --source prior`",
    "amplified": "edits that make cells more unequal; pass `amplified=` (--set amplified=FOLDER), written by "
    "`vlbias balance --mode amplify`",
    "more": "further real faces; pass `more=` (--set more=FOLDER), a dataset with the same columns",
    "editor": "an editor; pass `editor=` (--editor)",
    "counterfactuals": "true counterfactuals, which only drawn faces (`synthfaces`) have",
}


@dataclass(frozen=True)
class Trial:
    """One fit of an arm.

    Attributes:
        seed: of the fit.
        value: of the arm's knob; ``None`` for an arm without.
        settings: of the classifier, with the learning rate and weight decay that were chosen.
    """

    seed: int
    value: float | None
    settings: FitSettings

    @property
    def rng(self) -> np.random.Generator:
        """For what an arm draws; the same at every call."""
        return np.random.default_rng([self.seed, 3])


@dataclass(frozen=True)
class Recipe:
    """What a fit gets.

    Attributes:
        faces: to learn from, with repeats.
        hooks: weights, changes of batches, a loss.
        num_made: how many of the faces were made and not photographed.
    """

    faces: LabelledFaces
    hooks: FitHooks = field(default_factory=FitHooks)
    num_made: int = 0


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        name: what users type.
        summary: what it does, one line.
        build: (task, trial) => recipe.
        knob: what its own setting is called; ``None`` for an arm without.
        values: of the knob, tried on validation faces; the first is the default.
        needs: what must be given beside the training faces, keys of :data:`MISSING`.
        digest: of the function's text, so that a fit by other code is never taken for one by this.
    """

    name: str
    summary: str
    build: Callable[[ArmTask, Trial], Recipe]
    knob: str | None = None
    values: tuple[float, ...] = ()
    needs: tuple[str, ...] = ()
    digest: str = field(init=False, repr=False, compare=False)

    def missing(self, task: ArmTask) -> str | None:
        """What the arm lacks on this task, as a sentence; ``None`` if nothing."""
        for need in self.needs:
            has = {"editor": task.editor is not None, "counterfactuals": hasattr(task.train, "counterfactual")}
            if not has.get(need, need in task.sets):
                return f"The arm '{self.name}' needs {MISSING[need]}."
        return None

    def __reduce__(self) -> tuple[Callable[[str, str], Arm], tuple[str, str]]:
        """To another process an arm goes as the place that defines it."""
        place = self.build.__module__, self.build.__qualname__
        if place[0] == "__main__" or _defined_at(*place) is not self:
            raise PicklingError(f"the arm '{self.name}' is not defined at the top of a module")
        return _defined_at, place

    def __post_init__(self) -> None:
        # At once: later the file may hold another text than the function that was loaded from it.
        object.__setattr__(self, "digest", _digest(self.build))


def _digest(function: Callable[..., object]) -> str:
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt
        source = getattr(function, "__qualname__", repr(function))
    return hashlib.sha256(source.encode()).hexdigest()


def _defined_at(module: str, name: str) -> Arm:
    return getattr(importlib.import_module(module), name, None)  # type: ignore[return-value]  # compared by who asks


#: Every arm by its name, in the order of tables.
ARMS: dict[str, Arm] = {}


def register_arm(
    name: str,
    summary: str,
    *,
    knob: str | None = None,
    values: Sequence[float] = (),
    needs: Sequence[str] = (),
) -> Callable[[Callable[[ArmTask, Trial], Recipe]], Arm]:
    """Decorator: make a function an arm that can be named in ``audit.compare(..., arms=[...])``.

    Args:
        name: what users type; of another arm's name, it takes its place.
        summary: what it does, one line.
        knob: what its own setting is called; ``None`` for none.
        values: of the knob, tried on validation faces; the first is the default.
        needs: what must be given beside the training faces: "balanced", "prior", "amplified", "more", "editor" or
            "counterfactuals".

    Raises:
        ConfigError: an empty name, a knob without values, or an unknown need.

    Example:
        >>> @register_arm("light", "every third face")
        ... def light(task, trial):
        ...     return Recipe(task.faces.take(range(0, len(task.faces), 3)))
        >>> ARMS.pop("light").summary
        'every third face'
    """
    if not name or "," in name or bool(knob) != bool(values):
        raise ConfigError(f"an arm needs a name without commas, and values for its knob; got {name!r}, {knob!r}.")
    for need in needs:
        if need not in MISSING:
            raise unknown("need", need, MISSING, where=f"the arm '{name}'")

    def register(build: Callable[[ArmTask, Trial], Recipe]) -> Arm:
        ARMS[name] = Arm(name, summary, build, knob, tuple(map(float, values)), tuple(needs))
        return ARMS[name]

    return register


def find_arm(arm: str | Arm) -> Arm:
    """The arm of a name.

    Raises:
        UnknownNameError: no such arm.
    """
    if isinstance(arm, Arm):
        return arm
    if arm not in ARMS:
        raise unknown("arm", str(arm), ARMS)
    return ARMS[arm]


def find_arms(arms: str | Arm | Sequence[str | Arm], task: ArmTask) -> list[Arm]:
    """Arms by their names; "all" means those that lack nothing on this task.

    Raises:
        UnknownNameError: no such arm.
        ConfigError: none, one twice, or one that lacks something.
    """
    names = [arms] if isinstance(arms, str | Arm) else list(arms)
    if names == ["all"]:
        return [arm for arm in ARMS.values() if arm.missing(task) is None]
    found = [find_arm(name) for name in names]
    if not found or len({arm.name for arm in found}) < len(found):
        raise ConfigError(f"`arms` must be different names of arms, or 'all'; got {names!r:.80}.")
    for arm in found:
        lack = arm.missing(task)
        if lack is not None:
            raise ConfigError(lack)
    return found
