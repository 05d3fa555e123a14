"""Import of the checkpoints that the authors of DiffAE distribute (PyTorch Lightning ``last.ckpt``).

The architecture is read from the file's ``hyper_parameters`` where they are, else from the shapes of its tensors; never
from a file or folder name. Nothing of the file is run: see :func:`vlbias.checkpoints.read_foreign_pickle`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlbias import checkpoints
from vlbias.diffae.config import DiffAEConfig, PriorConfig
from vlbias.errors import CheckpointError, ConfigError
from vlbias.files import AnyPath

__all__ = ["PublishedCheckpoint", "config_from_hyper_parameters", "config_from_shapes", "published_name"]

Shapes = Mapping[str, tuple[int, ...]]
Hyper = Mapping[str, Any]

#: Our name of a layer inside a block => the published one.
_LAYERS = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "time": "emb_layers.1",
    "semantic": "cond_emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "skip": "skip_connection",
    "norm": "norm",
    "qkv": "qkv",
    "out": "proj_out",
}
#: Entries of a state dict beside the two copies of the network.
_EXTRAS = ("x_T", "conds_mean", "conds_std")


def published_name(name: str, num_prior_layers: int = 0) -> str:
    """Name in the published state dict, without ``ema_model.``, of one of our parameters.

    >>> published_name("unet.input_blocks.1.0.norm_in.weight")
    'input_blocks.1.0.in_layers.0.weight'
    """
    part, rest = name.split(".", 1)
    if part == "prior":
        rest = re.sub(r"^(layers\.\d+)\.time\.", r"\1.linear_emb.", rest)
        return "latent_net." + re.sub(r"^out\.", f"layers.{num_prior_layers - 1}.linear.", rest)
    prefix = "encoder." if part == "encoder" else ""
    if match := re.fullmatch(r"((?:input|output)_blocks\.\d+\.\d+|middle_block\.\d+)\.([a-z_]+)\.(weight|bias)", rest):
        return f"{prefix}{match[1]}.{_LAYERS[match[2]]}.{match[3]}"
    rest = re.sub(r"^time_embed\.", "time_embed.time_embed.", rest)
    rest = re.sub(r"^out\.", "out.3." if prefix else "out.2.", rest)
    return prefix + re.sub(r"^norm\.", "out.0.", rest)


def _published_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    # the published code writes linear layers over places as convolutions of size one
    if name.endswith(("qkv.weight", "proj_out.weight")):
        return (*shape, 1)
    return (*shape, 1, 1) if name == "encoder.out.3.weight" else shape


# -- architecture -----------------------------------------------------------------------------------------------------
# What the hyper-parameters must hold to tell the architecture, and what vlbias builds in one way only.
_NEEDED = (
    "img_size",
    "net_ch",
    "net_ch_mult",
    "net_num_res_blocks",
    "net_attn",
    "net_enc_channel_mult",
    "net_enc_num_res_blocks",
    "net_beatgans_embed_channels",
)
_NEEDED_OF_PRIOR = ("net_latent_layers", "net_latent_num_hid_channels", "net_latent_skip_layers")
_ONLY = {
    "net_beatgans_resnet_two_cond": True,
    "net_resblock_updown": True,
    "net_enc_pool": "adaptivenonzero",
    "net_enc_use_time": False,
    "net_autoenc_stochastic": False,
    "beatgans_rescale_timesteps": False,
    "net_num_input_res_blocks": None,
    "net_beatgans_resnet_cond_channels": None,
    "net_enc_num_cls": None,
}
_ONLY_OF_PRIOR = {
    "net_latent_condition_bias": 1,
    "net_latent_use_norm": True,
    "net_latent_time_last_act": False,
    "net_latent_num_time_layers": 2,
    "latent_rescale_timesteps": False,
}


def config_from_hyper_parameters(hyper: Hyper, *, has_prior: bool) -> DiffAEConfig | None:
    """Architecture from the published ``TrainConfig``; None if it does not hold the needed entries.

    Raises:
        CheckpointError: an option that vlbias does not build (all published models leave it at its default).
        ConfigError: a value out of range.
    """
    needed = _NEEDED + (_NEEDED_OF_PRIOR if has_prior else ())
    if any(hyper.get(key) is None for key in needed):
        return None
    only = _ONLY | (_ONLY_OF_PRIOR if has_prior else {})
    wrong = [f"{k}={hyper[k]!r} (only {v!r})" for k, v in only.items() if k in hyper and hyper[k] != v]
    if wrong:
        raise CheckpointError(f"The checkpoint's hyper_parameters ask for what is not supported: {', '.join(wrong)}.")
    prior = None
    if has_prior:
        prior = PriorConfig(
            num_layers=hyper["net_latent_layers"],
            hidden_channels=hyper["net_latent_num_hid_channels"],
            skip_layers=hyper["net_latent_skip_layers"],
            time_channels=hyper.get("net_latent_time_emb_channels") or 64,
            dropout=hyper.get("net_latent_dropout") or 0,
            **_of_prior(hyper),
        )
    return DiffAEConfig(
        image_size=hyper["img_size"],
        model_channels=hyper["net_ch"],
        channel_mult=hyper["net_ch_mult"],
        num_res_blocks=hyper["net_num_res_blocks"],
        embed_channels=hyper["net_beatgans_embed_channels"],
        attention_resolutions=hyper["net_attn"],
        enc_channel_mult=hyper["net_enc_channel_mult"],
        enc_num_res_blocks=hyper["net_enc_num_res_blocks"],
        enc_attention_resolutions=hyper.get("net_enc_attn") or None,
        prior=prior,
        **_of_diffusion(hyper),
    )


def _of_diffusion(hyper: Hyper) -> dict[str, Any]:
    """What no shape tells: taken from the hyper-parameters, else the published default."""
    return {
        "num_heads": hyper.get("net_beatgans_attn_head") or 1,
        "dropout": hyper.get("dropout") or 0,
        "T": hyper.get("T") or 1000,
        "beta_schedule": hyper.get("beta_scheduler") or "linear",
    }


def _of_prior(hyper: Hyper) -> dict[str, Any]:
    return {"T": hyper.get("T") or 1000, "beta_schedule": hyper.get("latent_beta_scheduler") or "const0.008"}


def config_from_shapes(shapes: Shapes, image_size: int, hyper: Hyper | None = None) -> DiffAEConfig:
    """Architecture from names and shapes (without ``ema_model.``) and the side of the images in pixels.

    What no shape tells (attention heads, T, betas) is taken from ``hyper`` where it is there, else it is the published
    default.

    Raises:
        CheckpointError: the names or shapes are not those of a published DiffAE.
    """
    try:
        embed, width = shapes["time_embed.time_embed.0.weight"]
        unet = _unet_levels(shapes, width)
        encoder = _encoder_levels(shapes, width, unet, image_size)
        return DiffAEConfig(
            image_size=image_size,
            in_channels=shapes["input_blocks.0.0.weight"][1],
            model_channels=width,
            channel_mult=unet.mults,
            num_res_blocks=unet.length - 1,
            embed_channels=embed,
            attention_resolutions=unet.sides(image_size),
            enc_channel_mult=encoder.mults,
            enc_num_res_blocks=encoder.length - 1,
            enc_attention_resolutions=encoder.sides(image_size),
            prior=_prior_of_shapes(shapes, hyper or {}),
            **_of_diffusion(hyper or {}),
        )
    except KeyError as error:
        raise CheckpointError(f"The architecture cannot be read from the tensors: {error} is missing.") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"The tensors are not those of a published DiffAE: {error}") from error


@dataclass(frozen=True)
class _Levels:
    """Levels of one half of a UNet: ``length`` blocks each, the last of which halves the side."""

    length: int
    mults: tuple[int, ...]
    has_attention: tuple[bool, ...]

    def sides(self, image_size: int) -> tuple[int, ...]:
        """Sides of the feature maps with attention."""
        return tuple(image_size >> level for level, has in enumerate(self.has_attention) if has)


#: More input blocks than any network that is built (levels times blocks of a level).
_MOST_BLOCKS = 300


def _num_blocks(shapes: Shapes, prefix: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(re.escape(prefix) + r"(\d+)\.", key))})


def _unet_levels(shapes: Shapes, width: int) -> _Levels:
    """Levels of the UNet; the first output block that enlarges the side tells how long they are."""
    ups = [int(m[1]) for k in shapes if (m := re.fullmatch(r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight", k))]
    length = min(ups) + 1 if ups else _num_blocks(shapes, "output_blocks.")
    levels = _levels(shapes, "input_blocks.", length, width)
    if levels is None:
        raise CheckpointError("The input blocks of the UNet are not levels of equal length.")
    return levels


def _encoder_levels(shapes: Shapes, width: int, unet: _Levels, image_size: int) -> _Levels:
    """Levels of the encoder. They can rarely be read in two ways; then that which is more like the UNet's wins."""
    prefix = "encoder.input_blocks."
    found = [_levels(shapes, prefix, length, width) for length in range(2, _MOST_BLOCKS)]
    readings = [levels for levels in found if levels and image_size % 2 ** (len(levels.mults) - 1) == 0]
    if not readings:
        raise CheckpointError("The input blocks of the encoder are not levels of equal length.")

    def likeness(levels: _Levels) -> tuple[bool, bool, int]:
        same_attention = levels.sides(image_size) == unet.sides(image_size)
        return same_attention, levels.length == unet.length, -levels.length

    return max(readings, key=likeness)


def _levels(shapes: Shapes, prefix: str, length: int, width: int) -> _Levels | None:
    """The blocks ``prefix1``... as levels of ``length`` blocks, if they can be that."""
    count = _num_blocks(shapes, prefix)
    if length < 2 or count % length or count > _MOST_BLOCKS:
        return None
    mults, attention = [], []
    channels = shapes[f"{prefix}0.0.weight"][0]
    for start in range(1, count, length):
        blocks = range(start, start + length - 1)
        outs = {shapes[f"{prefix}{i}.0.in_layers.2.weight"][0] for i in blocks}
        has = {f"{prefix}{i}.1.qkv.weight" in shapes for i in blocks}
        if len(outs) > 1 or len(has) > 1 or not _halves(shapes, prefix, start + length - 1, count, *outs):
            return None
        out = outs.pop()
        changes_width = f"{prefix}{start}.0.skip_connection.weight" in shapes
        if out % width or (channels != out) != changes_width:
            return None
        channels = out
        mults.append(out // width)
        attention.append(has.pop())
    return _Levels(length, tuple(mults), tuple(attention))


def _halves(shapes: Shapes, prefix: str, block: int, count: int, channels: int) -> bool:
    """Whether a level can end in ``block``: it keeps the channels and has no attention; the last level has none."""
    if block == count:
        return True
    kept = tuple(shapes[f"{prefix}{block}.0.in_layers.2.weight"][:2]) == (channels, channels)
    return kept and f"{prefix}{block}.1.qkv.weight" not in shapes


def _prior_of_shapes(shapes: Shapes, hyper: Hyper) -> PriorConfig | None:
    if "latent_net.layers.0.linear.weight" not in shapes:
        return None
    num_layers = _num_blocks(shapes, "latent_net.layers.")
    widths = [shapes[f"latent_net.layers.{i}.linear.weight"] for i in range(num_layers)]
    hidden = widths[0][0]
    return PriorConfig(
        num_layers=num_layers,
        hidden_channels=hidden,
        skip_layers=tuple(i for i in range(1, num_layers) if widths[i][1] != hidden),
        time_channels=shapes["latent_net.time_embed.0.weight"][1],
        **_of_prior(hyper),
    )


# -- the file ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published file holds.

    Attributes:
        source: the file, for messages.
        config: architecture.
        weights: the averaged weights, by their published names without ``ema_model.``.
        statistics: ``z_mean`` and ``z_std``, (1, d) each.
    """

    source: str
    config: DiffAEConfig
    weights: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: AnyPath) -> PublishedCheckpoint:
        """Read a published ``last.ckpt``.

        Raises:
            CheckpointNotFoundError: no file.
            CheckpointError: truncated, or not such a checkpoint.
            UnsafeCheckpointError: the pickle asks for code to be run.
        """
        return cls.from_content(checkpoints.read_foreign_pickle(path), path)

    @classmethod
    def from_content(cls, content: Any, path: AnyPath) -> PublishedCheckpoint:
        """The same from what the file holds; ``path`` is for messages and for files beside it."""
        path = Path(path)
        state = content.get("state_dict") if isinstance(content, Mapping) else None
        if not isinstance(state, Mapping):
            raise CheckpointError(f"{path} has no `state_dict`: it is not a Lightning checkpoint.")
        weights = _averaged(state, str(path))
        try:
            config = _config_of(weights, state, _plain(content.get("hyper_parameters")))
        except (ConfigError, CheckpointError) as error:
            raise CheckpointError(f"{path}: {error}") from error
        statistics = _statistics(state, path, config)
        return cls(str(path), config, weights, statistics or _no_statistics(path, config))

    def tensors(self, wanted: Shapes) -> dict[str, Tensor]:
        """The tensors by our names, in our shapes.

        Args:
            wanted: names and shapes of the model of ``config``.

        Raises:
            CheckpointError: lists every unexpected, missing and mis-shaped key; or a value is not finite.
        """
        ours = {name: shape for name, shape in wanted.items() if name not in self.statistics}
        num_layers = self.config.prior.num_layers if self.config.prior else 0
        names = {published_name(name, num_layers): name for name in ours}
        twins = _twins(self.weights, self.source)
        found = {name: tuple(value.shape) for name, value in self.weights.items() if name not in twins}
        shapes = {theirs: _published_shape(theirs, ours[name]) for theirs, name in names.items()}
        checkpoints.check_shapes(shapes, found, self.source)
        tensors = {name: self.weights[theirs].reshape(ours[name]) for theirs, name in names.items()}
        tensors |= self.statistics
        checkpoints.check_finite(tensors, self.source)
        return tensors


def _averaged(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """EMA weights by published name; complains about what else is in the state dict."""
    keys = [str(key) for key in state]
    odd = sorted(key for key in keys if not key.startswith(("model.", "ema_model.")) and key not in _EXTRAS)
    ema = {str(key).removeprefix("ema_model."): v for key, v in state.items() if str(key).startswith("ema_model.")}
    raw = {str(key).removeprefix("model."): v for key, v in state.items() if str(key).startswith("model.")}
    if not ema:
        raise CheckpointError(
            f"{source} has no averaged weights (ema_model.*): it is not a published DiffAE checkpoint."
        )
    if odd:
        raise CheckpointError(f"{source} contains {len(odd)} unexpected keys: {', '.join(odd)}.")
    not_tensors = sorted(str(key) for key, value in state.items() if not isinstance(value, Tensor))
    if not_tensors:
        raise CheckpointError(f"{source} contains entries that are not tensors: {', '.join(not_tensors)}.")
    if raw:  # the raw weights are not used, but a file whose two copies differ is damaged
        checkpoints.check_tensors(ema, raw, f"{source} (model.* against ema_model.*)")
    missing = [key for key in ("time_embed.time_embed.0.weight", "input_blocks.0.0.weight") if key not in ema]
    if missing:
        raise CheckpointError(f"{source} contains another network: a published DiffAE has {' and '.join(missing)}.")
    return ema


def _plain(hyper: object) -> Hyper:
    """Hyper-parameters that are numbers, texts and lists; a tensor among them has nothing to say."""
    values = hyper if isinstance(hyper, Mapping) else {}
    kinds = (bool, int, float, str, list, tuple, type(None))
    return {key: value for key, value in values.items() if isinstance(key, str) and isinstance(value, kinds)}


def _config_of(weights: Mapping[str, Tensor], state: Mapping[str, Tensor], hyper: Hyper) -> DiffAEConfig:
    has_prior = any(key.startswith("latent_net.") for key in weights)
    config = config_from_hyper_parameters(hyper, has_prior=has_prior)
    if config is not None:
        return config
    side = hyper.get("img_size") or (state["x_T"].shape[-1] if "x_T" in state and state["x_T"].ndim else None)
    if side is None:
        raise CheckpointError("it says nowhere how large its images are (no img_size, no x_T).")
    if type(side) is not int:
        raise CheckpointError(f"it says that its images have {side!r:.40} pixels; a whole number is expected.")
    return config_from_shapes({name: tuple(value.shape) for name, value in weights.items()}, side, hyper)


def _twins(weights: Mapping[str, Tensor], source: str) -> set[str]:
    """Names of the layers of the prior that the published code stores under two names."""
    pattern = r"latent_net\.layers\.\d+\.cond_layers\.1\.(weight|bias)"
    twins = {name for name in weights if re.fullmatch(pattern, name)}
    for name in sorted(twins):
        twin = name.replace("cond_layers.1", "linear_emb")
        if twin not in weights:
            raise CheckpointError(f"{source}: missing: {twin}, the twin of {name}.")
    return twins


def _statistics(state: Mapping[str, object], path: Path, config: DiffAEConfig) -> dict[str, Tensor] | None:
    """``z_mean`` and ``z_std`` from the state dict, or from a latent.pkl / latent.ckpt beside the file."""
    sources = [(str(path), state)]
    beside = [path.parent / name for name in ("latent.pkl", "latent.ckpt")]
    for source, where in [*sources, *((str(p), None) for p in beside if p.is_file())]:
        where = checkpoints.read_foreign_pickle(source) if where is None else where
        if not isinstance(where, Mapping) or "conds_mean" not in where or "conds_std" not in where:
            continue
        out = {}
        for ours, theirs in (("z_mean", "conds_mean"), ("z_std", "conds_std")):
            value = where[theirs]
            if not isinstance(value, Tensor) or value.numel() != config.embed_channels:
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise CheckpointError(f"{theirs} in {source} must hold {config.embed_channels} numbers; got {got}.")
            out[ours] = value.reshape(1, -1)
        return out
    return None


def _no_statistics(path: Path, config: DiffAEConfig) -> dict[str, Tensor]:
    if config.prior is not None:
        raise CheckpointError(
            f"{path} has a latent prior but no conds_mean / conds_std. Put its latent.pkl or latent.ckpt beside it."
        )
    warnings.warn(
        f"{path} has no statistics of z_sem, so its normalised codes equal the raw ones. Put latent.pkl beside "
        "it, or call fit_normalization with images.",
        stacklevel=5,
    )
    d = config.embed_channels
    return {"z_mean": torch.zeros(1, d), "z_std": torch.ones(1, d)}
