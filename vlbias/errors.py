"""Every exception of the library, as one small tree.

Each class also derives from a builtin, so ``except ValueError`` keeps working for callers who do not know vlbias.
Messages follow one order: the argument or file, what was expected, what was found, the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from vlbias.shown import printable

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "ConfigError",
    "DatasetError",
    "FaceError",
    "ImageError",
    "LabelError",
    "MissingDependencyError",
    "OutOfRangeWarning",
    "OutputError",
    "PlanError",
    "ShapeError",
    "TrainingError",
    "UnknownNameError",
    "UnsafeCheckpointError",
    "VlbiasError",
    "WorkerError",
    "unknown",
]


class VlbiasError(Exception):
    """Base of all errors that vlbias raises on purpose; the command line prints them without a traceback.

    Names of files and labels stand in a message as they can be shown: one line, in which nothing acts on a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ShapeError(VlbiasError, ValueError):
    """A tensor has another shape, dtype or value range than the function needs."""


class ConfigError(VlbiasError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class CheckpointError(VlbiasError, ValueError):
    """A checkpoint is damaged, incomplete, or of another architecture."""


class UnsafeCheckpointError(CheckpointError):
    """A pickle names code that reading weights does not need; nothing of it was run."""


class CheckpointNotFoundError(CheckpointError, LookupError):
    """No checkpoint of that name or path."""


class DatasetError(VlbiasError, ValueError):
    """A dataset's files are not what its kind promises."""


class LabelError(DatasetError):
    """A label is missing, out of range, or unknown."""


class ImageError(VlbiasError, OSError):
    """An image file cannot be read as a picture, or does not show what can be edited.

    Attributes:
        code: why, as a fixed word, where callers may know a better remedy: ``other_kind``, ``not_square``; else empty.
        fact: what was found, without the remedy.
    """

    def __init__(self, fact: str, *, code: str = "", remedy: str = ""):
        super().__init__(f"{fact}. {remedy}" if remedy else fact)
        self.code, self.fact = code, fact


class FaceError(ImageError):
    """A photograph does not show the face that was asked for.

    Attributes:
        code: why, as a fixed word: ``no_face``, ``several_faces``, ``face_too_small``, ``face_cut_off``,
            ``face_unclear``.
        fact: what was found, without the remedy: for callers who know a better one.
    """

    def __init__(self, fact: str, *, code: str, remedy: str):
        super().__init__(fact, code=code, remedy=remedy)


class UnknownNameError(VlbiasError, LookupError):
    """A name (attribute, path, dataset, backbone) that does not exist here."""


class PlanError(VlbiasError, ValueError):
    """A balancing or simulation plan cannot be made from this data."""


class OutputError(VlbiasError, OSError):
    """An output cannot be written, or its place holds something else."""


class MissingDependencyError(VlbiasError, ImportError):
    """An optional package is needed for this call and is not installed."""


class OutOfRangeWarning(UserWarning):
    """An edit leads beyond the faces that an editor knows, so its picture may show what no face is."""


class TrainingError(VlbiasError, RuntimeError):
    """Training cannot go on (NaN loss, state of another run, too little data)."""


class WorkerError(VlbiasError, RuntimeError):
    """A process that does a part of the work died again and again, or met an error that is nobody's."""


def unknown(kind: str, name: str, available: Iterable[str], where: str = "") -> UnknownNameError:
    """Build the error for a name that does not exist, with the nearest existing ones.

    Example:
        >>> str(unknown("attribute", "yung", ["age", "young"], where="UTKFace"))
        "Unknown attribute 'yung' for UTKFace. Did you mean 'young'? Available: age, young."
    """
    names = sorted(str(item) for item in available)
    close = difflib.get_close_matches(str(name), names, n=1)
    place = f" for {where}" if where else ""
    hint = f" Did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(names) if names else "none"
    return UnknownNameError(f"Unknown {kind} '{name}'{place}.{hint} Available: {listed}.")
