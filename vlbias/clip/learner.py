"""What both trainings of a CLIP share: settings, the order of the images, one step, and a state to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vlbias.augment import MILD, Augmentation, augment
from vlbias.errors import TrainingError
from vlbias.files import AnyPath
from vlbias.images import to_float
from vlbias.optim import Resumable, TrainingState, WeightAverage, flush_denormals, held_for, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["Learner", "LearningSettings"]


@dataclass(frozen=True)
class LearningSettings(Settings):
    """How networks learn from images in memory.

    Attributes:
        num_images: images to show in all, counted with repetition.
        max_seconds: stop after this time too (the learning rate is then annealed by the larger share of both budgets,
            so the result depends on the machine); ``None`` for no limit.
        batch_size: images of one step.
        learning_rate, weight_decay, warmup: AdamW, linear warm-up over that share of the run, cosine decay to zero.
        ema_decay: of the weights that are returned.
        augmentation: how images are changed at random: ``MILD`` for drawn faces without end, ``STRONG`` for a few
            thousand photographs.
        flip: mirror images at random; turn it off if captions speak of left and right.
        seed: of weights, order and augmentation; the same seed gives the same weights on one machine, also when the
            run was interrupted (without ``max_seconds``).
        device: where to train.

    Raises:
        ConfigError: a value is out of range.
    """

    num_images: int = number(120_000, 1)
    max_seconds: float | None = number(None, above=0)
    batch_size: int = number(64, 2, 65_536)
    learning_rate: float = number(1.5e-3, above=0)
    weight_decay: float = number(0.05, 0)
    warmup: float = number(0.05, 0, below=1)
    ema_decay: float = number(0.99, 0, below=1)
    augmentation: Augmentation = MILD
    flip: bool = True
    seed: int = 0
    device: str = "cpu"


class Learner:
    """A network in training: optimiser, average, counters, and the images in their order.

    Args:
        model: what learns, on its device.
        groups: parameter groups of AdamW.
        images: uint8 (n, 3, h, w).
        settings: how.
        identity: what else a resumed run must share, beside the settings and the number of images.
        state_path: file for the state, written about once a minute and at the end; a run that finds it goes on from
            there. ``None`` keeps no state.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[Mapping[str, Any]],
        images: torch.Tensor,
        settings: LearningSettings,
        identity: Mapping[str, Any],
        state_path: AnyPath | None,
    ):
        self.model, self.images, self.settings = model, held_for(images, settings.device), settings
        self.seen = self.step = 0
        self._seconds_before, self._start = 0.0, time.monotonic()
        self.optimizer = torch.optim.AdamW(
            [dict(group) for group in groups], lr=settings.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.average = WeightAverage(model, settings.ema_decay)
        told = {key: value for key, value in settings.to_dict().items() if key != "device"}
        parts: dict[str, Resumable] = {"model": model, "average": self.average, "optimizer": self.optimizer}
        self._state = TrainingState(state_path, {"images": len(images), "settings": told, **identity}, parts)
        if counters := self._state.load(seen=int, step=int, seconds=float):
            self.seen, self.step, self._seconds_before = (counters[name] for name in ("seen", "step", "seconds"))

    def share(self) -> float:
        """How much of the budget is used, 0..1."""
        share = self.seen / self.settings.num_images
        if self.settings.max_seconds is not None:
            share = max(share, self._seconds() / self.settings.max_seconds)
        return min(share, 1.0)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    def run(
        self,
        title: str,
        loss_of: Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor],
        *,
        start_epoch: Callable[[int], None] = lambda epoch: None,
        after_step: Callable[[], dict[str, float]] = dict,
        on_step: Callable[[int, float], None] | None = None,
    ) -> None:
        """Train until the budget is used up.

        Args:
            title: of the progress line.
            loss_of: (rows (b,), augmented images (b, 3, h, w) in [-1, 1], generator of the step) => loss.
            start_epoch: called before the first step of each pass over the images.
            after_step: called after each step, before the average; what it returns is shown.
            on_step: called with (images seen, loss) after each step.
        """
        settings = self.settings
        with flush_denormals(), track(settings.num_images, title, "images") as progress:
            progress.resume_at(self.seen)
            for index in self._batches(start_epoch):
                generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
                x = to_float(self.images[index.to(self.images.device)].to(settings.device))
                x = augment(x, settings.augmentation, generator, flip=settings.flip)
                loss = self._optimise(loss_of(index, x, generator))
                shown = after_step()
                self.average.update()
                self.step += 1
                self.seen += len(index)
                progress.update(len(index), loss=loss, **shown)
                if on_step is not None:
                    on_step(self.seen, loss)
                self._state.save_when_due(seen=self.seen, step=self.step, seconds=self._seconds())
        self._state.save(seen=self.seen, step=self.step, seconds=self._seconds())

    def _batches(self, start_epoch: Callable[[int], None]) -> Iterator[torch.Tensor]:
        """Rows of each step; the last step of a pass may have fewer."""
        n, epoch, order = len(self.images), -1, torch.empty(0, dtype=torch.long)
        while self.share() < 1:
            if self.seen // n != epoch:
                epoch = self.seen // n
                generator = torch.Generator().manual_seed(self.settings.seed + 7919 * epoch)
                order = torch.randperm(n, generator=generator)
                start_epoch(epoch)
            start = self.seen % n
            yield order[start : start + self.settings.batch_size]

    def _optimise(self, loss: torch.Tensor) -> float:
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss became {loss.item()} after {self.seen} images; lower `learning_rate`.")
        share, warmup = self.share(), self.settings.warmup
        ramp = (share + 1e-3) / warmup if warmup else 1.0
        set_learning_rate(self.optimizer, self.settings.learning_rate, share, warmup=ramp)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()
