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

    def compare(self, index: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Token ids (m, context length), which fit the images ``index`` (b, m), and the columns (m,) or None."""


class Statements:
    """Sentences about one column each, and which of them fit which images.

    Args:
        captions: of a label table.
        per_column: how many about each column an image is compared with in a step.
        seed: of the draws.
        tokenize: texts => token ids (n, context length); called once, with all sentences.

    Attributes:
        stated: phrases that each sentence states, by their numbers.
        tokens: token ids of each sentence (n, context length).
    """

    def __init__(
        self,
        captions: TableCaptions,
        per_column: int,
        seed: int,
        tokenize: Callable[[Sequence[str]], torch.Tensor],
    ):
        self.captions, self.per_column, self.seed = captions, per_column, seed
        self.stated: list[tuple[int, ...]] = []
        sentences: list[str] = []
        # for each column, by name: for each set of phrases about it, the numbers of the sentences that state them
        self._pool: list[list[range]] = []
        for _, by_phrases in sorted(captions.statements().items()):
            self._pool.append([])
            for phrases, wordings in sorted(by_phrases.items()):
                self._pool[-1].append(range(len(sentences), len(sentences) + len(wordings)))
                sentences += wordings
                self.stated += [phrases] * len(wordings)
        self.tokens, self._claims = tokenize(sentences), captions.claims(self.stated)

    def start_epoch(self, epoch: int) -> None:
        """Statements are drawn anew in each step; epochs do not matter."""

    def any(self, rng: random.Random) -> int:
        """Number of one sentence about any column."""
        return rng.choice(rng.choice(rng.choice(self._pool)))

    def compare(self, index: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A few statements about each column, which of them fit the images ``index``, and their columns' numbers."""
        rng = random.Random(self.seed * 1_000_003 + step)
        chosen, groups = [], []
        for column, choices in enumerate(self._pool):
            for wordings in rng.sample(choices, min(self.per_column, len(choices))):
                chosen.append(rng.choice(wordings))
                groups.append(column)
        return self.tokens[chosen], self.captions.fit(index, self._claims[chosen]), torch.tensor(groups)


class CaptionSource:
    """One caption for each image in each epoch, which of them fit which images, and their token ids."""

    def __init__(self, captions: Captions, n: int, seed: int):
        self.captions, self.n, self.seed = captions, n, seed
        self.tokenizer: Tokenizer | None = None  # made of the texts themselves: :meth:`vocabulary_texts`
        self._ids: dict[str, torch.Tensor] = {}
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

    def compare(self, index: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Distinct captions of the images ``index``, sorted, and which fit which: see :func:`caption_loss`."""
        del step  # the captions of an epoch are fixed
        distinct = sorted({self.texts[i] for i in index.tolist()})
        place = {text: number for number, text in enumerate(distinct)}
        fit = torch.zeros(len(index), len(distinct), dtype=torch.int8)
        for row, i in enumerate(index.tolist()):
            fit[row, place[self.texts[i]]] = 1
        return self.tokenize(distinct), fit, None

    def vocabulary_texts(self) -> list[str]:
        """Texts to learn the vocabulary from: a few epochs if captions vary, all of them if they are listed."""
        if not callable(self.captions) and not isinstance(self.captions, TableCaptions):
            return [text for entry in self.captions for text in ([entry] if isinstance(entry, str) else entry)]
        texts: list[str] = []
        for epoch in range(3):
            self.start_epoch(epoch)
            texts += self.texts
        return texts

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts => token ids (n, context length), each text tokenised once."""
        assert self.tokenizer is not None
        missing = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if missing:
            self._ids.update(zip(missing, self.tokenizer(missing), strict=True))
        return torch.stack([self._ids[text] for text in texts])
