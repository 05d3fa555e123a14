"""A small vocabulary for a small CLIP: byte-pair merges learned from the captions, read by open_clip's own tokenizer.

open_clip's ``SimpleTokenizer`` reads its merges from a file, so a short file makes a small vocabulary of the same
kind: words of the captions are single tokens, any other text is spelled in pieces down to bytes.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vlbias.arguments import checked_call
from vlbias.errors import CheckpointError
from vlbias.files import open_plain, write_file

if TYPE_CHECKING:  # open_clip takes seconds to import: only the functions that need it do so
    from open_clip.tokenizer import SimpleTokenizer

__all__ = ["MERGES_FILE", "learn_merges", "load_tokenizer", "write_merges"]

MERGES_FILE = "bpe_merges.txt.gz"
#: Three times as much as open_clip's own merges; a small file can inflate to gigabytes.
MAX_MERGES_BYTES = 10 * 2**20

Pair = tuple[str, str]


@checked_call
def learn_merges(texts: Iterable[str], max_merges: int = 2000) -> list[Pair]:
    """Byte-pair encoding (Sennrich et al. 2016, Algorithm 1) of the words of ``texts``.

    Merging goes on until every word is one token or ``max_merges`` is reached. Ties are broken by the pair itself, so
    the same texts give the same merges whatever their order.
    """
    import regex
    from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

    reference = SimpleTokenizer()
    clean = get_clean_fn("lower")
    counts: Counter[str] = Counter()
    for text, n in Counter(texts).items():
        for word in regex.findall(reference.pat, clean(text)):
            counts[word] += n
    words: dict[tuple[str, ...], int] = {}
    for word, n in counts.items():
        spelled = [reference.byte_encoder[b] for b in word.encode()]
        words[(*spelled[:-1], spelled[-1] + "</w>")] = n
    merges: list[Pair] = []
    while len(merges) < max_merges:
        pairs: Counter[Pair] = Counter()
        for symbols, n in words.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += n
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for symbols, n in words.items():
            merged[_merge(symbols, best)] += n
        words = dict(merged)
    return merges


def _merge(symbols: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    out: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def write_merges(path: Path, merges: Iterable[Pair]) -> None:
    """Write merges in the format of open_clip's vocabulary file (gzip, one header line); equal merges, equal bytes."""
    text = "\n".join(["#version: vlbias 1", *(f"{first} {second}" for first, second in merges)])
    write_file(path, gzip.compress(text.encode(), mtime=0))


def load_tokenizer(merges: Path | None, context_length: int) -> SimpleTokenizer:
    """open_clip's SimpleTokenizer with the merges of a file; ``None`` for open_clip's own.

    Raises:
        CheckpointError: the file is missing, damaged, or too large.
    """
    from open_clip.tokenizer import SimpleTokenizer

    if merges is None:
        return SimpleTokenizer(context_length=context_length)
    try:
        with open_plain(merges) as plain, gzip.open(plain) as file:
            text = file.read(MAX_MERGES_BYTES + 1).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{merges} is not a gzip file of byte-pair merges ({error}). Fetch it again.") from error
    if len(text.encode()) > MAX_MERGES_BYTES or any(len(line.split()) != 2 for line in text.split("\n")[1:] if line):
        raise CheckpointError(f"{merges} does not have one pair of pieces on each line. Fetch it again.")
    return SimpleTokenizer(bpe_path=str(merges), context_length=context_length)
