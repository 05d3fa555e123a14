"""What edits do, read by classifiers of real labels: success at each strength, identity kept, drift of the rest.

The editor's own scorers are no witnesses of its edits. So a classifier is fitted to each label of the dataset, on faces
that are not edited; how often it is right on those that are, unedited, is stated beside what it says. Where faces are
drawn it also reads the true counterfactuals, which is the most that it could say of a perfect edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm

from vlbias.arguments import checked_call
from vlbias.attributes import of_column
from vlbias.audit.flips import share_interval
from vlbias.balance.poles import Poles, resolve_poles
from vlbias.classify import Classifier, FitSettings, fit
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, DatasetError
from vlbias.files import json_records
from vlbias.images import load_pixels
from vlbias.labels import label_text, label_texts
from vlbias.paths import EncoderConstraint, PathSet, PathTrainingSettings, calibrate, train_paths
from vlbias.progress import track
from vlbias.rendering import MAX_STRENGTH, Renderer
from vlbias.settings import Settings, number, with_changes
from vlbias.shown import Glance, Shown, plural

__all__ = ["DriftReport", "DriftSettings", "Walks", "drift", "path_variants", "taught_faces"]

#: A column with more values than this is no label that a classifier is fitted to.
MAX_CLASSES = 8
#: Fewer faces of a label than this teach a reader nothing.
MIN_FACES = 10
#: What the rows of a report speak of beside the columns that drift.
SUCCESS, IDENTITY = "success", "identity"
#: Of faces that are measured, where the dataset has no split "train" of its own: every third.
_EVERY = 3


def _reader_settings() -> FitSettings:
    return FitSettings(num_steps=400)


@dataclass(frozen=True)
class DriftSettings(Settings):
    """How edits are measured.

    Attributes:
        columns: labels to read; ``None`` for those of known attributes that the dataset has.
        strengths: of the walks, in calibrated strength from a value to the other end of its column.
        num_faces: walked each way, at most; drawn.
        level: coverage of the intervals.
        fit: of the classifiers that read.
        seed: draws who is walked.
    """

    columns: tuple[str, ...] | None = None
    strengths: tuple[float, ...] = number((0.5, 1.0, 1.5), above=0, high=MAX_STRENGTH)
    num_faces: int = number(60, 1, 1_000_000)
    level: float = number(0.95, above=0, below=1)
    fit: FitSettings = field(default_factory=_reader_settings)
    seed: int = number(0, 0)


@dataclass(frozen=True)
class Walks:
    """Paths to measure.

    Attributes:
        renderer: the editor with these paths.
        training_evaluations: network evaluations that learning them took; ``None`` where nobody counted.
    """

    renderer: Renderer
    training_evaluations: int | None = None


@dataclass(frozen=True, repr=False)
class DriftReport(Shown):
    """What edits do.

    Attributes:
        table: a row for each ``paths`` (name of the variant), ``walk`` (``skin: light → dark``), ``strength`` and
            ``reading``: ``success`` (share that reads as the wanted value), ``identity`` (mean cosine of the encoder),
            and each other column (share whose reading changed), with ``low``, ``high``, ``num_faces``, and ``truth``,
            the same of true counterfactuals, NaN where there are none.
        readers: for each column the share of unedited faces that its classifier reads right, ``low``, ``high`` and
            ``num_faces``.
        costs: for each variant ``training_evaluations`` (NaN where nobody counted) and ``edit_evaluations`` a face.
        level: coverage of the intervals.
    """

    table: pd.DataFrame
    readers: pd.DataFrame
    costs: pd.DataFrame
    level: float

    def _glance(self) -> Glance:
        rows = [(str(name), *map(float, row)) for name, row in self.summary().iterrows()]
        line = f"{plural(len(self.readers), 'label')} read; {', '.join(self.costs.index)}"
        return Glance(line, ("paths, strength 1", SUCCESS, IDENTITY, "drift"), rows)

    def at(self, strength: float) -> pd.DataFrame:
        """The rows of the measured strength that is nearest to one."""
        found = self.table["strength"].unique()
        return self.table[self.table["strength"] == min(found, key=lambda one: abs(one - strength))]

    def summary(self) -> pd.DataFrame:
        """For each variant, at strength 1, the means over walks of success, identity and of the columns that drift."""
        rows = self.at(1.0)
        kind = rows["reading"].where(rows["reading"].isin([SUCCESS, IDENTITY]), "drift")
        means = rows.assign(kind=kind).pivot_table(index="paths", columns="kind", values="value", sort=False)
        return means.reindex(index=self.costs.index, columns=[SUCCESS, IDENTITY, "drift"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is ``None``."""
        tables = {"walks": self.table, "readers": self.readers.reset_index(), "costs": self.costs.reset_index()}
        return {"level": self.level} | {name: json_records(table, 6) for name, table in tables.items()}


@checked_call
def drift(
    paths: Renderer | Mapping[str, Walks],
    faces: FaceDataset,
    *,
    settings: DriftSettings | None = None,
    show_progress: bool = True,
    **changes: object,
) -> DriftReport:
    """Measure what the paths of an editor do to faces of a dataset, by classifiers of its labels.

    Args:
        paths: an editor's renderer, or several variants by name, say those of :func:`path_variants`.
        faces: with labels. Its split "train" teaches the classifiers, the others are edited; where all are in one, two
            of three teach.
        settings: how; ``None`` for the defaults.
        show_progress: whether a line on stderr tells how far it is.
        changes: fields of :class:`DriftSettings` that replace those of ``settings``.

    Raises:
        DatasetError: too few faces, or no column that a path of the editor moves.
        UnknownNameError: no such column.
    """
    settings = with_changes(DriftSettings, settings, changes)
    variants = {"as it is": Walks(paths)} if isinstance(paths, Renderer) else dict(paths)
    if not variants:
        raise ConfigError("`paths` is empty; give an editor's renderer, or variants by name.")
    renderer = next(iter(variants.values())).renderer
    labels = _labels(faces, settings)
    taught = faces.table.index.to_series().isin(taught_faces(faces).ids)
    poles = _poles(labels, renderer)
    if not poles:
        raise DatasetError(
            f"no column of '{faces.name}' goes with a path of '{renderer.name}' ({', '.join(renderer.attributes)}); "
            f"looked at {', '.join(labels) or 'none'}."
        )
    readers = _Readers.fitted(faces, labels, taught, renderer.image_size, settings, show=show_progress)
    donors = _donors(faces, poles, labels, taught, settings)
    rows: list[dict[str, Any]] = []
    costs = {}
    with track(len(variants) * len(donors), "measuring walks", "walks", show=show_progress) as progress:
        for name, variant in variants.items():
            before, walked = variant.renderer.evaluations, 0
            for column, source, wanted, ids in donors:
                walk = _Walk(variant.renderer, faces, poles[column], source, wanted, ids)
                rows += [{"paths": name, **row} for row in walk.measured(readers, settings)]
                walked += len(ids) * len(settings.strengths)
                progress.update(1)
            costs[name] = {
                "training_evaluations": float("nan")
                if variant.training_evaluations is None
                else float(variant.training_evaluations),
                "edit_evaluations": (variant.renderer.evaluations - before) / max(walked, 1),
            }
    table = pd.DataFrame.from_dict(costs, orient="index").rename_axis(index="paths")
    return DriftReport(pd.DataFrame(rows), readers.accuracy, table, settings.level)


@checked_call
def taught_faces(faces: FaceDataset) -> FaceDataset:
    """The faces that teach classifiers, and paths that are compared: the others are edited.

    Those of the split "train"; where all faces are in it, or none, two of three.
    """
    is_train = faces.table["split"] == "train"
    if is_train.all() or not is_train.any():
        return faces.select(np.arange(len(faces)) % _EVERY != 0)
    return faces.select(is_train)


def _labels(faces: FaceDataset, settings: DriftSettings) -> dict[str, pd.Series]:
    """Column => labels as text by id, ``None`` where one is missing."""
    names = settings.columns
    if names is None:
        names = tuple(name for name in faces.table.columns if of_column(str(name)) is not None)
    found = {}
    for name in names:
        texts = label_texts(faces.column(name))
        if 2 <= texts.nunique() <= MAX_CLASSES:
            found[name] = texts
        elif settings.columns is not None:
            raise DatasetError(f"'{name}' of '{faces.name}' has {texts.nunique()} values; 2 to {MAX_CLASSES} are read.")
    return found


def _poles(labels: Mapping[str, pd.Series], renderer: Renderer) -> dict[str, Poles]:
    """Columns that a path moves."""
    found = {name: resolve_poles(name, set(texts.dropna()), renderer.dipoles) for name, texts in labels.items()}
    return {name: poles for name, poles in found.items() if poles is not None and poles.name in renderer.attributes}


def _donors(
    faces: FaceDataset,
    poles: Mapping[str, Poles],
    labels: Mapping[str, pd.Series],
    taught: pd.Series,
    settings: DriftSettings,
) -> list[tuple[str, str, str, list[str]]]:
    """(column, value, other end, ids): faces of both ends of each column that taught nobody."""
    found = []
    for column, its in poles.items():
        present = [value for value in its.ordered if (labels[column] == value).any()]
        for source, wanted in ((present[0], present[-1]), (present[-1], present[0])):
            its_own = (labels[column] == source) & ~taught
            if its_own.any():
                drawn = faces.select(its_own).sample(settings.num_faces, seed=settings.seed)
                found.append((column, source, wanted, drawn.ids))
    if not found:
        raise DatasetError("no face is left to edit: all are in the split 'train'. Give further faces.")
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class _Readers:
    """A classifier for each column, and how often it is right on unedited faces."""

    networks: Mapping[str, Classifier]
    accuracy: pd.DataFrame

    @classmethod
    def fitted(
        cls,
        faces: FaceDataset,
        labels: Mapping[str, pd.Series],
        taught: pd.Series,
        size: int,
        settings: DriftSettings,
        *,
        show: bool,
    ) -> _Readers:
        for column, texts in labels.items():
            counts = texts[taught].value_counts().reindex(sorted(set(texts.dropna())), fill_value=0)
            if min(counts) < MIN_FACES:
                raise DatasetError(
                    f"'{faces.name}' has fewer than {MIN_FACES} faces of a value of '{column}' to learn from. Give "
                    "more faces, or leave the column out of `columns`."
                )
            if not (texts.notna() & ~taught).any():
                raise DatasetError(
                    f"no face of '{faces.name}' that is not in the split 'train' has a label of '{column}', so nobody "
                    "could say how often its classifier is right. Label some, or leave the column out of `columns`."
                )
        how = replace(settings.fit, image_size=size)
        pixels = load_pixels(faces, faces.ids, size, title="reading" if show else None)
        networks, rows = {}, {}
        with track(len(labels) * how.num_steps, "fitting classifiers of labels", "steps", show=show) as progress:
            for column, texts in labels.items():
                known = texts.notna()
                mine, unseen = (np.flatnonzero(known & part) for part in (taught, ~taught))
                network = fit(pixels[mine], texts.iloc[mine].tolist(), settings=how, progress=progress)
                right = np.array(network.predict(pixels[unseen])) == texts.iloc[unseen].to_numpy()
                networks[column] = network
                rows[column] = _shares(right, settings.level) | {"num_faces": len(unseen)}
        accuracy = pd.DataFrame.from_dict(rows, orient="index").rename(columns={"value": "accuracy"})
        return cls(networks, accuracy.rename_axis(index="column"))

    def read(self, x: torch.Tensor) -> dict[str, np.ndarray]:
        """Column => labels (b,) of pictures (b, 3, s, s) in [-1, 1]."""
        return {column: np.array(network.predict(x), dtype=object) for column, network in self.networks.items()}


def _shares(flags: np.ndarray, level: float) -> dict[str, float]:
    value, low, high = share_interval(flags, np.arange(len(flags)), level)
    return {"value": value, "low": low, "high": high}


@dataclass(frozen=True)
class _Walk:
    """Faces of one value of a column, walked to another one."""

    renderer: Renderer
    faces: FaceDataset
    poles: Poles
    source: str
    wanted: str
    ids: Sequence[str]

    def measured(self, readers: _Readers, settings: DriftSettings) -> list[dict[str, Any]]:
        """Rows of the report, of every strength."""
        renderer, column = self.renderer, self.poles.column
        x_0 = self.faces.tensor(list(self.ids), renderer.image_size).to(renderer.device)
        z_sem = renderer.encode(x_0)
        traced = renderer.trace(x_0, z_sem)
        before, identity = readers.read(x_0.cpu()), EncoderConstraint(renderer.diffae)
        truth = self._changes(readers.read(self._true()), before) if hasattr(self.faces, "counterfactual") else {}
        rows = []
        for strength in settings.strengths:
            away = strength * self.poles.strength(self.source, self.wanted)
            edited = renderer.edit(x_0, z_sem, {self.poles.name: away}, traced=traced)
            with torch.no_grad():
                kept = identity.similarity(x_0, edited).double().cpu().numpy()
            found = {SUCCESS: {}, IDENTITY: _mean(kept, settings.level)}
            found |= {
                name: _shares(flags, settings.level)
                for name, flags in self._changes(readers.read(edited.cpu()), before).items()
            }
            rows += [
                {
                    "walk": f"{column}: {self.source} → {self.wanted}",
                    "strength": strength,
                    "reading": name,
                    **values,
                    "truth": float(truth[name].mean()) if name in truth else float("nan"),
                    "num_faces": len(self.ids),
                }
                for name, values in found.items()
            ]
        return rows

    def _changes(self, after: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Whether the attribute arrived, and which of the others changed."""
        own = self.poles.column
        others = {name: after[name] != before[name] for name in after if name != own}
        return {SUCCESS: after[own] == self.wanted, **others}

    def _true(self) -> torch.Tensor:
        """True counterfactuals of drawn faces."""
        column = self.poles.column
        values = {label_text(value): value for value in self.faces.values(column)}
        wanted = {column: values[self.wanted]}
        changed = self.faces.counterfactual(list(self.ids), **wanted)  # type: ignore[attr-defined]
        return torch.as_tensor(changed.tensor(changed.ids, self.renderer.image_size))


def _mean(x: np.ndarray, level: float) -> dict[str, float]:
    half = float(norm.ppf((1 + level) / 2)) * float(x.std(ddof=1)) / np.sqrt(len(x)) if len(x) > 1 else float("nan")
    return {"value": float(x.mean()), "low": float(x.mean()) - half, "high": min(1.0, float(x.mean()) + half)}


# ---------------------------------------------------------------------------------------------------------------------
# Variants of paths


@checked_call
def path_variants(
    renderer: Renderer, x_0: torch.Tensor, *, settings: PathTrainingSettings | None = None
) -> dict[str, Walks]:
    """The editor's paths, and the same attributes learned anew in five ways, on the same faces and the same texts.

    Args:
        renderer: of the editor; it needs paths, probes and a CLIP.
        x_0: faces to learn on (n, 3, h, w) in [-1, 1].
        settings: of the training; ``None`` for the defaults.

    Returns:
        ``as it is``; ``rbf``, ``linear`` and ``affine``, trained by ``settings``; ``logistic``, the normal of a
        logistic regression on the codes, as the diffusion autoencoder's authors edit; ``published``, see
        ``PathTrainingSettings.as_published``, with as many steps.

    Raises:
        CheckpointError: there is no CLIP.
        ConfigError: there are no paths or no probes.
    """
    if renderer.paths is None or renderer.probes is None:
        raise ConfigError(f"'{renderer.name}' has no paths or no probes to compare others with.")
    settings = settings or PathTrainingSettings()
    clip, diffae, probes = renderer.need_clip(), renderer.diffae, renderer.probes
    dipoles = dict(renderer.paths.dipoles)
    guards = {name: dipole for name, dipole in probes.dipoles.items() if name not in dipoles}
    x_0 = x_0.to(renderer.device)
    found = {"as it is": Walks(renderer)}
    for network in ("rbf", "linear", "affine"):
        how = replace(settings, network=network)
        paths = train_paths(diffae, clip, dipoles, x_0, guards=guards, probes=probes, settings=how)
        found[network] = Walks(renderer.changed(paths=paths), how.evaluations)
    found["logistic"] = Walks(renderer.changed(paths=_logistic(renderer, x_0)), 0)
    how = PathTrainingSettings.as_published(
        steps=settings.steps,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        calibration_faces=settings.calibration_faces,
        seed=settings.seed,
    )
    paths = train_paths(diffae, clip, dipoles, x_0, probes=probes, settings=how)
    found["published"] = Walks(renderer.changed(paths=paths), how.evaluations)
    return found


def _logistic(renderer: Renderer, x_0: torch.Tensor) -> PathSet:
    """Straight paths along the normals of the probes."""
    diffae, probes, old = renderer.diffae, renderer.probes, renderer.paths
    assert probes is not None and old is not None  # checked by the caller
    dipoles = dict(old.dipoles)
    paths = PathSet(dipoles, old.dim, network="linear", mean=diffae.z_mean, std=diffae.z_std)
    normals = probes.normals(paths.mean, paths.std)
    paths.field.start_along(torch.stack([normals[probes.index(name)] for name in dipoles]).cpu())
    paths.requires_grad_(False)
    return calibrate(paths.to(renderer.device), renderer.encode(x_0), probes=probes)
