"""Tune an arm on validation faces, fit it, and then, once, predict the test faces. Finished fits are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.audit.arms.registry import Arm, Recipe, Trial, find_arm
from vlbias.audit.arms.task import ArmTask, LabelledFaces
from vlbias.classify import Classifier, FitSettings, fit
from vlbias.errors import CheckpointError, ConfigError
from vlbias.files import AnyPath, make_folder, read_json, sha256_json, write_json
from vlbias.progress import Progress
from vlbias.settings import Settings, checked_number, number

__all__ = ["ArmRun", "checked_codes", "run_arm"]

FORMAT = 1
#: Of the published protocol: how much of the learning rate and of the steps is left for going on from plain training.
FINE_TUNE_RATE, FINE_TUNE_STEPS = 0.1, 0.5
#: Learning rates beyond the first ones that are tried at most, one after the other.
FURTHER_RATES = 4


@dataclass(frozen=True, eq=False)
class ArmRun:
    """One fit of an arm, tuned, with what it predicts of the test faces.

    Attributes:
        arm: its name.
        seed: of the fit.
        codes: predicted class codes of the test faces (n,), in the order of ``task.test_faces``.
        chosen: ``learning_rate``, ``weight_decay`` and the knob, and what they reached on validation faces:
            ``validation_accuracy``, the mean over cells, and ``validation_loss``, likewise.
        counts: faces that it learned from, by class (rows) and group, as text.
        num_made: how many of these were made.
    """

    arm: str
    seed: int
    codes: np.ndarray
    chosen: Mapping[str, float]
    counts: pd.DataFrame
    num_made: int


@dataclass(frozen=True)
class _Choice:
    """Settings of an arm."""

    learning_rate: float
    weight_decay: float
    value: float | None

    def trial(self, fit_settings: FitSettings, seed: int) -> Trial:
        settings = replace(fit_settings, learning_rate=self.learning_rate, weight_decay=self.weight_decay, seed=seed)
        return Trial(seed, self.value, settings)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A classifier with what is kept of it."""

    classifier: Classifier
    record: dict[str, Any]


@checked_call
def run_arm(
    arm: str | Arm, task: ArmTask, *, seed: int = 0, cache: AnyPath | None = None, progress: Progress | None = None
) -> ArmRun:
    """Tune an arm on validation faces, fit it with a seed, and predict the test faces.

    The weight decay is the one that plain training ("erm") does best with; each arm looks for its own learning rate
    from that of plain training, then its own knob is tried. All of it is chosen by the mean over cells of the accuracy
    on validation faces, and where that is equal, of the loss: by one fit each, of the two best by several, see
    ``ArmSettings.choosing_seeds``. No test face is read before.

    Args:
        arm: its name, or the arm itself.
        task: what it is tried on.
        seed: of the fit.
        cache: folder of finished fits, by all that decides them; several processes may share it.
        progress: counted up by one each step.

    Raises:
        UnknownNameError: no such arm.
        ConfigError: it lacks a set or an editor; the message says how to give it.
        CheckpointError: a file in the cache is damaged.

    Example:
        >>> run_arm("oversample", task, seed=1, cache="fits/").codes     # doctest: +SKIP
    """
    found = find_arm(arm)
    lack = found.missing(task)
    if lack is not None:
        raise ConfigError(lack)
    seed = checked_number("seed", seed, low=0)
    bench = _Bench(task, Path(cache) if cache is not None else None, progress)
    return bench.test(found, bench.choose(found), seed)


class _Bench:
    """Fits of one task, each found in the cache or made."""

    def __init__(self, task: ArmTask, cache: Path | None, progress: Progress | None):
        self.task, self.cache, self.progress = task, cache, progress
        self.settings = task.settings

    # -- choosing -----------------------------------------------------------------------------------------------------

    def choose(self, arm: Arm) -> _Choice:
        """The settings of an arm."""
        known = self.task.__dict__.setdefault("_choices", {})
        key = self._key(arm)
        if key not in known:
            known[key] = choice = self._chosen(arm)
            for other in [one for one in self._kept if one[0] == key and one[1] != choice]:
                del self._kept[other]
        return known[key]

    def _chosen(self, arm: Arm) -> _Choice:
        fits = self.settings.fit
        plain = _Choice(fits.learning_rate, fits.weight_decay, arm.values[0] if arm.values else None)
        if not self.settings.tune:
            return plain
        if arm.name == "erm":
            best = self._best_rate(arm, plain)
            decays = [fits.weight_decay * one for one in self.settings.decay_factors]
            return self._best(arm, [replace(best, weight_decay=decay) for decay in decays])
        best = self._best_rate(arm, replace(self.choose(find_arm("erm")), value=plain.value))
        return self._best(arm, [replace(best, value=value) for value in arm.values or (None,)])

    def _best_rate(self, arm: Arm, about: _Choice) -> _Choice:
        """The best learning rate, and beyond those that are tried first as long as it lies at an end of them."""
        rates = sorted({about.learning_rate * one for one in self.settings.rate_factors})
        for _ in range(FURTHER_RATES if len(rates) > 1 else 0):
            best = max(rates, key=lambda rate: self._score(arm, replace(about, learning_rate=rate), 1))
            if best == rates[-1]:
                rates.append(rates[-1] ** 2 / rates[-2])
            elif best == rates[0]:
                rates.insert(0, rates[0] ** 2 / rates[1])
            else:
                break
        return self._best(arm, [replace(about, learning_rate=rate) for rate in rates])

    def _best(self, arm: Arm, choices: list[_Choice]) -> _Choice:
        """The best of some choices on validation faces; one alone is not tried.

        One fit can end well at a rate at which the next one learns nothing, so the two best are fitted again.
        """
        choices = list(dict.fromkeys(choices))
        if len(choices) == 1:
            return choices[0]
        first = sorted(choices, key=lambda choice: self._score(arm, choice, 1), reverse=True)
        return max(first[:2], key=lambda choice: self._score(arm, choice, self.settings.choosing_seeds))

    def _score(self, arm: Arm, choice: _Choice, num_seeds: int) -> tuple[float, float]:
        """Accuracy and negative loss on validation faces, means over fits."""
        start = self.settings.fit.seed
        records = [self._tried(arm, choice, seed) for seed in range(start, start + num_seeds)]
        accuracy, loss = (
            float(np.mean([record[f"validation_{name}"] for record in records])) for name in ("accuracy", "loss")
        )
        return accuracy, -loss

    def _tried(self, arm: Arm, choice: _Choice, seed: int) -> dict[str, Any]:
        memory = self.task.__dict__.setdefault("_tried", {})
        key = self._key(arm), choice, seed
        if key not in memory:
            place = self._place(arm, choice, seed, tested=False)
            record = self._read(place)
            if record is None:
                self._kept[key] = self._fit(arm, choice, seed)
                record = self._kept[key].record
                _write(place, record)
            memory[key] = record
        return memory[key]

    @property
    def _kept(self) -> dict[tuple[Any, _Choice, int], _Fitted]:
        """Fits that choosing has made and that are not to be made again."""
        return self.task.__dict__.setdefault("_kept", {})

    def _key(self, arm: Arm) -> tuple[str, str, str]:
        return arm.name, arm.digest, self.settings.protocol

    def _fitted(self, arm: Arm, choice: _Choice, seed: int) -> _Fitted:
        """The fit that choosing has made, or a new one."""
        kept = self._kept.pop((self._key(arm), choice, seed), None)
        return kept if kept is not None else self._fit(arm, choice, seed)

    # -- fitting ------------------------------------------------------------------------------------------------------

    def test(self, arm: Arm, choice: _Choice, seed: int) -> ArmRun:
        """The fit with a seed, and what it predicts of the test faces."""
        place = self._place(arm, choice, seed, tested=True)
        record = self._read(place, len(self.task.test_faces))
        if record is None:
            fitted = self._fitted(arm, choice, seed)
            probabilities = fitted.classifier.predict_proba(self.task.test_faces.images)
            record = fitted.record | {"codes": probabilities.argmax(1).tolist()}
            _write(place, record)
        codes = np.array(record["codes"], dtype=np.int64)
        counts = pd.DataFrame(record["counts"], index=self.task.classes, columns=self.task.groups)
        named = {arm.knob: choice.value} if arm.knob is not None and choice.value is not None else {}
        chosen = {"learning_rate": choice.learning_rate, "weight_decay": choice.weight_decay, **named}
        chosen |= {key: record[key] for key in ("validation_accuracy", "validation_loss")}
        return ArmRun(arm.name, seed, codes, chosen, counts, record["num_made"])

    def _fit(self, arm: Arm, choice: _Choice, seed: int) -> _Fitted:
        trial = choice.trial(self.settings.fit, seed)
        recipe = arm.build(self.task, trial)
        if self.settings.protocol == "fine-tune":
            classifier = self._trained(self._continued(recipe, seed), _gentler(trial.settings))
        else:
            classifier = self._trained(recipe, trial.settings)
        accuracy, loss = validate(classifier, self.task.validation_faces, len(self.task.groups))
        record = {
            "arm": arm.name,
            "seed": seed,
            "validation_accuracy": accuracy,
            "validation_loss": loss,
            "counts": self.task.counts(recipe.faces).tolist(),
            "num_made": recipe.num_made,
        }
        return _Fitted(classifier, record)

    def _trained(self, recipe: Recipe, settings: FitSettings) -> Classifier:
        return fit(
            recipe.faces.images,
            recipe.faces.y,
            classes=list(range(len(self.task.classes))),
            settings=settings,
            hooks=recipe.hooks,
            progress=self.progress,
        )

    def _continued(self, recipe: Recipe, seed: int) -> Recipe:
        """The same from the weights of plain training with this seed."""
        memory = self.task.__dict__.setdefault("_plain_weights", {})
        if seed not in memory:
            scratch = _Bench(replace_settings(self.task, protocol="scratch"), self.cache, self.progress)
            plain = find_arm("erm")
            fitted = scratch._fitted(plain, scratch.choose(plain), seed)
            memory[seed] = {key: value.detach().cpu() for key, value in fitted.classifier.module.state_dict().items()}
        return replace(recipe, hooks=replace(recipe.hooks, start=memory[seed]))

    # -- cache --------------------------------------------------------------------------------------------------------

    def _place(self, arm: Arm, choice: _Choice, seed: int, *, tested: bool) -> Path | None:
        """The file of a fit, named by all that decides it."""
        if self.cache is None:
            return None
        task = self.task
        settings = self.settings.of_result()
        settings["fit"]["seed"] = 0
        del settings["choosing_seeds"]  # no fit depends on it
        decides = {
            "format": FORMAT,
            "arm": (arm.name, arm.digest, asdict(choice), seed, tested),
            "settings": settings,
            "draws": self.settings.fit.seed,
            "labels": (task.target, task.protected, task.classes, task.groups),
            "faces": (task.faces.digest, task.validation_faces.digest),
            "sets": {need: _set_digest(task, need) for need in arm.needs},
            "orders": hashlib.sha256(task.orders.to_numpy(np.int64).tobytes()).hexdigest(),
            "test": task.test_faces.digest if tested else None,
        }
        return self.cache / f"arm-{arm.name}-{sha256_json(decides)[:24]}.json"

    def _read(self, place: Path | None, num_tested: int = 0) -> dict[str, Any] | None:
        """A finished fit; what was cut short or changed by hand is none."""
        if place is None or not place.is_file():
            return None
        try:
            record = _Record.from_dict(read_json(place)).to_dict()
            is_whole = np.shape(record["counts"]) == (len(self.task.classes), len(self.task.groups))
        except (ConfigError, ValueError) as error:
            raise CheckpointError(f"{place} is not a finished fit of this task ({error}); delete it.") from error
        if not is_whole:
            raise CheckpointError(f"{place} is not a finished fit of this task; delete it.")
        if num_tested:
            checked_codes(place, record["codes"], num_tested, len(self.task.classes))
        return record


@dataclass(frozen=True)
class _Record(Settings):
    """What is kept of a fit."""

    arm: str
    seed: int
    validation_accuracy: float = number(low=0, high=1)
    validation_loss: float = number(low=0)
    counts: Sequence[Sequence[int]] = number(low=0)
    num_made: int = number(low=0)
    codes: Sequence[int] | None = None


def checked_codes(place: Path, codes: object, num_items: int, num_classes: int) -> np.ndarray:
    """Predicted class codes (n,) as a file of a finished fit has them.

    Raises:
        CheckpointError: they are not one code an item; the message names the file.
    """
    good = isinstance(codes, Sequence) and len(codes) == num_items
    if not good or not all(type(code) is int and 0 <= code < num_classes for code in codes):  # type: ignore[attr-defined]
        raise CheckpointError(f"{place} is not a finished fit of this task; delete it.")
    return np.array(codes, dtype=np.int64)


def replace_settings(task: ArmTask, **changes: Any) -> ArmTask:
    """The same task with other settings; pictures that were read stay read, and what was chosen stays chosen."""
    changed = replace(task, settings=replace(task.settings, **changes))
    read = ("faces", "validation_faces", "test_faces", "orders", "held_out", "_choices", "_tried", "_set_digests")
    changed.__dict__.update({name: task.__dict__[name] for name in read if name in task.__dict__})
    return changed


def _gentler(settings: FitSettings) -> FitSettings:
    steps = max(1, round(FINE_TUNE_STEPS * settings.num_steps))
    return replace(settings, learning_rate=FINE_TUNE_RATE * settings.learning_rate, num_steps=steps)


def validate(classifier: Classifier, faces: LabelledFaces, num_groups: int) -> tuple[float, float]:
    """Accuracy and mean negative log-likelihood on faces, each the mean over the cells that hold any."""
    probabilities = classifier.predict_proba(faces.images).numpy()
    right = probabilities.argmax(1) == faces.y
    loss = -np.log(np.maximum(probabilities[np.arange(len(faces)), faces.y], 1e-12))
    cells = faces.y * num_groups + faces.g
    by_cell = [(right[cells == cell].mean(), loss[cells == cell].mean()) for cell in np.unique(cells)]
    accuracy, mean_loss = np.mean(by_cell, axis=0)
    return round(float(accuracy), 6), round(float(mean_loss), 6)


def _set_digest(task: ArmTask, need: str) -> str | None:
    memory = task.__dict__.setdefault("_set_digests", {})
    if need not in memory:
        if need == "editor":
            assert task.editor is not None  # the arm lacks nothing
            memory[need] = json.dumps(task.editor.renderer.fingerprint(), sort_keys=True, default=str)
        else:
            memory[need] = task.added(need).digest if need in task.sets else None
    return memory[need]


def _write(place: Path | None, record: Mapping[str, Any]) -> None:
    if place is not None:
        make_folder(place.parent)
        write_json(place, dict(record))
