"""How well a diffusion autoencoder reconstructs pictures: PSNR, and the sheet to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vlbias import images as image_io
from vlbias.diffae.model import DiffAE
from vlbias.diffae.sampling import seeded_noise
from vlbias.images import to_float

__all__ = ["Reconstruction", "psnr", "reconstruct", "write_sheet"]


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each image; both (b, c, h, w) in [-1, 1] => (b,)."""
    mse = ((x - reference) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(mse.clamp_min(1e-10))


@dataclass(frozen=True)
class Reconstruction:
    """Pictures (b, c, h, w) in [-1, 1]: originals, decoded from fresh noise, decoded from the inverted one."""

    original: Tensor
    fresh: Tensor
    roundtrip: Tensor

    @property
    def psnr(self) -> dict[str, float]:
        """Means over the pictures, in dB."""
        return {
            "psnr_fresh": float(psnr(self.fresh, self.original).mean()),
            "psnr_roundtrip": float(psnr(self.roundtrip, self.original).mean()),
        }


@torch.no_grad()
def reconstruct(
    model: DiffAE,
    images: Tensor,
    *,
    fresh_steps: int = 10,
    invert_steps: int = 20,
    decode_steps: int = 20,
    fresh_solver: str = "ddim",
    solver: str = "dpm++2m",
    batch_size: int = 32,
) -> Reconstruction:
    """Encode uint8 images (n, c, h, w) and decode them from fresh and from inverted x_T.

    ``solver`` is that of the round trip; docs/diffae.md says why the two differ.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    evaluations = model.evaluations
    for start in range(0, len(images), batch_size):
        x_0 = to_float(images[start : start + batch_size]).to(model.z_mean)
        z_sem = model.encode(x_0)
        noise = seeded_noise(range(start, start + len(x_0)), x_0.shape[1:]).to(x_0)
        fresh = model.decode(z_sem, noise, fresh_steps, fresh_solver)
        x_T = model.invert(x_0, z_sem, invert_steps, solver)
        parts.append((x_0, fresh, model.decode(z_sem, x_T, decode_steps, solver)))
    model.evaluations = evaluations
    return Reconstruction(*(torch.cat([p[i] for p in parts]).cpu() for i in range(3)))


def write_sheet(result: Reconstruction, path: str | Path, columns: int = 8) -> None:
    """PNG with three rows: originals, fresh decodes, round trips."""
    rows = (result.original, result.fresh, result.roundtrip)
    tiles = [tile for row in rows for tile in image_io.to_pil(row[:columns])]
    image_io.save_png(image_io.contact_sheet(tiles, columns=min(columns, len(result.original))), path)
