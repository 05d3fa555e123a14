"""Judges of attributes that the user brings, in any of their shapes, as networks on faces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vlbias.classify import Classifier
from vlbias.errors import ConfigError, unknown
from vlbias.labelling import ClassifierLabeller
from vlbias.labels import label_text
from vlbias.networks import FaceInput, FaceNetwork, FaceOutput, load_network, of_classifier

if TYPE_CHECKING:
    from vlbias.editor import Editor

__all__ = ["OwnJudge", "resolve_judges"]

#: A file or folder of ``vlbias.networks.load_network``, a network, a classifier, or a labeller.
OwnJudge = str | os.PathLike[str] | FaceNetwork | Classifier | ClassifierLabeller

_KINDS = ("classes", "number")


def resolve_judges(
    editor: Editor, judges: Mapping[str, OwnJudge] | None, columns: Iterable[str]
) -> dict[str, FaceNetwork]:
    """Read what the user gave: column -> network that tells classes or a number.

    Args:
        editor: gives the device.
        judges: column -> judge; ``None`` for none.
        columns: of the target and the protected attributes.

    Raises:
        UnknownNameError: a column that is neither target nor protected.
        ConfigError: a judge of another kind.
        CheckpointError, MissingDependencyError: as :func:`vlbias.networks.load_network`.
    """
    if judges is not None and not isinstance(judges, Mapping):
        raise ConfigError(f"`judges` must map columns to judges, such as {{'gender': 'gender.onnx'}}; got {judges!r}.")
    names = list(columns)
    found = {}
    for column, judge in (judges or {}).items():
        if column not in names:
            raise unknown("column", column, names, where="`judges`, which read the target and the protected attributes")
        found[column] = _network(editor, column, judge)
    return found


def _network(editor: Editor, column: str, judge: Any) -> FaceNetwork:
    if isinstance(judge, (str, os.PathLike)):
        return load_network(judge, needs=_KINDS, device=editor.device)
    if isinstance(judge, Classifier):
        return of_classifier(judge)
    if isinstance(judge, ClassifierLabeller):
        # a labeller takes pictures in [-1, 1] and normalises them by itself
        classes = tuple(str(label_text(label)) for label in judge.classes)
        output = FaceOutput(classes=classes, activation="none")
        return FaceNetwork(judge.source, judge.probabilities, FaceInput(judge.size), output)
    if isinstance(judge, FaceNetwork) and judge.output.kind in _KINDS:
        return judge
    if isinstance(judge, FaceNetwork):
        raise ConfigError(f"`judges`: {judge.name} is an embedder; say what its outputs mean: FaceOutput(classes=...).")
    raise ConfigError(
        f"`judges` of '{column}' must be a file, a Classifier, a ClassifierLabeller, or a FaceNetwork around any "
        f"function; got {type(judge).__name__}."
    )
