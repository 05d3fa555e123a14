"""The held-out front: refits from new seeds, one look at the test data, intervals, and who is really dominated.

Validation gaps are noise at their size (a published winner's rank disparity was 24 times larger on test), so the
candidates of a search are trained again and evaluated on people that neither training nor choosing has seen. Two
sources of chance are carried along: which people are in the test set (bootstrap over people, the same draw for every
candidate, so that comparisons are paired), and which seed training had (Student t noise of the refits' covariance,
pooled over candidates because three refits alone say little about it).
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlbias.errors import ConfigError, ShapeError
from vlbias.fairness import person_weights
from vlbias.files import write_file
from vlbias.locks import FileLock
from vlbias.progress import track
from vlbias.search.evaluation import Evaluation
from vlbias.search.pareto import front_ranks
from vlbias.search.plots import plot_front
from vlbias.search.spaces import Configuration
from vlbias.search.task import Task
from vlbias.search.trainer import Recipe
from vlbias.shown import Glance, Shown

__all__ = ["Candidate", "Front", "Refits", "compare", "held_out_front"]

#: Seconds between two looks at refits that other workers hold.
_POLL_S = 0.5


@dataclass(frozen=True)
class Candidate:
    """One finished trial: what it is, what it scored on validation, where its weights are."""

    number: int
    configuration: Configuration
    values: Mapping[str, float]
    checkpoint: Path | None


@dataclass(frozen=True, repr=False)
class Front(Shown):
    """Candidates on held-out data.

    Attributes:
        table: one row per trial: label, then per objective its mean over refits, low, high and the validation value
            (``val_``) the search saw; ``on_front`` by the means; ``p_dominated``, the probability that some other
            candidate dominates it.
        dominance: P(row dominates column), trial by trial.
        objectives: their names, in order.
        level: of the intervals.
        refits: per candidate.
        split: what it was evaluated on.
        groups: one row per trial and group, means over refits.
    """

    table: pd.DataFrame
    dominance: pd.DataFrame
    objectives: tuple[str, ...]
    level: float
    refits: int
    split: str
    groups: pd.DataFrame

    def _glance(self) -> Glance:
        columns = ["label", *self.objectives, "on_front", "p_dominated"]
        line = f"{len(self.table)} candidates on {self.split}, {int(self.table['on_front'].sum())} on the front"
        return Glance(line, columns, self.table[columns].to_numpy().tolist())

    def winners_curse(self) -> pd.Series:
        """Held-out mean minus validation value, averaged over candidates, per objective; positive = flattered."""
        return pd.Series(
            {name: float((self.table[name] - self.table[f"val_{name}"]).mean()) for name in self.objectives}
        )

    def verdict(self) -> str:
        """What held-out data say of the validation front, in one sentence."""
        doubtful = int((self.table["p_dominated"] >= self.level).sum())
        flattered = ", ".join(
            f"{str(name).replace('_', ' ')} {value:+.3f}" for name, value in self.winners_curse().items()
        )
        trained = f"{self.refits} refits each" if self.refits else "the search's own weights"
        return (
            f"{len(self.table)} candidate(s) of the validation front on {self.split} ({trained}): "
            f"{int(self.table['on_front'].sum())} on the held-out front by their means, {doubtful} dominated with "
            f"probability >= {self.level:g}. Held-out minus validation, on average: {flattered}."
        )

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the candidates with their intervals, and where validation had put them."""
        label = f"{self.split}, {self.refits} refits, {self.level:.0%} interval"
        return plot_front(self.table, self.objectives, label, Path(path))


@dataclass(frozen=True)
class Refits:
    """Where evaluations on held-out data come from: made once, stored, shared by workers.

    Args:
        recipe: what all trainings of the study share.
        num_refits: trainings of each candidate from new seeds; 0 evaluates the search's own checkpoints.
        split: "test", or "val".
        folder: where evaluations are stored; None makes them anew each time.
    """

    recipe: Recipe
    num_refits: int
    split: str
    folder: Path | None

    @property
    def numbers(self) -> range:
        """Of a candidate's evaluations: at least one, since checkpoints are evaluated too."""
        return range(max(self.num_refits, 1))

    def evaluate(self, candidate: Candidate, refit: int) -> Evaluation | None:
        """One evaluation, made or found; None while another worker is at it."""
        if self.folder is None:
            return self._make(candidate, refit)
        name = f"refit-{refit}" if self.num_refits else "search"
        path = self.folder / "refits" / f"trial-{candidate.number:05d}-{name}-{self.split}.npz"
        lock = FileLock(path.with_suffix(".lock"))
        if not lock.acquire(wait=False):
            return None
        with lock:
            found = _load(path, self.recipe.task, self.split)
            if found is None:
                found = self._make(candidate, refit)
                _save(path, found)
            return found

    def _make(self, candidate: Candidate, refit: int) -> Evaluation:
        if self.num_refits:
            # A seed that the search itself cannot have used for this trial.
            trainer = self.recipe.trainer(candidate.configuration, candidate.number, 1 + refit)
            trainer.advance(self.recipe.max_epochs)
        elif candidate.checkpoint is None or not candidate.checkpoint.is_file():
            raise ConfigError(f"Trial {candidate.number} has no checkpoint here; use refit >= 1.")
        else:
            trainer = self.recipe.trainer(candidate.configuration, candidate.number)
            trainer.load(candidate.checkpoint)
        return trainer.evaluate(self.split)


def compare(
    evaluations: Sequence[Sequence[Evaluation]],
    objectives: Sequence[str],
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates x refits of evaluations on the same images => values with intervals, and dominance.

    Args:
        evaluations: k candidates, r refits each; all of the same images in the same order.
        objectives: m names.
        level: of the intervals, in (0, 1).
        num_resamples: bootstrap draws over people.
        seed: of the draws.

    Returns:
        mean (k, m); interval (k, m, 2); dominance (k + 1, k). Row i holds P(candidate i dominates the column), its
        diagonal is 0. The last row holds P(somebody dominates the column).

    Raises:
        ShapeError: numbers of refits differ, or the images do.
    """
    k, r, m = len(evaluations), len(evaluations[0]), len(objectives)
    first = evaluations[0][0]
    for runs in evaluations:
        if len(runs) != r:
            raise ShapeError(f"Every candidate needs {r} refits; one has {len(runs)}.")
        for one in runs:
            if not (np.array_equal(one.groups, first.groups) and np.array_equal(one.persons, first.persons)):
                raise ShapeError("Evaluations must be of the same images in the same order.")
    weights = person_weights(first.persons, first.groups, num_resamples, seed)
    points, draws = np.empty((k, r, m)), np.empty((k, num_resamples, m))
    for i, runs in enumerate(evaluations):
        over_refits = np.zeros((num_resamples, m))
        for j, one in enumerate(runs):
            values, resampled = one.objectives(), one.objectives(weights)
            points[i, j] = [values[name] for name in objectives]
            over_refits += np.stack([resampled[name] for name in objectives], axis=1)
        draws[i] = over_refits / r
    mean = points.mean(1)
    # A gap resampled from noisy data is larger than the gap itself by about as much as that is larger than the truth.
    draws += (mean - draws.mean(1))[:, None]
    if r > 1:
        draws += _refit_noise(points, num_resamples, seed)
    tails = [(1 - level) / 2, (1 + level) / 2]
    interval = np.moveaxis(np.quantile(draws, tails, axis=1), 0, -1)
    not_worse = (draws[:, None] <= draws[None]).all(3)
    better = (draws[:, None] < draws[None]).any(3)
    wins = not_worse & better  # (k, k, b)
    return mean, interval, np.vstack([wins.mean(2), wins.any(0).mean(1)[None]])


def _refit_noise(points: np.ndarray, num_draws: int, seed: int) -> np.ndarray:
    """Noise (k, b, m) of a mean of r refits: multivariate Student t with the covariance pooled over candidates."""
    k, r, m = points.shape
    residual = (points - points.mean(1, keepdims=True)).reshape(-1, m)
    freedom = k * (r - 1)
    covariance = residual.T @ residual / freedom / r
    generator = np.random.default_rng([seed, 1])
    normal = generator.multivariate_normal(np.zeros(m), covariance, size=(k, num_draws), method="svd")
    # One scale for all candidates of a draw: it is their common covariance that is uncertain.
    scale = np.sqrt(freedom / generator.chisquare(freedom, size=num_draws))
    return np.asarray(normal * scale[None, :, None])


def held_out_front(
    candidates: Sequence[Candidate],
    objectives: tuple[str, ...],
    refits: Refits,
    *,
    level: float,
    num_resamples: int,
    show_progress: bool,
) -> Front:
    """Refit, evaluate and compare candidates; see :meth:`vlbias.search.Study.front`."""
    runs = _evaluate_all(candidates, refits, show_progress)
    seed = refits.recipe.seed
    mean, interval, dominance = compare(runs, objectives, level=level, num_resamples=num_resamples, seed=seed)
    numbers = [candidate.number for candidate in candidates]
    return Front(
        _front_table(candidates, objectives, mean, interval, dominance),
        pd.DataFrame(dominance[:-1], index=numbers, columns=numbers),
        objectives,
        level,
        refits.num_refits,
        refits.split,
        _group_table(candidates, runs),
    )


def _evaluate_all(candidates: Sequence[Candidate], refits: Refits, show_progress: bool) -> list[list[Evaluation]]:
    """Candidates x refits; what another worker has in hand is waited for."""
    waiting = [(candidate, refit) for candidate in candidates for refit in refits.numbers]
    found: dict[tuple[int, int], Evaluation] = {}
    with track(len(waiting), "refit", "models", show=show_progress) as progress:
        while waiting:
            busy = []
            for candidate, refit in waiting:
                evaluation = refits.evaluate(candidate, refit)
                if evaluation is None:
                    busy.append((candidate, refit))
                    continue
                found[candidate.number, refit] = evaluation
                progress.update(1, trial=candidate.number)
            if len(busy) == len(waiting):
                time.sleep(_POLL_S)
            waiting = busy
    return [[found[candidate.number, refit] for refit in refits.numbers] for candidate in candidates]


def _front_table(
    candidates: Sequence[Candidate],
    objectives: Sequence[str],
    mean: np.ndarray,
    interval: np.ndarray,
    dominance: np.ndarray,
) -> pd.DataFrame:
    ranks = front_ranks(mean)
    rows = []
    for i, candidate in enumerate(candidates):
        row: dict[str, Any] = {"trial": candidate.number, "label": candidate.configuration.label()}
        for j, name in enumerate(objectives):
            row |= {name: mean[i, j], f"{name}_low": interval[i, j, 0], f"{name}_high": interval[i, j, 1]}
            row[f"val_{name}"] = candidate.values[name]
        rows.append({**row, "on_front": ranks[i] == 0, "p_dominated": dominance[-1, i]})
    return pd.DataFrame(rows).set_index("trial").sort_values(objectives[0])


def _group_table(candidates: Sequence[Candidate], runs: Sequence[Sequence[Evaluation]]) -> pd.DataFrame:
    tables = [
        pd.concat([one.table() for one in refits]).groupby(level=0).mean().assign(trial=candidate.number)
        for candidate, refits in zip(candidates, runs, strict=True)
    ]
    table = pd.concat(tables).set_index("trial", append=True).swaplevel()
    # The same test images in every refit: their numbers are whole.
    counts = [name for name in ("images", "probes", "identities") if name in table.columns]
    return table.astype(dict.fromkeys(counts, int))


def _save(path: Path, evaluation: Evaluation) -> None:
    buffer = io.BytesIO()
    rows = _rows_crc(evaluation.groups, evaluation.persons)
    np.savez(buffer, outcome=evaluation.outcome, diversity=evaluation.diversity, rows=rows)
    write_file(path, buffer.getvalue())


def _load(path: Path, task: Task, split: str) -> Evaluation | None:
    """A stored evaluation, if it is there, whole, and of the same images."""
    sample = task.sample(split)
    try:
        with np.load(path, allow_pickle=False) as file:
            if int(file["rows"]) != _rows_crc(sample.groups, sample.persons):
                return None
            return task.evaluation(sample, file["outcome"], float(file["diversity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _rows_crc(groups: np.ndarray, persons: np.ndarray) -> int:
    return zlib.crc32(np.stack([groups, persons]).astype(np.int64).tobytes())
