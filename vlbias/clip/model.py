"""``Clip``: an open_clip model with its preprocessing and its tokenizer, as the rest of the library sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vlbias.checkpoints import save_tensors, write_manifest
from vlbias.clip.config import check_model_config
from vlbias.clip.preprocess import Preprocess
from vlbias.clip.tokenizer import MERGES_FILE
from vlbias.errors import ConfigError, ShapeError
from vlbias.files import AnyPath, draft_folder, write_file, write_json

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "Clip", "Prompts", "Tokenizer"]

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
#: Numbers of the largest batch that is known again, 32 MB.
MOST_KEPT = 2**23

#: Texts => token ids (n, context length).
Tokenizer = Callable[[list[str]], torch.Tensor]
#: One prompt, or several whose embeddings are averaged.
Prompts = str | Sequence[str]


class Clip(nn.Module):
    """A model that reads images and text into one space; all features have unit length.

    The weights are frozen and in evaluation mode; gradients pass to the images. Make one with
    :func:`vlbias.clip.load`, or train a small one with :func:`vlbias.clip.train_clip`.

    Args:
        model: an ``open_clip.CLIP`` or ``open_clip.CustomTextCLIP``.
        tokenizer: texts => token ids (n, context length).
        preprocess: what the image tower expects.
        name: for messages.
        model_config: open_clip's ``model_cfg``; ``None`` if it is not known, and then ``save_pretrained`` refuses.
        tokenizer_file: merges of a tokenizer of our own (copied by ``save_pretrained``); ``None`` for open_clip's.
    """

    model: Any  # an open_clip model; its methods are not part of nn.Module's type

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        *,
        name: str = "clip",
        model_config: Mapping[str, Any] | None = None,
        tokenizer_file: Path | bytes | None = None,
    ):
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.name = name
        self.model_config = dict(model_config) if model_config is not None else None
        self._tokenizer_file = tokenizer_file.read_bytes() if isinstance(tokenizer_file, Path) else tokenizer_file
        self._text_cache: dict[tuple[tuple[str, ...], str], torch.Tensor] = {}
        self._last_seen: tuple[torch.Tensor, torch.Tensor] | None = None
        self.requires_grad_(False).eval()

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.parameters())
        return f"Clip({self.name!r}, image size {self.preprocess.size}, {weights:,} weights)"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def logit_scale(self) -> float:
        """Factor from cosine similarity to logits: the inverse of the temperature that the model learned."""
        return float(self.model.logit_scale.detach().exp())

    def encode_image(self, x: torch.Tensor) -> torch.Tensor:
        """Images (b, 3, h, w) in [-1, 1], any size => unit features float32 (b, e); differentiable.

        Raises:
            ShapeError: ``x`` is not floating images.
        """
        # Each attribute of the same faces is asked for by itself: without gradients they are looked at once.
        is_kept = not torch.is_grad_enabled() and not self.training and x.numel() <= MOST_KEPT
        if is_kept and (known := self._known(x)) is not None:
            return known.clone()
        features = self.model.encode_image(self.preprocess(x.to(self.device)).to(self.dtype))
        features = F.normalize(features.float(), dim=-1)
        if is_kept:
            self._last_seen = (x.clone(), features.clone())
        return features

    def _known(self, x: torch.Tensor) -> torch.Tensor | None:
        """Features of the images that were encoded last, if they are these."""
        if self._last_seen is None:
            return None
        last, features = self._last_seen
        alike = (last.device, last.dtype, features.device) == (x.device, x.dtype, self.device)
        return features if alike and torch.equal(last, x) else None

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts => unit features float32 (n, e), on the model's device.

        Raises:
            ConfigError: no text, or an empty one.
        """
        if isinstance(texts, str):
            texts = [texts]
        if not texts or any(not isinstance(text, str) or not text.strip() for text in texts):
            raise ConfigError(f"`texts` must be texts with at least one word each; got {list(texts)!r:.80}.")
        features = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))
        return F.normalize(features.float(), dim=-1)

    def text_embedding(self, prompts: Prompts, templates: Sequence[str] | None = None) -> torch.Tensor:
        """One unit vector (e,) for a prompt or for several: their unit embeddings averaged, then normalised again.

        Args:
            prompts: one text or several.
            templates: sentences with one ``{}`` each, filled with every prompt; ``None`` for the prompts as they are.

        Embeddings are computed once and kept; they carry no gradient.
        """
        texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        if templates is not None:
            texts = tuple(template.format(text) for text in texts for template in templates)
        key = (texts, str(self.device))
        if key not in self._text_cache:
            with torch.no_grad():
                embedding = F.normalize(self.encode_text(texts).mean(dim=0), dim=0)
            if self.training:
                return embedding
            self._text_cache[key] = embedding
        return self._text_cache[key]

    def zero_shot(
        self,
        x: torch.Tensor,
        classes: Mapping[str, Prompts],
        temperature: float | None = None,
        templates: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """Probability of each class for each image, by the similarity of image and text.

        Args:
            x: images (b, 3, h, w) in [-1, 1].
            classes: name => prompt or prompts, at least two classes.
            temperature: of the softmax over cosine similarities; ``None`` for the one that the model learned.
            templates: see :meth:`text_embedding`.

        Returns:
            Probabilities (b, number of classes), columns in the order of ``classes``; rows sum to one.

        Raises:
            ConfigError: fewer than two classes, or a temperature that is not positive.
        """
        return self.classify_features(self.encode_image(x), classes, temperature, templates)

    def classify_features(
        self,
        features: torch.Tensor,
        classes: Mapping[str, Prompts],
        temperature: float | None = None,
        templates: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """:meth:`zero_shot` for image features (b, e) that are already there."""
        if len(classes) < 2:
            raise ConfigError(f"`classes` must name two or more classes; got {sorted(classes)}.")
        if temperature is not None and not temperature > 0:
            raise ConfigError(f"`temperature` must be positive; got {temperature}.")
        text = torch.stack([self.text_embedding(prompts, templates) for prompts in classes.values()])
        if features.ndim != 2 or features.shape[1] != text.shape[1]:
            raise ShapeError(f"`features` must be (b, {text.shape[1]}); got {tuple(features.shape)}.")
        scale = self.logit_scale if temperature is None else 1 / temperature
        return (scale * features @ text.T).softmax(dim=-1)

    def train(self, mode: bool = True) -> Clip:
        """Switch between training and evaluation; kept text embeddings are dropped."""
        # Weights change while training, and embeddings kept from before would be stale.
        self._text_cache.clear()
        self._last_seen = None
        return super().train(mode)

    def save_pretrained(self, folder: AnyPath, dtype: torch.dtype | None = torch.float16) -> None:
        """Write a folder that open_clip itself reads as ``local-dir:FOLDER``.

        It holds ``open_clip_config.json``, ``open_clip_model.safetensors`` and, with a vocabulary of our own, its
        merges: give open_clip's ``get_tokenizer`` that file as ``bpe_path``.

        Raises:
            ConfigError: the architecture is not known as a config.
            CheckpointError: it is one that a folder cannot hold (a text tower of ``transformers``).
            OutputError: the folder cannot be written.
        """
        if self.model_config is None:
            raise ConfigError(f"{self.name} has no architecture config, so it cannot be saved as a folder.")
        check_model_config(self.model_config, self.name)  # what could not be read again is not written
        with draft_folder(folder, last=CONFIG_FILE) as draft:
            if self._tokenizer_file is not None:
                write_file(draft / MERGES_FILE, self._tokenizer_file)
            save_tensors(draft / WEIGHTS_FILE, self.model.state_dict(), dtype)
            config = {"model_cfg": self.model_config, "preprocess_cfg": self.preprocess.to_config()}
            write_json(draft / CONFIG_FILE, config)
            write_manifest(draft)
