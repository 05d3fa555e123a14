"""Networks of timm from a local file: an architecture by name and its weights, no pickle that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vlbias.checkpoints import build_filled, read_weights
from vlbias.classify import check_options, create_backbone
from vlbias.errors import CheckpointError

__all__ = ["TorchNetwork", "timm_network"]

#: Endings of files that hold weights alone.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth")


class TorchNetwork:
    """A module as a function of pictures: on its device, without gradients, its output flat."""

    def __init__(self, module: nn.Module, device: torch.device | str | None = None):
        self.module = module.requires_grad_(False).eval()
        self.device = torch.device(device or "cpu")
        self.module.to(self.device)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w), normalised as the module wants them => float32 (b, n) on the CPU.

        Raises:
            CheckpointError: its config does not describe a whole network.
        """
        try:
            return self.module(x.to(self.device)).flatten(1).float().cpu()
        except (AttributeError, IndexError, TypeError) as error:
            kind = type(self.module).__name__
            raise CheckpointError(f"The config does not describe a whole {kind}: {error}.") from error


def timm_network(
    path: Path,
    architecture: str,
    *,
    num_classes: int,
    options: Mapping[str, object],
    device: torch.device | str | None = None,
) -> TorchNetwork:
    """A timm network with weights from a local file.

    Args:
        path: ``.safetensors``, or a ``.pt``/``.pth`` of tensors, which is read without running anything in it.
        architecture: its name in timm.
        num_classes: outputs; 0 for the features before the head.
        options: further arguments of the architecture (``model_args`` of a timm config).
        device: where it runs; ``None`` for the CPU.

    Raises:
        ConfigError: no such architecture, or options that it refuses or that are not its own.
        CheckpointError: the file is missing, damaged, or of another architecture.
    """
    own = check_options(options)

    def build() -> nn.Module:
        return create_backbone(architecture, num_classes, options=own)

    # entries that the module lacks, those of a head, are passed over
    model = build_filled(build, read_weights(path), f"{path} as {architecture}", pass_over=True)
    return TorchNetwork(model, device)
