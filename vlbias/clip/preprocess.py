"""What an image becomes before a CLIP tower sees it: resized, cropped, normalised, all with gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F

from vlbias.errors import ShapeError
from vlbias.settings import Settings, number

__all__ = ["Preprocess"]

#: Mean and deviation of OpenAI's CLIP, which open_clip takes where a config names none.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess(Settings):
    """Preprocessing that travels with the weights; the keys are open_clip's ``preprocess_cfg``.

    Args:
        size: (height, width) in pixels of the tower's input.
        mean, std: per channel, for values in [0, 1].
        interpolation: "bicubic" or "bilinear"; both antialiased, as Pillow resizes.
        resize_mode: "shortest" scales the short side and crops the centre, "longest" scales the long side and pads,
            "squash" ignores the proportions.
        fill_color: grey value 0..255 of the padding.

    Raises:
        ConfigError: a value is out of range.
    """

    size: tuple[int, int] = number((224, 224), 1, 4096)
    mean: tuple[float, float, float] = number(OPENAI_MEAN, -1000, 1000)
    std: tuple[float, float, float] = number(OPENAI_STD, above=0, high=1000)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: float = number(0, 0, 255)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Preprocess:
        """Read open_clip's ``preprocess_cfg``; entries it does not need (``mode``) are passed over.

        Raises:
            ConfigError: a value is of another type or out of range.
        """
        values = {key: config[key] for key in cls.__dataclass_fields__ if config.get(key) is not None}
        if isinstance(size := values.get("size"), int):
            values["size"] = (size, size)
        if values.get("interpolation") == "random":
            # open_clip's training augmentation draws one of both; evaluation uses bicubic.
            values["interpolation"] = "bicubic"
        if isinstance(fill := values.get("fill_color"), list | tuple) and fill:
            values["fill_color"] = fill[0]
        return cls.from_dict(values)

    def to_config(self) -> dict[str, Any]:
        """The same as open_clip's ``preprocess_cfg``."""
        return {"mode": "RGB", **asdict(self), "size": list(self.size), "mean": list(self.mean), "std": list(self.std)}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, h, w) in [-1, 1] of any size => tower input (b, 3, *size); gradients pass.

        Values are not clamped, so that the gradient also reaches pixels that a decoder drove out of range.

        Raises:
            ShapeError: ``x`` is not a floating (b, 3, h, w).
        """
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise ShapeError(
                f"`x` must be floating images (b, 3, h, w) in [-1, 1]; got {x.dtype} {tuple(x.shape)}. "
                "vlbias.images.to_tensor makes them."
            )
        x = self._resize((x + 1) / 2)
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
        return (x - mean) / std

    def _resize(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        if (height, width) == self.size:
            return x
        scale = {
            "shortest": max(self.size[0] / height, self.size[1] / width),
            "longest": min(self.size[0] / height, self.size[1] / width),
            "squash": 0.0,
        }[self.resize_mode]
        target = (round(height * scale), round(width * scale)) if scale else self.size
        if target != (height, width):
            # Pillow's filters are the antialiased ones, when enlarging too.
            x = F.interpolate(x, target, mode=self.interpolation, align_corners=False, antialias=True)
        top, left = (round((have - want) / 2) for have, want in zip(target, self.size, strict=True))
        if self.resize_mode == "shortest":
            return x[..., top : top + self.size[0], left : left + self.size[1]]
        if self.resize_mode == "longest":
            pad_left, pad_top = (self.size[1] - target[1]) // 2, (self.size[0] - target[0]) // 2
            padding = (pad_left, self.size[1] - target[1] - pad_left, pad_top, self.size[0] - target[0] - pad_top)
            return F.pad(x, padding, value=self.fill_color / 255)
        return x
