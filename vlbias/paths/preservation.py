"""What must stay: identity (a feature) and look (a distance). Any of them can be replaced.

The defaults need no download: the autoencoder's own semantic encoder for identity, and the feature maps of the CLIP
tower at hand for the look. Adapters take what users have: any backbone of timm or torchvision from a local file, LPIPS
through torchmetrics.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.arguments import checked_call
from vlbias.checkpoints import build_filled, read_weights
from vlbias.clip import Clip, Preprocess
from vlbias.diffae import DiffAE
from vlbias.errors import CheckpointError, ConfigError, MissingDependencyError, unknown
from vlbias.paths.losses import cosine_loss, feature_map_loss

__all__ = [
    "BackboneConstraint",
    "ClipConstraint",
    "Constraint",
    "EncoderConstraint",
    "FeatureConstraint",
    "LpipsConstraint",
    "Preservation",
]


@runtime_checkable
class Constraint(Protocol):
    """What a walk must preserve: anything that says how far two batches of faces are apart."""

    def distance(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, h, w) in [-1, 1], about; gradients pass through ``after`` => scalar >= 0, 0 for the same."""
        ...


class FeatureConstraint:
    """A constraint from a function images => features (b, e): 1 - cosine similarity."""

    def __init__(self, features: Callable[[torch.Tensor], torch.Tensor]):
        self.features = features

    def distance(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w) before and after => how far they lie apart, a scalar with a gradient."""
        with torch.no_grad():
            reference = self.features(before)
        return cosine_loss(reference, self.features(after))

    @torch.no_grad()
    def similarity(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Cosine similarity (b,) of each pair."""
        return F.cosine_similarity(self.features(before), self.features(after), dim=-1)


class EncoderConstraint(FeatureConstraint):
    """Identity by the autoencoder's frozen semantic encoder, in normalised space; the default."""

    def __init__(self, diffae: DiffAE):
        super().__init__(lambda x: diffae.normalize(diffae.encode(x)))


class BackboneConstraint(FeatureConstraint):
    """Identity by any backbone of timm or torchvision with weights from a local file.

    Args:
        name: "timm:NAME" or "torchvision:NAME" (say "torchvision:resnet18"); the classification head is cut off.
        weights: state dict, ``.safetensors`` or ``torch.save`` file of tensors; heads in it are passed over.
        size: the images are resized to (size, size).
        mean, std: for values in [0, 1]; ImageNet's by default.

    Raises:
        ConfigError: ``name`` has another form.
        UnknownNameError: no such backbone.
        CheckpointError: the file is missing or is not of this backbone.
    """

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str],
        *,
        size: int = 224,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
        device: torch.device | str | None = None,
    ):
        path = Path(weights)
        self.model = build_filled(partial(_backbone, name), read_weights(path), f"{path} as {name}", pass_over=True)
        self.model.requires_grad_(False).eval()
        if device is not None:
            self.model.to(device)
        preprocess = Preprocess(size=(size, size), mean=mean, std=std, interpolation="bilinear")
        super().__init__(lambda x: self.model(preprocess(x)).flatten(1))


class ClipConstraint:
    """Look by feature maps of a CLIP image tower, compared as LPIPS does; the default.

    Works with the towers of open_clip that give intermediate features.
    """

    def __init__(self, clip: Clip, layers: int = 3):
        if not hasattr(clip.model.visual, "forward_intermediates"):
            raise ConfigError(f"The image tower of {clip.name} gives no intermediate features; use another constraint.")
        blocks = getattr(getattr(clip.model.visual, "transformer", None), "resblocks", range(layers))
        self.clip, self.layers = clip, min(layers, len(blocks))  # a small tower has fewer

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Images => feature maps of the first ``layers`` stages, or of as many as there are, each (b, c, h, w)."""
        x = self.clip.preprocess(x).to(self.clip.dtype)
        output = self.clip.model.visual.forward_intermediates(
            x, indices=list(range(self.layers)), stop_early=True, intermediates_only=True
        )
        return [feature.float() for feature in output["image_intermediates"]]

    def distance(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w) before and after => how far they lie apart, a scalar with a gradient."""
        with torch.no_grad():
            reference = self.features(before)
        return feature_map_loss(reference, self.features(after))


class LpipsConstraint:
    """LPIPS through torchmetrics, with weights that are on this machine.

    Args:
        network: "alex", "vgg" or "squeeze".

    Raises:
        MissingDependencyError: torchmetrics or torchvision is not installed.
        CheckpointError: the backbone's weights are not in torch's cache; nothing is downloaded.
    """

    @checked_call
    def __init__(self, network: str = "alex", device: torch.device | str | None = None):
        files = {
            "alex": "alexnet-owt-7be5be79.pth",
            "vgg": "vgg16-397923af.pth",
            "squeeze": "squeezenet1_1-b8a52dc0.pth",
        }
        if network not in files:
            raise unknown("LPIPS network", network, files)
        try:
            from torchmetrics.functional.image.lpips import _LPIPS
        except ImportError as error:
            raise MissingDependencyError(
                "LPIPS needs torchmetrics and torchvision: pip install torchmetrics."
            ) from error
        cached = Path(torch.hub.get_dir()) / "checkpoints" / files[network]
        if not cached.is_file():
            raise CheckpointError(
                f"LPIPS needs the weights {cached}, which are not there. Copy {files[network]} (torchvision) to that "
                "folder, or use the default constraint."
            )
        self.model = _LPIPS(pretrained=True, net=network).requires_grad_(False).eval()
        if device is not None:
            self.model.to(device)

    def distance(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w) before and after => how far they lie apart, a scalar with a gradient."""
        return self.model(before.detach().clamp(-1, 1), after.clamp(-1, 1)).mean()


@dataclass(frozen=True)
class Preservation:
    """What the paths that are learned must preserve.

    Attributes:
        identity: who it is; ``None`` for the autoencoder's encoder.
        perceptual: what the picture looks like; ``None`` for CLIP's feature maps.
    """

    identity: Constraint | None = None
    perceptual: Constraint | None = None

    def resolved(self, diffae: DiffAE, clip: Clip, *, look: bool) -> tuple[Constraint, Constraint | None]:
        """Identity and look with the defaults filled in; no look where nothing weighs it (``look``)."""
        identity = self.identity or EncoderConstraint(diffae)
        return identity, self.perceptual or (ClipConstraint(clip) if look else None)


def _backbone(name: str) -> nn.Module:
    library, _, kind = name.partition(":")
    if library == "timm" and kind:
        import timm

        if kind not in timm.list_models():
            raise unknown("backbone", kind, timm.list_models(), where="timm")
        return timm.create_model(kind, pretrained=False, num_classes=0)
    if library == "torchvision" and kind:
        import torchvision

        if kind not in torchvision.models.list_models():
            raise unknown("backbone", kind, torchvision.models.list_models(), where="torchvision")
        model = torchvision.models.get_model(kind, weights=None)
        for head in ("fc", "classifier", "head", "heads"):
            if hasattr(model, head):
                setattr(model, head, nn.Identity())
        return model
    raise ConfigError(f"`name` must be 'timm:NAME' or 'torchvision:NAME'; got '{name}'.")
