"""How predictions are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vlbias.errors import unknown
from vlbias.labels import label_text
from vlbias.settings import MAX_DRAWS, Settings, number

__all__ = ["EvaluationSettings"]


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """How predictions are evaluated.

    Attributes:
        positive: the class that true and false positive rates and selection rates speak of. ``None`` takes 1 where the
            classes are 0 and 1, and otherwise joins all classes, each against the rest.
        over_classes: how classes are joined: ``"worst"`` (largest difference, smallest ratio) or ``"mean"``.
        min_cell: ``None`` makes an empty group or cell an error; a number leaves out rates that rest on fewer items
            than that, and counts the cells left out.
        classes: all classes in order; ``None`` takes those of the truth.
        group_names: all groups in order; ``None`` takes those that occur.
        bootstrap: resamples for the intervals; 0 for none.
        level: coverage of the intervals, in (0, 1).
        seed: of the resampling.

    Raises:
        ConfigError: a value out of range.
    """

    positive: Any = None
    over_classes: Literal["worst", "mean"] = "worst"
    min_cell: int | None = number(None, 1)
    classes: Sequence[Any] | None = None
    group_names: Sequence[Any] | None = None
    bootstrap: int = number(1000, 0, MAX_DRAWS)
    level: float = number(0.95, above=0, below=1)
    seed: int = number(0, 0)

    def for_counts(self, classes: Sequence[object]) -> dict[str, Any]:
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
