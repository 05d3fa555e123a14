"""An image tower that has learned the labels before it meets any caption.

A small CLIP for photographs has a few thousand of them. Captions alone leave its image tower weak; the same tower
trained as a plain classifier of the table's columns, under strong augmentation, reads faces that it never saw much
better, and then learns in minutes what the sentences call what it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from vlbias.clip.augment import STRONG, Augmentation, augment
from vlbias.clip.small import ClipConfig, resized, small_preprocess
from vlbias.errors import ConfigError, ShapeError, TrainingError, unknown
from vlbias.files import AnyPath
from vlbias.images import to_float
from vlbias.optim import Resumable, TrainingState, WeightAverage, flush_denormals, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["LabelTargets", "TowerTrainingSettings", "train_tower"]

# A column of numbers with more values than this is a measurement, such as an age in years.
_MEASURED = 12


@dataclass(frozen=True)
class TowerTrainingSettings(Settings):
    """How an image tower learns labels.

    Attributes:
        num_images: images to show in all, counted with repetition.
        batch_size, learning_rate, weight_decay, warmup, ema_decay: as in ``ClipTrainingSettings``.
        num_bins: classes that a measured column is cut into.
        softness: standard deviation, in bins, of the target around a measured value, so that 39 and 41 years are
            neighbours and not two classes.
        augmentation: how images are changed at random.

    Raises:
        ConfigError: a value is out of range.
    """

    num_images: int = number(180_000, 1)
    batch_size: int = number(96, 2)
    learning_rate: float = number(1.5e-3, above=0)
    weight_decay: float = number(0.05, 0)
    warmup: float = number(0.05, 0, below=1)
    ema_decay: float = number(0.998, 0, below=1)
    num_bins: int = number(26, 2)
    softness: float = number(1.25, above=0)
    augmentation: Augmentation = STRONG


class LabelTargets:
    """Label columns as distributions over classes: one-hot for words, a soft bump over bins for measurements.

    Args:
        table: one row an image.
        columns: label columns; a missing label teaches nothing.
        num_bins, softness: see :class:`TowerTrainingSettings`.

    Attributes:
        blocks: for each column (n, classes) float32, rows of zeros where the label is missing.

    Raises:
        UnknownNameError: no such column.
        ConfigError: no column, or one with a single value.
    """

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


def train_tower(
    images: torch.Tensor,
    table: pd.DataFrame,
    columns: Sequence[str],
    config: ClipConfig | None = None,
    training: TowerTrainingSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    state_path: AnyPath | None = None,
    flip: bool = True,
    on_step: Callable[[int, float], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train the image tower of a small CLIP to read label columns through a linear head, which is then dropped.

    Args:
        images: uint8 (n, 3, h, w); resized to ``config.image_size`` once.
        table: labels, one row an image.
        columns: what to learn, see :class:`LabelTargets`.
        config: architecture; ``None`` for the default.
        training: ``None`` for the default.
        seed, device, state_path, flip, on_step: as in :func:`vlbias.clip.train_clip`.

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
        torch.manual_seed(seed)
        settings = {key: value for key, value in config.model_config(1).items() if key != "custom_text"}
        tower = open_clip.CustomTextCLIP(**settings).visual
        model = nn.Sequential(tower, nn.Linear(config.embed_dim, targets.num_classes))
    run = _TowerRun(model.to(device), training, len(images), seed, state_path)
    order, epoch = torch.empty(0, dtype=torch.long), -1
    with flush_denormals(), track(training.num_images, "training the image tower", "images") as progress:
        progress.resume_at(run.seen)
        while run.seen < training.num_images:
            if run.seen // len(images) != epoch:
                epoch = run.seen // len(images)
                order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + 7919 * epoch))
            start = run.seen % len(images)
            index = order[start : start + training.batch_size]
            generator = torch.Generator().manual_seed(seed * 1_000_003 + run.step)
            x = augment(to_float(images[index].to(device)), training.augmentation, generator, flip=flip)
            loss = run.optimise(targets.loss(run.model(preprocess(x)), index))
            run.seen += len(index)
            progress.update(len(index), loss=loss)
            if on_step is not None:
                on_step(run.seen, loss)
            run.state.save_when_due(seen=run.seen, step=run.step)
    run.state.save(seen=run.seen, step=run.step)
    learned = run.average.module[0]
    return {name: value.detach().clone() for name, value in learned.state_dict().items()}


class _TowerRun:
    """Model, optimiser, average and counters: everything that a resumed run needs."""

    def __init__(
        self, model: nn.Sequential, training: TowerTrainingSettings, n: int, seed: int, state_path: AnyPath | None
    ):
        self.model, self.training = model, training
        model.train()
        self.seen = self.step = 0
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=training.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.average = WeightAverage(self.model, training.ema_decay)
        identity = {"images": n, "seed": seed, "training": asdict(training)}
        parts: dict[str, Resumable] = {"model": self.model, "average": self.average, "optimizer": self.optimizer}
        self.state = TrainingState(state_path, identity, parts)
        if counters := self.state.load():
            self.seen, self.step = counters["seen"], counters["step"]

    def optimise(self, loss: torch.Tensor) -> float:
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss became {loss.item()} after {self.seen} images; lower `learning_rate`.")
        share = self.seen / self.training.num_images
        warmup = (share + 1e-3) / self.training.warmup if self.training.warmup else 1.0
        set_learning_rate(self.optimizer, self.training.learning_rate, share, warmup=warmup)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return loss.item()
