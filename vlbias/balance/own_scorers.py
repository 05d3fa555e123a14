"""Scorers of attributes that the user brings, in any of their shapes, as networks on faces."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from vlbias.classify import Classifier
from vlbias.errors import ConfigError, unknown
from vlbias.labelling import ClassifierLabeller
from vlbias.labels import label_text
from vlbias.networks import FaceInput, FaceNetwork, FaceOutput, load_network, of_classifier
from vlbias.types import Backend

__all__ = ["OwnScorer", "resolve_scorers"]

#: A file or folder of ``vlbias.networks.load_network``, a network, a classifier, or a labeller.
OwnScorer = str | os.PathLike[str] | FaceNetwork | Classifier | ClassifierLabeller

_KINDS = ("classes", "number")


def resolve_scorers(
    backend: Backend, scorers: Mapping[str, OwnScorer] | None, columns: Iterable[str]
) -> dict[str, FaceNetwork]:
    """Read what the user gave: column -> network that tells classes or a number.

    Args:
        backend: gives the device.
        scorers: column -> scorer; ``None`` for none.
        columns: of the target and the protected attributes.

    Raises:
        UnknownNameError: a column that is neither target nor protected.
        ConfigError: a scorer of another kind.
        CheckpointError, MissingDependencyError: as :func:`vlbias.networks.load_network`.
    """
    if scorers is not None and not isinstance(scorers, Mapping):
        raise ConfigError(f"`scorers` must map columns to scorers: {{'gender': 'gender.onnx'}}; got {scorers!r}.")
    names = list(columns)
    found = {}
    for column, scorer in (scorers or {}).items():
        if column not in names:
            raise unknown("column", column, names, where="`scorers`: the target and protected columns")
        found[column] = _network(backend, column, scorer)
    return found


def _network(backend: Backend, column: str, scorer: object) -> FaceNetwork:
    if isinstance(scorer, (str, os.PathLike)):
        return load_network(scorer, needs=_KINDS, device=backend.device)
    if isinstance(scorer, Classifier):
        return of_classifier(scorer)
    if isinstance(scorer, ClassifierLabeller):
        # a labeller takes pictures in [-1, 1] and normalises them by itself
        classes = tuple(str(label_text(label)) for label in scorer.classes)
        output = FaceOutput(classes=classes, activation="none")
        return FaceNetwork(scorer.source, scorer.probabilities, FaceInput(scorer.size), output)
    if isinstance(scorer, FaceNetwork) and scorer.output.kind in _KINDS:
        return scorer
    if isinstance(scorer, FaceNetwork):
        raise ConfigError(f"`scorers`: {scorer.name} is an embedder; say what it tells: FaceOutput(classes=...).")
    raise ConfigError(
        f"`scorers` of '{column}' must be a file, a Classifier, a ClassifierLabeller, or a FaceNetwork around any "
        f"function; got {type(scorer).__name__}."
    )
