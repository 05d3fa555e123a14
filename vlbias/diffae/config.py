"""Settings of a diffusion autoencoder and of its latent prior: frozen, checked once, complete in themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vlbias.errors import ConfigError
from vlbias.settings import Settings, number

__all__ = ["DiffAEConfig", "PriorConfig"]

#: Most levels and most blocks of a level; with the widths below they bound the time that building a network takes.
_LEVELS, _BLOCKS = 16, 16
_WIDEST, _LARGEST_CODE, _MOST_STEPS = 8192, 65_536, 100_000
#: Most numbers of a patch whose bands are told apart by filters: their table has the square of it.
_PATCH = 1024


def _check_schedule(schedule: str) -> None:
    if not re.fullmatch(r"(linear|cosine|const\d{0,9}\.?\d{1,9})(/[1-9]\d?)?", schedule):
        raise ConfigError(
            "`beta_schedule` must be linear, cosine or const<number>, and /<whole number> for larger pictures; "
            f"got {schedule!r:.40}."
        )


@dataclass(frozen=True)
class PriorConfig(Settings):
    """The latent prior: an MLP with skip connections that denoises normalised semantic codes.

    The defaults are those of the published models; a small model wants a narrower one.
    Source: Preechakul et al. 2022, Diffusion Autoencoders, appendix A and table 8.
    """

    num_layers: int = number(10, 1, 128)
    hidden_channels: int = number(2048, 1, _WIDEST)
    skip_layers: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    time_channels: int = number(64, 2, _WIDEST)
    T: int = number(1000, 1, _MOST_STEPS)
    beta_schedule: str = "const0.008"
    dropout: float = number(0.0, 0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_schedule(self.beta_schedule)
        if self.time_channels % 2:
            raise ConfigError(f"`time_channels` of PriorConfig must be even; got {self.time_channels}.")
        wrong = [i for i in self.skip_layers if not 1 <= i < self.num_layers]
        if wrong:
            raise ConfigError(f"`skip_layers` of PriorConfig must be in 1..{self.num_layers - 1}; got {wrong}.")


@dataclass(frozen=True)
class DiffAEConfig(Settings):
    """Architecture and diffusion of one diffusion autoencoder.

    Sides in ``attention_resolutions`` are sides of the feature maps, thus counted after ``patch_size``.
    ``None`` for an ``enc_*`` setting means: as the decoder. ``embed_channels`` is both the size of z_sem and the
    width of the time embedding, as in the published models.

    What the published models do not have (the defaults switch it off):

    * ``patch_size`` / ``enc_patch_size``: pixel-unshuffle before the UNet / the encoder.
    * ``prediction_type="v_prediction"``.
    * ``enc_pool="flatten"``: the code is read from all places of the last feature map instead of from their mean,
      so a small encoder can hold where things are.
    * ``semantic_map``: a linear image of z_sem is added to the coarsest feature map of the UNet, so a small decoder
      need not build the layout of a face from channel scales alone.
    * ``haar_stds``: deviations of the means and of the differences of 2 x 2 pixels (orthonormal, one level of Haar's
      wavelets). The UNet then sees both at deviation 1, and adds to the best linear prediction of each, as Karras et
      al. 2022 do (table 1) for whole pictures. So noise passes beside the network, not through its channels.
      ``None``: neither, as published.

    ``clip_denoised`` limits the predicted x_0 to [-1, 1] in each sampling step; ``clip_inversion`` does the same
    when inverting (``None``: as ``clip_denoised``).
    """

    image_size: int = number(64, 1, 4096)
    in_channels: int = number(3, 1, 64)
    model_channels: int = number(64, 1, _WIDEST)
    channel_mult: tuple[int, ...] = number((1, 2, 4, 8), 1, 64)
    num_res_blocks: int = number(2, 1, _BLOCKS)
    embed_channels: int = number(512, 1, _LARGEST_CODE)
    attention_resolutions: tuple[int, ...] = (16,)
    num_heads: int = number(1, 1, 1024)
    patch_size: int = number(1, 1, 64)
    enc_model_channels: int | None = number(None, 1, _WIDEST)
    enc_channel_mult: tuple[int, ...] = number((1, 2, 4, 8, 8), 1, 64)
    enc_num_res_blocks: int = number(2, 1, _BLOCKS)
    enc_attention_resolutions: tuple[int, ...] | None = None
    enc_patch_size: int = number(1, 1, 64)
    enc_pool: Literal["average", "flatten"] = "average"
    semantic_map: bool = False
    haar_stds: tuple[float, ...] | None = number(None, 1e-4, 1e4)
    num_groups: int = number(32, 1, _WIDEST)
    dropout: float = number(0.0, 0, below=1)
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    T: int = number(1000, 1, _MOST_STEPS)
    beta_schedule: str = "linear"
    clip_denoised: bool = True
    clip_inversion: bool | None = None
    prior: PriorConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_schedule(self.beta_schedule)
        self._check_levels("UNet", self.patch_size, self.model_channels, self.channel_mult)
        self._check_levels("encoder", self.enc_patch_size, self.encoder_channels, self.enc_channel_mult)
        if self.model_channels % 2:
            raise ConfigError(f"`model_channels` must be even; got {self.model_channels}.")
        if self.haar_stds is not None:
            self._check_haar(self.haar_stds)

    def _check_levels(self, who: str, patch: int, width: int, mult: tuple[int, ...]) -> None:
        if not 1 <= len(mult) <= _LEVELS:
            raise ConfigError(f"The {who} must have 1..{_LEVELS} levels in its channel multipliers; got {len(mult)}.")
        step = patch * 2 ** (len(mult) - 1)
        if self.image_size % step:
            raise ConfigError(
                f"`image_size` {self.image_size} cannot be halved as often as the {who} asks: it must be a "
                f"multiple of {step} (patch {patch}, {len(mult)} levels)."
            )
        wrong = sorted({m * width for m in (1, *mult) if m * width % self.num_groups or m * width % self.num_heads})
        if wrong:
            raise ConfigError(
                f"Channel counts {wrong} of the {who} are not multiples of `num_groups` {self.num_groups} and of "
                f"`num_heads` {self.num_heads}."
            )

    def _check_haar(self, stds: tuple[float, ...]) -> None:
        if len(stds) != 2:
            raise ConfigError(f"`haar_stds` must be two numbers, of means and of differences; got {len(stds)}.")
        if self.prediction_type != "v_prediction" or self.patch_size % 2:
            raise ConfigError(
                "`haar_stds` wants v_prediction and an even `patch_size`; "
                f"got {self.prediction_type} and {self.patch_size}."
            )
        if self.in_channels * self.patch_size**2 > _PATCH:
            raise ConfigError(
                f"`haar_stds` wants patches of {_PATCH:,} numbers at most; {self.in_channels} channels of "
                f"{self.patch_size} x {self.patch_size} pixels are more."
            )

    @property
    def encoder_channels(self) -> int:
        """Width of the encoder's first level."""
        return self.model_channels if self.enc_model_channels is None else self.enc_model_channels
