"""Downstream classifiers: what somebody would train on the dataset, small enough to train it many times.

A timm backbone, trained from random weights for a fixed number of optimisation steps, so that a larger training set
(say, one with edits added) gets no more training than a smaller one. Images are (n, 3, h, w) in [-1, 1].
"""

from __future__ import annotations

import difflib
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.arguments import checked_call
from vlbias.checkpoints import (
    build_filled,
    load_tensors,
    load_weights,
    save_tensors,
    whole_folder,
    write_manifest,
)
from vlbias.errors import CheckpointError, ConfigError, LabelError, ShapeError, TrainingError
from vlbias.files import AnyPath, draft_folder, read_object, write_json
from vlbias.images import Pictures, load_pixels, to_float
from vlbias.iresnet import DEPTHS, EMBEDDING_SIZE, iresnet
from vlbias.optim import WeightAverage, device_of, flush_denormals, in_bfloat16, set_learning_rate
from vlbias.progress import Progress
from vlbias.settings import Settings, checked_number, number, with_changes

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Classifier",
    "FitHooks",
    "FitSettings",
    "LabelledImages",
    "check_options",
    "create_backbone",
    "fingerprint",
    "fit",
    "focal_loss",
    "item_losses",
]

FORMAT = "vlbias-classifier-1"
CONFIG_FILE, WEIGHTS_FILE = "classifier.json", "classifier.safetensors"
#: Most classes of a classifier that is read from a file.
MAX_CLASSES = 100_000


class LabelledImages(Pictures, Protocol):
    """What a dataset must offer to be learned from; ``vlbias.data.FaceDataset`` does."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per picture, indexed by id."""


@dataclass(frozen=True)
class FitSettings(Settings):
    """How a classifier is trained.

    Attributes:
        backbone: a timm architecture.
        backbone_options: further arguments of ``timm.create_model``; ``None`` takes those that suit the default
            backbone, and none for any other.
        pretrained_file: local safetensors or .pth file with weights of the backbone; ``None`` starts from random ones.
        image_size: edge in pixels that images are resized to.
        loss: "cross_entropy" or "focal" (Lin et al., 2017).
        focal_gamma: exponent of the focal loss, >= 0; 0 makes it cross-entropy.
        class_weights: weight of each class in the loss by its label, "balanced" for inverse frequency, or ``None``.
        label_smoothing: in [0, 1), for cross-entropy.
        num_steps: optimisation steps, the same whatever the size of the training set.
        batch_size: images a step.
        learning_rate: highest rate of AdamW; linear warm-up over 5 % of the steps, then a cosine to zero.
        weight_decay: of AdamW.
        ema_decay: of the running average of the weights, which is what is kept; 0 keeps the last weights.
        flip: mirror half of the training images.
        shift_px: shift training images by up to so many pixels each way.
        seed: of initial weights, order of the images and augmentation.
        device: "cpu", "cuda", ...; ``None`` takes CUDA where there is one.
        amp: run the backbone in bfloat16 while training; the loss stays in float32, as do pictures below 32 px on a
            processor.

    Raises:
        ConfigError: a value out of range.
    """

    backbone: str = "resnet10t"
    backbone_options: Mapping[str, Any] | None = None
    pretrained_file: str | None = None
    image_size: int = number(64, 16, 2048)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = number(2.0, 0, 100)
    class_weights: Mapping[Any, float] | str | None = number(None, 0)
    label_smoothing: float = number(0.0, 0, 0.999)
    num_steps: int = number(600, 1, 500_000)
    batch_size: int = number(32, 2, 65_536)
    learning_rate: float = number(2e-3, 1e-12, 10)
    weight_decay: float = number(0.05, 0, 10)
    ema_decay: float = number(0.99, 0, 0.99999)
    flip: bool = True
    shift_px: int = number(4, 0, 1024)
    seed: int = 0
    device: str | None = None
    amp: bool = False

    def of_result(self) -> dict[str, Any]:
        """What the result depends on: all but the device; without what is off, so that it names older runs as well."""
        left_out = {"device"} if self.amp else {"device", "amp"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.class_weights, str) and self.class_weights != "balanced":
            raise ConfigError(f"`class_weights` must be a mapping, 'balanced' or None; got {self.class_weights!r}.")
        if self.shift_px > self.image_size // 2:
            raise ConfigError(f"`shift_px` must be at most half of `image_size`; got {self.shift_px}.")
        if self.label_smoothing and self.loss == "focal":
            raise ConfigError("`label_smoothing` belongs to cross-entropy; set it to 0 for the focal loss.")

    def resolved_options(self) -> dict[str, Any]:
        """Arguments for ``timm.create_model`` with the default filled in."""
        if self.backbone_options is not None:
            return dict(self.backbone_options)
        return dict(NARROW_RESNET) if self.backbone == "resnet10t" else {}


@dataclass(frozen=True)
class FitHooks:
    """What a fit does beside the usual, for methods that train in a way of their own.

    Attributes:
        weights: how much each image counts in the loss (n,), >= 0; they are scaled to a mean of 1.
        change_batch: (images (b, 3, s, s) in [-1, 1], class codes (b,), generator) => (images, targets), where targets
            are codes (b,) or probabilities (b, c); called after mirroring and shifting.
        loss: (logits (b, c), targets, rows (b,)) => scalar loss in the place of the usual one; rows say which images
            of the training set are in the batch. It may keep a state of its own.
        start: weights to begin with, the ``state_dict`` of a classifier of the same architecture.
    """

    weights: Tensor | None = None
    change_batch: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None
    loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    start: Mapping[str, Tensor] | None = None


#: The default backbone is a ResNet of four blocks, narrowed so that it trains in half a minute on two cores.
NARROW_RESNET: dict[str, Any] = {"channels": [32, 48, 96, 128], "stem_width": 16}


@checked_call
def create_backbone(
    name: str,
    num_classes: int,
    *,
    image_size: int | None = None,
    pretrained_file: str | None = None,
    options: Mapping[str, object] | None = None,
) -> nn.Module:
    """A model of timm, or an iresnet, with a head of ``num_classes``; nothing is downloaded.

    Args:
        name: a timm architecture, such as "resnet18", "vit_tiny_patch16_224" or "swin_tiny_patch4_window7_224", or
            "iresnet18" to "iresnet100" of ArcFace.
        num_classes: outputs; 0 for the features before the head.
        image_size: edge in pixels of the pictures it will see; transformers are built for it. ``None`` for its own.
        pretrained_file: local file with weights of the same architecture; its head is left out if its size differs.
            ``None`` for random weights.
        options: further arguments of ``timm.create_model``.

    Raises:
        ConfigError: no such architecture (near names are listed), or it refuses the options or the size.
        CheckpointError: the file is missing or does not fit.
    """
    import timm

    if name in DEPTHS:
        return _iresnet(name, num_classes, image_size, pretrained_file, options)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.4)
        raise ConfigError(f"Unknown backbone '{name}'. Near names in timm: {', '.join(near) or 'none'}.")
    arguments: dict[str, Any] = {"pretrained": False}
    if pretrained_file is not None:
        if not Path(pretrained_file).is_file():
            raise CheckpointError(f"{pretrained_file} does not exist; `pretrained_file` must be a local file.")
        arguments = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained_file)}}
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if image_size is not None and known is not None and known.fixed_input_size:
        arguments["img_size"] = image_size
    try:
        module = timm.create_model(name, num_classes=num_classes, **arguments | dict(options or {}))
    except CheckpointError:
        raise
    except (TypeError, ValueError, AssertionError, ArithmeticError, AttributeError, IndexError) as error:
        size = f" for pictures of {image_size} px" if "img_size" in arguments else ""
        raise ConfigError(f"backbone '{name}' cannot be built{size} with {dict(options or {})}: {error}.") from error
    except (RuntimeError, OSError, KeyError) as error:
        if pretrained_file is None:
            raise ConfigError(f"backbone '{name}' cannot be built: {_first_line(error)}.") from error
        raise CheckpointError(f"{pretrained_file} does not fit backbone '{name}': {_first_line(error)}.") from error
    if image_size is not None and next(module.parameters()).device.type != "meta":
        _try(module, name, image_size)
    return module


def _iresnet(
    name: str, num_classes: int, image_size: int | None, file: str | None, options: Mapping[str, object] | None
) -> nn.Module:
    if options:
        raise ConfigError(f"backbone '{name}' has no options; got {dict(options)}.")
    module = iresnet(name, image_size)
    if file is not None:
        load_weights(module, Path(file), name)
    if num_classes:  # the published files have no head
        module.head = nn.Linear(EMBEDDING_SIZE, num_classes)
    return module


@torch.no_grad()
def _try(module: nn.Module, name: str, image_size: int) -> None:
    """Show a picture to a network: some take only pictures of their own size, or none so small."""
    picture = torch.zeros(1, 3, image_size, image_size)
    was_training = module.training
    try:
        out = module.eval()(picture)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise ConfigError(
            f"backbone '{name}' does not take pictures of {image_size} px ({_first_line(error)}). Choose another "
            "`image_size` or another backbone."
        ) from error
    finally:
        module.train(was_training)
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise ConfigError(f"backbone '{name}' does not give one row of numbers for a picture. Choose another.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_options(options: object) -> dict[str, Any]:
    """Options of an architecture out of somebody's file: numbers, true or false, and lists of numbers alone.

    Others would name files to be read, classes, or functions.

    Raises:
        ConfigError: an option of another kind.
    """
    if not isinstance(options, Mapping):
        raise ConfigError(f"the options of a network must be an object; got {options!r:.80}.")
    for key, value in options.items():
        entries = value if isinstance(value, list | tuple) else [value]
        good = all(isinstance(entry, int | float) and abs(entry) <= MAX_OPTION for entry in entries)
        good = good and 0 < len(entries) <= MAX_ENTRIES
        if not good or not str(key).isidentifier() or str(key).startswith("pretrained"):
            raise ConfigError(
                f"the option `{str(key)[:80]}` of a network must be a number or a list of numbers, up to "
                f"{MAX_OPTION:,}; got {value!r:.80}."
            )
    return dict(options)


#: Largest number, and longest list, in the options of an architecture.
MAX_OPTION, MAX_ENTRIES = 4096, 64


def focal_loss(logits: Tensor, target: Tensor, *, gamma: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """Mean of -w_y (1 - p_y)^gamma log p_y (Lin et al., 2017, eq. 5); gamma 0 is cross-entropy.

    Args:
        logits: (b, c).
        target: class numbers (b,).
        gamma: >= 0; larger looks away from what is already right.
        weight: of each class (c,), or ``None``. The mean is over weights, as in ``cross_entropy``.
    """
    loss = _focal(logits, target, gamma)
    w = torch.ones_like(loss) if weight is None else weight[target]
    return (w * loss).sum() / w.sum()


def _focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma) * log_p


class Classifier:
    """A trained classifier.

    Attributes:
        classes: labels in the order of the probabilities.
        settings: how it was trained; holds the image size.
        module: the network: images (b, 3, s, s) in [-1, 1] => logits (b, c).
        losses: training loss, mean of each twentieth of the steps.
    """

    def __init__(
        self, module: nn.Module, classes: Sequence[object], settings: FitSettings, losses: Sequence[float] = ()
    ):
        self.module, self.classes, self.settings = module.eval(), list(classes), settings
        self.losses = list(losses)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def logits(self, x: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [-1, 1], any size => logits (b, c), with gradients."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(f"`x` must be (b, 3, h, w); got {tuple(x.shape)}.")
        size = (self.settings.image_size, self.settings.image_size)
        if tuple(x.shape[-2:]) != size:
            x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        return self.module(x.to(self.device).contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def predict_proba(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """Images (n, 3, h, w), float in [-1, 1] or uint8 => probabilities (n, c) on the CPU, rows summing to 1."""
        parts = [self.logits(to_float(part)).softmax(1).float().cpu() for part in x.split(batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, len(self.classes))

    def predict(self, x: Tensor, batch_size: int = 256) -> list[Any]:
        """The likeliest label of each image."""
        return [self.classes[code] for code in self.predict_proba(x, batch_size).argmax(1).tolist()]

    @checked_call
    def save_pretrained(self, folder: AnyPath) -> None:
        """Write ``classifier.safetensors`` and ``classifier.json`` into a folder, which is made if need be.

        Raises:
            OutputError: the place cannot be written.
        """
        settings = asdict(self.settings) | {"pretrained_file": None, "device": None}
        if isinstance(self.settings.class_weights, Mapping):
            settings["class_weights"] = [[label, weight] for label, weight in self.settings.class_weights.items()]
        settings["backbone_options"] = self.settings.resolved_options()
        config = {"format": FORMAT, "classes": self.classes, "settings": settings, "losses": self.losses}
        with draft_folder(folder, last=CONFIG_FILE) as draft:
            save_tensors(draft / WEIGHTS_FILE, self.module.state_dict())
            write_json(draft / CONFIG_FILE, config)
            write_manifest(draft)

    @classmethod
    @checked_call
    def from_pretrained(cls, folder: AnyPath, device: str | None = None) -> Classifier:
        """Read what :meth:`save_pretrained` wrote.

        Raises:
            CheckpointError: the folder holds no classifier, or a damaged one.
        """
        folder = whole_folder(folder)
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(f"{folder} has no {CONFIG_FILE}; give a folder of Classifier.save_pretrained.")
        classes, settings, losses = _read_config(folder / CONFIG_FILE, device)
        tensors = load_tensors(folder / WEIGHTS_FILE)

        def build() -> nn.Module:
            size, options = settings.image_size, settings.resolved_options()
            return create_backbone(settings.backbone, len(classes), image_size=size, options=options)

        try:
            module = build_filled(build, tensors, str(folder))
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
        return cls(_place(module, settings), classes, settings, losses)


def _read_config(path: Path, device: str | None) -> tuple[list[Any], FitSettings, list[float]]:
    """Classes, settings and losses of a saved classifier."""
    config = read_object(path)
    if config.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not of format {FORMAT}.")
    classes, values, losses = (config.get(key) for key in ("classes", "settings", "losses"))
    if not isinstance(classes, list) or not 2 <= len(classes) <= MAX_CLASSES:
        raise CheckpointError(f"{path}: `classes` must list two or more labels; got {classes!r:.80}.")
    if any(isinstance(label, list | dict) for label in classes) or not isinstance(values, dict):
        raise CheckpointError(f"{path}: `classes` must be labels and `settings` an object.")
    try:
        weights = values.get("class_weights")
        if isinstance(weights, list):
            values["class_weights"] = {
                label: checked_number("class_weights", weight, float) for label, weight in weights
            }
        options = check_options(values.get("backbone_options") or {})
        settings = FitSettings.from_dict(
            values | {"backbone_options": options, "pretrained_file": None, "device": device}
        )
        return classes, settings, [checked_number("losses", loss, float) for loss in losses or []]
    except (ConfigError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Training data


def _labels(labels: object, count: int) -> list[Any]:
    import pandas as pd  # half a second, which a single edit does not need

    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels, dtype=object)
    if array.ndim != 1 or len(array) != count:
        raise ShapeError(f"`labels` must hold {count} labels, one per image; got shape {tuple(array.shape)}.")
    missing = np.flatnonzero(pd.isna(array))
    if len(missing):
        raise LabelError(f"`labels` contains {len(missing)} missing values, the first at position {missing[0]}.")
    return [item.item() if isinstance(item, np.generic) else item for item in array]


def _class_weights(settings: FitSettings, classes: list[object], codes: Tensor) -> Tensor | None:
    if settings.class_weights is None:
        return None
    if isinstance(settings.class_weights, str):
        counts = torch.bincount(codes, minlength=len(classes)).float()
        return counts.sum() / (counts.clamp(min=1) * len(classes))
    absent = [label for label in classes if label not in settings.class_weights]
    if absent:
        raise ConfigError(f"`class_weights` lacks a weight for {absent}; it has {list(settings.class_weights)}.")
    return torch.tensor([float(settings.class_weights[label]) for label in classes])


def _augment(x: Tensor, settings: FitSettings, generator: torch.Generator) -> Tensor:
    """Mirror and shift a batch, each image for itself; the edge is repeated outwards."""
    if settings.flip:
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
    if settings.shift_px:
        pad, (h, w) = settings.shift_px, x.shape[-2:]
        top, left = torch.randint(0, 2 * pad + 1, (2, len(x)), generator=generator).tolist()
        padded = F.pad(x, (pad, pad, pad, pad), mode="replicate")
        x = torch.stack([image[:, i : i + h, j : j + w] for image, i, j in zip(padded, top, left, strict=True)])
    return x


def _place(module: nn.Module, settings: FitSettings) -> nn.Module:
    # Convolutions of narrow networks run about twice as fast on the CPU with channels last.
    module.to(memory_format=torch.channels_last)
    return module.to(device_of(settings.device))


@checked_call
def fit(
    images: Tensor | LabelledImages,
    labels: Sequence[object] | np.ndarray | Tensor | str,
    *,
    classes: Sequence[object] | None = None,
    settings: FitSettings | None = None,
    hooks: FitHooks | None = None,
    progress: Progress | None = None,
    **changes: object,
) -> Classifier:
    """Train a classifier.

    Args:
        images: (n, 3, h, w), float in [-1, 1] or uint8; or a dataset.
        labels: n labels of any kind, or, with a dataset, the name of a column.
        classes: all labels in order; ``None`` takes those that occur, sorted.
        settings: how to train; ``None`` for the defaults.
        hooks: what is done beside the usual.
        progress: counted up by one each step.
        changes: single settings by name, on top of ``settings``: ``fit(x, y, seed=3, loss="focal")``.

    Raises:
        ShapeError: images and labels do not fit each other.
        LabelError: a label is missing, or there are fewer than two classes.
        ConfigError: unknown or contradictory settings.
        TrainingError: the loss became NaN or infinite.
    """
    settings = with_changes(FitSettings, settings, changes)
    if not isinstance(images, Tensor):
        if not isinstance(labels, str):
            raise ConfigError("with a dataset, `labels` must be the name of one of its columns.")
        if labels not in images.table.columns:
            raise LabelError(f"the dataset has no column '{labels}'; it has {', '.join(images.table.columns)}.")
        labels = images.table[labels].to_numpy(dtype=object)
        _labels(labels, len(labels))  # a missing label is found before images are read
        images = load_pixels(images, list(images.table.index), settings.image_size)
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ShapeError(f"`images` must be (n, 3, h, w); got {tuple(images.shape)}.")
    values = _labels(labels, len(images))
    names = list(classes) if classes is not None else sorted(set(values), key=lambda item: (str(type(item)), item))
    index = {label: code for code, label in enumerate(names)}
    from vlbias.labels import label_text  # with pandas, which an edit does not need

    if len({label_text(name) for name in names}) < len(names):
        raise LabelError(f"`labels` contains classes that read the same, such as 1 and '1': {names}. Give one type.")
    outside = sorted({str(label) for label in values if label not in index})
    if outside:
        raise LabelError(f"`labels` contains {', '.join(outside)}, which `classes` lacks; it has {names}.")
    codes = torch.tensor([index[label] for label in values])
    if len(set(codes.tolist())) < 2:
        raise LabelError(f"a classifier needs two classes to learn from; all labels are {values[0]!r}.")
    hooks = hooks or FitHooks()
    _check_weights(hooks.weights, len(images))
    return _train(images, codes, names, settings, hooks, progress)


def _check_weights(weights: Tensor | None, num_images: int) -> None:
    if weights is None:
        return
    if tuple(weights.shape) != (num_images,) or not (weights.min() >= 0 and 0 < weights.sum() < math.inf):
        raise ShapeError(
            f"`weights` must be ({num_images},), finite, >= 0 and not all 0; got shape {tuple(weights.shape)}."
        )


def _train(
    images: Tensor,
    codes: Tensor,
    classes: list[object],
    settings: FitSettings,
    hooks: FitHooks,
    progress: Progress | None,
) -> Classifier:
    device = device_of(settings.device)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), flush_denormals():
        warnings.filterwarnings("ignore", category=UserWarning, module="timm")
        torch.manual_seed(settings.seed)
        module = create_backbone(
            settings.backbone,
            len(classes),
            image_size=settings.image_size,
            pretrained_file=settings.pretrained_file,
            options=settings.resolved_options(),
        )
        if hooks.start is not None:
            module.load_state_dict(dict(hooks.start))
        module = _place(module, settings)
        loss_of = hooks.loss or _usual_loss(settings, _class_weights(settings, classes, codes), hooks.weights, device)
        optimizer = torch.optim.AdamW(module.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        average = WeightAverage(module, settings.ema_decay) if settings.ema_decay else None
        generator = torch.Generator().manual_seed(settings.seed)
        warmup = max(1, settings.num_steps // 20)
        size = (settings.image_size, settings.image_size)
        losses: list[float] = []
        order = torch.empty(0, dtype=torch.int64)
        module.train()
        for step in range(settings.num_steps):
            if len(order) < settings.batch_size:
                # Whole passes over the data, run together so that every batch is full.
                num_passes = -(-settings.batch_size // len(images))
                passes = [torch.randperm(len(images), generator=generator) for _ in range(num_passes)]
                order = torch.cat([order, *passes])
            batch, order = order[: settings.batch_size], order[settings.batch_size :]
            x = to_float(images.index_select(0, batch))
            if tuple(x.shape[-2:]) != size:
                x = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
            x, targets = _augment(x, settings, generator), codes[batch]
            if hooks.change_batch is not None:
                x, targets = hooks.change_batch(x, targets, generator)
            x = x.to(device).contiguous(memory_format=torch.channels_last)
            share = step / settings.num_steps
            set_learning_rate(optimizer, settings.learning_rate, share, warmup=(step + 1) / warmup)
            with in_bfloat16(x, settings.amp):
                logits = module(x)
            loss = loss_of(logits.float(), targets.to(device), batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(f"the loss became {value} at step {step}. Lower `learning_rate`.")
            losses.append(value)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update()
            if progress is not None:
                progress.update(1, loss=value)
    kept = module if average is None else average.module
    curve = [float(np.mean(part)) for part in np.array_split(losses, min(20, len(losses)))]
    return Classifier(kept, classes, settings, curve)


def _usual_loss(
    settings: FitSettings, class_weights: Tensor | None, weights: Tensor | None, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of the settings: (logits, targets, rows) => scalar."""
    by_class = None if class_weights is None else class_weights.to(device)
    each = None if weights is None else weights.float() / weights.float().mean()

    def loss(logits: Tensor, targets: Tensor, rows: Tensor) -> Tensor:
        if each is not None:
            return (each[rows].to(device) * item_losses(logits, targets, settings, by_class)).mean()
        if settings.loss == "focal":
            return focal_loss(logits, targets, gamma=settings.focal_gamma, weight=by_class)
        return F.cross_entropy(logits, targets, weight=by_class, label_smoothing=settings.label_smoothing)

    return loss


def item_losses(logits: Tensor, targets: Tensor, settings: FitSettings, class_weights: Tensor | None = None) -> Tensor:
    """The loss of the settings for each item (b,); ``targets`` are codes (b,), or, for cross-entropy, (b, c)."""
    if settings.loss == "focal":
        loss = _focal(logits, targets, settings.focal_gamma)
        return loss if class_weights is None else class_weights[targets] * loss
    smoothing = settings.label_smoothing
    return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=smoothing, reduction="none")


def fingerprint(images: Tensor, labels: Sequence[object], settings: FitSettings) -> str:
    """Hash of all that a fit depends on, to recognise one that was made before."""
    digest = hashlib.sha256()
    digest.update(repr((FORMAT, tuple(images.shape), str(images.dtype), [str(label) for label in labels])).encode())
    digest.update(repr(sorted((settings.of_result() | {"device": None}).items())).encode())
    digest.update(images.contiguous().numpy().tobytes())
    return digest.hexdigest()
