"""Captions from label tables: sentences put together from phrases that describe the values of columns.

A CLIP learns to read an attribute only if captions mention it, in varied wording, and also say what is absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vlbias.errors import ConfigError, LabelError, unknown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CaptionTemplates", "TableCaptions"]

#: Value of a column => phrases for it; a function serves continuous columns.
Phrases = Mapping[Any, Sequence[str]] | Callable[[Any], Sequence[str]]


@dataclass(frozen=True)
class CaptionTemplates:
    """How a row of a label table becomes a sentence.

    A sentence is ``opening + adjectives + noun + tails``: "a photo of" "an" "old dark-skinned" "man" "with glasses".
    A column may have phrases of both kinds; one of them is taken.

    Args:
        openings: sentence starts; the article goes after them.
        nouns: column that chooses the noun and its phrases; ``default_nouns`` where it is not mentioned.
        adjectives: phrases before the noun, by column.
        tails: phrases after the noun, by column.
        mention: probability that a known column is mentioned, one number for all or by column.
        default_nouns: nouns that say nothing.
        joiners: what stands between two tails.

    Raises:
        ConfigError: nothing to say, or a probability out of range.
    """

    adjectives: Mapping[str, Phrases] = field(default_factory=dict)
    tails: Mapping[str, Phrases] = field(default_factory=dict)
    nouns: tuple[str, Phrases] | None = None
    mention: float | Mapping[str, float] = 0.6
    openings: Sequence[str] = ("a photo of", "a portrait of", "a face of", "a picture of", "")
    default_nouns: Sequence[str] = ("person", "face", "human")
    joiners: Sequence[str] = (" and ", ", ", " ")

    def __post_init__(self) -> None:
        if not (self.adjectives or self.tails or self.nouns):
            raise ConfigError("Captions need `adjectives`, `tails` or `nouns`; none was given.")
        values = self.mention.values() if isinstance(self.mention, Mapping) else [self.mention]
        if any(not 0 <= value <= 1 for value in values):
            raise ConfigError(f"`mention` must be probabilities in [0, 1]; got {self.mention}.")

    @property
    def columns(self) -> list[str]:
        """Columns that the sentences speak of."""
        return list(dict.fromkeys([*([self.nouns[0]] if self.nouns else []), *self.adjectives, *self.tails]))

    def only(self, columns: Collection[str]) -> CaptionTemplates:
        """The same sentences, without what they say of other columns.

        Raises:
            ConfigError: nothing is left to say.
        """
        adjectives, tails = (
            {column: phrases for column, phrases in part.items() if column in columns}
            for part in (self.adjectives, self.tails)
        )
        nouns = self.nouns if self.nouns is not None and self.nouns[0] in columns else None
        return dataclasses.replace(self, adjectives=adjectives, tails=tails, nouns=nouns)

    def __call__(self, table: pd.DataFrame, seed: int = 0) -> list[str]:
        """One sentence for each row of a DataFrame; missing values are not mentioned.

        The same seed gives the same sentences; a row's sentence depends on its place in the table.

        Raises:
            UnknownNameError: the table lacks a column.
            LabelError: a value has no phrase.
        """
        return [sentence for sentence, _ in self.draw(table, seed)]

    def draw(self, table: pd.DataFrame, seed: int = 0) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
        """Sentences as above, each with what it states: (column, phrase) pairs."""
        self.check(table)
        rng = np.random.default_rng(seed)
        columns = {column: table[column].tolist() for column in self.columns}
        return [self._sentence({c: values[i] for c, values in columns.items()}, rng) for i in range(len(table))]

    def check(self, table: pd.DataFrame) -> None:
        """Raise UnknownNameError if ``table`` lacks a column that the sentences speak of."""
        for column in self.columns:
            if column not in table.columns:
                raise unknown("column", column, table.columns, where="captions")

    def phrases_for(self, column: str, value: object) -> Sequence[str]:
        """All phrases that are true of a value; none if the value is missing.

        Raises:
            LabelError: a value has no phrase.
        """
        if _is_missing(value):
            return ()
        return [phrase for _, phrase in self._options(column, value)]

    def _options(self, column: str, value: object) -> list[tuple[str, str]]:
        """Where a true phrase may stand ("noun", "before" or "after"), and the phrase."""
        sources = [
            ("before", self.adjectives),
            ("after", self.tails),
            ("noun", dict([self.nouns] if self.nouns else [])),
        ]
        found: list[tuple[str, str]] = []
        for place, phrases in sources:
            if column in phrases:
                own = phrases[column]
                found += [(place, phrase) for phrase in (own(value) if callable(own) else own.get(value, ()))]
        if not found:
            known = [own[column] for _, own in sources if column in own]
            words = ", ".join(sorted(str(value) for own in known if isinstance(own, Mapping) for value in own))
            raise LabelError(
                f"No phrase for the value {value!r:.80} of column '{column}'"
                f"{f'; there are some for: {words}' if words else ''}. Rename the value, or leave the cell empty."
            )
        return found

    def _sentence(self, row: Mapping[str, object], rng: np.random.Generator) -> tuple[str, tuple[tuple[str, str], ...]]:
        known = [c for c in self.columns if not _is_missing(row[c])]
        said = [c for c in known if rng.random() < self._probability(c)]
        if not said and known:
            # A sentence that says nothing fits every face and teaches nothing.
            said = [known[int(rng.integers(len(known)))]]
        chosen = {}
        for column in said:
            options = self._options(column, row[column])
            chosen[column] = options[int(rng.integers(len(options)))]
        nouns = [phrase for place, phrase in chosen.values() if place == "noun"]
        noun = nouns[0] if nouns else self._pick(self.default_nouns, rng)
        before = [phrase for place, phrase in chosen.values() if place == "before"]
        after = [phrase for place, phrase in chosen.values() if place == "after"]
        rng.shuffle(before)
        rng.shuffle(after)
        words = " ".join([*before, noun])
        opening = self._pick(self.openings, rng)
        article = "an" if words[0] in "aeiou" else "a"
        parts = (opening, article if opening else "", words, self._pick(self.joiners, rng).join(after))
        sentence = " ".join(part for part in parts if part)
        return sentence, tuple((column, phrase) for column, (_, phrase) in chosen.items())

    def _probability(self, column: str) -> float:
        return self.mention.get(column, 0.6) if isinstance(self.mention, Mapping) else self.mention

    @staticmethod
    def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
        return choices[int(rng.integers(len(choices)))]


class TableCaptions:
    """Fresh sentences about every row of a label table in every epoch, and which of them fit which rows.

    A CLIP trained on these knows that "a photo of a woman" fits all women of a batch: they are positives, not false
    negatives, which is what lets short captions teach an attribute from few images.

    Args:
        templates: how rows become sentences.
        table: DataFrame, one row for each image.
        seed: of the sentences.

    Raises:
        UnknownNameError, LabelError: see :class:`CaptionTemplates`.
    """

    def __init__(self, templates: CaptionTemplates, table: pd.DataFrame, *, seed: int = 0):
        templates.check(table)
        self.templates, self.table, self.seed = templates, table, seed
        values = {column: table[column].tolist() for column in templates.columns}
        self.true_of = {
            (column, value): frozenset(templates.phrases_for(column, value))
            for column, cells in values.items()
            for value in dict.fromkeys(cells)
            if not _is_missing(value)
        }
        self.phrases = sorted({(c, phrase) for (c, _), phrases in self.true_of.items() for phrase in phrases})
        self.number = {phrase: i for i, phrase in enumerate(self.phrases)}
        # 1 true of the row, 0 false, -1 not known
        truth = np.zeros((len(table), len(self.phrases)), dtype=np.int8)
        for column, cells in values.items():
            own = [i for i, (c, _) in enumerate(self.phrases) if c == column]
            known: dict[Any, list[int]] = {}
            for row, value in enumerate(cells):
                if _is_missing(value):
                    truth[row, own] = -1
                    continue
                if value not in known:
                    known[value] = [self.number[column, p] for p in self.true_of[column, value]]
                truth[row, known[value]] = 1
        self.truth = torch.from_numpy(truth)

    def __len__(self) -> int:
        return len(self.truth)

    def draw(self, epoch: int) -> tuple[list[str], list[tuple[int, ...]]]:
        """One caption for each row, and the numbers of the phrases that it states."""
        drawn = self.templates.draw(self.table, self.seed + 104_729 * (epoch + 1))
        return [text for text, _ in drawn], [tuple(self.number[p] for p in stated) for _, stated in drawn]

    def statements(self, per_phrase: int = 12) -> dict[str, dict[tuple[int, ...], list[str]]]:
        """Sentences about one column each: column => phrases stated => up to ``per_phrase`` wordings."""
        rng = np.random.default_rng(self.seed)
        out: dict[str, dict[tuple[int, ...], list[str]]] = {}
        for column in self.templates.columns:
            single = dataclasses.replace(
                self.templates, mention={c: float(c == column) for c in self.templates.columns}
            )
            # One value for each set of true phrases: a continuous column has thousands of values and few sets.
            values = {phrases: value for (c, value), phrases in self.true_of.items() if c == column}
            # A row that knows nothing but this column says nothing else.
            rows = [
                {c: values[phrases] if c == column else None for c in self.templates.columns}
                for phrases in sorted(values, key=sorted)
            ]
            found: dict[tuple[int, ...], set[str]] = {}
            for _ in range(max(1, 40 * per_phrase // len(rows))):
                for row in rows:
                    sentence, phrases = single._sentence(row, rng)
                    wordings = found.setdefault(tuple(self.number[p] for p in phrases), set())
                    if len(wordings) < per_phrase:
                        wordings.add(sentence)
            out[column] = {phrases: sorted(wordings) for phrases, wordings in sorted(found.items())}
        return out

    def anchors(self, dim: int, num_axes: int = 20, seed: int = 0) -> torch.Tensor:
        """Where each phrase should point: unit rows (number of phrases, dim).

        They are the phrases' loadings on the principal axes of the truth table: phrases that hold together point the
        same way, opposites point apart, and what the table does not associate is orthogonal.
        """
        known = self.truth >= 0
        true = (self.truth == 1).double()
        count = known.sum(dim=0).clamp_min(1)
        mean = true.sum(dim=0) / count
        centred = torch.where(known, true - mean, 0.0)
        centred = centred / (centred.square().sum(dim=0) / count).sqrt().clamp_min(1e-3)
        # The right singular vectors of the rows are the eigenvectors of the small matrix of phrases.
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        num_axes = min(num_axes, len(self.phrases), dim)
        values, vectors = values.flip(0)[:num_axes].clamp_min(0), vectors.flip(1)[:, :num_axes]
        # eigh leaves the sign of each axis open
        vectors = vectors * torch.where(vectors.sum(dim=0) < 0, -1.0, 1.0)
        loadings = vectors * (values / values[0]) ** 0.25
        random = torch.randn(dim, num_axes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rows = loadings @ torch.linalg.qr(random)[0].T
        return torch.nn.functional.normalize(rows, dim=1).float()

    def claims(self, stated: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Which phrases each caption states: float32 (len(stated), number of phrases) of zeros and ones."""
        claims = torch.zeros(len(stated), len(self.phrases))
        for i, claimed in enumerate(stated):
            claims[i, list(claimed)] = 1
        return claims

    def fit(self, rows: torch.Tensor, claims: torch.Tensor) -> torch.Tensor:
        """Which captions fit which rows: int8 (len(rows), len(claims)), 1 fits, 0 does not, -1 not known."""
        truth = self.truth[rows]
        denied = (truth == 0).float() @ claims.T > 0
        unclear = (truth == -1).float() @ claims.T > 0
        out = torch.ones(denied.shape, dtype=torch.int8)
        out[unclear] = -1
        out[denied] = 0
        return out


def _is_missing(value: object) -> bool:
    return (
        value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")
    )
