"""What an image is compared with in one step of training: captions of the batch, or statements about one column."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from vlbias.clip.captions import TableCaptions
from vlbias.clip.model import Tokenizer
from vlbias.errors import ShapeError

__all__ = ["CaptionSource", "Captions", "Comparison", "Statements"]

#: One caption or several for each image; a function: epoch => one caption for each image; or captions of a label table.
Captions = Sequence[str] | Sequence[Sequence[str]] | Callable[[int], Sequence[str]] | TableCaptions


class Comparison(Protocol):
    """Texts for the images of a step."""

    def start_epoch(self, epoch: int) -> None:
        """Called before the first step of an epoch."""

    def compare(self, index: torch.Tensor, step: int) -> tuple[list[str], torch.Tensor, torch.Tensor | None]:
        """Texts, which fit the images ``index`` (b, m), and the column each is about (m,) or None."""


class Statements:
    """Sentences about one column each, and which of them fit which images."""

    def __init__(self, captions: TableCaptions, per_column: int, seed: int):
        self.captions, self.per_column, self.seed = captions, per_column, seed
        # column => phrases stated => sentences that state them
        self.pool = captions.statements()
        self.columns = sorted(self.pool)

    def start_epoch(self, epoch: int) -> None:
        """Statements are drawn anew in each step; epochs do not matter."""

    def any(self, rng: random.Random) -> tuple[str, tuple[int, ...]]:
        """One sentence about any column."""
        by_phrases = self.pool[rng.choice(self.columns)]
        phrases = rng.choice(sorted(by_phrases))
        return rng.choice(by_phrases[phrases]), phrases

    def compare(self, index: torch.Tensor, step: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """A few statements about each column, which of them fit the images ``index``, and their columns' numbers."""
        rng = random.Random(self.seed * 1_000_003 + step)
        texts, stated, groups = [], [], []
        for number, column in enumerate(self.columns):
            by_phrases = self.pool[column]
            for phrases in rng.sample(sorted(by_phrases), min(self.per_column, len(by_phrases))):
                texts.append(rng.choice(by_phrases[phrases]))
                stated.append(phrases)
                groups.append(number)
        return texts, self.captions.fit(index, stated), torch.tensor(groups)


class CaptionSource:
    """One caption for each image in each epoch, which of them fit which images, and their token ids."""

    def __init__(self, captions: Captions, n: int, seed: int):
        self.captions, self.n, self.seed = captions, n, seed
        self.ids: dict[str, torch.Tensor] = {}
        self.texts: Sequence[str] = []
        if (isinstance(captions, TableCaptions) or not callable(captions)) and len(captions) != n:
            raise ShapeError(f"`captions` must hold one entry for each of the {n} images; got {len(captions)}.")

    def start_epoch(self, epoch: int) -> None:
        """Draw the captions of an epoch."""
        if isinstance(self.captions, TableCaptions):
            self.texts, _ = self.captions.draw(epoch)
        elif callable(self.captions):
            self.texts = list(self.captions(epoch))
        elif isinstance(self.captions[0], str):
            self.texts = list(self.captions)  # type: ignore[arg-type]
        else:
            generator = torch.Generator().manual_seed(self.seed + 104_729 * (epoch + 1))
            draws = torch.rand(self.n, generator=generator).tolist()
            pairs = zip(self.captions, draws, strict=True)
            self.texts = [choices[int(draw * len(choices))] for choices, draw in pairs]
        if len(self.texts) != self.n:
            raise ShapeError(
                f"`captions({epoch})` must return {self.n} texts, one for each image; got {len(self.texts)}."
            )

    def compare(self, index: torch.Tensor, step: int) -> tuple[list[str], torch.Tensor, None]:
        """Distinct captions of the images ``index``, sorted, and which fit which: see :func:`caption_loss`."""
        del step  # the captions of an epoch are fixed
        distinct = sorted({self.texts[i] for i in index.tolist()})
        place = {text: number for number, text in enumerate(distinct)}
        fit = torch.zeros(len(index), len(distinct), dtype=torch.int8)
        for row, i in enumerate(index.tolist()):
            fit[row, place[self.texts[i]]] = 1
        return distinct, fit, None

    def vocabulary_texts(self) -> list[str]:
        """Texts to learn the vocabulary from: a few epochs if captions vary, all of them if they are listed."""
        if not callable(self.captions) and not isinstance(self.captions, TableCaptions):
            return [text for entry in self.captions for text in ([entry] if isinstance(entry, str) else entry)]
        texts: list[str] = []
        for epoch in range(3):
            self.start_epoch(epoch)
            texts += self.texts
        return texts

    def tokenize(self, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
        """Texts => token ids (n, context length), each text tokenised once."""
        missing = [text for text in texts if text not in self.ids]
        if missing:
            self.ids.update(zip(missing, tokenizer(missing), strict=True))
        return torch.stack([self.ids[text] for text in texts])
