"""Train a small CLIP on captioned faces: InfoNCE in which equal captions are not each other's negatives."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.clip.augment import MILD, Augmentation, augment
from vlbias.clip.batches import Captions, CaptionSource, Comparison, Statements
from vlbias.clip.captions import TableCaptions
from vlbias.clip.losses import caption_loss, statement_loss
from vlbias.clip.model import Clip
from vlbias.clip.small import ClipConfig, new_clip, resized, start_tower
from vlbias.errors import ShapeError, TrainingError
from vlbias.files import AnyPath
from vlbias.images import to_float
from vlbias.optim import TrainingState, WeightAverage, flush_denormals, set_learning_rate
from vlbias.progress import track
from vlbias.settings import Settings, number

__all__ = ["ClipTrainingSettings", "train_clip"]


@dataclass(frozen=True)
class ClipTrainingSettings(Settings):
    """How a CLIP is trained.

    Args:
        num_images: images to show in all, counted with repetition.
        max_seconds: stop after this time too (the learning rate is then annealed by the larger share of both budgets,
            so the result depends on the machine); ``None`` for no limit.
        batch_size: images of one step; each is compared with every caption of the step.
        learning_rate, weight_decay, warmup: AdamW, linear warm-up over that share of the run, cosine decay to zero.
        temperature: at the start; it is learned.
        ema_decay: of the weights that are returned.
        text_steps: steps of the text tower alone before any image is shown, 96 captions each (label tables only).
        freeze_text: share of the run during which the text tower then stands still (label tables only).
        statements: captions about each column that an image is compared with in a step (label tables only).
        noise_tokens: share of captions that get a meaningless token, so that words the captions never used disturb
            an embedding little.
        augmentation: how images are changed at random: ``MILD`` for drawn faces without end, ``STRONG`` for a few
            thousand photographs.
        tower_rate: factor of the learning rate for the trunk of an image tower that starts from given weights; its
            last, pooling layer learns at the full rate.

    Raises:
        ConfigError: a value is out of range.
    """

    num_images: int = number(120_000, 1)
    max_seconds: float | None = number(None, above=0)
    batch_size: int = number(64, 2)
    learning_rate: float = number(1.5e-3, above=0)
    weight_decay: float = number(0.05, 0)
    warmup: float = number(0.05, 0, below=1)
    temperature: float = number(0.1, 0.01, 1)
    ema_decay: float = number(0.99, 0, below=1)
    text_steps: int = number(350, 0)
    freeze_text: float = number(0.6, 0, 1)
    statements: int = number(4, 2)
    noise_tokens: float = number(0.15, 0, below=1)
    augmentation: Augmentation = MILD
    tower_rate: float = number(0.1, 0, 1)


def train_clip(
    images: torch.Tensor,
    captions: Captions,
    config: ClipConfig | None = None,
    training: ClipTrainingSettings | None = None,
    *,
    tower: Mapping[str, torch.Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    state_path: AnyPath | None = None,
    flip: bool = True,
    on_step: Callable[[int, float], None] | None = None,
) -> Clip:
    """Train a CLIP from nothing on captioned images.

    Two ways, by what is known of the captions. Plain captions: the contrast of CLIP (:func:`caption_loss`). Captions of
    a label table (:class:`TableCaptions`): first the text tower alone learns to put captions at anchors that the table
    gives (:meth:`TableCaptions.anchors`), then the image tower learns from statements about one column at a time
    (:func:`statement_loss`), with the text tower joining later. The plain contrast starts on a saddle, as neither tower
    tells anything apart yet, and small features of a face (a smile) do not leave it in some ten thousand images;
    a text tower that already separates them removes the saddle.

    Args:
        images: uint8 (n, 3, h, w), square or not; resized to ``config.image_size`` once.
        captions: see :data:`Captions`. Equal texts in a batch are one candidate, not each other's negatives. Captions
            must also say what is absent ("without glasses").
        config: architecture; ``None`` for the default.
        training: budget and optimiser; ``None`` for the default.
        tower: weights that the image tower starts from, such as those of :func:`vlbias.clip.train_tower`; ``None`` for
            random ones.
        seed: of weights, order and augmentation; the same seed gives the same weights on one machine, also when the
            run was interrupted (without ``max_seconds``).
        device: where to train.
        state_path: file for the state, written about once a minute and at the end; a run that finds it goes on from
            there. Delete it when the result is saved. ``None`` keeps no state.
        flip: mirror images at random; turn it off if captions speak of left and right.
        on_step: called with (images seen, loss) after each step.

    Returns:
        The averaged model, frozen.

    Raises:
        ShapeError: ``images`` is not uint8 (n, 3, h, w), or captions do not match it.
        TrainingError: the loss became NaN, or ``state_path`` belongs to another run.
    """
    config, training = config or ClipConfig(), training or ClipTrainingSettings()
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ShapeError(f"`images` must be uint8 (n, 3, h, w); got {images.dtype} {tuple(images.shape)}.")
    if len(images) < 2:
        raise ShapeError(f"`images` must hold two or more images to tell apart; got {len(images)}.")
    device = torch.device(device)
    source = CaptionSource(captions, len(images), seed)
    clip = new_clip(config, source.vocabulary_texts(), seed).to(device)
    if tower is not None:
        start_tower(clip.model.visual, tower)
    images = resized(images, config.image_size)
    run = _Run(clip, training, len(images), seed, state_path, started=tower is not None)
    source_step: Comparison = source
    if isinstance(captions, TableCaptions):
        source_step = Statements(captions, training.statements, seed)
        if run.step == 0:
            _train_text(clip, captions, source, source_step, training, seed)
    order, epoch = torch.empty(0, dtype=torch.long), -1
    clip.train().requires_grad_(True)
    with flush_denormals(), track(training.num_images, "training CLIP", "images") as progress:
        progress.resume_at(run.seen)
        while run.share() < 1:
            if run.seen // len(images) != epoch:
                epoch = run.seen // len(images)
                order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + 7919 * epoch))
                source_step.start_epoch(epoch)
            start = run.seen % len(images)
            index = order[start : start + training.batch_size]
            generator = torch.Generator().manual_seed(seed * 1_000_003 + run.step)
            x = to_float(images[index].to(device))
            x = augment(x, training.augmentation, generator, flip=flip)
            texts, fit, groups = source_step.compare(index, run.step)
            tokens = _with_noise(source.tokenize(clip.tokenizer, texts), clip, training.noise_tokens, generator)
            if groups is not None:
                clip.model.text.requires_grad_(run.share() >= training.freeze_text)
            loss = run.optimise(x, tokens.to(device), fit.to(device), groups)
            run.seen += len(index)
            progress.update(len(index), loss=loss, temperature=1 / clip.logit_scale)
            if on_step is not None:
                on_step(run.seen, loss)
            run.state.save_when_due(**run.counters())
    run.state.save(**run.counters())
    clip.model.load_state_dict(run.average.module.state_dict())
    clip.requires_grad_(False).eval()
    return clip


def _train_text(
    clip: Clip,
    captions: TableCaptions,
    source: CaptionSource,
    statements: Statements,
    training: ClipTrainingSettings,
    seed: int,
) -> None:
    """Text first: captions => the sum of their phrases' anchors, by cosine; half of them state one column alone."""
    if not training.text_steps:
        return
    texts, stated = captions.draw(0)
    full = [(text, phrases) for text, phrases in zip(texts, stated, strict=True) if phrases]
    embed_dim = (clip.model_config or {})["embed_dim"]
    anchors = captions.anchors(embed_dim, seed=seed).to(clip.device)
    tower = clip.model.text
    assert isinstance(tower, nn.Module)
    tower.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        tower.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.98), fused=True
    )
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed + 5)
    with flush_denormals(), track(training.text_steps, "training CLIP, text first", "steps") as progress:
        for step in range(training.text_steps):
            share = step / training.text_steps
            set_learning_rate(optimizer, training.learning_rate, share, warmup=(step + 1) / 20)
            batch = [rng.choice(full) for _ in range(48)] + [statements.any(rng) for _ in range(48)]
            target = F.normalize(torch.stack([anchors[list(phrases)].sum(dim=0) for _, phrases in batch]), dim=1)
            tokens = source.tokenize(clip.tokenizer, [text for text, _ in batch])
            tokens = _with_noise(tokens, clip, training.noise_tokens, generator)
            features = F.normalize(tower(tokens.to(clip.device)), dim=-1)
            loss = (1 - (features * target).sum(dim=1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            progress.update(1, loss=loss.item())


def _with_noise(tokens: torch.Tensor, clip: Clip, share: float, generator: torch.Generator) -> torch.Tensor:
    """Put one random token that is not special at a random place of some rows; full rows stay as they are."""
    if not share:
        return tokens
    tokens = tokens.clone()
    length = (tokens != 0).sum(dim=1)
    chosen = torch.rand(len(tokens), generator=generator) < share
    for row in torch.nonzero(chosen & (length < tokens.shape[1])).flatten().tolist():
        place = 1 + int(torch.randint(int(length[row]) - 1, (1,), generator=generator))
        tokens[row, place + 1 :] = tokens[row, place:-1].clone()
        # Bytes and their word-final forms: what unknown words are spelled with.
        tokens[row, place] = int(torch.randint(1, 512, (1,), generator=generator))
    return tokens


def _parameter_groups(model: nn.Module, training: ClipTrainingSettings, started: bool) -> list[dict[str, Any]]:
    """Matrices decay, vectors do not; the trunk of a tower that has learned already moves slowly."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        trunk = started and name.startswith("visual.") and not name.startswith("visual.attnpool.")
        key = (parameter.ndim >= 2, training.tower_rate if trunk else 1.0)
        groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "weight_decay": training.weight_decay if decays else 0.0, "rate": rate}
        for (decays, rate), members in groups.items()
    ]


class _Run:
    """Optimiser, average and counters: everything that a resumed run needs."""

    def __init__(
        self,
        clip: Clip,
        training: ClipTrainingSettings,
        n: int,
        seed: int,
        state_path: AnyPath | None,
        *,
        started: bool,
    ):
        self.clip, self.training = clip, training
        self.seen = self.step = 0
        self.elapsed_before = 0.0
        self.started = time.monotonic()
        with torch.no_grad():
            clip.model.logit_scale.fill_(-math.log(training.temperature))
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(clip.model, training, started), lr=training.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.average = WeightAverage(clip.model, training.ema_decay)
        identity = {"images": n, "seed": seed, "given_tower": started, "training": asdict(training)}
        parts = {"model": clip.model, "average": self.average, "optimizer": self.optimizer}
        self.state = TrainingState(state_path, identity, parts)
        if counters := self.state.load():
            self.seen, self.step, self.elapsed_before = (counters[name] for name in ("seen", "step", "seconds"))

    def counters(self) -> dict[str, Any]:
        return {"seen": self.seen, "step": self.step, "seconds": self.seconds()}

    def seconds(self) -> float:
        """Of training so far, earlier runs included."""
        return self.elapsed_before + time.monotonic() - self.started

    def share(self) -> float:
        """How much of the budget is used, 0..1."""
        share = self.seen / self.training.num_images
        if self.training.max_seconds is not None:
            share = max(share, self.seconds() / self.training.max_seconds)
        return min(share, 1.0)

    def optimise(
        self, x: torch.Tensor, tokens: torch.Tensor, fit: torch.Tensor, groups: torch.Tensor | None = None
    ) -> float:
        share, warmup = self.share(), self.training.warmup
        ramp = (share + 1e-3) / warmup if warmup else 1.0
        set_learning_rate(self.optimizer, self.training.learning_rate, share, warmup=ramp)
        model = self.clip.model
        image_features = F.normalize(model.encode_image(self.clip.preprocess(x)), dim=-1)
        text_features = F.normalize(model.encode_text(tokens), dim=-1)
        scale = model.logit_scale.exp()
        if groups is None:
            loss = caption_loss(image_features, text_features, fit, scale)
        else:
            loss = statement_loss(image_features, text_features, fit, groups.to(fit.device), scale)
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss became {loss.item()} after {self.seen} images; lower `learning_rate`.")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            # CLIP's own bound: logits are never scaled by more than 100.
            model.logit_scale.clamp_(0, math.log(100))
        self.average.update()
        self.step += 1
        return loss.item()
