"""Distillation: a copy of the UNet learns to make in few evaluations the edits for which its teacher takes many.

Progressive distillation (Salimans & Ho 2022) and consistency models (Song et al. 2023) shorten the way from noise to a
picture. Here both directions are shortened at once, and no more of them than an edit needs: the student inverts a face,
comes back with another code (:func:`vlbias.diffae.multistep.trace`, ``retrace``), and learns the picture at which its
teacher arrives. With the face's own code any student comes back to the face itself, so it learns changes alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vlbias.arguments import checked_call
from vlbias.checkpoints import weights_digest
from vlbias.diffae.betas import Process
from vlbias.diffae.model import DiffAE, with_unet
from vlbias.diffae.multistep import retrace, trace
from vlbias.diffae.student import Student
from vlbias.diffae.training import check_pixels
from vlbias.diffae.unet import UNet
from vlbias.errors import TrainingError
from vlbias.files import AnyPath
from vlbias.images import to_float
from vlbias.optim import TrainingState, WeightAverage, flush_denormals, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["DistillationSettings", "Walk", "mixed", "train_student"]

#: Semantic codes (b, d) and a generator of what is drawn at random => codes (b, d) to which the faces are edited.
Walk = Callable[[Tensor, torch.Generator], Tensor]

#: Most batches of faces whose edits the teacher makes at a time; what a resumed run must make again.
_BATCHES = 4
#: Change that counts as none, as a mean square: a third of a grey level.
_NO_CHANGE = (1 / 3 / 127.5) ** 2


@dataclass(frozen=True)
class DistillationSettings(Settings):
    """Settings of :func:`train_student`; the defaults suit a small model at 64 px and half an hour of one core.

    Attributes:
        edit_evaluations: network evaluations of the student's edits there, and as many back.
        teacher_evaluations: of the teacher's edits, in the same way.
        num_steps: optimiser steps.
        batch_size: edits of a step.
        walks: edits that the teacher makes of each face that it has traced.
        passes: how often an edit is learned from before others take its place.
        learning_rate: peak of AdamW's rate, with a short warm-up and half a cosine.
        ema_decay: of the averaged weights.
        seed: of everything drawn.
    """

    edit_evaluations: int = number(1, 1, 1000)
    teacher_evaluations: int = number(6, 1, 1000)
    num_steps: int = number(1_000, 1)
    batch_size: int = number(16, 1, 65_536)
    walks: int = number(3, 1, 1000)
    passes: int = number(4, 1, 1000)
    learning_rate: float = number(3e-4, above=0)
    ema_decay: float = number(0.995, 0, 1)
    seed: int = 0


class _Edits(NamedTuple):
    """Edits of the teacher: faces (n, c, h, w), their codes (n, d), the codes walked to, and what came of it."""

    x_0: Tensor
    z_sem: Tensor
    z_edit: Tensor
    edited: Tensor


def mixed(z_sem: Tensor, generator: torch.Generator) -> Tensor:
    """A walk for an autoencoder without paths: up to half of the way to the code of another face of the batch."""
    others = z_sem.roll(int(torch.randint(1, max(2, len(z_sem)), (), generator=generator)), dims=0)
    share = 0.5 * torch.rand(len(z_sem), 1, generator=generator).to(z_sem.device)
    return z_sem + share * (others - z_sem)


@checked_call
def train_student(
    model: DiffAE,
    images: Tensor,
    config: DistillationSettings | None = None,
    *,
    walk: Walk = mixed,
    state_path: AnyPath | None = None,
) -> Student:
    """Teach a copy of the UNet to edit in ``config.edit_evaluations`` there and as many back.

    What a step does depends on the seed and its number alone, so a run that was killed and goes on from its state ends
    with the same weights as one that was left alone.

    Args:
        model: the teacher; it is not changed.
        images: faces to edit, uint8 (n, c, h, w), in memory; they are mirrored at random.
        config: ``None`` for the defaults.
        walk: where edits lead; by default towards other faces, as the paths of an editor are not known here.
        state_path: a file to go on from after a kill; ``None`` keeps none.

    Returns:
        The student, frozen, with averaged weights.

    Raises:
        ConfigError: ``images`` are not what the model takes.
        CheckpointError: the state is damaged. TrainingError: it is that of another run, or the loss is not finite.
    """
    config = config or DistillationSettings()
    check_pixels(model.config, images=images)
    unet = copy.deepcopy(model.unet).eval().requires_grad_(True)
    average = WeightAverage(unet, config.ema_decay)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=config.learning_rate, weight_decay=0.0, betas=(0.9, 0.99), fused=True
    )
    identity = {"settings": config.to_dict(), "faces": len(images), "teacher": weights_digest(model)}
    state = TrainingState(state_path, identity, {"unet": unet, "average": average, "optimizer": optimizer})
    first = (state.load(step=int) or {"step": 0})["step"]
    teacher = _Teacher(model, images, walk, config)
    with flush_denormals(), track(config.num_steps, "train distill", "steps") as progress:
        progress.resume_at(first)
        for step in range(first, config.num_steps):
            set_learning_rate(optimizer, config.learning_rate, step / config.num_steps, warmup=(step + 1) / 50)
            loss = _loss(unet, model.process, teacher.batch(step), config.edit_evaluations)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
            if not math.isfinite(float(norm)):
                raise TrainingError(f"The gradient is not finite at step {step}; lower `learning_rate`.")
            optimizer.step()
            average.update()
            state.save_when_due(step=step + 1)
            progress.update(1, loss=loss.item())
    state.save(step=config.num_steps)
    return Student(with_unet(model, average.module), config.edit_evaluations)


def _loss(unet: UNet, process: Process, edits: _Edits, num_steps: int) -> Tensor:
    """Mean square of what the student's edits lack, as a share of what the teacher's change; mean over the faces."""
    x_T, residuals = trace(partial(unet, z_sem=edits.z_sem), process, edits.x_0, num_steps)
    edited = retrace(partial(unet, z_sem=edits.z_edit), process, x_T, residuals)
    lacking, change = ((x - edits.edited).square().mean(dim=(1, 2, 3)) for x in (edited, edits.x_0))
    return (lacking / (change + _NO_CHANGE)).mean()


class _Teacher:
    """Batches of edits in many evaluations, each made once and shown ``passes`` times."""

    def __init__(self, model: DiffAE, images: Tensor, walk: Walk, config: DistillationSettings) -> None:
        self.model, self.images, self.walk, self.config = model, images, walk, config
        self.num_batches = min(_BATCHES, math.ceil(config.num_steps / (config.walks * config.passes)))
        self._made: tuple[int, _Edits] | None = None

    def batch(self, step: int) -> _Edits:
        """The edits of a step, a function of the seed and the step alone."""
        c, num_batches = self.config, self.num_batches * self.config.walks
        turn, place = divmod(step, num_batches)
        number = turn // c.passes
        if self._made is None or self._made[0] != number:
            batches = self._round(self._generator("edits", number))
            self._made = number, _Edits(*map(torch.cat, zip(*batches, strict=True)))
        order = torch.randperm(num_batches * c.batch_size, generator=self._generator("order", turn))
        rows = order[place * c.batch_size : (place + 1) * c.batch_size].to(self.model.device)
        return _Edits(*(part[rows] for part in self._made[1]))

    def _generator(self, use: Literal["edits", "order"], number: int) -> torch.Generator:
        seed = 2 * (self.config.seed * 1_000_003 + number) + (use == "order")
        return torch.Generator().manual_seed(seed % 2**63)

    def _round(self, generator: torch.Generator) -> list[_Edits]:
        return [edits for _ in range(self.num_batches) for edits in self._edits(generator)]

    @torch.no_grad()
    def _edits(self, generator: torch.Generator) -> list[_Edits]:
        """Faces of one batch, each walked several times."""
        c, model = self.config, self.model
        rows = torch.randint(len(self.images), (c.batch_size,), generator=generator)
        x_0 = to_float(self.images[rows])
        is_mirrored = torch.rand(len(x_0), 1, 1, 1, generator=generator) < 0.5
        x_0 = torch.where(is_mirrored, x_0.flip(-1), x_0).to(model.device)
        z_sem = model.encode(x_0)
        x_T, residuals = model.trace(x_0, z_sem, c.teacher_evaluations)
        edits = []
        for _ in range(c.walks):
            z_edit = self.walk(z_sem, generator)
            edits.append(_Edits(x_0, z_sem, z_edit, model.retrace(z_edit, x_T, residuals)))
        return edits
