"""Randomness of single items: what is drawn for one depends on what it is, not on where it stands."""

from __future__ import annotations

import hashlib
import json

import numpy as np

__all__ = ["drawn_places", "item_seed"]


def item_seed(*parts: object) -> int:
    """A seed (0..2^52) from what an item is, not from where it stands: order and batches do not change it.

    52 bits survive tools that read a column with blanks as floating point.

    Example:
        >>> item_seed(0, "train", "face-1") == item_seed(0, "train", "face-1")
        True
    """
    text = json.dumps([str(part) for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 12


def drawn_places(n: int, most: int, *, seed: int) -> list[int]:
    """Which of ``n`` nameless rows are looked at where ``most`` suffice: ascending, all where there are no more.

    Rows often stand in an order that means something, so the first ones are no sample.

    Example:
        >>> drawn_places(3, 5, seed=0), len(drawn_places(100, 5, seed=0))
        ([0, 1, 2], 5)
    """
    if n <= most:
        return list(range(n))
    return sorted(np.random.default_rng(seed).permutation(n)[:most].tolist())
