"""A dataset's column filled by a labeller, with what is known of the labeller's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.attributes import of_column
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, DatasetError, unknown
from vlbias.files import read_json, write_json
from vlbias.labelling.classifier import ClassifierLabeller, zero_shot
from vlbias.labelling.evaluation import LabelEvaluation, evaluate
from vlbias.labelling.labels import Labeller, Labels
from vlbias.labelling.skin_tone import LAYOUTS, SkinToneLabeller
from vlbias.labels import in_order, label_text, label_texts, typed_labels
from vlbias.networks import load_network

if TYPE_CHECKING:
    from vlbias.clip import Clip

__all__ = ["FILE_NAME", "ColumnReport", "label_column", "labeller_of", "layout_of", "read_reports", "write_reports"]

#: Name of the file beside a dataset that says how its machine-made labels were scored.
FILE_NAME = "labelling.json"


@dataclass(frozen=True)
class ColumnReport:
    """How a column got its labels, and how far they can be trusted.

    Attributes:
        column: the column that was filled.
        source: who filled it, one sentence.
        num_faces: faces in the dataset.
        counts: how many faces got each label.
        unlabelled: how many got none, by reason; ``low_confidence`` counts those below the asked-for confidence.
        against: the column of given labels that the labeller was scored against; ``None`` if there was none.
        evaluation: the score as plain values (``LabelEvaluation.to_dict``); ``None`` without given labels.
    """

    column: str
    source: str
    num_faces: int
    counts: Mapping[str, int]
    unlabelled: Mapping[str, int]
    against: str | None = None
    evaluation: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ColumnReport:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an entry is missing or unknown.
        """
        names, needed = set(cls.__dataclass_fields__), {"column", "source", "num_faces", "counts", "unlabelled"}
        if not needed <= set(values) <= names:
            odd = sorted((needed - set(values)) | (set(values) - names))
            raise ConfigError(f"a report of labels has missing or unknown entries: {', '.join(odd)}.")
        return cls(**values)


@checked_call
def label_column(
    dataset: FaceDataset,
    column: str,
    labeller: Labeller,
    *,
    against: str | None = None,
    min_confidence: float = 0.0,
) -> tuple[FaceDataset, ColumnReport, LabelEvaluation | None]:
    """Let a labeller fill a column, and score it where labels were given.

    Args:
        dataset: its faces are labelled.
        column: the column to fill; one of that name is replaced, and is what the labeller is scored against.
        labeller: gives the labels.
        against: another column to score against; ``None`` for the replaced one, if there is one.
        min_confidence: less confident labels are left out of the dataset and of the score, 0..1.

    Returns:
        The dataset with the column, the report, and the score (``None`` without given labels).

    Raises:
        UnknownNameError: no column ``against``.
        LabelError: the labeller's words are not those of the given labels.
        ConfigError: ``min_confidence`` out of range.
    """
    if against is not None:
        dataset.column(against)
    given = against or (column if column in dataset.attributes else None)
    labels = labeller.label(dataset)
    if given is not None:
        labels = _in_words_of(labels, dataset.values(given))
    labelled = labels.apply(dataset, column, min_confidence=min_confidence)
    kept = labels.sure(min_confidence)
    score = evaluate(kept, dataset.column(given)) if given is not None else None
    counts = label_texts(labelled.column(column)).value_counts()
    report = ColumnReport(
        column=column,
        source=labelled.descriptions[column],
        num_faces=len(dataset),
        counts={label: int(counts[label]) for label in in_order(counts.index)},
        unlabelled=kept.unlabelled(),
        against=given,
        evaluation=None if score is None else score.to_dict(),
    )
    return labelled, report, score


def _in_words_of(labels: Labels, words: list[object]) -> Labels:
    """Labels that read like given ones as the given ones themselves: "0" as 0 where the dataset has 0."""
    spelled: dict[str | None, Any] = {label_text(word): word for word in words}
    translated = [spelled.get(text, text) for text in label_texts(labels.table["label"])]
    column = pd.Series(translated, labels.table.index, dtype=object)
    return Labels(labels.source, labels.table.assign(label=typed_labels(column)))


@checked_call
def labeller_of(text: str, *, column: str = "", clip: Clip | None = None, layout: str = "ffhq") -> Labeller:
    """A labeller from the words of a command line.

    Args:
        text: ``"ita:ANGLE"`` (light from that angle in degrees on, dark below), ``"monk"`` (Monk step 1..10), or
            ``"clip:LABEL=PROMPT[|PROMPT];LABEL=PROMPT"`` (zero-shot), ``"clip"`` alone for a column that
            ``vlbias.attributes`` knows, or ``"file:PATH"`` (a classifier, see :func:`vlbias.networks.load_network`).
        column: which is labelled, for ``"clip"`` alone.
        clip: scorer of the zero-shot labels.
        layout: how faces lie in the pictures, a key of ``LAYOUTS``.

    Raises:
        ConfigError: the words cannot be read, or a CLIP is wanted and none is there.
        CheckpointError, MissingDependencyError: the classifier's file cannot be read.

    Example:
        >>> labeller_of("ita:28", layout="utkface").split_ita
        28.0
    """
    if not isinstance(text, str):
        raise ConfigError(f"a labeller is named by a text, such as 'ita:28'; got {text!r:.60}.")
    kind, _, rest = text.partition(":")
    if kind == "monk":
        if rest:
            raise ConfigError(f"'{text}': monk takes nothing after it; it labels by the nearest Monk step, 1..10.")
        return SkinToneLabeller(layout=layout)
    if kind == "ita":
        if not re.fullmatch(r"[+-]?\d+(\.\d+)?", rest):
            raise ConfigError(f"'{text}': expected an angle in degrees after the colon, such as ita:28.")
        return SkinToneLabeller(layout=layout, split_ita=float(rest))
    if kind == "clip":
        classes = _classes_of(rest) if rest else _known_classes(column)
        if clip is None:
            raise ConfigError("zero-shot labels need an editor with a CLIP.")
        return zero_shot(clip, classes)
    if kind == "file":
        return _of_file(rest, layout)
    raise unknown("labeller", kind, ("ita", "monk", "clip", "file"))


def _classes_of(text: str) -> dict[str, tuple[str, ...]]:
    """Label => prompts, from the words behind ``clip:``."""
    classes: dict[str, tuple[str, ...]] = {}
    for part in text.split(";"):
        label, equals, prompts = (word.strip() for word in part.partition("="))
        texts = tuple(prompt.strip() for prompt in prompts.split("|") if prompt.strip())
        if not (label and equals and texts) or label in classes:
            raise ConfigError(
                f"'{part.strip()}': expected LABEL=PROMPT, separated by ';' and each label once, such as "
                "clip:0=a person without glasses;1=a person who wears glasses."
            )
        classes[label] = texts
    return classes


def _known_classes(column: str) -> dict[str, tuple[str, ...]]:
    """Label => prompts of a column that the registry of attributes knows."""
    attribute = of_column(column)
    if attribute is None:
        raise ConfigError(
            f"'clip': no prompts are known for the column '{column}'. Give them: clip:LABEL=PROMPT;LABEL=PROMPT."
        )
    low, high = attribute.columns[column]
    return {low: attribute.negative, high: attribute.positive}


def _of_file(path: str, layout: str) -> ClassifierLabeller:
    network = load_network(path, needs=("classes",))
    return ClassifierLabeller(
        lambda x: network.probabilities(x, layout=layout),
        network.output.labels,
        size=network.input.picture_size(layout),
        source=f"labels of the classifier {network.name}, not of a person",
    )


@checked_call
def layout_of(dataset: FaceDataset, default: str = "ffhq") -> str:
    """How faces lie in a dataset's pictures: as they were cut, else as in its kind, else ``default``."""
    if dataset.alignment is not None and "layout" in dataset.alignment:
        return str(dataset.alignment["layout"])
    return dataset.name if dataset.name in LAYOUTS else default


@checked_call
def write_reports(folder: str | Path, reports: Sequence[ColumnReport]) -> Path:
    """Write the reports beside a dataset, as ``labelling.json``."""
    path = Path(folder) / FILE_NAME
    write_json(path, {"columns": [report.to_dict() for report in reports]})
    return path


@checked_call
def read_reports(folder: str | Path) -> list[ColumnReport]:
    """What :func:`write_reports` wrote, from its folder or the file itself; empty if there is no such file.

    Raises:
        DatasetError: the file is damaged.
    """
    path = Path(folder)
    path = path if path.suffix == ".json" and path.is_file() else path / FILE_NAME
    if not path.is_file():
        return []
    values = read_json(path)
    try:
        return [ColumnReport.from_dict(row) for row in values["columns"]]
    except (TypeError, KeyError, ConfigError, AttributeError) as error:
        raise DatasetError(f"{path} is not a report of labels ({error}). Label the dataset again.") from error
