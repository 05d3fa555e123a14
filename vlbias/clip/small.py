"""The architecture of a small CLIP, with its vocabulary: what training starts from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlbias.checkpoints import fill
from vlbias.clip.loading import create
from vlbias.clip.model import Clip
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.tokenizer import MERGES_FILE, learn_merges, load_tokenizer, write_merges
from vlbias.errors import ConfigError
from vlbias.images import to_float
from vlbias.settings import Settings, number

__all__ = ["ClipConfig", "new_clip", "resized", "small_preprocess", "start_tower"]


@dataclass(frozen=True)
class ClipConfig(Settings):
    """Architecture of a small CLIP: open_clip's ModifiedResNet and a short causal text transformer.

    Convolutions learn a smile or the rim of glasses from a few ten thousand faces; a patch transformer of the same
    cost does not. The defaults make 6 million weights (12 MB in half precision) for 64 px.

    Raises:
        ConfigError: a value is out of range.
    """

    embed_dim: int = number(128, 1, 4096)
    image_size: int = number(64, 32, 1024)
    vision_layers: tuple[int, int, int, int] = number((1, 1, 1, 1), 1, 64)
    vision_width: int = number(32, 1, 1024)
    text_layers: int = number(2, 1, 64)
    text_width: int = number(128, 1, 4096)
    text_heads: int = number(4, 1, 256)
    context_length: int = number(40, 3, 1024)
    max_merges: int = number(1500, 0, 100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % 32:
            raise ConfigError(
                f"`image_size` must be a multiple of 32 (the tower halves five times); got {self.image_size}."
            )
        if self.text_width % self.text_heads:
            raise ConfigError(f"`text_width` {self.text_width} must be a multiple of `text_heads` {self.text_heads}.")

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


def small_preprocess(config: ClipConfig) -> Preprocess:
    """What the image tower of a small CLIP expects."""
    size = (config.image_size, config.image_size)
    return Preprocess(size=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), interpolation="bicubic")


def new_clip(config: ClipConfig, texts: Iterable[str], seed: int) -> Clip:
    """A small CLIP with random weights, and a vocabulary learned from ``texts``."""
    with tempfile.TemporaryDirectory() as folder:
        merges_file = Path(folder) / MERGES_FILE
        write_merges(merges_file, learn_merges(texts, config.max_merges))
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
        x = resize(to_float(chunk))
        chunks.append((x * 255).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(chunks)
