"""An image tower that has learned the labels before it meets any caption.

A small CLIP for photographs has a few thousand of them. Captions alone leave its image tower weak; the same tower
trained as a plain classifier of the table's columns, under strong augmentation, reads faces that it never saw much
better, and then learns in minutes what the sentences call what it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from vlbias.arguments import checked_call
from vlbias.augment import STRONG, Augmentation
from vlbias.clip.learner import Learner, LearningSettings
from vlbias.clip.small import ClipConfig, resized, small_preprocess
from vlbias.errors import ConfigError, ShapeError, unknown
from vlbias.files import AnyPath
from vlbias.settings import number

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelTargets", "TowerTrainingSettings", "train_tower"]

# A column of numbers with more values than this is a measurement, such as an age in years.
_MEASURED = 12


@dataclass(frozen=True)
class TowerTrainingSettings(LearningSettings):
    """How an image tower learns labels; see :class:`LearningSettings` for the settings that it shares.

    Attributes:
        num_bins: classes that a measured column is cut into.
        softness: standard deviation, in bins, of the target around a measured value, so that 39 and 41 years are
            neighbours and not two classes.

    Raises:
        ConfigError: a value is out of range.
    """

    num_images: int = number(180_000, 1)
    batch_size: int = number(96, 2, 65_536)
    ema_decay: float = number(0.998, 0, below=1)
    augmentation: Augmentation = STRONG
    num_bins: int = number(26, 2, 4096)
    softness: float = number(1.25, above=0)


class LabelTargets:
    """Label columns as distributions over classes: one-hot for words, a soft bump over bins for measurements.

    Args:
        table: one row per image.
        columns: label columns; a missing label teaches nothing.
        num_bins, softness: see :class:`TowerTrainingSettings`.

    Attributes:
        blocks: for each column (n, classes) float32, rows of zeros where the label is missing.

    Raises:
        UnknownNameError: no such column.
        ConfigError: no column, or one with a single value.
    """

    @checked_call
    def __init__(self, table: pd.DataFrame, columns: Sequence[str], *, num_bins: int = 26, softness: float = 1.25):
        if not columns:
            raise ConfigError("`columns` is empty; an image tower needs a label to learn.")
        self.columns = list(columns)
        self.blocks = [self._block(table, column, num_bins, softness) for column in columns]

    @property
    def num_classes(self) -> int:
        """Of all columns together: outputs of the linear head."""
        return sum(block.shape[1] for block in self.blocks)

    def loss(self, logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits (b, num_classes) for the rows ``index``, summed over columns."""
        total, start = logits.new_zeros(()), 0
        for block in self.blocks:
            target = block[index].to(logits.device)
            own = logits[:, start : start + block.shape[1]].log_softmax(dim=1)
            total = total - (target * own).sum() / target.sum().clamp_min(1.0)
            start += block.shape[1]
        return total

    @staticmethod
    def _block(table: pd.DataFrame, column: str, num_bins: int, softness: float) -> torch.Tensor:
        import pandas as pd  # half a second, which a single edit does not need

        if column not in table.columns:
            raise unknown("column", column, table.columns)
        values = table[column]
        known = values.notna().to_numpy()
        if values.nunique() < 2:
            raise ConfigError(f"column '{column}' has fewer than two values; there is nothing to learn from it.")
        if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= _MEASURED:
            coded = pd.get_dummies(values.astype(object)).to_numpy(dtype=np.float32)
            return torch.from_numpy(coded * known[:, None])
        numbers = torch.tensor(values.astype(float).fillna(0.0).to_numpy())
        low, high = (float(bound) for bound in np.nanpercentile(values.astype(float), [0.5, 99.5]))
        centres = torch.linspace(low, high, num_bins, dtype=torch.float64)
        width = softness * (high - low) / (num_bins - 1)
        soft = torch.softmax(-((numbers.clamp(low, high)[:, None] - centres) ** 2) / (2 * width**2), dim=1)
        return (soft * torch.tensor(known)[:, None]).float()


@checked_call
def train_tower(
    images: torch.Tensor,
    table: pd.DataFrame,
    columns: Sequence[str],
    config: ClipConfig | None = None,
    training: TowerTrainingSettings | None = None,
    *,
    state_path: AnyPath | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train the image tower of a small CLIP to read label columns through a linear head, which is then dropped.

    Args:
        images: uint8 (n, 3, h, w); resized to ``config.image_size`` once.
        table: labels, one row per image.
        columns: what to learn, see :class:`LabelTargets`.
        config: architecture; ``None`` for the default.
        training: ``None`` for the default.
        state_path, on_step: as in :func:`vlbias.clip.train_clip`.

    Returns:
        The averaged weights, for ``train_clip(..., tower=...)``.

    Raises:
        ShapeError: ``images`` is not uint8 (n, 3, h, w), or the table has another length.
        TrainingError: the loss became NaN, or ``state_path`` belongs to another run.
    """
    import open_clip

    config, training = config or ClipConfig(), training or TowerTrainingSettings()
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8 or len(images) != len(table):
        raise ShapeError(
            f"`images` must be uint8 (n, 3, h, w) with one row of the table each; got {images.dtype} "
            f"{tuple(images.shape)} and {len(table)} rows."
        )
    preprocess = small_preprocess(config)
    targets = LabelTargets(table, columns, num_bins=training.num_bins, softness=training.softness)
    images = resized(images, config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        settings = {key: value for key, value in config.model_config(1).items() if key != "custom_text"}
        tower = open_clip.CustomTextCLIP(**settings).visual
        model = nn.Sequential(tower, nn.Linear(config.embed_dim, targets.num_classes)).to(training.device).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    learner = Learner(model, groups, images, training, {}, state_path)

    def loss_of(index: torch.Tensor, x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
        return targets.loss(model(preprocess(x)), index)

    learner.run("training the image tower", loss_of, on_step=on_step)
    learned = learner.average.module.get_submodule("0")
    return {name: value.detach().clone() for name, value in learned.state_dict().items()}
