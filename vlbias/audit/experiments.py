"""Train the same classifier on several sets, under the same budget, and test each on one common set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlbias import classify
from vlbias.arguments import checked_call
from vlbias.audit.arms import Arm, ArmSettings, ArmTask
from vlbias.audit.arms.fitting import checked_codes
from vlbias.audit.comparison import compare_arms, fit_engine
from vlbias.audit.composition import labels_of, persons_of, protected_columns, weights_of
from vlbias.audit.results import AuditResult, TrainingSummary
from vlbias.data import FaceDataset, join, open_dataset
from vlbias.data.origins import COPIED, donors_of
from vlbias.engine import Engine, checked_engine, gpus_here, run_pieces
from vlbias.errors import ConfigError, DatasetError, LabelError, unknown
from vlbias.fairness import EvaluationSettings
from vlbias.fairness.counts import check_cells, count
from vlbias.files import make_folder, read_json, write_json
from vlbias.images import load_pixels
from vlbias.labels import in_order
from vlbias.progress import Progress, track
from vlbias.settings import MAX_RUNS, checked_number, with_changes

__all__ = ["compare", "measure"]

#: Origins of images that were made.
MADE = ("edited", "sampled")
#: Origins that a test image must not have: an original that passed through an editor is none of these any more, and a
#: copy counts a face twice.
NOT_FOR_TEST = (*MADE, "round-trip", COPIED)
#: More test images than this found in a training set, as a share, is a mistake in the split.
MAX_OVERLAP = 0.01

#: A dataset, a path or word for ``open_dataset``, or several of them that are put together.
Datasets = FaceDataset | str | os.PathLike[str] | Sequence[Any]


@checked_call
def compare(
    baseline: Datasets,
    balanced: Datasets | None = None,
    *,
    target: str,
    protected: str | Sequence[str],
    test: Datasets | None = None,
    seeds: int | Sequence[int] = 5,
    arms: str | Arm | Sequence[str | Arm] | None = None,
    **options: Any,
) -> AuditResult:
    """Train with and without mitigation and compare.

    Args:
        baseline: the dataset as it is; its split "train" is used.
        balanced: the dataset with edits, say the folder that ``vlbias balance`` wrote; its split "train" is used.
            Where its originals were left out, pass both: ``[faces, "balanced/"]``. With ``arms`` it is needed by those
            that edit, and its edits are used, not its originals.
        target: column to predict.
        protected: column, or several whose product makes the groups.
        test: common test set, all its splits; ``None`` for the split "test" of the baseline.
        seeds: number of classifiers for each training set, or their seeds.
        arms: ways to train, or their names (:data:`ARMS`), the first of which the others are compared with, or "all";
            each is tuned on validation faces: the split "val" of the baseline, or a share of its training faces.
        options: without ``arms``, ``oracle``, the dataset balanced with true counterfactuals, and further arguments of
            :func:`measure`. With them ``editor``, the sets ``prior``, ``amplified`` and ``more``, a
            ``validation`` set, the fields of :class:`ArmSettings`, of the classifiers and of the evaluation,
            ``settings``, ``cache`` and ``show_progress``.

    Raises:
        ConfigError: neither a balanced set nor arms.
        As :func:`measure`.
    """
    columns = protected_columns(target, protected)
    if arms is not None:
        return _compare_arms(baseline, balanced, target, columns, test, _seeds(seeds), arms, options)
    if balanced is None:
        raise ConfigError("there is nothing to compare with: give the balanced set, or `arms`.")
    sets = {"baseline": baseline, "balanced": balanced}
    oracle = options.pop("oracle", None)
    if oracle is not None:
        sets["oracle"] = oracle
    return measure(sets, target=target, protected=protected, test=test, seeds=seeds, **options)


#: Sets that arms can take beside the balanced one.
SETS = ("prior", "amplified", "more")


def _compare_arms(
    baseline: Datasets,
    balanced: Datasets | None,
    target: str,
    columns: list[str],
    test: Datasets | None,
    seeds: list[int],
    arms: str | Arm | Sequence[str | Arm],
    options: dict[str, Any],
) -> AuditResult:
    given = {"balanced": balanced} | {name: options.pop(name, None) for name in SETS}
    faces = _open(baseline, "baseline")
    sets = {name: _open(value, name) for name, value in given.items() if value is not None}
    tested, _ = _test_set(test, {"baseline": faces} | sets, target, columns)
    validation = options.pop("validation", None)
    if validation is None and "val" in set(faces.table["split"]):
        validation = faces.split("val")
    rest = {name: options.pop(name) for name in ("editor", "cache", "show_progress", "engine") if name in options}
    ours = {field.name for field in fields(ArmSettings)} - {"fit"}
    how = {name: options.pop(name) for name in list(options) if name in ours}
    evaluation, fit_settings = _split_settings(options.pop("settings", None), options)
    task = ArmTask(
        _training_split(faces, "baseline"),
        tested,
        target,
        columns,
        None if validation is None else _open(validation, "validation"),
        sets,
        rest.pop("editor", None),
        ArmSettings(fit=fit_settings, **how),
    )
    for name, seen in (("baseline", task.faces), ("validation", task.validation_faces)):
        _refuse_overlap(name, seen.images, set(_digests(task.test_faces.images)))
    return compare_arms(task, arms, seeds=seeds, evaluation=evaluation, **rest)


def _refuse_overlap(name: str, images: torch.Tensor, tested: set[bytes]) -> int:
    """How many pictures are also in the test set; more than a few are an error."""
    overlap = sum(digest in tested for digest in _digests(images))
    if overlap > MAX_OVERLAP * len(tested):
        raise DatasetError(
            f"{overlap} training images of '{name}' are also in the test set. Give a separate `test` set."
        )
    return overlap


@checked_call
def measure(
    training_sets: Mapping[str, Datasets],
    *,
    target: str,
    protected: str | Sequence[str],
    test: Datasets | None = None,
    seeds: int | Sequence[int] = 5,
    settings: classify.FitSettings | None = None,
    cache: str | os.PathLike[str] | None = None,
    show_progress: bool = True,
    **changes: Any,
) -> AuditResult:
    """Train the same classifier on each training set, with several seeds, and predict one common test set.

    Args:
        training_sets: by name; the first is what the others are compared with. A dataset, something that
            ``open_dataset`` opens, or a list of these. The split "train" of each is used.
        target, protected, test, seeds: as for :func:`compare`; ``test=None`` takes the first training set's test split.
        settings: of the classifiers; ``None`` for the defaults.
        cache: folder for finished fits; what an interrupted run had finished is not done again.
        show_progress: whether a line on stderr tells how far it is.
        changes: single settings of the classifiers, such as ``backbone="resnet18"`` or ``loss="focal"``, and of the
            evaluation (``vlbias.fairness.EvaluationSettings``), such as ``positive="smile"`` or ``min_cell=10``. Their
            intervals cover test items and seeds. ``person`` names the column that says who is shown, and ``weight``
            that which says how much each test item counts, as for ``ArmSettings``; ``engine`` is a
            :class:`vlbias.engine.Engine` whose workers fit the classifiers.

    Raises:
        DatasetError: a training set without split "train", no test set, or test images that were edited or trained on.
        LabelError: a cell of the test set is empty (unless ``min_cell``), or a class that the test set lacks.
        UnknownNameError, ConfigError: a column or setting that does not exist.
    """
    if not isinstance(training_sets, Mapping) or not training_sets:
        raise ConfigError(f"`training_sets` must be a mapping name -> dataset; got {training_sets!r:.60}.")
    columns = protected_columns(target, protected)
    person, weight = changes.pop("person", None), changes.pop("weight", None)
    engine = checked_engine(changes.pop("engine", None))
    evaluation, settings = _split_settings(settings, changes)
    numbers = _seeds(seeds)
    opened = {name: _open(value, name) for name, value in training_sets.items()}
    tested, num_test_missing = _test_set(test, opened, target, columns)
    weights = weights_of(tested, weight)
    y_text, g_text = labels_of(tested, target, columns)
    classes, groups = in_order(y_text), in_order(g_text)
    counts = count(y_text, y_text, g_text, classes, groups)
    # Raises for empty cells, one group or an unknown positive class before anything is trained.
    check_cells(counts, evaluation.min_cell)
    code = evaluation.for_counts(classes)["positive"]
    trained = {name: _training_split(dataset, name) for name, dataset in opened.items()}
    labels = {name: labels_of(dataset, target, columns) for name, dataset in trained.items()}
    for name, (values, _) in labels.items():
        strange = in_order(set(values.dropna()) - set(classes))
        if strange:
            raise LabelError(f"'{name}' has {target} '{strange[0]}', which the test set lacks; it has {classes}.")

    test_images = load_pixels(tested, list(tested.table.index), settings.image_size)
    seen = set(_digests(test_images))
    images: dict[str, torch.Tensor] = {}
    summaries: dict[str, TrainingSummary] = {}
    for name, dataset in trained.items():
        images[name], summaries[name] = _read_set(name, dataset, labels[name], settings.image_size, seen)
    learned = {name: values.dropna() for name, (values, _) in labels.items()}
    fits = _Fits(images, learned, test_images, classes, settings)
    predictions = _fit_all(fits, numbers, cache, engine, show_progress)
    return AuditResult(
        target=target,
        protected=columns,
        classes=classes,
        groups=groups,
        y_true=pd.Index(classes).get_indexer(pd.Index(y_text)),
        group=pd.Index(groups).get_indexer(pd.Index(g_text)),
        predictions=predictions,
        training=summaries,
        seeds=numbers,
        settings=settings,
        evaluation=replace(evaluation, positive=None if code is None else classes[code]),
        num_test_missing=num_test_missing,
        persons=persons_of(tested, person),
        weights=weights,
    )


def _read_set(
    name: str, dataset: FaceDataset, labels: tuple[pd.Series, pd.Series], size: int, tested: set[bytes]
) -> tuple[torch.Tensor, TrainingSummary]:
    """The pictures of a training set that have a class, and what there is to say of them."""
    target, group = labels
    known = target.notna()
    used = dataset.select(known)
    images = load_pixels(used, list(used.table.index), size)
    made = int(used.table["origin"].isin(MADE).sum()) if "origin" in used.table else 0
    cells = pd.crosstab(target[known], group[known].fillna("unknown"))
    overlap = _refuse_overlap(name, images, tested)
    return images, TrainingSummary(len(used), int((~known).sum()), made, overlap, cells)


def _seeds(given: object) -> list[int]:
    """A number of seeds, or the seeds themselves, as a list."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return list(range(checked_number("seeds", given, low=1, high=MAX_RUNS)))
    numbers = [checked_number("seeds", seed) for seed in given]
    if not numbers or len(set(numbers)) < len(numbers):
        raise ConfigError(f"`seeds` must be a number >= 1 or different seeds; got {numbers}.")
    return numbers


def _split_settings(
    settings: classify.FitSettings | None, changes: Mapping[str, Any]
) -> tuple[EvaluationSettings, classify.FitSettings]:
    """Changes of the evaluation and of the classifiers told apart by their names; ``seed`` is the classifiers'."""
    ours = {field.name for field in fields(EvaluationSettings)} - {"seed", "classes", "group_names"}
    known = ours | {field.name for field in fields(classify.FitSettings)}
    for name in changes:
        if name not in known:
            further = {"cache", "person", "test", "weight"}
            raise ConfigError(str(unknown("setting", name, known | further, where="an audit")))
    evaluation = EvaluationSettings(**{name: value for name, value in changes.items() if name in ours})
    others = {name: value for name, value in changes.items() if name not in ours}
    return evaluation, with_changes(classify.FitSettings, settings, others)


def _open(value: Datasets, name: str) -> FaceDataset:
    if isinstance(value, FaceDataset):
        return value
    if isinstance(value, (str, os.PathLike)):
        return open_dataset(value)
    if not isinstance(value, Iterable):
        raise ConfigError(f"'{name}' must be a dataset, its folder, or a list of these; got {value!r:.60}.")
    return join([_open(part, name) for part in value], name=name)


def _training_split(dataset: FaceDataset, name: str) -> FaceDataset:
    if "train" not in set(dataset.table["split"]):
        found = ", ".join(sorted(set(dataset.table["split"])))
        raise DatasetError(f"'{name}' has no split 'train' to learn from; it has {found}.")
    return dataset.split("train")


def _test_set(
    test: Datasets | None, opened: Mapping[str, FaceDataset], target: str, columns: Sequence[str]
) -> tuple[FaceDataset, int]:
    if test is not None:
        tested = _open(test, "test")
    else:
        first, dataset = next(iter(opened.items()))
        if "test" not in set(dataset.table["split"]):
            raise DatasetError(f"'{first}' has no split 'test'; pass a test set of its own as `test`.")
        tested = dataset.split("test")
        test_ids = set(tested.table.index)
        for name, other in opened.items():
            train = other.table[other.table["split"] == "train"]
            stray = list(train.index[donors_of(train, tested.table).isin(test_ids)]) if "source_id" in train else []
            if stray:
                raise DatasetError(f"'{name}' trains on '{stray[0]}', made from a face of the test set. Split anew.")
    if "origin" in tested.table and tested.table["origin"].isin(NOT_FOR_TEST).any():
        made = tested.table[tested.table["origin"].isin(NOT_FOR_TEST)]
        what = "are copies of others" if (made["origin"] == COPIED).all() else "an editor made or changed"
        raise DatasetError(
            f"the test set contains {len(made)} images that {what}, such as '{made.index[0]}'; test on originals alone."
        )
    classes, groups = labels_of(tested, target, columns)
    known = classes.notna() & groups.notna()
    if not known.any():
        raise DatasetError(f"no test image has both '{target}' and {', '.join(columns)}.")
    return tested.select(known), int((~known).sum())


def _digests(images: torch.Tensor) -> list[bytes]:
    return [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images.contiguous()]


@dataclass(frozen=True, eq=False)
class _Fits:
    """Classifiers of several training sets, as work that can be sent.

    Attributes:
        images, labels: by training set, uint8 (n, 3, s, s) and n labels.
        test_images: uint8 (m, 3, s, s).
        classes: label of each class code.
        settings: of the classifiers, but for the seed.
    """

    images: Mapping[str, torch.Tensor]
    labels: Mapping[str, pd.Series]
    test_images: torch.Tensor
    classes: list[Any]
    settings: classify.FitSettings

    def open(self) -> Callable[[tuple[str, int]], list[int]]:
        """What fits one: (training set, seed) => class codes of the test images."""
        return lambda piece: self.fit(*piece)

    def fit(self, name: str, seed: int, progress: Progress | None = None) -> list[int]:
        """Class codes (m,) that a classifier of one training set predicts."""
        classifier = classify.fit(
            self.images[name],
            list(self.labels[name]),
            classes=self.classes,
            settings=self.settings,
            progress=progress,
            seed=seed,
        )
        return classifier.predict_proba(self.test_images).argmax(1).tolist()

    def place(self, cache: str | os.PathLike[str], name: str, seed: int, tested: str) -> Path:
        """The file of a finished fit, named by all that decides it."""
        seeded = replace(self.settings, seed=seed)
        key = classify.fingerprint(self.images[name], [*self.labels[name], "|", *self.classes, tested], seeded)
        return Path(cache) / f"fit-{key[:24]}.json"


def _fit_all(
    fits: _Fits,
    seeds: Sequence[int],
    cache: str | os.PathLike[str] | None,
    engine: Engine | None,
    show_progress: bool,
) -> dict[str, np.ndarray]:
    """Class codes (seeds, n) by training set; finished fits are read from the cache."""
    num_tested = len(fits.test_images)
    predictions = {name: np.zeros((len(seeds), num_tested), dtype=np.int64) for name in fits.images}
    places: dict[tuple[str, int], Path | None] = {}
    waiting: list[tuple[str, int]] = []
    tested = hashlib.blake2b(b"".join(_digests(fits.test_images)), digest_size=16).hexdigest()
    for seed in seeds:
        for name in fits.images:
            place = places[name, seed] = None if cache is None else fits.place(cache, name, seed, tested)
            known = _read_fit(place, num_tested, len(fits.classes))
            if known is None:
                waiting.append((name, seed))
            else:
                predictions[name][list(seeds).index(seed)] = known
    # by all of them: who goes on with an audit works with as many threads as who does the whole
    engine = fit_engine(engine, len(places), fits.settings.num_steps, gpus_here(fits.settings.device))
    for (name, seed), codes in _fitted(fits, waiting, engine, show_progress):
        predictions[name][list(seeds).index(seed)] = codes
        place = places[name, seed]
        if place is not None:
            make_folder(place.parent)
            write_json(place, {"training_set": name, "seed": seed, "codes": codes})
    return predictions


def _fitted(
    fits: _Fits, waiting: Sequence[tuple[str, int]], engine: Engine, show_progress: bool
) -> Iterator[tuple[tuple[str, int], list[int]]]:
    """Fits as they are done, here or by workers."""
    steps, num_gpus = fits.settings.num_steps, gpus_here(fits.settings.device)
    if not waiting:
        return
    with track(len(waiting) * steps, "training classifiers", "steps", show=show_progress) as bar:
        if engine.is_this_process(num_gpus):
            for done, (name, seed) in enumerate(waiting):
                bar.fields["fit"] = f"{done + 1}/{len(waiting)} ({name}, seed {seed})"
                yield (name, seed), fits.fit(name, seed, bar)
            return
        for done, (place, codes) in enumerate(run_pieces(engine, fits, waiting, num_gpus=num_gpus)):
            bar.update(steps, fits=f"{done + 1}/{len(waiting)}")
            yield waiting[place], codes


def _read_fit(place: Path | None, num_items: int, num_classes: int) -> np.ndarray | None:
    if place is None or not place.is_file():
        return None
    stored = read_json(place)
    codes = stored.get("codes") if isinstance(stored, dict) else None
    return checked_codes(place, codes, num_items, num_classes)
