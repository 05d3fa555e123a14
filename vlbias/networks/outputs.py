"""What the numbers mean that a network gives: an embedding, classes, or a measurement."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vlbias.errors import ConfigError, ShapeError
from vlbias.networks.inputs import is_number

__all__ = ["ACTIVATIONS", "FaceOutput"]

ACTIVATIONS = ("softmax", "sigmoid", "none")
# How far probabilities that a network states may be from summing to one.
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True)
class FaceOutput:
    """How the outputs of a network on faces are read.

    With neither ``classes`` nor ``values`` they are an embedding.

    Attributes:
        columns: which of the outputs are meant, counted from 0; ``None`` for all.
        classes: the label of each of them. A label that stands several times has the sum of their probabilities;
            ``None`` is left out.
        values: a number for each of them, such as ages in years: the reading is their mean, weighted by probability.
        activation: what turns outputs into probabilities: ``softmax``, ``sigmoid`` (one output, the probability of the
            second of two classes), or ``none`` (they are probabilities, or, for ``values``, plain factors).

    Raises:
        ConfigError: a value out of range, or both ``classes`` and ``values``.
    """

    columns: tuple[int, ...] | None = None
    classes: tuple[str | None, ...] | None = None
    values: tuple[float, ...] | None = None
    activation: str = "softmax"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"`activation` must be one of {', '.join(ACTIVATIONS)}; got {self.activation!r}.")
        if self.classes is not None and self.values is not None:
            raise ConfigError("`classes` and `values` both say what the outputs mean; give one of them.")
        for name in ("columns", "classes", "values"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, (list, tuple)):
                raise ConfigError(f"`{name}` must be a list with one entry per output; got {given!r}.")
            object.__setattr__(self, name, None if given is None else tuple(given))
        if self.columns is not None:
            self._check_columns(self.columns)
        if self.classes is not None:
            self._check_classes(self.classes)
        if self.values is not None and not all(is_number(value) for value in self.values):
            raise ConfigError(f"`values` must be finite numbers; got {list(self.values)}.")
        meanings = self.classes or self.values or ()
        expected = 2 if self.activation == "sigmoid" else len(self.columns or meanings)
        if meanings and len(meanings) != expected:
            raise ConfigError(
                f"`{'classes' if self.classes else 'values'}` must have one entry per output, {expected} here; got "
                f"{len(meanings)}."
            )

    @staticmethod
    def _check_columns(columns: tuple[int, ...]) -> None:
        whole = all(isinstance(column, int) and not isinstance(column, bool) for column in columns)
        if not whole or not columns or min(columns) < 0 or len(set(columns)) < len(columns):
            raise ConfigError(f"`columns` must be different whole numbers >= 0; got {list(columns)}.")

    @staticmethod
    def _check_classes(classes: tuple[object, ...]) -> None:
        if not all(label is None or (isinstance(label, str) and label) for label in classes):
            raise ConfigError(f"`classes` must be words, or null for an output that is left out; got {list(classes)}.")
        if len(set(classes) - {None}) < 2:
            raise ConfigError(f"`classes` must name at least two different labels; got {list(classes)}.")

    @property
    def kind(self) -> str:
        """``embedding``, ``classes`` or ``number``."""
        return "classes" if self.classes is not None else "number" if self.values is not None else "embedding"

    @property
    def labels(self) -> tuple[str, ...]:
        """The different labels of ``classes``, in order."""
        return tuple(dict.fromkeys(label for label in self.classes or () if label is not None))

    def probabilities(self, raw: torch.Tensor) -> torch.Tensor:
        """Outputs (b, n), all of them => float64 (b, number of ``labels``), rows sum to one.

        Raises:
            ShapeError: another number of outputs, or what must be probabilities does not sum to one.
        """
        by_column = self._activated(raw)
        assert self.classes is not None
        if by_column.shape[1] != len(self.classes):
            raise ShapeError(f"{by_column.shape[1]} outputs for {len(self.classes)} `classes`.")
        sums = [by_column[:, [i for i, own in enumerate(self.classes) if own == label]].sum(1) for label in self.labels]
        joined = torch.stack(sums, dim=1)
        return joined / joined.sum(dim=1, keepdim=True)

    def numbers(self, raw: torch.Tensor) -> torch.Tensor:
        """Outputs (b, n), all of them => float64 (b,).

        Raises:
            ShapeError: as :meth:`probabilities`.
        """
        assert self.values is not None
        # a plain measurement need not sum to one
        factors = self._chosen(raw) if self.activation == "none" else self._activated(raw)
        if factors.shape[1] != len(self.values):
            raise ShapeError(f"{factors.shape[1]} outputs for {len(self.values)} `values`.")
        return factors @ torch.tensor(self.values, dtype=torch.float64)

    def _chosen(self, raw: torch.Tensor) -> torch.Tensor:
        raw = raw.detach().double().cpu()
        if self.columns is None:
            return raw
        if max(self.columns) >= raw.shape[1]:
            raise ShapeError(f"`columns` names output {max(self.columns)}, but there are {raw.shape[1]}, from 0.")
        return raw[:, list(self.columns)]

    def _activated(self, raw: torch.Tensor) -> torch.Tensor:
        chosen = self._chosen(raw)
        if self.activation == "softmax":
            return chosen.softmax(dim=1)
        if self.activation == "sigmoid":
            if chosen.shape[1] != 1:
                raise ShapeError(f"activation 'sigmoid' is for one output; got {chosen.shape[1]}.")
            return torch.cat([1 - chosen.sigmoid(), chosen.sigmoid()], dim=1)
        wrong = ((chosen < 0) | ((chosen.sum(dim=1, keepdim=True) - 1).abs() > SUM_TOLERANCE)).any()
        if wrong:
            raise ShapeError("the outputs are not probabilities (they do not sum to one); say activation 'softmax'.")
        return chosen
