"""Find a CLIP: a folder, or an open_clip architecture with weights that are on this machine.

open_clip takes seconds to import, so each function that needs it imports it.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlbias.checkpoints import build_filled, find_checkpoint, load_tensors, verify_folder, whole_folder
from vlbias.clip.config import check_model_config
from vlbias.clip.model import CONFIG_FILE, WEIGHTS_FILE, Clip, Tokenizer
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.tokenizer import MERGES_FILE, load_tokenizer
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError, unknown
from vlbias.files import AnyPath, read_object

__all__ = ["create", "load"]


def load(
    name_or_folder: AnyPath,
    pretrained: AnyPath | None = None,
    device: torch.device | str | None = None,
    *,
    cache_dir: AnyPath | None = None,
    download: bool = False,
) -> Clip:
    """Load a CLIP with its weights; there is no way to get random weights by mistake.

    Args:
        name_or_folder: a folder with ``open_clip_config.json`` (ours, or one saved for the Hugging Face hub), the name
            of a shipped checkpoint (its ``clip/`` folder), or an open_clip architecture ("ViT-B-32").
        pretrained: for an architecture: open_clip's tag ("laion2b_s34b_b79k"), or a local file of weights.
        device: where the model goes; ``None`` for the CPU.
        cache_dir: where downloaded weights are kept; ``None`` for the usual cache.
        download: fetch the weights of a tag if they are not in the cache. Nothing is fetched unless asked for.

    Raises:
        CheckpointNotFoundError: the weights are not on this machine; the message names the tag, the cache folder and
            how to fetch them.
        CheckpointError: the weights are damaged or belong to another architecture.
        UnknownNameError: no such architecture or tag; the message lists near ones.
    """
    import open_clip

    name = os.fspath(name_or_folder)
    architecture = name.replace("/", "-")
    if isinstance(name_or_folder, str) and architecture in open_clip.list_models():
        clip = _load_architecture(architecture, pretrained, cache_dir, download)
    else:
        clip = _load_folder(_find_folder(name_or_folder))
    return clip.to(device) if device is not None else clip


def create(
    model_config: Mapping[str, Any],
    preprocess: Preprocess,
    tokenizer: Tokenizer | None = None,
    *,
    name: str = "clip",
    tokenizer_file: Path | None = None,
) -> Clip:
    """A CLIP of open_clip's own classes with *random* weights, for training and for tests of memory and speed.

    Args:
        model_config: open_clip's ``model_cfg`` (``embed_dim``, ``vision_cfg``, ``text_cfg``, ``custom_text``).
        preprocess: what the image tower expects.
        tokenizer: ``None`` for open_clip's, with the context length of the config.
        name, tokenizer_file: as in :class:`Clip`.
    """
    try:
        model = _build(model_config)
    except TypeError as error:
        raise ConfigError(f"`model_config` does not fit open_clip: {error}.") from error
    if tokenizer is None:
        tokenizer = load_tokenizer(None, model_config["text_cfg"].get("context_length", 77))
    return Clip(model, tokenizer, preprocess, name=name, model_config=model_config, tokenizer_file=tokenizer_file)


def _find_folder(name: AnyPath) -> Path:
    """The folder of that name or path; of an editor, the part that is its CLIP, once all its files are as they were."""
    try:
        folder = find_checkpoint(name)
    except CheckpointNotFoundError as error:
        import open_clip

        near = difflib.get_close_matches(str(name), open_clip.list_models(), n=3)
        hint = f" Near architectures of open_clip: {', '.join(near)}." if near else ""
        raise CheckpointNotFoundError(
            f"No CLIP '{name}': not a folder, a shipped checkpoint, or an architecture of open_clip.{hint} {error}"
        ) from error
    if not (folder / CONFIG_FILE).is_file() and (folder / "clip" / CONFIG_FILE).is_file():
        verify_folder(folder, str(read_object(folder / "config.json").get("name", "")))
        return folder / "clip"
    return whole_folder(folder)


def _load_folder(folder: Path) -> Clip:
    config_file = folder / CONFIG_FILE
    config = read_object(config_file)
    if "model_cfg" not in config:
        raise CheckpointError(f"{folder} is not a CLIP folder: 'model_cfg' is expected in its {CONFIG_FILE}.")
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointNotFoundError(f"{folder} has a config but no weights; {WEIGHTS_FILE} is expected beside it.")
    model_config = check_model_config(config["model_cfg"], str(config_file))
    weights = load_tensors(folder / WEIGHTS_FILE)
    with _quiet(), _checkpoint_errors(str(folder)):
        model = build_filled(partial(_build, model_config), weights, str(folder))
    merges = folder / MERGES_FILE if (folder / MERGES_FILE).is_file() else None
    context_length = model_config["text_cfg"].get("context_length", 77)
    tokenizer = load_tokenizer(merges, context_length)
    num_tokens = 1 + max(tokenizer.encoder.values())  # where a piece stands twice its vocab_size is smaller
    if num_tokens > model.vocab_size:
        raise CheckpointError(
            f"{folder} knows {model.vocab_size} tokens, its tokenizer makes {num_tokens}: {MERGES_FILE} is "
            "missing, or that of another checkpoint."
        )
    preprocess = _preprocess(config.get("preprocess_cfg"), model.visual, config_file)
    return Clip(model, tokenizer, preprocess, name=folder.name, model_config=config["model_cfg"], tokenizer_file=merges)


def _build(model_config: Mapping[str, object]) -> nn.Module:
    """open_clip's own class with random weights."""
    import open_clip

    kind = open_clip.CustomTextCLIP if model_config.get("custom_text") else open_clip.CLIP
    return kind(**{key: value for key, value in model_config.items() if key != "custom_text"})


def _preprocess(stated: Any, visual: object, config_file: Path) -> Preprocess:
    """As open_clip has it: the tower knows its size best."""
    size = getattr(visual, "image_size", None)
    try:
        return Preprocess.from_config({**(stated or {}), **({"size": size} if size else {})})
    except (ConfigError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{config_file}: `preprocess_cfg` is not understood: {error}") from error


def _load_architecture(name: str, pretrained: AnyPath | None, cache_dir: AnyPath | None, download: bool) -> Clip:
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise CheckpointNotFoundError(
            f"{name} needs weights: pass `pretrained=` one of its tags ({', '.join(tags) or 'none known'}) or a local "
            "file. Random weights read nothing."
        )
    config = open_clip.get_model_config(name)
    if not download and any(str(key).startswith("hf_") for key in config["text_cfg"]):
        raise CheckpointNotFoundError(
            f"{name} takes its tokenizer from the hub. Pass download=True to have it fetched."
        )
    file = Path(pretrained).expanduser()
    tag_config: dict[str, Any] = {}
    if not file.is_file():
        tag = os.fspath(pretrained)
        tag_config = get_pretrained_cfg(name, tag) or {}
        if not tag_config:
            raise unknown("pretrained tag or local file", tag, tags, where=name)
        cached = _cached_weights(tag_config, cache_dir)
        if cached is None and download:
            with _quiet(), _checkpoint_errors(f"the weights '{tag}' of {name}"):
                cached = Path(download_pretrained(tag_config, cache_dir=os.fspath(cache_dir) if cache_dir else None))
        if cached is None:
            raise CheckpointNotFoundError(
                f"The weights '{tag}' of {name} are not in {_cache_folder(tag_config, cache_dir)}. Fetch them on a "
                f"machine with network access: vlbias.clip.load('{name}', pretrained='{tag}', download=True); or pass "
                "`pretrained=` a local file."
            )
        file = cached
    preprocess_keys = ("mean", "std", "interpolation", "resize_mode", "size", "fill_color")
    with _quiet(), _checkpoint_errors(f"{file} as {name}"):
        model = open_clip.create_model(
            name,
            pretrained=str(file),
            require_pretrained=True,
            # A tag says how its weights were trained; the architecture's own default is for random weights.
            force_quick_gelu=bool(tag_config.get("quick_gelu", False)),
            force_preprocess_cfg={key: tag_config[key] for key in preprocess_keys if tag_config.get(key)},
        )
        tokenizer = open_clip.get_tokenizer(name)
    if tag_config.get("quick_gelu"):
        config["quick_gelu"] = True
    label = f"{name}/{pretrained if tag_config else file.name}"
    return Clip(model, tokenizer, Preprocess.from_config(model.visual.preprocess_cfg), name=label, model_config=config)


def _cached_weights(tag_config: Mapping[str, Any], cache_dir: AnyPath | None) -> Path | None:
    """The file of a tag if an earlier download left it in the cache; never touches the network."""
    if hub := tag_config.get("hf_hub"):
        from huggingface_hub import try_to_load_from_cache

        repository, _, filename = hub.rpartition("/")
        # The same two names that open_clip tries, the safe format first.
        filename = filename or "open_clip_pytorch_model.bin"
        safe = "open_clip_model" if filename == "open_clip_pytorch_model.bin" else os.path.splitext(filename)[0]
        names = [f"{safe}.safetensors", filename]
        for candidate in names:
            found = try_to_load_from_cache(repository, candidate, cache_dir=os.fspath(cache_dir) if cache_dir else None)
            if isinstance(found, str):
                return Path(found)
    if url := tag_config.get("url"):
        found_file = Path(cache_dir or "~/.cache/clip").expanduser() / os.path.basename(url)
        if found_file.is_file():
            return found_file
    return None


def _cache_folder(tag_config: Mapping[str, object], cache_dir: AnyPath | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if tag_config.get("hf_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(HF_HUB_CACHE)
    return Path("~/.cache/clip").expanduser()


@contextmanager
def _checkpoint_errors(what: str) -> Iterator[None]:
    """Turn what open_clip and torch raise about weights into one sentence of ours."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # open_clip raises whatever the reader below it raises
        reason = str(error).strip().splitlines()
        detail = " ".join(line.strip() for line in reason[:4])
        raise CheckpointError(f"Cannot load {what}: {detail[:600]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip reports its steps on the root logger; only our own messages should reach the user."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous)
