"""Train a small CLIP on captioned faces: InfoNCE in which equal captions are not each other's negatives."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.clip.batches import Captions, CaptionSource, Comparison, Statements
from vlbias.clip.captions import TableCaptions
from vlbias.clip.learner import Learner, LearningSettings
from vlbias.clip.losses import caption_loss, statement_loss
from vlbias.clip.model import Clip
from vlbias.clip.small import ClipConfig, new_clip, resized, start_tower
from vlbias.errors import ShapeError
from vlbias.files import AnyPath
from vlbias.optim import flush_denormals, set_learning_rate
from vlbias.progress import track
from vlbias.settings import number

__all__ = ["ClipTrainingSettings", "train_clip"]


@dataclass(frozen=True)
class ClipTrainingSettings(LearningSettings):
    """How a CLIP is trained; see :class:`LearningSettings` for the settings that it shares.

    Attributes:
        temperature: at the start; it is learned.
        text_steps: steps of the text tower alone before any image is shown, 96 captions each (label tables only).
        freeze_text: share of the run during which the text tower then stands still (label tables only).
        statements: captions about each column that an image is compared with in a step (label tables only).
        noise_tokens: share of captions that get a meaningless token, so that words the captions never used disturb
            an embedding little.
        tower_rate: factor of the learning rate for the trunk of an image tower that starts from given weights; its
            last, pooling layer learns at the full rate.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = number(0.1, 0.01, 1)
    text_steps: int = number(350, 0)
    freeze_text: float = number(0.6, 0, 1)
    statements: int = number(4, 2, 1024)
    noise_tokens: float = number(0.15, 0, below=1)
    tower_rate: float = number(0.1, 0, 1)


def train_clip(
    images: torch.Tensor,
    captions: Captions,
    config: ClipConfig | None = None,
    training: ClipTrainingSettings | None = None,
    *,
    tower: Mapping[str, torch.Tensor] | None = None,
    state_path: AnyPath | None = None,
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
        state_path: file for the state, written about once a minute and at the end; a run that finds it goes on from
            there. Delete it when the result is saved. ``None`` keeps no state.
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
    source = CaptionSource(captions, len(images), training.seed)
    clip = new_clip(config, source.vocabulary_texts(), training.seed).to(training.device)
    source.tokenizer, model = clip.tokenizer, clip.model
    if tower is not None:
        start_tower(model.visual, tower)
    with torch.no_grad():
        model.logit_scale.fill_(-math.log(training.temperature))
    groups = _parameter_groups(model, training, started=tower is not None)
    images = resized(images, config.image_size)
    learner = Learner(model, groups, images, training, {"given_tower": tower is not None}, state_path)
    comparison: Comparison = source
    if isinstance(captions, TableCaptions):
        comparison = Statements(captions, training.statements, training.seed, source.tokenize)
        if learner.step == 0:
            _train_text(clip, captions, source, comparison, training)
    clip.train().requires_grad_(True)

    def loss_of(index: torch.Tensor, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        tokens, fit, columns = comparison.compare(index, learner.step)
        tokens = _with_noise(tokens, training.noise_tokens, generator)
        if columns is not None:
            model.text.requires_grad_(learner.share() >= training.freeze_text)
        image_features = F.normalize(model.encode_image(clip.preprocess(x)), dim=-1)
        text_features = F.normalize(model.encode_text(tokens.to(x.device)), dim=-1)
        scale, fit = model.logit_scale.exp(), fit.to(x.device)
        if columns is None:
            return caption_loss(image_features, text_features, fit, scale)
        return statement_loss(image_features, text_features, fit, columns.to(x.device), scale)

    @torch.no_grad()
    def after_step() -> dict[str, float]:
        # CLIP's own bound: logits are never scaled by more than 100.
        model.logit_scale.clamp_(0, math.log(100))
        return {"temperature": 1 / clip.logit_scale}

    learner.run("training CLIP", loss_of, start_epoch=comparison.start_epoch, after_step=after_step, on_step=on_step)
    model.load_state_dict(learner.average.module.state_dict())
    clip.requires_grad_(False).eval()
    return clip


def _train_text(
    clip: Clip,
    captions: TableCaptions,
    source: CaptionSource,
    statements: Statements,
    training: ClipTrainingSettings,
) -> None:
    """Text first: captions => the sum of their phrases' anchors, by cosine; half of them state one column alone."""
    if not training.text_steps:
        return
    full = [(text, phrases) for text, phrases in zip(*captions.draw(0), strict=True) if phrases]
    all_tokens = torch.cat([source.tokenize([text for text, _ in full]), statements.tokens])
    stated = [*(phrases for _, phrases in full), *statements.stated]
    embed_dim = (clip.model_config or {})["embed_dim"]
    anchors = captions.anchors(embed_dim, seed=training.seed).to(clip.device)
    targets = F.normalize(torch.stack([anchors[list(phrases)].sum(dim=0) for phrases in stated]), dim=1)
    tower = clip.model.text
    assert isinstance(tower, nn.Module)
    tower.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        tower.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.98), fused=True
    )
    rng, generator = random.Random(training.seed), torch.Generator().manual_seed(training.seed + 5)
    with flush_denormals(), track(training.text_steps, "training CLIP, text first", "steps") as progress:
        for step in range(training.text_steps):
            share = step / training.text_steps
            set_learning_rate(optimizer, training.learning_rate, share, warmup=(step + 1) / 20)
            rows = [rng.choice(range(len(full))) for _ in range(48)]
            rows += [len(full) + statements.any(rng) for _ in range(48)]
            tokens = _with_noise(all_tokens[rows], training.noise_tokens, generator)
            features = F.normalize(tower(tokens.to(clip.device)), dim=-1)
            loss = (1 - (features * targets[rows]).sum(dim=1)).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimizer.step()
            progress.update(1, loss=loss.item())


def _with_noise(tokens: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
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


def _parameter_groups(model: nn.Module, training: ClipTrainingSettings, *, started: bool) -> list[dict[str, Any]]:
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
