"""A trained autoencoder at twice its size: the same codes and the same faces, with detail left to learn.

The encoder looks at means of 2 x 2 pixels, thus at the picture that it knows, and its codes are the same. The decoder
meets these means at the noise that it knows (``beta_schedule``) and says of them what it said; of the differences
between the four pixels it knows no more than a linear filter until it is trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from vlbias.arguments import checked_call
from vlbias.diffae.config import DiffAEConfig
from vlbias.diffae.haar import haar_bands
from vlbias.diffae.model import DiffAE
from vlbias.diffae.training import check_pixels
from vlbias.errors import ConfigError
from vlbias.images import to_float

__all__ = ["enlarge"]


@checked_call
@torch.no_grad()
def enlarge(model: DiffAE, images: Tensor) -> DiffAE:
    """An autoencoder of pictures twice as wide that does on their means over 2 x 2 pixels what ``model`` does.

    Args:
        model: what was trained; it predicts the velocity.
        images: some of the larger pictures, uint8 (n, c, 2 h, 2 w); their detail is measured.

    Returns:
        The larger model, on the same device; its decoder wants training, its encoder and its prior do not.

    Raises:
        ConfigError: the model predicts noise or is an enlarged one, or ``images`` are not what the larger one takes.
    """
    old = model.config
    if old.prediction_type != "v_prediction" or old.haar_stds is not None:
        what = "predicts noise" if old.haar_stds is None else "was enlarged before"
        raise ConfigError(f"Only an autoencoder that predicts the velocity can be enlarged, and once; this one {what}.")
    changed = {name: 2 * getattr(old, name) for name in ("image_size", "patch_size", "enc_patch_size")}
    config = replace(old, **changed, beta_schedule=f"{old.beta_schedule}/2", haar_stds=(2.0, 1.0))
    check_pixels(config, images=images)
    detail = torch.cat([haar_bands(to_float(part))[:, 1:].flatten() for part in images.split(64)])
    larger = DiffAE(replace(config, haar_stds=(2.0, round(float(detail.std()), 4)))).to(model.device)
    larger.load_state_dict(model.state_dict() | _first_and_last(larger.config, model.state_dict()))
    return larger.eval().requires_grad_(False)


def _first_and_last(config: DiffAEConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The kernels that meet pixels, for pixels of half the side."""
    encoder, first, last = "encoder.input_blocks.0.0.weight", "unet.input_blocks.0.0.weight", "unet.out.weight"
    c, p = config.in_channels, config.enc_patch_size
    kernel = state[encoder]
    pixels = kernel.view(len(kernel), c, p // 2, p // 2, 3, 3) / 4  # each was a mean of four
    spread = pixels.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    none = 3 * c * (config.patch_size // 2) ** 2  # channels of differences, of which nothing is known yet
    return {
        encoder: spread.reshape(len(kernel), c * p * p, 3, 3),
        first: F.pad(state[first], (0, 0, 0, 0, 0, none)),
        last: F.pad(state[last], (0, 0, 0, 0, 0, 0, 0, none)),
        "unet.out.bias": F.pad(state["unet.out.bias"], (0, none)),
    }
