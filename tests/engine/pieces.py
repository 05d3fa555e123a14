"""Jobs that processes of the tests are sent; nothing heavy is imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlbias.errors import CheckpointError, FaceError

if TYPE_CHECKING:
    from vlbias.simulate import SimulationPlan, TrainingSet


@dataclass(frozen=True)
class Squares:
    """Squares numbers; some of them are met with an error or a kill.

    Attributes:
        marker: says that a worker was killed at 7, once.
    """

    marker: Path | None = None

    def open(self) -> Callable[[int], tuple[int, int, str]]:
        return self.square

    def square(self, number: int) -> tuple[int, int, str]:
        if number == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == -2:
            raise FaceError("a.jpg shows no face", code="no_face", remedy="Give another.")
        if number == -3:
            raise ZeroDivisionError("by nought")
        if number == 7 and self.marker is not None and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2, os.getpid(), os.environ["OMP_NUM_THREADS"]


@dataclass(frozen=True)
class Damaged:
    """A job that cannot be opened."""

    def open(self) -> Callable[[int], int]:
        raise CheckpointError("weights.pt is damaged. Copy it again.")


@dataclass(frozen=True)
class Echo:
    """A model of a simulation that knows every answer."""

    plan: SimulationPlan
    __name__ = "echo"

    def __call__(self, training: TrainingSet) -> list[str]:
        return [self.plan.labels[item][1] for item in self.plan.test]


@dataclass(frozen=True)
class Mortal(Echo):
    """The same; the worker that meets it first is killed.

    Attributes:
        marker: says that it was.
    """

    marker: Path

    def __call__(self, training: TrainingSet) -> list[str]:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(training)
