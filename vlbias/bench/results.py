"""What was measured: one line of JSON for each fit, by a digest of all that decides it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlbias.audit.arms import Arm, ArmSettings
from vlbias.bench.sets import Variant, editor_digest, open_editor
from vlbias.bench.tasks import Task, TaskFaces
from vlbias.errors import CheckpointError
from vlbias.files import AnyPath, sha256_json
from vlbias.runstore import RunStore

__all__ = ["Entry", "Result", "key_of", "open_store"]

#: Raised when the protocol changes, so that older results are not mixed with newer ones.
PROTOCOL = 3
#: Most test faces of a line that is read from a file.
MAX_FACES = 10_000_000


@dataclass(frozen=True)
class Entry:
    """What is entered: an arm, and how the set that it learns from is made."""

    arm: Arm
    variant: Variant

    @property
    def label(self) -> str:
        """For tables: ``edits``, or ``edits (share=0.5)``."""
        changes = str(self.variant)
        return f"{self.arm.name} ({changes})" if changes else self.arm.name


@dataclass(frozen=True, eq=False)
class Result:
    """One fit.

    Attributes:
        task, label, seed: which.
        y, group, codes: of the test faces (n,): true class, group, predicted class.
        classes, groups: in the order of the codes.
        chosen: settings that were chosen on validation faces, and what they reached there.
        counts: faces that it learned from, classes by groups.
    """

    task: str
    label: str
    seed: int
    y: np.ndarray
    group: np.ndarray
    codes: np.ndarray
    classes: list[str]
    groups: list[str]
    chosen: Mapping[str, float]
    counts: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; codes are packed."""
        packed = {name: _packed(getattr(self, name)) for name in ("y", "group", "codes")}
        return {**vars(self), **packed, "chosen": dict(self.chosen)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """The inverse of :meth:`to_dict`.

        Raises:
            CheckpointError: the values are no result.
        """
        try:
            arrays = {name: _unpacked(values[name]) for name in ("y", "group", "codes")}
            result = cls(**{**values, **arrays})
            result._check()
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise CheckpointError(f"a line of the results cannot be read: {error}.") from error
        return result

    def _check(self) -> None:
        if not len(self.y) == len(self.group) == len(self.codes):
            raise ValueError("it has predictions of other faces than its labels")
        for codes, names in ((self.y, self.classes), (self.codes, self.classes), (self.group, self.groups)):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"`classes` and `groups` are texts; got {names!r:.60}")
            if codes.max(initial=-1) >= len(names):
                raise ValueError(f"it has the code {codes.max()} for one of {len(names)}")
        if np.asarray(self.counts, dtype=np.int64).ndim != 2:
            raise ValueError(f"`counts` are {self.counts!r:.60}, no table")
        kinds = {"task": str, "label": str, "seed": int, "chosen": Mapping}
        if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(self, name), kind)]:
            raise ValueError(f"`{wrong[0]}` is {getattr(self, wrong[0])!r:.60}")


def _packed(codes: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(codes.astype(np.uint8).tobytes(), 9)).decode()


def _unpacked(text: str) -> np.ndarray:
    unpacked = zlib.decompressobj().decompress(base64.b64decode(text), MAX_FACES + 1)
    if len(unpacked) > MAX_FACES:
        raise ValueError(f"it has predictions of more than {MAX_FACES:,} faces")
    return np.frombuffer(unpacked, dtype=np.uint8).astype(np.int64)


def key_of(task: Task, faces: TaskFaces, entry: Entry, settings: ArmSettings, seed: int) -> str:
    """A digest of everything that decides a result."""
    parts = {
        "protocol": PROTOCOL,
        "task": (task.name, task.target, task.protected, faces.digest()),
        "editor": (editor_digest(task.editor), open_editor(task.editor).renderer.varied),
        "arm": (entry.arm.name, entry.arm.digest),
        "variant": entry.variant.changes(),
        "settings": settings.of_result(),
        "seed": seed,
    }
    return sha256_json(parts)[:32]


def open_store(path: AnyPath) -> RunStore:
    """The file of results; any number of processes may add to it."""
    return RunStore(path, "bench", {}, decode=lambda record: Result.from_dict(record).to_dict())
