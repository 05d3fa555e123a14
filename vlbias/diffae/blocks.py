"""Building blocks of the UNet and of the semantic encoder: memory layout, time features, residual block, attention.

Source: Dhariwal & Nichol 2021 (the "BeatGANs" UNet); Preechakul et al. 2022, eq. 9, for the semantic scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.diffae.winograd import Conv1x1, Conv3x3

__all__ = [
    "AttentionBlock",
    "GroupNorm",
    "LaidOut",
    "ResBlock",
    "Stage",
    "memory_layout",
    "silu_of_fresh",
    "timestep_features",
    "zero_init",
]


def memory_layout(device: torch.device) -> torch.memory_format:
    """How feature maps and kernels of convolutions lie: oneDNN wants channels last, CUDA's group norm wants them first.

    CUDA's kernel copies maps of the other layout before each norm, and gives them back in its own.
    """
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


class LaidOut(nn.Module):
    """A network of convolutions that has the memory layout of the device it is on, wherever it is moved."""

    def lay_out(self) -> None:
        """Bring the kernels into the layout of their device; those that have it stay where they are."""
        device = next(self.parameters()).device
        super()._apply(lambda value: value.to(memory_format=memory_layout(device)) if value.ndim == 4 else value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What ``to``, ``cuda`` and ``float`` come down to."""
        super()._apply(fn, recurse)
        self.lay_out()
        return self


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` whose output has the type of its input, under autocast too.

    CUDA's autocast would lift a map to float32 for a kernel that adds up in float32 whatever the map's type.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(b, c, h, w) => the same shape and type."""
        if input.dtype == self.weight.dtype:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):  # CUDA's kernel takes one type for all it is given
            return F.group_norm(
                input, self.num_groups, self.weight.to(input.dtype), self.bias.to(input.dtype), self.eps
            )


def silu_of_fresh(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else holds: in its own memory where no gradient needs the input."""
    return F.silu(x, inplace=not x.requires_grad)


def timestep_features(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines and sines of the time step at ``dim / 2`` frequencies: t (b,) => (b, dim) float32."""
    half = dim // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zero_init(module: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """Start a last layer at zero, so that its block starts as the identity."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


class ResBlock(nn.Module):
    """x (b, in, h, w) => (b, out, h', w'), conditioned where ``embed_channels`` is given.

    Unconditioned: ``skip(x) + conv(silu(norm(x)))``. Conditioned, a second half follows in which the normalised
    features are scaled and shifted by the time and then scaled by z_sem: ``z_s (t_s norm(h) + t_b)`` (eq. 9), each
    scale counted from one.

    Args:
        resample: "none", "down" (mean of 2x2) or "up" (nearest), applied to both branches before the convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_groups: int,
        embed_channels: int | None = None,
        dropout: float = 0.0,
        resample: str = "none",
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm_in = GroupNorm(num_groups, in_channels)
        self.conv_in = Conv3x3(in_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else Conv1x1(in_channels, out_channels)
        self.is_conditioned = embed_channels is not None
        if embed_channels is not None:
            self.time = nn.Linear(embed_channels, 2 * out_channels)
            self.semantic = nn.Linear(embed_channels, out_channels)
            self.norm_out = GroupNorm(num_groups, out_channels)
            self.dropout = nn.Dropout(dropout)
            self.conv_out = zero_init(Conv3x3(out_channels, out_channels))

    def _resample(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.resample == "up" else x

    def forward(self, x: Tensor, time: Tensor | None = None, semantic: Tensor | None = None) -> Tensor:
        """``time`` and ``semantic``: embeddings (b, embed_channels), already through SiLU; None if unconditioned."""
        h = self.conv_in(self._resample(silu_of_fresh(self.norm_in(x))))
        if self.is_conditioned:
            assert time is not None and semantic is not None
            t_s, t_b = self.time(time)[:, :, None, None].chunk(2, dim=1)
            z_s = 1 + self.semantic(semantic)[:, :, None, None]
            # both modulations in one pass over the feature map: z_s ((1 + t_s) h + t_b)
            h = self.norm_out(h)
            memory = None if torch.is_grad_enabled() else h
            h = torch.addcmul(t_b * z_s, h, (1 + t_s) * z_s, out=memory)
            h = self.conv_out(self.dropout(silu_of_fresh(h)))
        # into the fresh memory of the convolution; its input is what its gradient needs
        return h.add_(self.skip(self._resample(x)))


class AttentionBlock(nn.Module):
    """Self-attention over the places of a feature map, with a residual: (b, c, h, w) => the same shape."""

    def __init__(self, channels: int, *, num_heads: int, num_groups: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) => the same shape: self-attention over positions, added to the input."""
        h = rearrange(self.norm(x), "b c h w -> b (h w) c")
        # the published layout: q, k, v of one head stand together
        q, k, v = rearrange(self.qkv(h), "b n (g three c) -> three b g n c", three=3, g=self.num_heads)
        h = rearrange(F.scaled_dot_product_attention(q, k, v), "b g n c -> b n (g c)")
        return x + rearrange(self.out(h), "b (h w) c -> b c h w", h=x.shape[2])


class Stage(nn.ModuleList):
    """Modules run one after the other; the embeddings go to the residual blocks among them."""

    def forward(self, x: Tensor, time: Tensor | None = None, semantic: Tensor | None = None) -> Tensor:
        """Each block in turn; those that take conditions get them."""
        for module in self:
            x = module(x, time, semantic) if isinstance(module, ResBlock) else module(x)
        return x
