"""Convolutions as matrix products: 3x3 with fewer multiplications, for large feature maps on the processor.

A tile of 4x4 outputs needs 36 products a channel pair instead of 144 (F(4x4, 3x3); Lavin & Gray 2016, eq. 8:
``y = A^T [(G g G^T) * (B^T d B)] A``). oneDNN no longer has such a kernel for x86; here the transforms are matrix
products too, done for a band of tiles at a time so that what lies between them stays in the cache.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Conv1x1", "Conv3x3", "direct_convolutions", "winograd_conv3x3"]

#: Below these the transforms cost more than the products that they save (measured: docs/diffae.md).
MIN_CHANNELS, MIN_SIDE = 128, 64
#: Elements of a band of tiles and channels that stay in a core's cache through all three products.
_BAND = 2**15

_is_enabled = True


@contextlib.contextmanager
def direct_convolutions() -> Iterator[None]:
    """Within it every convolution is torch's own; to compare, or on a machine where that is faster."""
    global _is_enabled
    before, _is_enabled = _is_enabled, False
    try:
        yield
    finally:
        _is_enabled = before


@functools.cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """``A^T x A^T`` (16, 36) and ``B^T x B^T`` (36, 36) in float32, ``G x G`` (36, 9) in float64.

    Tiles are evaluated at 0, 1, -1, 1/2, -2 and infinity. With 2 in place of 1/2 the rounding error is three times as
    large.
    """
    points = [0.0, 1.0, -1.0, 0.5, -2.0]

    def powers(count: int) -> np.ndarray:
        return np.array([[p**i for i in range(count)] for p in points] + [[0.0] * (count - 1) + [1.0]])

    a, g, b = powers(4), powers(3), np.linalg.inv(powers(6))
    double = [torch.from_numpy(np.kron(m, m)) for m in (a.T, b.T, g)]
    return double[0].float(), double[1].float(), double[2]


def winograd_conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolution with padding 1 and stride 1, not differentiable.

    Args:
        x: float32 (b, c, h, w) on the CPU, h and w multiples of 4; any memory layout, ``channels_last`` is fastest.
        weight: (k, c, 3, 3).
        bias: (k,) or None.

    Returns:
        (b, k, h, w) in ``channels_last``; each item is computed by itself, so a batch changes no bit of it. It differs
        from ``F.conv2d`` by rounding: about three times the rounding error of that.
    """
    b, c, h, w = x.shape
    k = weight.shape[0]
    a_t, b_t, g = _transforms()
    kernel = torch.mm(g.to(weight.dtype), weight.permute(2, 3, 1, 0).reshape(9, c * k)).view(36, c, k)
    places = x.permute(0, 2, 3, 1)
    per_row = w // 4
    num_rows = min(h // 4, max(1, _BAND // (per_row * c)))
    # a band with the frame of zeros; the frame's sides stay as they are, the rest is written for each band
    strip = torch.zeros(4 * num_rows + 2, w + 2, c)
    step = strip.stride()
    out = torch.empty(b, h // 4, 4, per_row, 4, k)
    for item in range(b):
        for top in range(0, h // 4, num_rows):
            n = min(num_rows, h // 4 - top)
            first, last = max(4 * top - 1, 0), min(4 * (top + n) + 1, h)
            begin = first - (4 * top - 1)
            strip[begin : begin + last - first, 1:-1] = places[item, first:last]
            if top == 0:
                strip[0] = 0
            if last == h:
                strip[begin + last - first] = 0
            tiles = strip.as_strided((6, 6, n, per_row, c), (step[0], step[1], 4 * step[0], 4 * step[1], 1)).reshape(
                36, -1
            )
            product = torch.bmm(torch.mm(b_t, tiles).view(36, n * per_row, c), kernel).view(36, -1)
            y = torch.mm(a_t, product).view(4, 4, n, per_row, k).permute(2, 0, 3, 1, 4)
            if bias is None:
                out[item, top : top + n] = y
            else:
                torch.add(y, bias, out=out[item, top : top + n])
    return out.view(b, h, w, k).permute(0, 3, 1, 2)


class Conv3x3(nn.Conv2d):
    """``nn.Conv2d(c, k, 3, padding=1)`` that takes the way of fewer multiplications where that is faster.

    That is: no gradient is wanted, float32 on the CPU, at least ``MIN_CHANNELS`` in and out, sides of at least
    ``MIN_SIDE`` that are multiples of 4.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) => (b, c_out, h, w), by whichever way is quicker here."""
        if self._is_worth_it(x):
            return winograd_conv3x3(x, self.weight, self.bias)
        return super().forward(x)

    def _is_worth_it(self, x: Tensor) -> bool:
        h, w = x.shape[-2:]
        return (
            _is_enabled
            and min(h, w) >= MIN_SIDE
            and min(self.in_channels, self.out_channels) >= MIN_CHANNELS
            and h % 4 == w % 4 == 0
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
            and not torch.is_autocast_enabled("cpu")
        )


class Conv1x1(nn.Conv2d):
    """``nn.Conv2d(c, k, 1)`` as a matrix product; for a single picture torch would take a slow way through copies."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) => (b, c_out, h, w), by whichever way is quicker here."""
        if x.device.type != "cpu" or not _is_enabled:
            return super().forward(x)
        return F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
