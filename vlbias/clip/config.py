"""What an ``open_clip_config.json`` may say: the keys of open_clip's own towers, with numbers in a range.

open_clip also takes towers and tokenizers of ``transformers`` from such a file, from the network, and with code of the
folder that it lies in. None of that is understood here: a folder holds weights and numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlbias.errors import CheckpointError, ConfigError
from vlbias.settings import Settings, number

__all__ = ["check_model_config"]

#: Keys that reach for code, files or the network.
_FOREIGN = re.compile(r"hf_.*|tokenizer_.*|multimodal_cfg")


@dataclass(frozen=True)
class _TowerConfig(Settings):
    mlp_ratio: float = number(4.0, above=0, high=16)
    ls_init_value: float | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    block_type: str | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


@dataclass(frozen=True)
class _VisionConfig(_TowerConfig):
    layers: int | tuple[int, int, int, int] = number(12, 1, 256)
    width: int = number(768, 1, 16_384)
    head_width: int = number(64, 1, 1024)
    patch_size: int = number(16, 1, 1024)
    image_size: int | tuple[int, int] = number(224, 1, 4096)
    patch_dropout: float = number(0.0, 0, below=1)
    attentional_pool: bool | str = False
    attn_pooler_queries: int = number(256, 1, 4096)
    attn_pooler_heads: int = number(8, 1, 256)
    no_ln_pre: bool = False
    pos_embed_type: str = "learnable"
    pool_type: str = "tok"
    timm_model_name: str | None = None
    timm_model_pretrained: bool = False
    timm_pool: str = "avg"
    timm_proj: str | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: float = number(0.0, 0, below=1)
    timm_drop_path: float | None = number(None, 0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timm_model_name is not None and not re.fullmatch(
            r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", self.timm_model_name
        ):
            raise ConfigError(f"`timm_model_name` must be an architecture of timm; got {self.timm_model_name!r:.80}.")
        width = self.width if isinstance(self.layers, int) else 32 * self.width  # what a ResNet ends in
        heads = width // self.head_width
        if self.timm_model_name is None and (not heads or width % heads):
            raise ConfigError(f"`head_width` must fit into the width of the tower, {width}; got {self.head_width}.")


@dataclass(frozen=True)
class _TextConfig(_TowerConfig):
    context_length: int = number(77, 3, 8192)
    vocab_size: int = number(49_408, 1, 1_000_000)
    width: int = number(512, 1, 16_384)
    heads: int = number(8, 1, 1024)
    layers: int = number(12, 1, 256)
    embed_cls: bool = False
    pad_id: int = number(0, 0, 1_000_000)
    eos_id: int = number(2, 0, 1_000_000)
    no_causal_mask: bool = False
    pool_type: str = "argmax"
    proj_bias: bool = False
    proj_type: str | None = "linear"


@dataclass(frozen=True)
class _ModelConfig(Settings):
    embed_dim: int = number(low=1, high=16_384)
    vision_cfg: _VisionConfig = _VisionConfig()
    text_cfg: _TextConfig = _TextConfig()
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: float = number(2.66, -100, 100)
    init_logit_bias: float | None = number(None, -1000, 1000)
    nonscalar_logit_scale: bool = False
    output_dict: bool = False


def check_model_config(config: Any, source: str) -> dict[str, Any]:
    """A ``model_cfg`` that open_clip can be given: native keys alone, and no weights of its own.

    Args:
        config: as it stands in the file.
        source: the file, for messages.

    Returns:
        The same values; of a tower of timm, without its wish for pretrained weights.

    Raises:
        CheckpointError: a key is unknown or reaches for something else, or a value is out of range.
    """
    for part in (config, *(config.values() if isinstance(config, Mapping) else ())):
        for key in part if isinstance(part, Mapping) else ():
            if _FOREIGN.fullmatch(str(key)):
                raise CheckpointError(
                    f"{source}: `{key}` asks for more than weights and numbers; only towers and the tokenizer of "
                    "open_clip itself are read from a folder."
                )
    try:
        _ModelConfig.from_dict(config)
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
    vision = dict(config.get("vision_cfg", {}))
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    return {**config, "vision_cfg": vision, "text_cfg": dict(config.get("text_cfg", {}))}
