"""Tasks of the benchmark: what they are made of, and those of the embedded world."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Protocol, TypeVar

from vlbias.data import FaceDataset
from vlbias.data.synthfaces import load_synthfaces
from vlbias.errors import ConfigError, unknown
from vlbias.files import AnyPath
from vlbias.settings import Settings, number

__all__ = ["Task", "TaskFaces", "WorldTask", "find_tasks", "in_split", "register_task"]

Faces = TypeVar("Faces", bound=FaceDataset)

TARGETS = ("smile", "glasses", "nose", "gender")
PROTECTED = ("skin", "age_group")
#: The two values of each label of the world that tasks speak of.
VALUES: dict[str, tuple[object, object]] = {
    "smile": (0, 1),
    "glasses": (0, 1),
    "nose": ("narrow", "wide"),
    "gender": ("female", "male"),
    "skin": ("light", "dark"),
    "age_group": ("young", "old"),
}
STRENGTHS = (0.9, 0.7)
#: Seeds of the world from here on belong to the benchmark alone: ten for each pair of attributes.
FIRST_SEED = 150_000


@dataclass(frozen=True)
class TaskFaces:
    """The faces of a task; nobody, and no picture, is in two of them.

    Attributes:
        training: in split "train".
        validation: in split "val", from the same source as the training set; methods are tuned on it.
        test: in split "test", as many in each cell; opened once, when everything is chosen.
        more: further real faces that short cells could be filled with, in split "train": what edits are to replace.
    """

    training: FaceDataset
    validation: FaceDataset
    test: FaceDataset
    more: FaceDataset | None = None

    def digest(self) -> str:
        """A hash of who is in each set and of all labels."""
        sets = [self.training, self.validation, self.test, *([] if self.more is None else [self.more])]
        return hashlib.sha256("\n".join(faces.table.to_csv() for faces in sets).encode()).hexdigest()


class Task(Protocol):
    """What the benchmark asks of a task; settings of it decide its faces."""

    @property
    def name(self) -> str:
        """Unique, such as ``world-smile-skin-0.9``."""

    @property
    def target(self) -> str:
        """Column that classifiers predict."""

    @property
    def protected(self) -> str:
        """Column that must not drive them."""

    @property
    def editor(self) -> str:
        """Name or folder of the editor that edits its faces."""

    @property
    def pictures(self) -> str | None:
        """Kind of the dataset whose folder must be given; ``None`` where faces are drawn."""

    def faces(self, root: AnyPath | None = None) -> TaskFaces:
        """The faces; ``root`` is the folder of the pictures, where there is one."""


@dataclass(frozen=True)
class WorldTask(Settings):
    """Faces of the embedded world in which a target is tied to a protected attribute.

    Attributes:
        target, protected: two-valued labels of the world, see :data:`VALUES` for the two of each.
        strength: of the tie in the training and validation set: the correlation of the two. At 0.9 the cells of 2,000
            faces hold 950, 50, 50 and 950.
        num_training, num_validation: faces, half of them in each class and in each group.
        num_test: faces, a quarter in each cell.
        editor: which edits them.
    """

    target: str
    protected: str
    strength: float = number(0.9, 0, 1)
    num_training: int = number(2000, 40, 10_000_000)
    num_validation: int = number(1000, 40, 10_000_000)
    num_test: int = number(4000, 4, 10_000_000)
    editor: str = "synthfaces-64"

    pictures = None

    @property
    def name(self) -> str:
        """Such as ``world-smile-skin-0.9``."""
        return f"world-{self.target}-{self.protected}-{self.strength:g}"

    def faces(self, root: AnyPath | None = None) -> TaskFaces:
        """Drawn from seeds of the pair; two strengths have the same test faces."""
        if root is not None:
            raise ConfigError(f"the faces of {self.name} are drawn; it has no folder of pictures.")
        pairs = list(product(TARGETS, PROTECTED))
        if (self.target, self.protected) not in pairs:
            raise unknown("pair of the world", f"{self.target} x {self.protected}", [f"{t} x {p}" for t, p in pairs])
        seed = FIRST_SEED + 10 * pairs.index((self.target, self.protected))
        return TaskFaces(
            self._drawn(self.num_training, self.strength, seed, "train"),
            self._drawn(self.num_validation, self.strength, seed + 1, "val"),
            self._drawn(self.num_test, 0.0, seed + 2, "test"),
        )

    def _drawn(self, num_faces: int, strength: float, seed: int, split: str) -> FaceDataset:
        """Faces with as many in each class and group as in any other, tied by exact counts."""
        tied = round(num_faces * (1 + strength) / 4)
        counts = [tied, num_faces // 2 - tied, num_faces // 2 - tied, tied]
        order = product(VALUES[self.target], VALUES[self.protected])
        cells: dict[tuple[object, ...], float] = dict(zip(order, counts, strict=True))
        return in_split(load_synthfaces(cells={(self.target, self.protected): cells}, seed=seed), split)


def in_split(faces: Faces, split: str) -> Faces:
    """The same faces, all in one split."""
    return replace(faces, table=faces.table.assign(split=split))


_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Enter a task, so that the command line finds it by its name.

    Raises:
        ConfigError: another task of that name is there; the same one, as when a cell is run again, is no error.
    """
    if repr(_TASKS.get(task.name, task)) != repr(task):
        raise ConfigError(f"a task '{task.name}' is registered already; give yours another name.")
    _TASKS[task.name] = task


def find_tasks(*patterns: str) -> list[Task]:
    """Registered tasks by name or by a pattern as the shell has them, in the order in which they were registered.

    Raises:
        UnknownNameError: a pattern that fits none.

    Example:
        >>> [task.name for task in find_tasks("world-smile-*-0.9")]
        ['world-smile-skin-0.9', 'world-smile-age_group-0.9']
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in _TASKS):
            raise unknown("task", pattern, _TASKS)
    return [task for name, task in _TASKS.items() if any(fnmatchcase(name, pattern) for pattern in patterns)]


for _strength, _target, _protected in product(STRENGTHS, TARGETS, PROTECTED):
    register_task(WorldTask(_target, _protected, _strength))
