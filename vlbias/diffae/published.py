"""Import of the checkpoints that the authors of DiffAE distribute (PyTorch Lightning ``last.ckpt``).

The architecture is read from the file's ``hyper_parameters`` where they are, else from the shapes of its tensors; never
from a file or folder name. Nothing of the file is run: see :func:`vlbias.checkpoints.read_foreign_pickle`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlbias import checkpoints
from vlbias.diffae.config import DiffAEConfig, PriorConfig
from vlbias.diffae.model import DiffAE
from vlbias.errors import CheckpointError, ConfigError

__all__ = [
    "config_from_hyper_parameters",
    "config_from_shapes",
    "load_published",
    "model_from_published",
    "published_name",
]

Shapes = Mapping[str, tuple[int, ...]]

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
def config_from_hyper_parameters(hyper: Mapping[str, Any], *, has_prior: bool) -> DiffAEConfig | None:
    """Architecture from the published ``TrainConfig``; None if it does not hold the needed entries.

    Raises:
        CheckpointError: an option that vlbias does not build (all published models leave it at its default).
    """
    needed = {"img_size", "net_ch", "net_ch_mult", "net_num_res_blocks", "net_attn", "net_enc_channel_mult"}
    needed |= {"net_enc_num_res_blocks", "net_beatgans_embed_channels"}
    needed |= {"net_latent_layers", "net_latent_num_hid_channels", "net_latent_skip_layers"} if has_prior else set()
    if any(hyper.get(k) is None for k in needed):
        return None
    only = {
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
    if has_prior:
        only |= {"net_latent_condition_bias": 1, "net_latent_use_norm": True, "net_latent_time_last_act": False}
        only |= {"net_latent_num_time_layers": 2, "latent_rescale_timesteps": False}
    wrong = [f"{k}={hyper[k]!r} (only {v!r})" for k, v in only.items() if k in hyper and hyper[k] != v]
    if wrong:
        raise CheckpointError(f"The checkpoint's hyper_parameters ask for what is not supported: {', '.join(wrong)}.")
    prior = None
    if has_prior:
        prior = PriorConfig(
            num_layers=int(hyper["net_latent_layers"]),
            hidden_channels=int(hyper["net_latent_num_hid_channels"]),
            skip_layers=tuple(hyper["net_latent_skip_layers"]),
            time_channels=int(hyper.get("net_latent_time_emb_channels") or 64),
            T=int(hyper.get("T") or 1000),
            beta_schedule=str(hyper.get("latent_beta_scheduler") or "const0.008"),
            dropout=float(hyper.get("net_latent_dropout") or 0),
        )
    enc_attention = hyper.get("net_enc_attn")
    return DiffAEConfig(
        image_size=int(hyper["img_size"]),
        model_channels=int(hyper["net_ch"]),
        channel_mult=tuple(hyper["net_ch_mult"]),
        num_res_blocks=int(hyper["net_num_res_blocks"]),
        embed_channels=int(hyper["net_beatgans_embed_channels"]),
        attention_resolutions=tuple(hyper["net_attn"]),
        num_heads=int(hyper.get("net_beatgans_attn_head") or 1),
        enc_channel_mult=tuple(hyper["net_enc_channel_mult"]),
        enc_num_res_blocks=int(hyper["net_enc_num_res_blocks"]),
        enc_attention_resolutions=tuple(enc_attention) if enc_attention else None,
        dropout=float(hyper.get("dropout") or 0),
        T=int(hyper.get("T") or 1000),
        beta_schedule=str(hyper.get("beta_scheduler") or "linear"),
        prior=prior,
    )


def _levels(shapes: Shapes, prefix: str, count: int, per_level: int, width: int) -> tuple[list[int], list[bool]] | None:
    """Multiplier and attention of each level, if blocks ``prefix1``... can be levels of ``per_level`` blocks."""
    mults, attention = [], []
    channels = shapes[f"{prefix}0.0.weight"][0]
    for start in range(1, count + 1, per_level):
        blocks = range(start, start + per_level - 1)
        outs = [shapes[f"{prefix}{i}.0.in_layers.2.weight"][0] for i in blocks]
        has = {f"{prefix}{i}.1.qkv.weight" in shapes for i in blocks}
        is_last = start + per_level - 2 == count
        down = None if is_last else shapes[f"{prefix}{start + per_level - 1}.0.in_layers.2.weight"]
        fits = len(set(outs)) == 1 and len(has) == 1 and outs[0] % width == 0
        # a block that halves the side keeps the channels and has no attention
        fits = fits and (down is None or tuple(down[:2]) == (outs[0], outs[0]))
        fits = fits and (is_last or f"{prefix}{start + per_level - 1}.1.qkv.weight" not in shapes)
        if not fits or (channels == outs[0]) == (f"{prefix}{start}.0.skip_connection.weight" in shapes):
            return None
        channels = outs[0]
        mults.append(outs[0] // width)
        attention.append(has.pop())
    return mults, attention


def config_from_shapes(shapes: Shapes, image_size: int, hyper: Mapping[str, Any] | None = None) -> DiffAEConfig:
    """Architecture from names and shapes (without ``ema_model.``) and the side of the images in pixels.

    What no shape tells (attention heads, T, betas) is taken from ``hyper`` where it is there, else it is the published
    default. The encoder's levels can rarely be read in two ways; then the one with the UNet's attention sides and
    number of blocks wins.

    Raises:
        CheckpointError: the names or shapes are not those of a published DiffAE.
    """
    hyper = hyper or {}
    try:
        width, embed = shapes["time_embed.time_embed.0.weight"][1], shapes["time_embed.time_embed.0.weight"][0]
        blocks = {
            p: len({m[1] for k in shapes if (m := re.match(re.escape(p) + r"(\d+)\.", k))})
            for p in ("input_blocks.", "output_blocks.", "encoder.input_blocks.")
        }
        ups = [int(m[1]) for k in shapes if (m := re.fullmatch(r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight", k))]
        per_level = min(ups) + 1 if ups else blocks["output_blocks."]
        count = blocks["input_blocks."]
        unet = (
            None
            if per_level < 2 or count % per_level
            else _levels(shapes, "input_blocks.", count - 1, per_level, width)
        )
        if unet is None:
            raise CheckpointError("The input blocks of the UNet are not levels of equal length.")

        def sides(attention: list[bool]) -> tuple[int, ...]:
            return tuple(image_size >> i for i, has in enumerate(attention) if has)

        count = blocks["encoder.input_blocks."]
        readings = []
        for n in (d for d in range(2, count + 1) if count % d == 0):
            reading = _levels(shapes, "encoder.input_blocks.", count - 1, n, width)
            if reading and image_size % 2 ** (len(reading[0]) - 1) == 0:
                readings.append((sides(reading[1]) == sides(unet[1]), n == per_level, -n, reading))
        if not readings:
            raise CheckpointError("The input blocks of the encoder are not levels of equal length.")
        best = max(readings, key=lambda r: r[:3])
        prior = None
        if "latent_net.layers.0.linear.weight" in shapes:
            n = len({k.split(".")[2] for k in shapes if k.startswith("latent_net.layers.")})
            hidden = shapes["latent_net.layers.0.linear.weight"][0]
            inputs = [shapes[f"latent_net.layers.{i}.linear.weight"][1] for i in range(n)]
            prior = PriorConfig(
                num_layers=n,
                hidden_channels=hidden,
                skip_layers=tuple(i for i in range(1, n) if inputs[i] != hidden),
                time_channels=shapes["latent_net.time_embed.0.weight"][1],
                T=int(hyper.get("T") or 1000),
                beta_schedule=str(hyper.get("latent_beta_scheduler") or "const0.008"),
            )
        return DiffAEConfig(
            image_size=image_size,
            in_channels=shapes["input_blocks.0.0.weight"][1],
            model_channels=width,
            channel_mult=tuple(unet[0]),
            num_res_blocks=per_level - 1,
            embed_channels=embed,
            attention_resolutions=sides(unet[1]),
            num_heads=int(hyper.get("net_beatgans_attn_head") or 1),
            enc_channel_mult=tuple(best[3][0]),
            enc_num_res_blocks=-best[2] - 1,
            enc_attention_resolutions=sides(best[3][1]),
            dropout=float(hyper.get("dropout") or 0),
            T=int(hyper.get("T") or 1000),
            beta_schedule=str(hyper.get("beta_scheduler") or "linear"),
            prior=prior,
        )
    except KeyError as error:
        raise CheckpointError(f"The architecture cannot be read from the tensors: {error} is missing.") from error
    except (IndexError, ConfigError) as error:
        raise CheckpointError(f"The tensors are not those of a published DiffAE: {error}") from error


# -- tensors ----------------------------------------------------------------------------------------------------------
def _split(state: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """EMA weights by published name; complains about what else is in the state dict."""
    odd = sorted(k for k in state if not k.startswith(("model.", "ema_model.")) and k not in _EXTRAS)
    ema = {k.removeprefix("ema_model."): v for k, v in state.items() if k.startswith("ema_model.")}
    raw = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    if not ema:
        raise CheckpointError(
            f"{source} holds no averaged weights (ema_model.*): it is not a published DiffAE checkpoint."
        )
    if odd:
        raise CheckpointError(f"{source} holds {len(odd)} unexpected keys: {', '.join(odd)}.")
    not_tensors = sorted(k for k, v in state.items() if not isinstance(v, Tensor))
    if not_tensors:
        raise CheckpointError(f"{source} holds entries that are no tensors: {', '.join(not_tensors)}.")
    if raw:  # the raw weights are not used, but a file whose two copies differ is damaged
        checkpoints.check_tensors(ema, raw, f"{source} (model.* against ema_model.*)")
    return ema


def _statistics(state: Mapping[str, Any], path: Path, config: DiffAEConfig) -> dict[str, Tensor] | None:
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


def model_from_published(
    checkpoint: Mapping[str, Any], path: str | Path, device: torch.device | str | None = None
) -> DiffAE:
    """Build the model from the content of a published checkpoint; ``path`` is for messages and files beside it."""
    path = Path(path)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds no `state_dict`: it is not a Lightning checkpoint.")
    ema = _split(state, str(path))
    shapes = {k: tuple(v.shape) for k, v in ema.items()}
    missing = [k for k in ("time_embed.time_embed.0.weight", "input_blocks.0.0.weight") if k not in shapes]
    if missing:
        raise CheckpointError(f"{path} holds another network: a published DiffAE has {' and '.join(missing)}.")
    hyper = checkpoint.get("hyper_parameters")
    hyper = hyper if isinstance(hyper, Mapping) else {}
    has_prior = any(k.startswith("latent_net.") for k in ema)
    config = config_from_hyper_parameters(hyper, has_prior=has_prior)
    if config is None:
        side = hyper.get("img_size") or (state["x_T"].shape[-1] if "x_T" in state else None)
        if side is None:
            raise CheckpointError(f"{path} says nowhere how large its images are (no img_size, no x_T).")
        config = config_from_shapes(shapes, int(side), hyper)

    for name in [k for k in ema if re.fullmatch(r"latent_net\.layers\.\d+\.cond_layers\.1\.(weight|bias)", k)]:
        twin = name.replace("cond_layers.1", "linear_emb")  # one layer, stored under two names
        if twin not in ema:
            raise CheckpointError(f"{path}: missing: {twin}, the twin of {name}.")
        shapes.pop(name)
    with torch.device("meta"):
        ours = {k: tuple(v.shape) for k, v in DiffAE(config).state_dict().items() if k not in ("z_mean", "z_std")}
    layers = config.prior.num_layers if config.prior else 0
    names = {published_name(k, layers): k for k in ours}
    checkpoints.check_shapes({p: _published_shape(p, ours[k]) for p, k in names.items()}, shapes, str(path))

    tensors = {k: ema[p].reshape(ours[k]) for p, k in names.items()}
    statistics = _statistics(state, path, config)
    if statistics is None:
        if has_prior:
            raise CheckpointError(
                f"{path} has a latent prior but no conds_mean / conds_std. Put its latent.pkl or latent.ckpt beside it."
            )
        warnings.warn(
            f"{path} holds no statistics of z_sem, so its normalised codes equal the raw ones. Put latent.pkl beside "
            "it, or call fit_normalization with images.",
            stacklevel=3,
        )
        d = config.embed_channels
        statistics = {"z_mean": torch.zeros(1, d), "z_std": torch.ones(1, d)}
    tensors |= statistics
    if any(not math.isfinite(float(v.double().sum())) for v in tensors.values() if v.device.type != "meta"):
        bad = sorted(k for k, v in tensors.items() if not torch.isfinite(v).all())
        raise CheckpointError(f"{path} holds values that are not finite in {', '.join(bad)}.")
    return DiffAE.from_state(config, tensors, source=str(path), device=device)


def load_published(path: str | Path, device: torch.device | str | None = None) -> DiffAE:
    """Read a published ``last.ckpt``; the model has the averaged weights, in float32, frozen and in eval mode.

    Raises:
        CheckpointNotFoundError, CheckpointError: no file; truncated; not such a checkpoint; keys do not fit (all are
            listed). UnsafeCheckpointError: the pickle asks for code to be run.
    """
    return model_from_published(checkpoints.read_foreign_pickle(path), path, device)
