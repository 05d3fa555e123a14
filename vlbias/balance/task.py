"""What a balancer is asked for, of one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlbias.balance.identity import Identity
from vlbias.balance.poles import Poles
from vlbias.balance.settings import BalanceSettings
from vlbias.data import FaceDataset
from vlbias.leak import LeakSettings
from vlbias.networks import FaceNetwork
from vlbias.types import Backend

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What a balancer is asked for, once a dataset has said where its values stand.

    Attributes:
        backend: edits and reads faces.
        faces: the dataset; ``None`` where faces are drawn.
        target, protected: the label columns.
        target_poles: where the target's values stand on a dipole; ``None`` where no dipole reads it.
        poles: of the protected columns.
        source, seed, settings: of the balancer.
        leak: how it is measured what gives edits away.
        identity: who says that a face is still the same person.
        scorers: column -> network of the user's own.
    """

    backend: Backend
    faces: FaceDataset | None
    target: str
    protected: Sequence[str]
    target_poles: Poles | None
    poles: Sequence[Poles]
    source: str
    seed: int
    settings: BalanceSettings
    leak: LeakSettings
    identity: str | FaceNetwork | Identity
    scorers: Mapping[str, FaceNetwork]

    @property
    def columns(self) -> list[str]:
        """The target's column, then the protected ones."""
        return [self.target, *self.protected]

    @property
    def dataset(self) -> FaceDataset:
        """The dataset of a task that has one."""
        assert self.faces is not None  # only faces of a dataset are asked for by their ids
        return self.faces
