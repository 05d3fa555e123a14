"""How predictions are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlbias.errors import ConfigError, unknown
from vlbias.fairness.metrics import OVER_CLASSES
from vlbias.labels import label_text

__all__ = ["EvaluationSettings"]


@dataclass(frozen=True)
class EvaluationSettings:
    """How predictions are evaluated.

    Attributes:
        positive: the class that true and false positive rates and selection rates speak of. ``None`` takes 1 where the
            classes are 0 and 1, and otherwise joins all classes, each against the rest.
        over_classes: how classes are joined: ``"worst"`` (largest difference, smallest ratio) or ``"mean"``.
        min_cell: ``None`` makes an empty group or cell an error; a number leaves out rates that rest on fewer items
            than that, and counts the cells left out.
        classes: all classes in order; ``None`` takes those of the truth.
        group_names: all groups in order; ``None`` takes those that occur.
        bootstrap: resamples for the percentile intervals; 0 for none.
        level: coverage of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        ConfigError: a value out of range.
    """

    positive: Any = None
    over_classes: str = "worst"
    min_cell: int | None = None
    classes: Sequence[Any] | None = None
    group_names: Sequence[Any] | None = None
    bootstrap: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.over_classes not in OVER_CLASSES:
            raise ConfigError(f"`over_classes` must be 'worst' or 'mean'; got {self.over_classes!r}.")
        if not 0 < self.level < 1 or self.bootstrap < 0:
            raise ConfigError(
                f"`level` must be in (0, 1) and `bootstrap` >= 0; got {self.level} and {self.bootstrap}."
            )
        if self.min_cell is not None and self.min_cell < 1:
            raise ConfigError(f"`min_cell` must be >= 1 or None; got {self.min_cell}.")

    def for_counts(self, classes: Sequence[Any]) -> dict[str, Any]:
        """The options of :func:`metrics_from_counts` for these classes.

        Raises:
            UnknownNameError: ``positive`` is none of them.
        """
        return {
            "positive": _code(self.positive, list(classes)),
            "over_classes": self.over_classes,
            "min_cell": self.min_cell or 1,
        }


def _code(positive: Any, classes: list[Any]) -> int | None:
    texts = [label_text(label) for label in classes]
    if positive is None:
        # The usual case of 0/1 labels follows fairlearn: 1 is the positive class.
        return 1 if texts == ["0", "1"] else None
    if label_text(positive) not in texts:
        raise unknown("positive class", positive, classes)
    return texts.index(label_text(positive))
