"""Eyes, brows, nose openings, mouth and glasses."""

from __future__ import annotations

import torch
from torch import Tensor

from vlbias.world.canvas import Canvas, bump, line, ramp

__all__ = ["paint_brows", "paint_eyes", "paint_glasses", "paint_mouth", "paint_nostrils"]


def paint_eyes(c: Canvas, p: dict[str, Tensor]) -> None:
    """Whites, irises, pupils and lids."""
    c = c.crop(-0.8, 0.8, -0.38, 0.18)
    au = c.u.abs()
    side = c.u.sign()
    du = au - p["eye_u"]
    dv = c.v - p["eye_v"] + p["eye_tilt"] * du
    x = du * (1 / p["eye_w"])
    arc = (1 - x * x).clamp_(min=0)
    root = arc.sqrt()
    arc75 = root * root.sqrt()
    upper = -p["lid_up"] * arc75
    # Old lids hang at the outer corner.
    upper = upper + p["droop"] * 0.045 * ramp(x, -0.2, 0.9)
    lower = p["lid_low"] * arc
    inside = torch.minimum(torch.minimum(dv - upper, lower - dv), (1 - x.abs()) * p["eye_w"] * 0.6)
    eye = c.cover(inside)
    white = p["white"] * (1 - 0.25 * line(dv - upper, 0.035))[:, None]
    c.paint(eye, white)
    gaze = p["gaze"] * 0.03 * side
    radius = ((du - gaze) ** 2 + (dv + 0.012) ** 2).sqrt()
    iris = c.cover(0.082 - radius) * eye
    ring = ramp(radius, 0.045, 0.082)[:, None]
    c.paint(iris, p["iris"] * (1.15 - 0.65 * ring))
    c.paint(c.cover(0.036 - radius) * eye, p["pupil"])
    spark = c.cover(0.02 - ((du * side - p["gaze"] * 0.03 + 0.022) ** 2 + (dv + 0.036) ** 2).sqrt())
    c.paint(spark * eye * 0.9, p["spark"])
    # Lid lines: lashes above (thicker on feminine faces, longer at the outer corner), a soft line below, a crease.
    near = 1 - ramp(x.abs(), 0.93, 1.12)
    thick = 0.014 + 0.020 * (1 - p["male"]) + 0.012 * (1 - p["male"]) * ramp(x, 0.2, 1.0)
    lash_line = upper - 0.008 - (1 - p["male"]) * 0.02 * ramp(x, 0.55, 1.1)
    lash = c.cover(thick - (dv - lash_line).abs()) * near
    c.paint(lash * (0.70 + 0.25 * (1 - p["male"])), p["lash"])
    rim = line(dv - lower - 0.006, 0.014) * near
    c.darken(rim * (0.32 + 0.15 * (1 - p["male"])))
    crease = upper - 0.045 - 0.012 * p["lid_open"] + 0.02 * p["droop"]
    fold = line(dv - crease, 0.014) * (1 - ramp(x.abs(), 0.75, 1.15))
    c.darken(fold * (0.30 + 0.22 * p["droop"]))


def paint_brows(c: Canvas, p: dict[str, Tensor]) -> None:
    """Brows, raised and furrowed."""
    c = c.crop(-0.85, 0.85, -0.68, -0.05)
    au = c.u.abs()
    inner, outer = 0.115 - 0.03 * p["furrow"] + 0.015 * (1 - p["male"]), 0.575
    t = ((au - inner) / (outer - inner)).clamp(-0.2, 1.2)
    peak = p["brow_arch"] * (1 - ((t - 0.62) / 0.62) ** 2)
    middle = p["brow_v"] - peak + 0.02 * ramp(t, 0.7, 1.1)
    middle = middle + (p["furrow"] * 0.095 - p["inner_brow"] * 0.11) * (1 - ramp(t, -0.1, 0.75))
    half = p["brow_half"] * (0.75 + 0.5 * ramp(t, -0.15, 0.25)) * (1 - 0.72 * ramp(t, 0.45, 1.05))
    ends = torch.minimum(au - inner, outer - au)
    shape = torch.minimum(half - (c.v - middle).abs(), ends)
    c.paint(c.cover(shape, 0.012) * p["brow_alpha"], p["brow"])


def paint_nostrils(c: Canvas, p: dict[str, Tensor]) -> None:
    """Nostrils, the crease round each wing and the shadow below: they make the width of the nose readable."""
    c = c.crop(-0.52, 0.52, 0.02, 0.5)
    au = c.u.abs()
    w, base = p["nose_w"], p["nose_base"]
    hole = 1 - (((au - 0.50 * w) / (0.22 * w + 0.012)) ** 2 + ((c.v - base + 0.012) / 0.026) ** 2 + 1e-6).sqrt()
    c.darken(c.cover(hole * 0.03, 0.02) * 0.72, torch.tensor([0.92, 1.0, 1.0], device=c.rgb.device))
    du, dv = (au - 0.70 * w) / (0.34 * w), (c.v - base + 0.052) / 0.068
    ring = (du * du + dv * dv + 1e-6).sqrt()
    wing = line((ring - 1.0) * 0.068, 0.018) * ramp(du, -0.1, 0.5)
    c.darken(wing * 0.50)
    under = bump(c.u, c.v - base - 0.035, w * 0.95, 0.03)
    c.darken(under * 0.30)


def paint_mouth(c: Canvas, p: dict[str, Tensor]) -> None:
    """Lips, teeth and the opening between them."""
    c = c.crop(-0.66, 0.66, 0.25, 0.95)
    x = c.u * (1 / p["mouth_w"])
    x2 = x * x
    arc = (1 - x2).clamp_(min=0)
    root = arc.sqrt()
    arc75 = root * root.sqrt()
    middle = p["mouth_v"] - p["corner"] * (x2.clamp(max=1.3) - 0.45)
    gap = p["gap"] * arc75
    top_in = middle - 0.35 * gap
    low_in = middle + 0.65 * gap
    bow = 1 - 0.30 * line(x, 0.16)
    top_out = top_in - p["lip_up"] * arc75 * bow - p["upper_lip"] * 0.03 * arc
    low_out = low_in + p["lip_low"] * arc75
    ends = (1 - x.abs()) * p["mouth_w"]
    lips = c.cover(torch.minimum(torch.minimum(c.v - top_out, low_out - c.v), ends), 0.006)
    upper = (1 - ramp(c.v, middle - 0.01, middle + 0.01))[:, None]
    shine = bump(x, c.v - low_in - 0.45 * p["lip_low"], 0.35, 0.03)[:, None] * (0.25 + 0.2 * (1 - p["male"]))[:, None]
    c.paint(lips * 0.94, p["lip"] * (1 - 0.28 * upper) * (1 + shine))
    hollow = torch.minimum(torch.minimum(c.v - top_in, low_in - c.v), ends)
    mouth = c.cover(hollow) * ramp(p["gap"], 0.006, 0.03)
    depth = ((c.v - top_in) / (gap + 1e-3)).clamp(0, 1)
    c.paint(mouth, p["cavity"])
    show = p["teeth"] * (1 - ramp(c.v - top_in, 0.075, 0.11)) * (1 - ramp(x.abs(), 0.62, 0.92))
    gaps = 1 - 0.10 * ((torch.cos(x * 26.0) * 0.5 + 0.5) ** 2) ** 2
    c.paint(mouth * show, p["tooth"] * (gaps * (1 - 0.25 * depth))[:, None])
    # The line between closed lips, and the corners, which stay readable at 64 px.
    seam = line(c.v - middle, 0.016) * (1 - ramp(x.abs(), 0.88, 1.06)) * (1 - ramp(p["gap"], 0.01, 0.05))
    c.darken(seam * (0.62 + 0.15 * p["press"]))
    dent = bump(x.abs() - 1.0, c.v - p["mouth_v"] + p["corner"] * 0.55, 0.09, 0.03)
    c.darken(dent * (0.38 + 0.15 * p["smile_cheek"]))
    below = bump(c.u, c.v - low_out - 0.035, p["mouth_w"] * 0.55, 0.028)
    c.darken(below * 0.16)


def paint_glasses(c: Canvas, p: dict[str, Tensor]) -> None:
    """Frames, bridge and temples."""
    c = c.crop(-1.0, 1.0, -0.48, 0.3)
    au = c.u.abs()
    half_w, half_h = 0.265, 0.185 + 0.025 * p["frame_style"]
    dx = (au - 0.355).abs() / half_w
    dy = (c.v - p["eye_v"] - 0.025).abs() / half_h
    power = 2.2 + 2.6 * p["frame_style"]
    r = torch.exp2(power * (dx + 1e-4).log2_()) + torch.exp2(power * (dy + 1e-4).log2_())
    r = r.log2_().mul_(1 / power).exp2_()
    ring = 0.024 + 0.006 * p["frame_style"] - ((r - 1) * 0.22).abs()
    bridge = torch.minimum(0.02 - (c.v - p["eye_v"] + 0.03).abs(), 0.105 - au)
    reach = torch.minimum(au - 0.61, p["head_w"] - 0.05 - c.fu.abs())
    temple = torch.minimum(0.02 - (c.v - p["eye_v"] + 0.045).abs(), reach)
    frame = torch.maximum(torch.maximum(ring, bridge), temple)
    lens = c.cover((1 - r) * 0.22) * p["glasses"]
    c.paint(lens * 0.10, p["spark"])
    glare = lens * line((au - 0.355) * c.u.sign() + 0.6 * (c.v - p["eye_v"]) + 0.10, 0.04)
    c.paint(glare * 0.16, p["spark"])
    c.paint(c.cover(frame) * p["glasses"], p["frame"])
