"""Drawn faces that are drawn once: hundreds of fits look at the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch

from vlbias.data import FaceDataset
from vlbias.data.synthfaces import SynthFaces
from vlbias.images import to_float, to_uint8

__all__ = ["RememberedFaces", "remembered"]


@dataclass(frozen=True, repr=False, eq=False)
class RememberedFaces(SynthFaces):
    """Drawn faces that keep their pictures, to 256 levels as a file would, and those of their counterfactuals.

    Attributes:
        memory: id => picture, uint8 (3, s, s).
    """

    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    def _draw(self, items: Sequence[str]) -> torch.Tensor:
        new = list(dict.fromkeys(item for item in items if item not in self.memory))
        if new:
            self.memory.update(zip(new, to_uint8(super()._draw(new)), strict=True))
        return to_float(torch.stack([self.memory[item] for item in items]))


def remembered(faces: FaceDataset, memory: dict[str, torch.Tensor]) -> FaceDataset:
    """The same faces with a memory, where they are drawn; pictures in files are read quickly enough."""
    if not isinstance(faces, SynthFaces):
        return faces
    values = {one.name: getattr(faces, one.name) for one in fields(SynthFaces)}
    return RememberedFaces(**values, memory=memory)
