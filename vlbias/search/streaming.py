"""Images of a split: in memory where they fit, otherwise on disk, decoded by worker processes as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vlbias.images import Pictures, load_pixels, to_uint8
from vlbias.processors import usable_processors

__all__ = ["IN_MEMORY_BYTES", "Images", "StoredImages", "batches", "hold"]

#: A split of more bytes stays on disk: 87,000 images of 64 px, or 28,000 of 112 px.
IN_MEMORY_BYTES = 2**30
#: More worker processes than this wait for each other.
MAX_WORKERS = 8


class StoredImages:
    """Images that stay where they are; indexed as a tensor uint8 (n, 3, size, size) would be, they are decoded then.

    Args:
        source: where they are.
        ids: which.
        size: edge in pixels.
    """

    def __init__(self, source: Pictures, ids: Sequence[str], size: int):
        self.source, self.ids, self.size = source, np.asarray(ids, dtype=object), size

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, 3, size, size)."""
        return (len(self.ids), 3, self.size, self.size)

    def __getitem__(self, numbers: slice | np.ndarray | Tensor) -> Tensor:
        """Some images, uint8 (b, 3, size, size)."""
        chosen = self.ids[numbers.numpy() if isinstance(numbers, Tensor) else numbers].tolist()
        return to_uint8(self.source.tensor(chosen, self.size))


Images: TypeAlias = Tensor | StoredImages


def hold(source: Pictures, ids: Sequence[str], size: int, in_memory_bytes: int = IN_MEMORY_BYTES) -> Images:
    """Images of some ids, uint8 (n, 3, size, size): read now if all of them fit, otherwise when they are used.

    Args:
        source: where they are.
        ids: which.
        size: edge in pixels.
        in_memory_bytes: the most that is read at once.

    Raises:
        ImageError: an image cannot be read; of stored images that is said when it is used.
    """
    fits = len(ids) * 3 * size**2 <= in_memory_bytes
    return load_pixels(source, ids, size) if fits else StoredImages(source, ids, size)


def batches(parts: Sequence[Images], chunks: Sequence[np.ndarray], num_workers: int | None = None) -> Iterator[Tensor]:
    """Images by number, uint8 (b, 3, size, size) for each chunk, in order.

    Whoever decodes, the result is the same; stored images are decoded ahead of their use.

    Args:
        parts: images of the same size; numbers count through the first, then the second, ...
        chunks: numbers (b,) of the images of each batch.
        num_workers: processes that decode stored images; 0 for this one, ``None`` for as many as there are processors,
            8 at most.
    """
    chosen = _Chunks(parts, chunks)
    if num_workers is None:
        num_workers = min(usable_processors(), MAX_WORKERS)
    if num_workers == 0 or all(isinstance(part, Tensor) for part in parts):
        yield from (chosen[step] for step in range(len(chunks)))
        return
    workers = min(num_workers, len(chunks))
    yield from DataLoader(chosen, batch_size=None, num_workers=workers, generator=torch.Generator())


class _Chunks(Dataset[Tensor]):
    """One batch an item, so that a worker decodes whole batches and the loader keeps their order."""

    def __init__(self, parts: Sequence[Images], chunks: Sequence[np.ndarray]):
        self.parts, self.chunks = parts, chunks
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, step: int) -> Tensor:
        numbers = self.chunks[step]
        images = torch.empty(len(numbers), *self.parts[0].shape[1:], dtype=torch.uint8)
        for part, start in zip(self.parts, self.starts, strict=False):
            mask = (numbers >= start) & (numbers < start + len(part))
            if mask.any():
                images[torch.from_numpy(mask)] = part[torch.from_numpy(numbers[mask] - start)]
        return images
