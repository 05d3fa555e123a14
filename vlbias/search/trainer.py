"""Train one configuration, epoch by epoch, so that a rung goes on where the one below stopped."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.arguments import checked_call
from vlbias.classify import create_backbone
from vlbias.errors import CheckpointError, ConfigError, ShapeError, TrainingError
from vlbias.images import to_float
from vlbias.optim import Resumable, TrainingState, device_of, in_bfloat16, set_learning_rate
from vlbias.search.cell import dpn_cell
from vlbias.search.evaluation import Evaluation
from vlbias.search.heads import Head, make_head
from vlbias.search.metrics import identification_ranks
from vlbias.search.mitigations import NO_MITIGATION, Mitigation, make_mitigation, removal_network
from vlbias.search.spaces import DPN_CELL, Configuration, Space
from vlbias.search.streaming import Images, batches
from vlbias.search.task import Sample, Task
from vlbias.search.team import Order, packed, team, unpacked
from vlbias.settings import Settings, checked_number, number

__all__ = ["Embedder", "Recipe", "TrainSettings", "Trainer", "embed"]

#: Dimensions of the published embeddings.
_PUBLISHED_SIZE = 512


@dataclass(frozen=True)
class TrainSettings(Settings):
    """How every configuration is trained; the published protocol where it has one.

    Args:
        batch_size: images a step (64 in the paper).
        weight_decay: of every optimizer (1e-4).
        momentum: of SGD (0.9).
        warmup_epochs: linear warm-up (3 in the paper). A study cuts it to half of its smallest rung, so that trials
            are compared after a while at their full rate.
        flip: mirror each training image with probability one half.
        device: "cpu", "cuda", ...; None takes CUDA where there is one.
        amp: run the backbone in bfloat16 while training; heads, losses and evaluations stay in float32, as do images
            below 32 px on a processor.
        num_workers: processes that decode images which are too many for memory; results do not hang on it. None for one
            a processor, 8 at most; 0 for none.
    """

    batch_size: int = number(64, 2, 65_536)
    weight_decay: float = number(1e-4, 0)
    momentum: float = number(0.9, 0, below=1)
    warmup_epochs: float = number(3.0, 0)
    flip: bool = True
    device: str | None = None
    amp: bool = False
    num_workers: int | None = number(None, 0, 1024)

    def resolved_device(self) -> torch.device:
        """``device``, or CUDA where there is one, else the processor."""
        return device_of(self.device)


class Embedder(nn.Module):
    """Backbone, linear layer and batch norm: image in [-1, 1] (b, 3, h, w) => embedding (b, embedding_size).

    Attributes:
        image_size: side in pixels of the images it is built for.
    """

    def __init__(self, configuration: Configuration, space: Space, image_size: int):
        super().__init__()
        self.image_size = image_size
        if configuration.backbone == DPN_CELL:
            assert configuration.cell is not None
            self.backbone = dpn_cell(configuration.cell, space.skeleton)
        else:
            file = space.pretrained.get(configuration.backbone)
            self.backbone = create_backbone(configuration.backbone, 0, image_size=image_size, pretrained_file=file)
        with torch.no_grad():
            was_training = self.backbone.training
            features = self.backbone.eval()(torch.zeros(1, 3, image_size, image_size)).shape[1]
            self.backbone.train(was_training)
        self.projection = nn.Linear(features, space.embedding_size)
        self.norm = nn.BatchNorm1d(space.embedding_size)
        if configuration.head == "magface":
            # Its margins grow with lengths of 10 to 110, and batch norm gives sqrt(d): 23 for the published 512
            # dimensions, but 8 for 64, where all margins would be equal.
            nn.init.constant_(self.norm.weight, math.sqrt(_PUBLISHED_SIZE / space.embedding_size))
        removes_group = configuration.mitigation == "sensitivenets"
        self.removal = removal_network(space.embedding_size) if removes_group else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [-1, 1] => embeddings (b, embedding_size)."""
        return self.removal(self.norm(self.projection(self.backbone(x))))


@torch.no_grad()
@checked_call
def embed(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int = 256,
    device: torch.device | None = None,
    num_workers: int | None = None,
) -> Tensor:
    """uint8 (n, 3, h, w) => unit vectors (n, d): the sum of both mirror images, normalised (as published).

    Raises:
        ConfigError: ``batch_size`` or ``num_workers`` out of range, or no images. ShapeError: images in other numbers.
    """
    if isinstance(images, Tensor) and images.dtype != torch.uint8:
        raise ShapeError(f"`images` must be uint8 (n, 3, h, w) in 0..255; got {images.dtype}.")
    checked_number("batch_size", batch_size, low=1)
    checked_number("num_workers", num_workers or 0, low=0)
    checked_number("number of images", len(images), low=1)
    was_training = model.training
    model.eval()
    parts = []
    for batch in batches([images], _in_order(images, batch_size), num_workers):
        x = to_float(batch.to(device))
        parts.append(F.normalize(model(x) + model(x.flip(3))).cpu())
    model.train(was_training)
    return torch.cat(parts)


def _in_order(images: Images, batch_size: int) -> list[np.ndarray]:
    numbers = np.arange(len(images))
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


@dataclass(frozen=True)
class Recipe:
    """What all trainings of a study share.

    Args:
        task: images and labels.
        space: where configurations come from; it holds the sizes of the networks.
        max_epochs: the full budget.
        warmup_epochs: already cut to the smallest rung.
        settings: of training.
        seed: of the study.
    """

    task: Task
    space: Space
    max_epochs: int
    warmup_epochs: float
    settings: TrainSettings
    seed: int

    def trainer(self, configuration: Configuration, *numbers: int) -> Trainer:
        """A training of one configuration; ``numbers`` (of the trial, of the refit) make its seed its own."""
        return Trainer(
            self.task,
            configuration,
            self.space,
            max_epochs=self.max_epochs,
            warmup_epochs=self.warmup_epochs,
            seed=(self.seed, *numbers),
            settings=self.settings,
        )

    def share(self) -> None:
        """Let the other processes that were started with this one train along; they do not return from here.

        Raises:
            ConfigError: batches are smaller than there are processes, or the others follow another search.
        """
        others = team(self.settings.device)
        if min(self.settings.batch_size, len(self.task.train)) < others.size:
            raise ConfigError(f"Batches of {self.settings.batch_size} images are too few for {others.size} processes.")
        others.lead()
        if not others.is_first:
            self._follow()
            raise SystemExit

    def _follow(self) -> None:
        others = team(self.settings.device)
        while (order := others.take()) is not None:
            configuration = Configuration.from_dict(order.configuration)
            trainer = self.trainer(configuration, *order.seed[1:])
            trainer.obey(order)


class Trainer:
    """One configuration under training.

    Every random choice comes from (seed, epoch), so training that was interrupted and continued from its checkpoint
    ends with the same weights as training that was not.

    Args:
        seed: of the initial weights and the order of images.
        max_epochs: full budget; the cosine schedule ends there, also for trials that are stopped before.
        warmup_epochs: linear warm-up, already cut to the smallest rung.
    """

    def __init__(
        self,
        task: Task,
        configuration: Configuration,
        space: Space,
        *,
        max_epochs: int,
        warmup_epochs: float,
        seed: tuple[int, ...],
        settings: TrainSettings | None = None,
    ):
        if configuration.augmentation > 0 and not task.has_edits:
            raise ConfigError("`augmentation` is above 0 but there are no edited images; give `edits=` or fix it at 0.")
        self.task, self.configuration, self.space = task, configuration, space
        self.settings = settings or TrainSettings()
        self.team = team(self.settings.device)
        self.device = self.team.device or self.settings.resolved_device()
        self.max_epochs, self.warmup_epochs, self.seed = max_epochs, warmup_epochs, seed
        self.epoch = 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(*seed))
            self.model: nn.Module = Embedder(configuration, space, task.image_size)
            self.head: Head = make_head(configuration.head, space.embedding_size, len(task.classes))
            labels, groups = task.codes(task.table[(task.table["split"] == "train") & ~task.table["edited"]])
            num_groups, name = len(task.groups), configuration.mitigation
            self.mitigation = make_mitigation(
                name, space.embedding_size, labels=labels, groups=groups, num_groups=num_groups
            )
        for part in (self.model, self.head, self.mitigation):
            part.to(self.device)
        self.optimizer = self._make_optimizer()

    def advance(self, to_epoch: int, on_epoch: Callable[[Trainer, float], None] | None = None) -> None:
        """Train up to ``to_epoch`` epochs in all; ``on_epoch(self, loss)`` is called after each.

        Raises:
            TrainingError: the loss is not finite.
        """
        if self.team.size > 1:
            states = packed({name: part.state_dict() for name, part in self._parts.items()})
            self.team.give(Order(self.configuration.to_dict(), self.seed, (self.epoch, to_epoch), states))
        self._train(to_epoch, on_epoch)

    def obey(self, order: Order) -> None:
        """Train along with the process that ordered it; whatever goes wrong there as well is told there."""
        for name, state in unpacked(order.state).items():
            self._parts[name].load_state_dict(state)
        self.epoch = order.epochs[0]
        with suppress(TrainingError):
            self._train(order.epochs[1])

    def _train(self, to_epoch: int, on_epoch: Callable[[Trainer, float], None] | None = None) -> None:
        step = self.team.wrapped(_Step(self.model, self.head, self.mitigation))
        while self.epoch < to_epoch:
            loss = self._one_epoch(step)
            self.epoch += 1
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss is {loss} in epoch {self.epoch} ({self.configuration.label()}); "
                    "the learning rate is too high."
                )
            if on_epoch is not None:
                on_epoch(self, loss)

    def evaluate(self, split: str = "val") -> Evaluation:
        """Outcome on every image of a split.

        Raises:
            TrainingError: embeddings are not finite.
        """
        sample, workers = self.task.sample(split), self.settings.num_workers
        return evaluate_model(self.model, self.head, self.task, sample, self.device, num_workers=workers)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        self._state(path).save(epoch=self.epoch)

    def load(self, path: Path) -> None:
        """Go on from :meth:`save`.

        Raises:
            CheckpointError: the file is missing or damaged.
            TrainingError: it is of another configuration.
        """
        counters = self._state(path).load(epoch=int)
        if counters is None:
            raise CheckpointError(f"{path} does not exist; it should continue {self.configuration.label()}.")
        self.epoch = counters["epoch"]

    def _state(self, path: Path) -> TrainingState:
        return TrainingState(path, {"configuration": self.configuration.to_dict()}, self._parts)

    @property
    def _parts(self) -> dict[str, Resumable]:
        """What has a state."""
        parts: dict[str, Resumable] = {"model": self.model, "head": self.head, "optimizer": self.optimizer}
        is_mitigated = self.configuration.mitigation != NO_MITIGATION
        return parts | {"mitigation": self.mitigation} if is_mitigated else parts

    def _make_optimizer(self) -> torch.optim.Optimizer:
        rate, decay = self.configuration.learning_rate, self.settings.weight_decay
        parameters: list[dict[str, Any]] = [{"params": [*self.model.parameters(), *self.head.parameters()]}]
        if own := list(self.mitigation.parameters()):
            parameters.append({"params": own, "rate": self.mitigation.rate(self.configuration.optimizer, rate)})
        if self.configuration.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=rate, momentum=self.settings.momentum, weight_decay=decay)
        kind = torch.optim.AdamW if self.configuration.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, lr=rate, weight_decay=decay)

    def _one_epoch(self, step: nn.Module) -> float:
        generator = np.random.default_rng((_mix(*self.seed), self.epoch))
        order, from_edits = self._draw(generator)
        parts = [self.task.train, self.task.edited] if from_edits.any() else [self.task.train]
        labels, groups = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "groups"))
        numbers = order + len(parts[0]) * from_edits
        # The last batch may hold one image, and batch norm needs two: it joins the batch before it.
        num_steps = max(1, len(order) // self.settings.batch_size)
        chunks = np.array_split(numbers, num_steps)
        own = [self.team.part(chunk) for chunk in chunks]
        loaded = batches([part.images for part in parts], own, self.settings.num_workers)
        step.train()
        total = 0.0
        for i, (chosen, images) in enumerate(zip(chunks, loaded, strict=True)):
            done = self.epoch + i / num_steps
            self._set_rate(done)
            wanted = self.mitigation.changed_labels(labels[chosen], groups[chosen], generator)
            mine = self.team.part(np.arange(len(chosen)))
            x = to_float(images.to(self.device))
            if self.settings.flip:
                mirrored = torch.from_numpy(generator.random(len(chosen))[mine] < 0.5).to(self.device)
                x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            y, group = (torch.from_numpy(codes[mine]).to(self.device) for codes in (wanted, groups[chosen]))
            self.optimizer.zero_grad(set_to_none=True)
            with self.team.whole_batches():
                loss = step(x, y, group, done / self.max_epochs, self.settings.amp)
            # A process's gradient counts by its images; gradients are averaged.
            (loss * (self.team.size * len(mine) / len(chosen)) if self.team.size > 1 else loss).backward()
            self.optimizer.step()
            total += float(self.team.add_up(loss.detach() * (len(mine) / len(chosen))))
            if not math.isfinite(total):
                return float("nan")
        self.mitigation.end_epoch(self.team.add_up)
        return total / num_steps

    def _draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image numbers of one epoch (n,) and which of them are edits: as many steps whatever the share of edits."""
        n = len(self.task.train)
        order, from_edits = generator.permutation(n), np.zeros(n, dtype=bool)
        num_edits = round(self.configuration.augmentation * n)
        if num_edits:
            available = len(self.task.edited)
            rounds = [generator.permutation(available) for _ in range(-(-num_edits // available))]
            slots = generator.permutation(n)[:num_edits]
            order[slots] = np.concatenate(rounds)[:num_edits]
            from_edits[slots] = True
        return order, from_edits

    def _set_rate(self, epoch: float) -> None:
        """Linear warm-up, then half a cosine down to a hundredth at ``max_epochs``."""
        share = max(epoch - self.warmup_epochs, 0) / max(self.max_epochs - self.warmup_epochs, 1e-9)
        warmup = (epoch + 1e-2) / (self.warmup_epochs + 1e-2)
        set_learning_rate(self.optimizer, self.configuration.learning_rate, share, warmup=warmup, floor=0.01)


class _Step(nn.Module):
    """All that learns, as one module: images => loss of a step."""

    def __init__(self, model: nn.Module, head: Head, mitigation: Mitigation):
        super().__init__()
        self.model, self.head, self.mitigation = model, head, mitigation

    def forward(self, x: Tensor, labels: Tensor, groups: Tensor, share: float, amp: bool) -> Tensor:
        with in_bfloat16(x, amp):
            z = self.model(x)
        loss: Tensor = self.mitigation(self.head, z.float(), labels, groups, share)
        return loss


def evaluate_model(
    model: nn.Module,
    head: Head | None,
    task: Task,
    sample: Sample,
    device: torch.device | None = None,
    *,
    num_workers: int | None = None,
) -> Evaluation:
    """Evaluate a model (and its head, for "classify") on a sample of a task."""
    if task.kind == "identify":
        z = embed(model, sample.images, device=device, num_workers=num_workers)
        if not torch.isfinite(z).all():
            raise TrainingError("The embeddings are not finite; training diverged.")
        ranks = identification_ranks(z, sample.persons, sample.groups)
        outcome = np.stack([ranks.by_id, ranks.by_image])
        return task.evaluation(sample, outcome, float(z.std(dim=0).mean()), ranks.impostors)
    assert head is not None
    predicted = _predict(model, head, sample.images, device, num_workers)
    return task.evaluation(sample, np.stack([sample.labels, predicted]), float(len(np.unique(predicted))))


@torch.no_grad()
def _predict(
    model: nn.Module, head: Head, images: Images, device: torch.device | None, num_workers: int | None = None
) -> np.ndarray:
    model.eval()
    head.eval()
    parts = []
    for batch in batches([images], _in_order(images, 256), num_workers):
        logits = head.logits(model(to_float(batch.to(device))))
        if not torch.isfinite(logits).all():
            raise TrainingError("The logits are not finite; training diverged.")
        parts.append(logits.argmax(1).cpu())
    return torch.cat(parts).numpy()


def _mix(*parts: int) -> int:
    """Several integers -> one seed of 63 bits."""
    return int(
        np.random.SeedSequence([part % 2**32 for part in parts]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1
    )
