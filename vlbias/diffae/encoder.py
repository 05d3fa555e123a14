"""The semantic encoder: image in [-1, 1] => z_sem."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.diffae.blocks import AttentionBlock, GroupNorm, LaidOut, ResBlock, Stage, memory_layout, silu_of_fresh
from vlbias.diffae.config import DiffAEConfig

__all__ = ["SemanticEncoder"]


class SemanticEncoder(LaidOut):
    """The first half of the UNet without conditions, then a pool and a linear layer to ``embed_channels``."""

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__()
        self.config = config
        width, groups = config.encoder_channels, config.num_groups
        resolutions = config.enc_attention_resolutions
        if resolutions is None:
            resolutions = config.attention_resolutions

        def res(in_channels: int, out_channels: int, resample: str = "none") -> ResBlock:
            return ResBlock(in_channels, out_channels, num_groups=groups, resample=resample)

        def attention(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, num_heads=config.num_heads, num_groups=groups)

        channels = width * config.enc_channel_mult[0]
        side = config.image_size // config.enc_patch_size
        pixels = config.in_channels * config.enc_patch_size**2
        self.input_blocks = nn.ModuleList([Stage([nn.Conv2d(pixels, channels, 3, padding=1)])])
        for level, mult in enumerate(config.enc_channel_mult):
            for _ in range(config.enc_num_res_blocks):
                stage = Stage([res(channels, width * mult)])
                channels = width * mult
                if side in resolutions:
                    stage.append(attention(channels))
                self.input_blocks.append(stage)
            if level != len(config.enc_channel_mult) - 1:
                side //= 2
                self.input_blocks.append(Stage([res(channels, channels, "down")]))
        self.middle_block = Stage([res(channels, channels), attention(channels), res(channels, channels)])
        self.norm = GroupNorm(groups, channels)
        places = side * side if config.enc_pool == "flatten" else 1
        self.out = nn.Linear(channels * places, config.embed_channels)
        self.lay_out()

    def forward(self, x_0: Tensor) -> Tensor:
        """Image (b, c, h, w) in [-1, 1] => z_sem (b, d)."""
        patch = self.config.enc_patch_size
        h = F.pixel_unshuffle(x_0, patch) if patch > 1 else x_0
        h = h.contiguous(memory_format=memory_layout(h.device))
        for stage in self.input_blocks:
            h = stage(h)
        h = silu_of_fresh(self.norm(self.middle_block(h)))
        return self.out(h.mean(dim=(2, 3)) if self.config.enc_pool == "average" else h.flatten(1))
