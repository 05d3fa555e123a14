"""Counter-based random numbers: a draw depends on (key, name) alone, never on batch, order or library state.

The mixer is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

__all__ = ["picture_keys", "pixel_noise", "row_keys", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def row_keys(seed: int, start: int, n: int) -> np.ndarray:
    """One 64-bit key a row, uint64 (n,): row i's key depends on ``(seed, start + i)`` alone."""
    index = np.arange(start, start + n, dtype=np.uint64)
    with np.errstate(over="ignore"):
        base = _mix(np.full(n, seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64) + np.uint64(_GOLDEN))
        return _mix(base ^ _mix((index + np.uint64(1)) * np.uint64(_GOLDEN)))


def picture_keys(person_keys: np.ndarray, pictures: int) -> np.ndarray:
    """Keys of ``pictures`` pictures of each person, uint64 (persons * pictures,), person by person."""
    with np.errstate(over="ignore"):
        salt = _mix((np.arange(pictures, dtype=np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
        return _mix(_mix(person_keys[:, None] ^ salt[None]) + np.uint64(_GOLDEN)).reshape(-1)


def uniform(keys: np.ndarray, name: str, columns: int | None = None) -> np.ndarray:
    """Uniform draws in [0, 1), float64 (n,), or (n, columns): independent for each key, name and column."""
    salt = np.uint64(zlib.crc32(name.encode()))
    column = np.arange(1 if columns is None else columns, dtype=np.uint64)
    with np.errstate(over="ignore"):
        stream = _mix((salt << np.uint64(20)) + column + np.uint64(_GOLDEN))
        bits = _mix(_mix(keys[:, None] ^ stream[None]) + np.uint64(_GOLDEN))
    draws = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return draws[:, 0] if columns is None else draws


def pixel_noise(keys: Tensor, channels: int, size: int) -> Tensor:
    """Bell-shaped noise of unit variance, float32 (n, channels, size, size), from int64 keys (n,).

    Each value is the centred sum of the four 16-bit halves of two 32-bit hashes (Irwin-Hall of order 4): enough like
    a Gaussian for sensor noise, and free of transcendental functions, so every machine draws the same bits.
    """
    mask = 0xFFFFFFFF
    position = torch.arange(channels * size * size, dtype=torch.int64, device=keys.device)
    total = torch.zeros(keys.shape[0], position.numel(), dtype=torch.float32, device=keys.device)
    for half in (0, 32):
        # `half` is added so that a key whose halves are equal still gives two hashes
        x = (((keys[:, None] >> half) & mask) + half + position[None] * 0x9E3779B1).bitwise_and_(mask)
        x.bitwise_xor_(x >> 16).mul_(0x21F0AAAD).bitwise_and_(mask)
        x.bitwise_xor_(x >> 15).mul_(0xD35A2D97).bitwise_and_(mask)
        x.bitwise_xor_(x >> 15)
        total += (x & 0xFFFF).add_(x >> 16)  # below 2^17: exact in float32
    return total.sub_(2 * 65535.0).div_(65536.0 / 3**0.5).view(-1, channels, size, size)
