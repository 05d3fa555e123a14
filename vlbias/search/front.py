"""The held-out front: refits from new seeds, one look at the test data, intervals, and who is really dominated.

Validation gaps are noise at their size (a published winner's rank disparity was 24 times larger on test), so the
candidates of a search are trained again and evaluated on people that neither training nor choosing has seen;
:mod:`vlbias.search.inference` says how sure the numbers are.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlbias.engine import Engine, gpus_here, run_pieces
from vlbias.errors import ConfigError
from vlbias.files import write_file
from vlbias.locks import FileLock
from vlbias.progress import track
from vlbias.search.evaluation import Evaluation
from vlbias.search.inference import Comparison, compare
from vlbias.search.ledger import level_of_look
from vlbias.search.metrics import Impostors
from vlbias.search.pareto import front_ranks
from vlbias.search.plots import plot_front
from vlbias.search.spaces import Configuration
from vlbias.search.task import Task
from vlbias.search.trainer import Recipe
from vlbias.shown import Glance, Shown, plural

__all__ = ["Candidate", "Front", "Refits", "held_out_front"]

#: Seconds between two looks at refits that other workers hold.
_POLL_S = 0.5


@dataclass(frozen=True)
class Candidate:
    """One finished trial: what it is, what it scored on validation, where its weights are, and why it was chosen."""

    number: int
    configuration: Configuration
    values: Mapping[str, float]
    checkpoint: Path | None
    why: str = ""


@dataclass(frozen=True, repr=False)
class Front(Shown):
    """Candidates on held-out data.

    Attributes:
        table: one row per trial: label, then per objective its value for rates averaged over refits, low, high, the
            validation value (``val_``) the search saw, and the mean over refits by themselves (``single_``: a gap is
            larger in a single training); ``on_front`` by the values; ``p_dominated``, how sure it is
            that some other candidate dominates it.
        dominance: how sure it is that the row dominates the column, trial by trial; NaN if ``withheld``.
        objectives: their names, in order.
        level: of the intervals.
        refits: per candidate.
        split: what it was evaluated on.
        groups: one row per trial and group, means over refits.
        withheld: why nothing is said of dominance, or "".
        is_comparable: whether the held-out gallery has as many people as that of validation: a larger one makes all
            numbers worse.
        look: the how-many-th look at the test set this is; 0 on other data.
    """

    table: pd.DataFrame
    dominance: pd.DataFrame
    objectives: tuple[str, ...]
    level: float
    refits: int
    split: str
    groups: pd.DataFrame
    withheld: str = ""
    is_comparable: bool = True
    look: int = 0

    def winners_curse(self) -> pd.Series:
        """Held-out minus validation per objective, averaged over candidates; positive = flattered.

        Held-out values are those of each refit by itself (``single_``), as validation saw single trainings too. NaN
        where the galleries cannot be compared.
        """
        differences = {
            name: float((self.table.get(f"single_{name}", self.table[name]) - self.table[f"val_{name}"]).mean())
            for name in self.objectives
        }
        return pd.Series(differences) if self.is_comparable else pd.Series(np.nan, index=list(self.objectives))

    @property
    def claim_level(self) -> float:
        """How sure a claim of dominance must be, so that all looks together hold ``level``."""
        return level_of_look(self.level, self.look)

    def _glance(self) -> Glance:
        columns = ["label", *self.objectives, "on_front", "p_dominated"]
        on_front = int(self.table["on_front"].sum())
        line = f"{plural(len(self.table), 'candidate')} on {self.split}, {on_front} on the front"
        return Glance(line, columns, self.table[columns].to_numpy().tolist())

    def brief(self) -> pd.DataFrame:
        """The table as narrow as a terminal: objectives as texts with their intervals, then front and dominance."""
        texts = {
            name: [
                f"{value:.3f} ({low:.3f} to {high:.3f})"
                for value, low, high in self.table[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)
            ]
            for name in self.objectives
        }
        shown = self.table[["label"]].assign(**texts, on_front=self.table["on_front"].map({True: "yes", False: ""}))
        return shown.assign(p_dominated=self.table["p_dominated"].round(2))

    def verdict(self) -> str:
        """What held-out data say of the validation front, in one sentence."""
        count = int((self.table["p_dominated"] >= self.claim_level).sum())
        doubtful = f"{count} dominated with a probability of at least {self.claim_level:.4g}"
        if self.withheld:
            doubtful = f"nothing is said about which dominates which ({self.withheld})"
        curse = self.winners_curse()
        flattered = ", ".join(f"{str(name).replace('_', ' ')} {value:+.3f}" for name, value in curse.items())
        if not self.is_comparable:
            flattered = "not compared, the galleries have different sizes"
        trained = f"{plural(self.refits, 'refit')} each" if self.refits else "the search's own weights"
        is_found = self.table[f"val_{self.objectives[0]}"].notna()
        beside = "" if is_found.all() else f", beside {plural(int((~is_found).sum()), 'baseline')},"
        return (
            f"{plural(int(is_found.sum()), 'candidate')} of the validation front{beside} on {self.split} ({trained}): "
            f"{int(self.table['on_front'].sum())} on the held-out front by their means, {doubtful}. "
            f"Held-out minus validation, on average: {flattered}."
            + (f" This is look {self.look} at the test set; each look must be surer." if self.look > 1 else "")
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

    def open(self) -> Callable[[tuple[Candidate, int]], None]:
        """What leaves one evaluation in the folder, for the workers of an engine."""

        def leave(piece: tuple[Candidate, int]) -> None:
            self.evaluate(*piece)

        return leave

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


def held_out_front(
    candidates: Sequence[Candidate],
    objectives: tuple[str, ...],
    refits: Refits,
    *,
    level: float,
    num_resamples: int,
    show_progress: bool,
    engine: Engine | None = None,
) -> Front:
    """Refit, evaluate and compare candidates; see :meth:`vlbias.search.Study.front`."""
    runs = _evaluate_all(candidates, refits, show_progress, engine)
    seed = refits.recipe.seed
    found = compare(runs, objectives, level=level, num_resamples=num_resamples, seed=seed)
    numbers = [candidate.number for candidate in candidates]
    return Front(
        _front_table(candidates, objectives, found, runs),
        pd.DataFrame(found.dominance[:-1], index=numbers, columns=numbers),
        objectives,
        level,
        refits.num_refits,
        refits.split,
        _group_table(candidates, runs),
        found.withheld,
        _are_comparable(refits),
    )


def _are_comparable(refits: Refits) -> bool:
    task = refits.recipe.task
    sizes = {len(np.unique(task.sample(split).persons)) for split in ("val", refits.split)}
    return task.kind != "identify" or len(sizes) == 1


def _evaluate_all(
    candidates: Sequence[Candidate], refits: Refits, show_progress: bool, engine: Engine | None
) -> list[list[Evaluation]]:
    """Candidates x refits; what another worker has in hand is waited for."""
    waiting = [(candidate, refit) for candidate in candidates for refit in refits.numbers]
    found: dict[tuple[int, int], Evaluation] = {}
    num_gpus = gpus_here(refits.recipe.settings.device)
    with track(len(waiting), "refit", "models", show=show_progress) as progress:
        if engine is not None and not engine.is_this_process(num_gpus):
            if refits.folder is None:
                raise ConfigError("The workers of an `engine` share their refits: give the study a `storage`.")
            for place, _ in run_pieces(engine, refits, waiting, num_gpus=num_gpus):
                progress.update(0, trained=waiting[place][0].number)
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
    found: Comparison,
    runs: Sequence[Sequence[Evaluation]],
) -> pd.DataFrame:
    ranks = front_ranks(found.mean)
    rows = []
    for i, candidate in enumerate(candidates):
        row: dict[str, Any] = {"trial": candidate.number, "label": candidate.configuration.label()}
        for j, name in enumerate(objectives):
            low, high = found.interval[i, j]
            row |= {name: found.mean[i, j], f"{name}_low": low, f"{name}_high": high}
            row[f"val_{name}"] = candidate.values[name]
            row[f"single_{name}"] = float(np.mean([one.objectives()[name] for one in runs[i]]))
        rows.append({**row, "on_front": ranks[i] == 0, "p_dominated": found.dominance[-1, i]})
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
    impostors = {} if evaluation.impostors is None else vars(evaluation.impostors)
    np.savez(buffer, outcome=evaluation.outcome, diversity=evaluation.diversity, rows=rows, **impostors)
    write_file(path, buffer.getvalue())


def _load(path: Path, task: Task, split: str) -> Evaluation | None:
    """A stored evaluation, if it is there, whole, and of the same images."""
    sample = task.sample(split)
    try:
        with zipfile.ZipFile(path) as archive:  # np.savez compresses nothing, so no entry is larger than its file
            if any(entry.compress_type or entry.compress_size != entry.file_size for entry in archive.infolist()):
                return None
        with np.load(path, allow_pickle=False) as file:
            if int(file["rows"]) != _rows_crc(sample.groups, sample.persons):
                return None
            names = [field.name for field in fields(Impostors)] if task.kind == "identify" else []
            impostors = Impostors(**{name: file[name] for name in names}) if names else None
            return task.evaluation(sample, file["outcome"], float(file["diversity"]), impostors)
    except Exception:  # whatever is wrong with the file, the refit is evaluated again
        return None


def _rows_crc(groups: np.ndarray, persons: np.ndarray) -> int:
    return zlib.crc32(np.stack([groups, persons]).astype(np.int64).tobytes())
