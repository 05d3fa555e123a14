"""Pictures at other sizes than the editor's, for judges that want them: a face network sees the whole written file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vlbias.data import FaceDataset
from vlbias.images import to_tensor

__all__ = ["Look", "Through", "through_faces", "through_tensor"]

#: Edge in pixels => the faces at hand at that size, (b, 3, size, size) in [-1, 1].
Look = Callable[[int], torch.Tensor]

#: (edge in pixels or ``None`` for the editor's, function of pictures) => its answers for all faces at hand, (n, ...).
Through = Callable[[int | None, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]


def _in_batches(function: Callable[..., torch.Tensor], size: int, *tensors: torch.Tensor) -> torch.Tensor:
    """Apply a function to aligned tensors in batches of ``size`` rows, without gradients."""
    with torch.no_grad():
        starts = range(0, len(tensors[0]), size)
        return torch.cat([function(*(tensor[start : start + size] for tensor in tensors)) for start in starts])


def through_faces(faces: FaceDataset, ids: Sequence[str], x_0: torch.Tensor, batch_size: int) -> Through:
    """Over faces of a dataset, opened anew for each size, a few at a time.

    Args:
        faces: the dataset.
        ids: n items that can be read.
        x_0: the same at the editor's size (n, 3, h, w).
        batch_size: pictures that are open together.
    """

    def run(size: int | None, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if size is None:
            return _in_batches(function, batch_size, x_0)
        starts = range(0, len(ids), batch_size)
        parts = (ids[start : start + batch_size] for start in starts)
        return torch.cat([function(torch.cat([to_tensor(faces.image(item), size) for item in part])) for part in parts])

    return run


def through_tensor(x_0: torch.Tensor, batch_size: int) -> Through:
    """Over pictures that have no larger original (n, 3, h, w)."""
    return lambda size, function: _in_batches(function, batch_size, x_0)
