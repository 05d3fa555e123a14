"""Pictures for the UNet as means and differences of 2 x 2 pixels, each at deviation 1.

A patch of 4 x 4 pixels is 48 numbers, as many as a narrow network has channels: it could not let noise pass and look at
the face as well. So what a linear filter of each band knows of the prediction is added beside the network, which learns
the rest. Source: Karras et al. 2022, "Elucidating the Design Space", table 1 and eq. 7, there for whole pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.diffae.betas import alphas_cumprod
from vlbias.diffae.config import DiffAEConfig

__all__ = ["HaarBands", "haar_bands"]

#: Mean and differences of four pixels, orthonormal.
_HAAR = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def haar_bands(x: Tensor) -> Tensor:
    """Pictures (b, c, h, w) => twice the means of 2 x 2 pixels, and three differences: (b, 4, c, h / 2, w / 2)."""
    pixels = F.pixel_unshuffle(x, 2).unflatten(1, (x.shape[1], 4))
    return torch.einsum("kp,bcphw->bkchw", torch.tensor(_HAAR, dtype=x.dtype, device=x.device) / 2, pixels)


class HaarBands(nn.Module):
    """The way of a picture into a UNet that predicts the velocity, and of its prediction out of it.

    Attributes:
        filters: (n, c, p, p), one orthonormal filter a channel of the UNet's input, those of means first.
        gains: (T, 3, 2): of the input, of what passes beside the network, and of its output, at each time step, for
            means and for differences.
        kinds: (n,), 0 where a channel is of means, 1 of differences.
    """

    filters: Tensor
    gains: Tensor
    kinds: Tensor

    def __init__(self, config: DiffAEConfig) -> None:
        super().__init__()
        assert config.haar_stds is not None
        self.patch = config.patch_size
        with torch.device("cpu"):  # true numbers also when the network itself is built on the meta device
            c, p = config.in_channels, self.patch
            pixels = torch.eye(c * p * p).view(-1, c, p, p)
            bands = F.pixel_unshuffle(haar_bands(pixels).flatten(1, 2), p // 2)
            self.register_buffer("filters", bands.flatten(1).T.reshape(-1, c, p, p).contiguous(), persistent=False)
            n = c * (p // 2) ** 2
            self.register_buffer("kinds", torch.tensor([0] * n + [1] * 3 * n), persistent=False)
            std = torch.tensor(config.haar_stds)
            alpha = alphas_cumprod(config.beta_schedule, config.T)[:, None]
            signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
            deviation = (signal**2 * std**2 + noise**2).sqrt()
            beside = signal * noise * (1 - std**2) / deviation**2
            gains = torch.stack([1 / deviation, beside, std / deviation], dim=1)
        self.register_buffer("gains", gains, persistent=False)

    def split(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t (b, c, h, w), t (b,) => what the network sees, and what passes beside it, (b, n, h / p, w / p)."""
        into, beside, _ = self._gains(t)
        with torch.autocast(x_t.device.type, enabled=False):
            bands = F.conv2d(x_t.float(), self.filters, stride=self.patch)
        return bands * into, bands * beside

    def scaled(self, velocity: Tensor, t: Tensor) -> Tensor:
        """Velocities (b, c, h, w), or errors of them => bands (b, n, h / p, w / p) in units of the network's output."""
        with torch.autocast(velocity.device.type, enabled=False):
            return F.conv2d(velocity.float(), self.filters, stride=self.patch) / self._gains(t)[2]

    def join(self, out: Tensor, beside: Tensor, t: Tensor) -> Tensor:
        """What the network said and what passed beside it => velocity (b, c, h, w)."""
        bands = torch.addcmul(beside, out.float(), self._gains(t)[2])
        with torch.autocast(out.device.type, enabled=False):
            return F.conv_transpose2d(bands, self.filters, stride=self.patch)

    def _gains(self, t: Tensor) -> tuple[Tensor, ...]:
        """Three times (b, n, 1, 1)."""
        return self.gains[t][:, :, self.kinds, None, None].unbind(1)
