"""Draw faces: attributes => pictures.

Layers are painted back to front on a grid of twice the size, in gamma-2 light, then lit, and seen through a camera
(exposure, colour temperature, blur, sensor noise, JPEG). Each face is drawn from its own values alone.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from torch import Tensor

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError
from vlbias.world import features, hair, skin
from vlbias.world.attributes import NUISANCES
from vlbias.world.canvas import Canvas, ramp
from vlbias.world.chance import pixel_noise
from vlbias.world.faces import Faces
from vlbias.world.parameters import drawing_parameters

__all__ = ["render"]

_CHUNK_PIXELS = 8 * 128 * 128  # a chunk's layers then fit a processor's cache


@checked_call
def render(faces: Faces, size: int = 64, *, jpeg: bool = True) -> Tensor:
    """Draw faces.

    Args:
        faces: what to draw.
        size: side of the square pictures in pixels, 16..1024.
        jpeg: whether the camera writes JPEG; False leaves the picture uncompressed.

    Returns:
        Pictures float32 (n, 3, size, size) in [-1, 1], on whole 8-bit grey levels, on the device of ``faces``.

    Raises:
        ConfigError: ``size`` out of range.
    """
    if not isinstance(size, int) or not 16 <= size <= 1024:
        raise ConfigError(f"`size` must be a whole number of pixels in 16..1024; got {size!r}.")
    step = max(1, _CHUNK_PIXELS // (2 * size) ** 2)
    out = torch.empty(len(faces), 3, size, size, device=faces.age.device)
    starts = range(0, len(faces), step)

    is_inference = torch.is_inference_mode_enabled()

    def chunk(start: int) -> None:
        # a mode is a thread's own: the pool's threads take the caller's
        with torch.no_grad(), torch.inference_mode(is_inference):
            part = faces[start : start + step]
            levels = _camera(_draw(part, size), part, size)
            if jpeg:
                levels = _jpeg(levels, part.nuisance_of("jpeg_quality"))
            out[start : start + step] = levels / 127.5 - 1

    threads = torch.get_num_threads()
    if threads == 1 or faces.age.device.type != "cpu":
        for start in starts:
            chunk(start)
        return out
    # One chunk a core, never one operation shared by cores: faster for many small operations, and an operation split
    # at another place may round its last bit differently.
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(chunk, starts))
    finally:
        torch.set_num_threads(threads)
    return out


def _axis(side: int, device: torch.device) -> Tensor:
    """Pixel centres in frame coordinates (side,)."""
    return (torch.arange(side, device=device) + 0.5) * (2 / side) - 1


def _enlarge(coarse: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return torch.nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)


def _grid(faces: Faces, side: int) -> tuple[Tensor, ...]:
    """Frame and face coordinates of a side x side grid: x, y (side,); fu, fv, u, v (n, side, side)."""
    device = faces.age.device
    x = _axis(side, device)
    pose = ("yaw", "pitch", "roll", "shift_x", "shift_y", "zoom")
    get = {name: faces.nuisance_of(name)[:, None, None] for name in pose}
    px, py = x[None, None, :] - get["shift_x"], x[None, :, None] - get["shift_y"]
    cos, sin = torch.cos(get["roll"]) / get["zoom"], torch.sin(get["roll"]) / get["zoom"]
    fu = px * cos + (py - 0.1) * sin
    fv = (py - 0.1) * cos - px * sin + 0.1
    # The front of the head is a piece of a cylinder turned by yaw, then by pitch (small angles).
    radius = 0.95
    bulge_u = (radius**2 - fu * fu).clamp(min=0.01).sqrt()
    u = fu * torch.cos(get["yaw"]) - bulge_u * torch.sin(get["yaw"])
    bulge_v = (1.3**2 - (fv - 0.05) ** 2).clamp(min=0.01).sqrt() - 0.85
    v = fv - bulge_v * torch.sin(get["pitch"])
    return x, x, fu, fv, u, v


def _draw(faces: Faces, size: int) -> Tensor:
    """Faces => gamma-2 light (n, 3, 2 size, 2 size)."""
    side = 2 * size
    p = drawing_parameters(faces)
    x, y, fu, fv, u, v = _grid(faces, side)
    rgb = _enlarge(_background(faces, p, _axis(size, x.device)))
    c = Canvas(rgb, u, v, fu, fv, skin.head_distance(fu, fv, p), x, y, 2 / side)
    shade = hair.strands(c, p)
    hair.paint_back_hair(c, p, shade)
    _neck(c, p)
    head = skin.paint_head(c, p)
    skin.paint_age(c, p)
    hair.paint_beard(c, p)
    features.paint_nostrils(c, p)
    features.paint_mouth(c, p)
    features.paint_eyes(c, p)
    features.paint_brows(c, p)
    x, y, fu, fv, u, v = _grid(faces, size)
    coarse = Canvas(rgb[..., ::2, ::2], u, v, fu, fv, fu, x, y, 2 / size)
    factor, shine = skin.skin_light(coarse, p)
    rgb.mul_((_enlarge(factor) - 1).mul_(head[:, None]).add_(1)).add_(_enlarge(shine).mul_(head[:, None]))
    hair.paint_front_hair(c, p, shade)
    features.paint_glasses(c, p)
    return rgb


def _background(faces: Faces, p: dict[str, Tensor], x: Tensor) -> Tensor:
    get = {name: faces.nuisance_of(name)[:, None, None] for name in NUISANCES if name.startswith(("back", "blob"))}
    row, col = x[None, :, None], x[None, None, :]
    value = 1 + get["back_slope_x"] * col + get["back_slope_y"] * row
    blob = torch.exp(-(((col - get["blob_x"]) ** 2 + (row - get["blob_y"]) ** 2) / get["blob_size"] ** 2))
    value = (value + get["blob_value"] * blob).clamp(min=0.1)
    return (p["back"] * (value * value)[:, None]).clamp(0, 1)


def _neck(c: Canvas, p: dict[str, Tensor]) -> None:
    low = c.crop(-1.0, 1.0, 0.4, 1.0)
    width = 0.44 + 0.06 * p["male"]
    neck = low.cover(torch.minimum(width - low.fu.abs() + 0.25 * ramp(low.fv, 0.85, 1.1), low.fv - 0.4))
    low.paint(neck, p["skin"] * 0.50)
    shirt = low.cover(low.fv - 0.90 - 0.10 * (1 - ramp(low.fu.abs(), 0.35, 0.95)) * 1.3, 0.01)
    low.paint(shirt, p["cloth"])


def _camera(light: Tensor, faces: Faces, size: int) -> Tensor:
    """Gamma-2 light at twice the size => 8-bit levels (n, 3, size, size), whole numbers in 0..255."""
    warmth = faces.nuisance_of("warmth")
    gain = torch.stack([1 + warmth, torch.ones_like(warmth), 1 - warmth], 1) * faces.nuisance_of("exposure")[:, None]
    picture = (light * gain[:, :, None, None]).clamp_(0, 1)
    picture = reduce(picture, "n c (h a) (w b) -> n c h w", "mean", a=2, b=2).sqrt_()
    picture = _blur(picture, faces.nuisance_of("blur") * size / 64)
    noise = pixel_noise(faces.key, 3, size)
    picture = picture + noise * faces.nuisance_of("noise")[:, None, None, None]
    return (picture * 255).round_().clamp_(0, 255)


def _blur(picture: Tensor, sigma: Tensor) -> Tensor:
    """Separable Gaussian blur, sigma in pixels (n,), by shifted sums (the same arithmetic for every batch size)."""
    radius = max(1, int(np.ceil(2.2 * 0.7 * picture.shape[-1] / 64)))
    taps = torch.arange(-radius, radius + 1, device=picture.device, dtype=torch.float32)
    weight = torch.exp(-0.5 * (taps[None] / sigma.clamp(min=0.05)[:, None]) ** 2)
    weight = weight / weight.sum(1, keepdim=True)
    for axis in (2, 3):
        pad = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        wide = torch.nn.functional.pad(picture, pad, mode="replicate")
        length = picture.shape[axis]
        shifted = (wide.narrow(axis, k, length) * weight[:, k, None, None, None] for k in range(2 * radius + 1))
        picture = sum(shifted)  # type: ignore[assignment]
    return picture


def _jpeg(levels: Tensor, quality: Tensor) -> Tensor:
    """Through a JPEG file and back, without chroma subsampling (so that a block's change stays in its block)."""
    pixels = rearrange(levels, "n c h w -> n h w c").to(torch.uint8).cpu().numpy()
    out = np.empty_like(pixels)
    for i, q in enumerate(quality.round().int().tolist()):
        buffer = io.BytesIO()
        Image.fromarray(pixels[i]).save(buffer, "JPEG", quality=q, subsampling=0)
        out[i] = np.asarray(Image.open(buffer))
    return rearrange(torch.from_numpy(out).to(levels.device), "n h w c -> n c h w")
