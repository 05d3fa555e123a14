"""The latent prior: a small diffusion model of the normalised semantic codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.diffae.betas import Process
from vlbias.diffae.blocks import timestep_features
from vlbias.diffae.config import PriorConfig
from vlbias.diffae.sampling import noise_to_sample
from vlbias.errors import ShapeError

__all__ = ["LatentPrior"]


class PriorLayer(nn.Module):
    """Linear, scaled by the time, layer norm, SiLU: (b, in), time (b, d) => (b, out)."""

    def __init__(self, in_channels: int, out_channels: int, time_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)
        self.time = nn.Linear(time_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(b, in), (b, d) => (b, out)."""
        h = self.norm(self.linear(x) * (1 + self.time(time)))
        return self.dropout(F.silu(h))


class LatentPrior(nn.Module):
    """The published MLP with skip connections; predicts the noise in normalised codes.

    Args:
        config: see :class:`PriorConfig`.
        code_size: d of z_sem.
    """

    def __init__(self, config: PriorConfig, code_size: int) -> None:
        super().__init__()
        self.config, self.code_size = config, code_size
        width = config.hidden_channels
        self.time_embed = nn.Sequential(
            nn.Linear(config.time_channels, code_size), nn.SiLU(), nn.Linear(code_size, code_size)
        )
        inner = config.num_layers - 1

        def inputs(i: int) -> int:
            return (width if i else code_size) + (code_size if i in config.skip_layers else 0)

        self.layers = nn.ModuleList([PriorLayer(inputs(i), width, code_size, config.dropout) for i in range(inner)])
        self.out = nn.Linear(inputs(inner), code_size)

    def predict_noise(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Noised normalised codes z_t (b, d) and integer t (b,) => predicted noise (b, d)."""
        if z_t.ndim != 2 or z_t.shape[1] != self.code_size:
            raise ShapeError(f"`z_t` must be (b, {self.code_size}); got {tuple(z_t.shape)}.")
        time = F.silu(self.time_embed(timestep_features(t, self.config.time_channels).to(z_t.dtype)))
        h = z_t
        for i, layer in enumerate(self.layers):
            h = layer(torch.cat([h, z_t], dim=1) if i in self.config.skip_layers else h, time)
        return self.out(torch.cat([h, z_t], dim=1) if len(self.layers) in self.config.skip_layers else h)

    forward = predict_noise

    @torch.no_grad()
    def sample(self, noise: Tensor, num_steps: int = 20) -> Tensor:
        """Deterministic DDIM from ``noise`` (b, d) ~ N(0, 1) to *normalised* codes (b, d), x_0 not clipped.

        :meth:`DiffAE.denormalize` turns them into z_sem.
        """
        process = Process(self.config.T, self.config.beta_schedule)
        return noise_to_sample(self.predict_noise, process, noise, num_steps)
