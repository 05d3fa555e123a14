"""Networks of timm from a local file: an architecture by name and its weights, no pickle that runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vlbias.checkpoints import check_finite, fill, load_tensors, read_foreign_pickle
from vlbias.classify import check_options, create_backbone
from vlbias.errors import CheckpointError

__all__ = ["TorchNetwork", "load_weights", "timm_network"]

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
        """Pictures (b, 3, h, w), normalised as the module wants them => float32 (b, n) on the CPU."""
        return self.module(x.to(self.device)).flatten(1).float().cpu()


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
    model = create_backbone(architecture, num_classes, options=check_options(options))
    load_weights(model, path, architecture)
    return TorchNetwork(model, device)


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Fill a module from a file of tensors; entries of the file that the module lacks (a head) are passed over.

    Args:
        model: the module.
        path: ``.safetensors``, or a ``torch.save`` file of tensors, which is read without running anything in it.
        name: of the architecture, for the message.

    Raises:
        CheckpointError: the file is missing, damaged, or of another architecture.
        UnsafeCheckpointError: a pickle that asks for code to be run; nothing was run.
    """
    state = load_tensors(path) if path.suffix == ".safetensors" else read_foreign_pickle(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no state dict.")
    tensors = {str(key).removeprefix("module."): value for key, value in state.items()}
    own = {key: tensors[key] for key in model.state_dict() if isinstance(tensors.get(key), torch.Tensor)}
    check_finite(own, str(path))
    fill(model, own, f"{path} as {name}")
