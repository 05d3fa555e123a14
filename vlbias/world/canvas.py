"""The canvas of the renderer: pixel grids in face coordinates, soft shapes, alpha compositing.

Face coordinates: the frame is [-1, 1] x [-1, 1], u to the right, v downwards. ``fu, fv`` follow shift, scale and roll
(outline of the head); ``u, v`` also follow yaw and pitch (features that lie on the front of the head).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Canvas", "bump", "line", "ramp"]


@dataclass
class Canvas:
    """A window of the picture being drawn; crops share its memory, so painting in a crop paints the picture.

    Attributes:
        rgb: gamma-2 light (b, 3, h, w). u, v, fu, fv: face coordinates of each pixel (b, h, w).
        head: signed distance to the outline of the bare head (b, h, w). px: width of a pixel in these units.
        x, y: frame coordinates, (w,) and (h,).
    """

    rgb: Tensor
    u: Tensor
    v: Tensor
    fu: Tensor
    fv: Tensor
    head: Tensor
    x: Tensor
    y: Tensor
    px: float

    def crop(self, x0: float, x1: float, y0: float, y1: float) -> Canvas:
        """The window x0..x1, y0..y1 of the frame. Callers leave room for pose (about 0.2)."""
        cols = _between(self.x, x0, x1)
        rows = _between(self.y, y0, y1)
        cut = (..., rows, cols)
        fields = (self.rgb[cut], self.u[cut], self.v[cut], self.fu[cut], self.fv[cut], self.head[cut])
        return Canvas(*fields, self.x[cols], self.y[rows], self.px)

    def cover(self, distance: Tensor, softness: float = 0.0) -> Tensor:
        """Signed distance (positive inside, face units) => coverage in [0, 1], antialiased over one output pixel."""
        return (distance * (1 / (2 * self.px + softness))).add_(0.5).clamp_(0, 1)

    def paint(self, alpha: Tensor, colour: Tensor) -> None:
        """Lay ``colour``, (b, 3, 1, 1) or (b, 3, h, w), over the picture with opacity ``alpha`` (b, h, w)."""
        self.rgb.lerp_(colour.expand_as(self.rgb), alpha[:, None].expand_as(self.rgb))

    def darken(self, amount: Tensor, tint: Tensor | None = None) -> None:
        """Multiply light by 1 - amount (b, h, w); ``tint`` (3,) scales the amount per channel."""
        scale = amount[:, None] if tint is None else amount[:, None] * tint.view(1, 3, 1, 1)
        self.rgb.mul_(1 - scale)


def _between(axis: Tensor, low: float, high: float) -> slice:
    inside = ((axis >= low) & (axis <= high)).nonzero()
    return slice(int(inside[0]), int(inside[-1]) + 1)


def bump(dx: Tensor, dy: Tensor, sx: float | Tensor, sy: float | Tensor) -> Tensor:
    """exp(-(dx/sx)^2 - (dy/sy)^2): a soft round hill of height 1."""
    x, y = dx * (1 / sx), dy * (1 / sy)
    return x.mul_(x).add_(y.mul_(y)).neg_().exp_()


def line(distance: Tensor, width: float | Tensor) -> Tensor:
    """exp(-(distance/width)^2): a soft line of height 1."""
    x = distance * (1 / width)
    return x.mul_(x).neg_().exp_()


def ramp(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Smoothstep from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) * (1 / (high - low))).clamp_(0, 1)
    return (t * -2).add_(3).mul_(t).mul_(t)
