"""The conditional UNet: (x_t, t, z_sem) => prediction of the noise or of the velocity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.diffae.blocks import (
    AttentionBlock,
    GroupNorm,
    LaidOut,
    ResBlock,
    Stage,
    memory_layout,
    silu_of_fresh,
    timestep_features,
    zero_init,
)
from vlbias.diffae.config import DiffAEConfig
from vlbias.diffae.haar import HaarBands

__all__ = ["UNet"]


class UNet(LaidOut):
    """The published decoder: the Dhariwal & Nichol UNet with time scale-shift and semantic scale in each block.

    The layers stand in the order of the published state dict (``input_blocks``, ``middle_block``,
    ``output_blocks``), so that importing it is a renaming.
    """

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__()
        self.config = config
        width, groups = config.model_channels, config.num_groups

        def res(in_channels: int, out_channels: int, resample: str = "none") -> ResBlock:
            return ResBlock(
                in_channels,
                out_channels,
                num_groups=groups,
                embed_channels=config.embed_channels,
                dropout=config.dropout,
                resample=resample,
            )

        def attention(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, num_heads=config.num_heads, num_groups=groups)

        self.time_embed = nn.Sequential(
            nn.Linear(width, config.embed_channels), nn.SiLU(), nn.Linear(config.embed_channels, config.embed_channels)
        )
        pixels = config.in_channels * config.patch_size**2
        channels = width * config.channel_mult[0]
        side = config.image_size // config.patch_size
        last_level = len(config.channel_mult) - 1

        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(pixels, channels, 3, padding=1)])])
        laterals = [channels]
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                stage = Stage([res(channels, width * mult)])
                channels = width * mult
                if side in config.attention_resolutions:
                    stage.append(attention(channels))
                self.input_blocks.append(stage)
                laterals.append(channels)
            if level != last_level:
                side //= 2
                self.input_blocks.append(Stage([res(channels, channels, "down")]))
                laterals.append(channels)

        self.semantic_map: nn.Linear | None = None
        if config.semantic_map:
            self.semantic_map = nn.Linear(config.embed_channels, channels * side * side)
        self.middle_block = Stage([res(channels, channels), attention(channels), res(channels, channels)])

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(config.channel_mult))):
            for i in range(config.num_res_blocks + 1):
                stage = Stage([res(channels + laterals.pop(), width * mult)])
                channels = width * mult
                if side in config.attention_resolutions:
                    stage.append(attention(channels))
                if level and i == config.num_res_blocks:
                    side *= 2
                    stage.append(res(channels, channels, "up"))
                self.output_blocks.append(stage)
        self.norm = GroupNorm(groups, channels)
        self.out = zero_init(nn.Conv2d(channels, pixels, 3, padding=1))
        self.bands = None if config.haar_stds is None else HaarBands(config)
        self.lay_out()

    def forward(self, x_t: Tensor, t: Tensor, z_sem: Tensor) -> Tensor:
        """x_t (b, c, h, w), integer t (b,), z_sem (b, d) => prediction (b, c, h, w)."""
        config = self.config
        time = F.silu(self.time_embed(timestep_features(t, config.model_channels).to(x_t.dtype)))
        semantic = F.silu(z_sem)
        beside: Tensor | None = None
        if self.bands is not None:
            h, beside = self.bands.split(x_t, t)
        else:
            h = F.pixel_unshuffle(x_t, config.patch_size) if config.patch_size > 1 else x_t
        h = h.contiguous(memory_format=memory_layout(h.device))
        laterals = []
        for stage in self.input_blocks:
            h = stage(h, time, semantic)
            laterals.append(h)
        if self.semantic_map is not None:
            h = h + self.semantic_map(z_sem).view(h.shape)
        h = self.middle_block(h, time, semantic)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, laterals.pop()], dim=1), time, semantic)
        h = self.out(silu_of_fresh(self.norm(h)))
        if self.bands is not None and beside is not None:
            return self.bands.join(h, beside, t)
        return F.pixel_shuffle(h, config.patch_size) if config.patch_size > 1 else h
