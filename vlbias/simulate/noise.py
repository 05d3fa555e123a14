"""Group labels that a labeller estimated: what its errors do to slopes and parity, taken off with their uncertainty.

A wrong label in the training set makes the true share of a group move less than the planned one, so slopes look too
flat. A wrong label in the test set mixes the groups, so they look alike. Both are linear in the labeller's confusion
matrix: shares are mixed by it, and counts of the test set are unmixed by its inverse.

It is taken for granted that within a true group a face's label errs whatever its class and its prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.files import read_rows, read_text
from vlbias.errors import ConfigError, LabelError
from vlbias.fairness.inference import person_codes
from vlbias.files import AnyPath
from vlbias.labels import in_order, label_texts
from vlbias.settings import Settings, number

__all__ = ["LabelNoise"]

#: Below this singular value of the confusion rates, labels say too little of the groups to be unmixed.
LEAST_INFORMATION = 0.1
#: Column of a labeller's confusion matrix for faces that got no label.
NO_LABEL = "(none)"


@dataclass(frozen=True)
class LabelNoise(Settings):
    """How a labeller errs.

    Attributes:
        groups: the groups.
        rates: P(labelled g | truly a), one row for each true group, each summing to 1.
        sizes: how many independent faces the rates of each row were measured on; None for rates that are exact.
        splits: where labels are the labeller's: "both", or "train" or "test" alone.

    Raises:
        ConfigError: rates that are none.
        LabelError: labels say so little of the groups that nothing can be known of these.
    """

    groups: Sequence[str]
    rates: Sequence[Sequence[float]] = number(low=0, high=1)
    sizes: Sequence[float] | None = number(None, above=0)
    splits: Literal["both", "train", "test"] = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        k = len(self.groups)
        if len(set(self.groups)) != k or k < 2 or [len(row) for row in self.rates] != [k] * k:
            raise ConfigError(f"`rates` must be a row and a column for each of two or more groups; got {self.rates}.")
        if not np.allclose(np.sum(self.rates, axis=1), 1, atol=1e-3):
            raise ConfigError(f"each row of `rates` must sum to 1; got sums {np.sum(self.rates, axis=1).round(3)}.")
        if self.sizes is not None and len(self.sizes) != k:
            raise ConfigError(f"`sizes` must hold a number for each of {k} groups; got {len(self.sizes)}.")
        if np.linalg.svd(np.asarray(self.rates), compute_uv=False).min() < LEAST_INFORMATION:
            raise LabelError(
                f"the labels say next to nothing about the groups {', '.join(self.groups)}: their confusion matrix can "
                "hardly be inverted. Use another labeller, or merge groups that it takes for each other."
            )

    @classmethod
    def from_confusion(cls, confusion: pd.DataFrame, **options: object) -> Self:
        """From a confusion matrix, such as ``labelling.evaluate(...).confusion``.

        Args:
            confusion: rows are true groups, columns labels, in the same words; counts, or rates whose rows sum to 1,
                which are taken as exact. A column "(none)", of faces without a label, is left out.
            options: ``splits``.

        Raises:
            LabelError: rows and columns are not the same groups, a row is empty, or values are no counts.
        """
        table = confusion.drop(columns=NO_LABEL, errors="ignore")
        rows, columns = list(map(str, table.index)), list(map(str, table.columns))
        if sorted(rows) != sorted(columns) or len(set(rows)) != len(rows):
            got = f"{rows!s:.200} and {columns!s:.200}"
            raise LabelError(f"a confusion matrix has the same groups as rows and columns; got {got}.")
        try:
            values = table.set_axis(columns, axis=1)[rows].to_numpy(dtype=float)
        except ValueError as error:
            raise LabelError(f"a confusion matrix needs counts or rates; {error}.") from error
        totals = values.sum(axis=1)
        if not np.isfinite(values).all() or values.min() < 0 or totals.min() <= 0:
            raise LabelError(f"a confusion matrix needs counts or rates >= 0, no row of zeros; got {values.tolist()}.")
        sizes = None if np.allclose(totals, 1, atol=1e-3) else totals.tolist()
        return cls(rows, (values / totals[:, None]).tolist(), sizes, **options)  # type: ignore[arg-type]

    @classmethod
    @checked_call
    def from_labels(cls, given: object, labelled: object, *, persons: object = None, **options: object) -> Self:
        """From faces whose group is known.

        Args:
            given: true groups (n,).
            labelled: what the labeller said (n,), in the same words.
            persons: who is in each face (n,), any labels: faces of one person are mistaken alike, so they count for
                less. ``None`` where each is another person.
            options: ``splits``.

        Raises:
            LabelError: labels are missing, or not the same groups.
        """
        true, said = (label_texts(list(values)) for values in (given, labelled))  # type: ignore[call-overload]
        if len(true) != len(said) or not len(true) or true.isna().any() or said.isna().any():
            raise LabelError(f"expected a given and an estimated label for each face; got {len(true)} and {len(said)}.")
        groups = in_order(pd.concat([true, said]))
        counts = pd.crosstab(true, said).reindex(index=groups, columns=groups, fill_value=0)
        noise = cls.from_confusion(counts, **options)
        if persons is None:
            return noise
        who = person_codes(persons, len(true))
        inside = [np.flatnonzero(true == group) for group in groups]
        shares = zip(inside, np.asarray(noise.rates), strict=True)
        sizes = [_effective_size(who[at], _one_hot(said.iloc[at], groups) - rates) for at, rates in shares]
        return cls(groups, noise.rates, sizes, noise.splits)

    @classmethod
    @checked_call
    def load(cls, path: AnyPath, *, column: str | None = None, **options: object) -> Self:
        """From a file: ``labelling.json`` as :func:`vlbias.labelling.write_reports` has it, or a CSV.

        Args:
            path: the CSV has labels in its first line and a true group at the start of each further one.
            column: which labelled column of a ``labelling.json``; ``None`` where it holds one alone.
            options: ``splits``.

        Raises:
            DatasetError: the file cannot be read.
            LabelError, ConfigError: it holds no confusion matrix.
        """
        path = Path(path)
        if path.suffix == ".json":
            return cls.from_confusion(_reported(path, column), **options)
        try:
            read_rows(path)  # pandas makes a column of each cell of the first line, however many there are
            table = pd.read_csv(StringIO(read_text(path)), index_col=0, keep_default_na=False)
            return cls.from_confusion(table.set_axis([str(name).strip() for name in table.index]), **options)
        except (ValueError, LabelError, ConfigError) as error:
            raise LabelError(
                f"{path} has no confusion matrix: {error} A line of labels, then a line for each true group: its "
                "name and its counts."
            ) from error

    def of(self, groups: Sequence[str]) -> Self:
        """The same with groups in this order.

        Raises:
            LabelError: other groups.
        """
        if sorted(groups) != sorted(self.groups):
            raise LabelError(
                f"the confusion matrix is of the groups {sorted(self.groups)}, the dataset has {sorted(groups)}. Use "
                "the same words, and one matrix for all combinations where several columns make the groups."
            )
        order = [list(self.groups).index(group) for group in groups]
        rates = np.asarray(self.rates)[np.ix_(order, order)]
        sizes = None if self.sizes is None else [self.sizes[place] for place in order]
        return type(self)(tuple(groups), rates.tolist(), sizes, self.splits)

    def describe(self) -> str:
        """What share of each group has its own label, in words."""
        right = np.diag(self.rates)
        return ", ".join(f"{share:.0%} of {name}" for share, name in zip(right, self.groups, strict=True))

    def draws(self, num_draws: int, seed: int | Sequence[int]) -> np.ndarray:
        """Rates (1 + num_draws, k, k): as measured, then as they may be, given how many faces they were measured on."""
        rates = np.asarray(self.rates, dtype=float)
        if self.sizes is None:
            return np.broadcast_to(rates, (1 + num_draws, *rates.shape))
        # One face of any label is added, so that what was never seen may happen.
        seen = rates * np.asarray(self.sizes)[:, None] + 1 / len(rates)
        drawn = np.random.default_rng(seed).gamma(np.broadcast_to(seen, (num_draws, *seen.shape)))
        return np.concatenate([rates[None], drawn / drawn.sum(-1, keepdims=True)])


def _reported(path: Path, column: str | None) -> pd.DataFrame:
    """The confusion matrix of a column in a ``labelling.json``."""
    from vlbias.labelling import read_reports  # scikit-learn takes its time

    scored = {report.column: report.evaluation for report in read_reports(path) if report.evaluation is not None}
    if column is None and len(scored) == 1:
        column = next(iter(scored))
    if column is None or column not in scored:
        raise ConfigError(
            f"{path} has no score of the labels of `{column}`; it scores {sorted(scored) or 'none'}. A labeller is "
            "scored where the dataset has given labels of that column."
        )
    found: Mapping[str, list[object]] = scored[column]
    return pd.DataFrame(found["confusion"], index=found["labels"], columns=found["columns"])


def _one_hot(labels: pd.Series, groups: Sequence[str]) -> np.ndarray:
    return (labels.to_numpy()[:, None] == np.asarray(groups, dtype=object)).astype(float)


def _effective_size(persons: np.ndarray, away: np.ndarray) -> float:
    """How many independent faces tell as much as these, whose labels lie ``away`` (n, k) from their mean."""
    n, alone = len(away), float((away**2).sum())
    if alone == 0:
        return float(len(np.unique(persons)))
    together = np.zeros((int(persons.max()) + 1, away.shape[1]))
    np.add.at(together, persons, away)
    return float(np.clip(n * alone / (together**2).sum(), 1, n))
