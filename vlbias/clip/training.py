"""Train a small CLIP on captioned faces: InfoNCE in which equal captions are not each other's negatives."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.checkpoints import fill
from vlbias.clip.augment import MILD, Augmentation, augment
from vlbias.clip.captions import TableCaptions
from vlbias.clip.loading import create
from vlbias.clip.model import Clip
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.tokenizer import MERGES_FILE, learn_merges, load_tokenizer, write_merges
from vlbias.errors import ConfigError, ShapeError, TrainingError
from vlbias.files import AnyPath
from vlbias.optim import TrainingState, WeightAverage, flush_denormals, set_learning_rate
from vlbias.progress import track

__all__ = [
    "Captions",
    "ClipConfig",
    "ClipTraining",
    "caption_loss",
    "resized",
    "small_preprocess",
    "start_tower",
    "statement_loss",
    "train_clip",
]

#: One caption or several for each image; a function: epoch => one caption for each image; or captions of a label table.
Captions = Sequence[str] | Sequence[Sequence[str]] | Callable[[int], Sequence[str]] | TableCaptions



@dataclass(frozen=True)
class ClipConfig:
    """Architecture of a small CLIP: open_clip's ModifiedResNet and a short causal text transformer.

    Convolutions learn a smile or the rim of glasses from a few ten thousand faces; a patch transformer of the same
    cost does not. The defaults make 6 million weights (12 MB in half precision) for 64 px.

    Raises:
        ConfigError: a value is out of range.
    """

    embed_dim: int = 128
    image_size: int = 64
    vision_layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    vision_width: int = 32
    text_layers: int = 2
    text_width: int = 128
    text_heads: int = 4
    context_length: int = 40
    max_merges: int = 1500

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            raise ConfigError(
                f"`image_size` must be a multiple of 32 (the tower halves five times); got {self.image_size}."
            )
        if self.text_width % self.text_heads:
            raise ConfigError(f"`text_width` {self.text_width} must be a multiple of `text_heads` {self.text_heads}.")
        if len(self.vision_layers) != 4 or min(self.vision_layers) < 1:
            raise ConfigError(f"`vision_layers` must be four numbers >= 1; got {self.vision_layers}.")
        if min(self.embed_dim, self.vision_width, self.text_layers, self.context_length - 2) < 1:
            raise ConfigError("`embed_dim`, `vision_width`, `text_layers` must be >= 1 and `context_length` >= 3.")

    def model_config(self, vocab_size: int) -> dict[str, Any]:
        """open_clip's ``model_cfg``."""
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": self.image_size,
                "layers": list(self.vision_layers),
                "width": self.vision_width,
                "head_width": 64,
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": vocab_size,
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
            },
            "custom_text": True,
        }


@dataclass(frozen=True)
class ClipTraining:
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

    num_images: int = 120_000
    max_seconds: float | None = None
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    temperature: float = 0.1
    ema_decay: float = 0.99
    text_steps: int = 350
    freeze_text: float = 0.6
    statements: int = 4
    noise_tokens: float = 0.15
    augmentation: Augmentation = MILD
    tower_rate: float = 0.1

    def __post_init__(self) -> None:
        if self.num_images < 1 or self.batch_size < 2:
            raise ConfigError(
                f"`num_images` must be >= 1 and `batch_size` >= 2; got {self.num_images} and {self.batch_size}."
            )
        if self.learning_rate <= 0 or self.weight_decay < 0 or (self.max_seconds is not None and self.max_seconds <= 0):
            raise ConfigError("`learning_rate` and `max_seconds` must be positive, `weight_decay` not negative.")
        if not 0.01 <= self.temperature <= 1:
            raise ConfigError(f"`temperature` must lie in [0.01, 1]; got {self.temperature}.")
        if self.text_steps < 0 or self.statements < 2:
            raise ConfigError(
                f"`text_steps` must be >= 0 and `statements` >= 2; got {self.text_steps} and {self.statements}."
            )
        for name in ("freeze_text", "tower_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"`{name}` must lie in [0, 1]; got {getattr(self, name)}.")
        for name in ("warmup", "ema_decay", "noise_tokens"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must lie in [0, 1); got {getattr(self, name)}.")


def caption_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, fit: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """InfoNCE of images against the distinct captions of a batch, both ways, with any number of positives.

    Every pair that fits is contrasted with the pairs of its image (and of its caption) that do not fit; other fitting
    pairs are left out, so that a caption which holds for many faces is nobody's false negative.

    Args:
        image_features: unit (b, e).
        text_features: unit (m, e), one row for each distinct caption.
        fit: (b, m), 1 where the caption fits the image, 0 where it does not, -1 where that is not known.
        logit_scale: scalar factor of the similarities.

    Returns:
        Scalar. With m = b and ``fit`` the identity it is the loss of CLIP (Radford et al. 2021, Fig. 3).
    """
    logits = logit_scale * image_features @ text_features.T
    positive, negative = fit == 1, fit == 0
    terms = []
    for dim in (1, 0):
        # -log(exp(s) / (exp(s) + sum over negatives)) = softplus(logsumexp over negatives - s)
        against = logits.masked_fill(~negative, float("-inf")).logsumexp(dim=dim, keepdim=True)
        against = against.clamp_min(-1e4)  # a row without negatives has nothing to be told from
        loss = F.softplus(against - logits) * positive
        counts = positive.sum(dim=dim)
        terms.append((loss.sum(dim=dim) / counts.clamp_min(1))[counts > 0].mean())
    return (terms[0] + terms[1]) / 2


def statement_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    fit: torch.Tensor,
    groups: torch.Tensor,
    logit_scale: torch.Tensor,
) -> torch.Tensor:
    """Of the statements about one column, the probability must lie on those that fit the image.

    Args:
        image_features: unit (b, e).
        text_features: unit (m, e), one row for each statement.
        fit: (b, m), 1 where a statement fits the image, 0 where it does not, -1 where that is not known.
        groups: column that each statement is about, int64 (m,).
        logit_scale: scalar factor of the similarities.

    Returns:
        Scalar: -log of the share of the softmax (over the known statements of a column) that lies on fitting ones,
        mean over the images that have both kinds, then over the columns; 0 if no image has both.
    """
    logits = logit_scale * image_features @ text_features.T
    terms = []
    for group in groups.unique():
        columns = groups == group
        own, known = logits[:, columns], fit[:, columns]
        mixed = (known == 1).any(dim=1) & (known == 0).any(dim=1)
        if not mixed.any():
            continue
        own, known = own[mixed], known[mixed]
        fitting = own.masked_fill(known != 1, float("-inf")).logsumexp(dim=1)
        everything = own.masked_fill(known == -1, float("-inf")).logsumexp(dim=1)
        terms.append((everything - fitting).mean())
    return torch.stack(terms).mean() if terms else logits.sum() * 0


def train_clip(
    images: torch.Tensor,
    captions: Captions,
    config: ClipConfig | None = None,
    training: ClipTraining | None = None,
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
        state_path: file for the state, written about once a minute; a run that finds it goes on from there and
            deletes it when it is done. ``None`` to keep no state.
        flip: mirror images at random; turn it off if captions speak of left and right.
        on_step: called with (images seen, loss) after each step.

    Returns:
        The averaged model, frozen.

    Raises:
        ShapeError: ``images`` is not uint8 (n, 3, h, w), or captions do not match it.
        TrainingError: the loss became NaN, or ``state_path`` belongs to another run.
    """
    config, training = config or ClipConfig(), training or ClipTraining()
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
        raise ShapeError(f"`images` must be uint8 (n, 3, h, w); got {images.dtype} {tuple(images.shape)}.")
    if len(images) < 2:
        raise ShapeError(f"`images` must hold two or more images to tell apart; got {len(images)}.")
    device = torch.device(device)
    source = _CaptionSource(captions, len(images), seed)
    clip = _new_clip(config, source, seed).to(device)
    if tower is not None:
        start_tower(clip.model.visual, tower)
    images = resized(images, config.image_size)
    run = _Run(clip, training, len(images), seed, state_path, started=tower is not None)
    source_step: _Statements | _CaptionSource = source
    if isinstance(captions, TableCaptions):
        source_step = _Statements(captions, training.statements, seed)
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
            x = images[index].to(device).float() / 127.5 - 1
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
            run.state.save_when_due(seen=run.seen, step=run.step, seconds=run.seconds())
    run.state.remove()
    clip.model.load_state_dict(run.average.module.state_dict())
    clip.requires_grad_(False).eval()
    return clip


def _train_text(
    clip: Clip,
    captions: TableCaptions,
    source: _CaptionSource,
    statements: _Statements,
    training: ClipTraining,
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


class _Statements:
    """Sentences about one column each, and which of them fit which images."""

    def __init__(self, captions: TableCaptions, per_column: int, seed: int):
        self.captions, self.per_column, self.seed = captions, per_column, seed
        # column => phrases stated => sentences that state them
        self.pool = captions.statements()
        self.columns = sorted(self.pool)

    def start_epoch(self, epoch: int) -> None:
        """Statements are drawn anew in each step; epochs do not matter."""

    def any(self, rng: random.Random) -> tuple[str, tuple[int, ...]]:
        """One sentence about any column."""
        by_phrases = self.pool[rng.choice(self.columns)]
        phrases = rng.choice(sorted(by_phrases))
        return rng.choice(by_phrases[phrases]), phrases

    def compare(self, index: torch.Tensor, step: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """A few statements about each column, which of them fit the images ``index``, and their columns' numbers."""
        rng = random.Random(self.seed * 1_000_003 + step)
        texts, stated, groups = [], [], []
        for number, column in enumerate(self.columns):
            by_phrases = self.pool[column]
            for phrases in rng.sample(sorted(by_phrases), min(self.per_column, len(by_phrases))):
                texts.append(rng.choice(by_phrases[phrases]))
                stated.append(phrases)
                groups.append(number)
        return texts, self.captions.fit(index, stated), torch.tensor(groups)


class _CaptionSource:
    """One caption for each image in each epoch, which of them fit which images, and their token ids."""

    def __init__(self, captions: Captions, n: int, seed: int):
        self.captions, self.n, self.seed = captions, n, seed
        self.ids: dict[str, torch.Tensor] = {}
        self.texts: Sequence[str] = []
        if (isinstance(captions, TableCaptions) or not callable(captions)) and len(captions) != n:
            raise ShapeError(f"`captions` must hold one entry for each of the {n} images; got {len(captions)}.")

    def start_epoch(self, epoch: int) -> None:
        if isinstance(self.captions, TableCaptions):
            self.texts, _ = self.captions.draw(epoch)
        elif callable(self.captions):
            self.texts = list(self.captions(epoch))
        elif isinstance(self.captions[0], str):
            self.texts = list(self.captions)  # type: ignore[arg-type]
        else:
            generator = torch.Generator().manual_seed(self.seed + 104_729 * (epoch + 1))
            draws = torch.rand(self.n, generator=generator).tolist()
            pairs = zip(self.captions, draws, strict=True)
            self.texts = [choices[int(draw * len(choices))] for choices, draw in pairs]
        if len(self.texts) != self.n:
            raise ShapeError(
                f"`captions({epoch})` must return {self.n} texts, one for each image; got {len(self.texts)}."
            )

    def compare(self, index: torch.Tensor, step: int) -> tuple[list[str], torch.Tensor, None]:
        """Distinct captions of the images ``index``, sorted, and which fit which: see :func:`caption_loss`."""
        del step  # the captions of an epoch are fixed
        distinct = sorted({self.texts[i] for i in index.tolist()})
        place = {text: number for number, text in enumerate(distinct)}
        fit = torch.zeros(len(index), len(distinct), dtype=torch.int8)
        for row, i in enumerate(index.tolist()):
            fit[row, place[self.texts[i]]] = 1
        return distinct, fit, None

    def vocabulary_texts(self) -> list[str]:
        """Texts to learn the vocabulary from: a few epochs if captions vary, all of them if they are listed."""
        if not callable(self.captions) and not isinstance(self.captions, TableCaptions):
            return [text for entry in self.captions for text in ([entry] if isinstance(entry, str) else entry)]
        texts: list[str] = []
        for epoch in range(3):
            self.start_epoch(epoch)
            texts += self.texts
        return texts

    def tokenize(self, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
        missing = [text for text in texts if text not in self.ids]
        if missing:
            self.ids.update(zip(missing, tokenizer(missing), strict=True))
        return torch.stack([self.ids[text] for text in texts])


def small_preprocess(config: ClipConfig) -> Preprocess:
    """What the image tower of a small CLIP expects."""
    size = (config.image_size, config.image_size)
    return Preprocess(size=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bicubic")


def _new_clip(config: ClipConfig, source: _CaptionSource, seed: int) -> Clip:
    with tempfile.TemporaryDirectory() as folder:
        merges_file = Path(folder) / MERGES_FILE
        write_merges(merges_file, learn_merges(source.vocabulary_texts(), config.max_merges))
        tokenizer = load_tokenizer(merges_file, config.context_length)
        preprocess = small_preprocess(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model_config = config.model_config(tokenizer.vocab_size)
            return create(model_config, preprocess, tokenizer, name="small CLIP", tokenizer_file=merges_file)


def start_tower(visual: nn.Module, tower: Mapping[str, torch.Tensor]) -> None:
    """Put given weights into an image tower.

    Raises:
        CheckpointError: they are of another architecture.
    """
    fill(visual, tower, "`tower`")


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 images (n, 3, h, w) at (size, size), with antialiasing."""
    if images.shape[-2:] == (size, size):
        return images
    resize = Preprocess(size=(size, size), mean=(0.0,) * 3, std=(1.0,) * 3)
    chunks = []
    for chunk in images.split(512):
        x = resize(chunk.float() / 127.5 - 1)
        chunks.append((x * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(chunks)


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


def _parameter_groups(model: nn.Module, training: ClipTraining, started: bool) -> list[dict[str, Any]]:
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
        training: ClipTraining,
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
