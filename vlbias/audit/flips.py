"""How often a classifier's answer changes when only the protected attribute does.

Faces are shown as they are and with the attribute edited; an answer that changes is a *flip*. Where faces are drawn,
the same faces are shown with the attribute truly changed, which tells how much of the rate is the editor's doing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.stats import norm

from vlbias.arguments import checked_call
from vlbias.audit.composition import people_of
from vlbias.balance.poles import resolve_poles
from vlbias.classify import Classifier
from vlbias.data import FaceDataset, open_dataset
from vlbias.data.files import read_rows
from vlbias.data.origins import donors_of
from vlbias.editor import Editor
from vlbias.errors import ConfigError, DatasetError, ImageError, LabelError, ShapeError
from vlbias.files import json_value
from vlbias.images import load_pixels, to_float, to_pil, to_uint8
from vlbias.labels import label_text, label_texts
from vlbias.networks import FaceNetwork, load_network, of_classifier
from vlbias.settings import checked_number
from vlbias.shown import Glance, Shown, plural

__all__ = ["FlipExample", "FlipReport", "flips", "share_interval"]

#: Edge in pixels at which a function of one's own sees faces, unless asked otherwise.
DEFAULT_SIZE = 64
_BATCH = 64
#: Faces of each group whose answers changed that are shown.
NUM_EXAMPLES = 6
#: The row of all groups together.
ALL = "all"

#: Ids of a dataset => answers (n,) as text.
_Ask = Callable[[FaceDataset, Sequence[str]], np.ndarray]


#: Rows of the pairs => their edits.
_Show = Callable[[pd.DataFrame], Sequence[Image.Image]]


@dataclass(frozen=True)
class FlipExample:
    """A face whose answer changed.

    Attributes:
        donor: its id.
        group, to: the group that it is in, and that it was edited to.
        before, after: the answers.
        pictures: as it is, and edited.
    """

    donor: str
    group: str
    to: str
    before: str
    after: str
    pictures: tuple[Image.Image, Image.Image]


@dataclass(frozen=True, repr=False)
class FlipReport(Shown):
    """How often answers change.

    Attributes:
        protected: the column that was changed.
        table: a row for each group that faces are in, and "all": ``num_pairs``, the flip ``rate`` with ``low`` and
            ``high``, of drawn faces ``true_rate``, ``true_low``, ``true_high`` of true counterfactuals, and
            ``difference``, rate less true rate, with ``difference_low`` and ``difference_high``, paired.
        pairs: a row for each pair: ``donor``, ``from``, ``to``, ``before``, ``after``, ``flipped``, ``true_flipped``.
        level: coverage of the intervals; images of one person are no evidence of their own.
        examples: some faces of each group whose answers changed; none whose pictures cannot be read.
    """

    protected: str
    table: pd.DataFrame
    pairs: pd.DataFrame
    level: float
    examples: tuple[FlipExample, ...] = ()

    def _glance(self) -> Glance:
        row = self.table.to_dict("index")[ALL]
        line = (
            f"{self.protected} changed in {plural(int(row['num_pairs']), 'face')}, {row['rate']:.1%} of answers change"
        )
        columns = ("num_pairs", "rate", "low", "high", "true_rate")
        rows = [(str(name), *(float(part[c]) for c in columns)) for name, part in self.table.to_dict("index").items()]
        return Glance(line, (self.protected, *columns), rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not known is ``None``."""
        rows = {
            str(name): {key: json_value(value, 6) for key, value in row.items()}
            for name, row in self.table.to_dict("index").items()
        }
        return {"protected": self.protected, "level": self.level, "groups": rows}


@checked_call
def flips(
    classifier: Any,
    faces: Any,
    edited: Any = None,
    *,
    protected: str,
    editor: Editor | None = None,
    size: int | None = None,
    seed: int = 0,
    level: float = 0.95,
) -> FlipReport:
    """Measure how often a classifier's answer changes when only the protected attribute does.

    Args:
        classifier: a :class:`vlbias.classify.Classifier`, a file or folder that ``vlbias.networks.load_network`` reads
            (timm, ONNX), a function from images (b, 3, size, size) in [-1, 1] to labels or to class scores (b, c), or a
            CSV of answers with the columns ``prediction`` and ``id`` or ``file_name``, for both datasets.
        faces: the faces as they are: a dataset, or what ``open_dataset`` opens. Choose faces that the classifier was
            not trained on.
        edited: edits of these faces, with ``source_id``, say a folder that ``vlbias balance`` wrote. ``None`` for
            edits by ``editor``, each to another group, or for true counterfactuals alone.
        protected: column that was changed.
        editor: makes the edits where none are given, by calibrated strength.
        size: edge in pixels at which a function sees faces; ``None`` for the network's own, of a function 64.
        seed: decides which group each face is edited to where there are several.
        level: coverage of the intervals, in (0, 1).

    Raises:
        ConfigError: no edits, or nothing that answers can be had from.
        DatasetError: no edit of these faces changes the column, or the CSV cannot be read.
        LabelError: the CSV lacks an answer.

    Example:
        >>> flips(lambda x: (x.mean((1, 2, 3)) > 0).long(), faces, protected="skin").table  # doctest: +SKIP
    """
    checked_number("level", level, float, low=1e-6, high=1 - 1e-6)
    shown = open_dataset(faces) if isinstance(faces, (str, os.PathLike)) else faces
    ask, size = _asked(classifier, size)
    made = open_dataset(edited) if isinstance(edited, (str, os.PathLike)) else edited
    pairs = _pairs_given(shown, made, protected) if made is not None else _pairs_drawn(shown, protected, seed)
    before = dict(zip(pairs["donor"].unique(), ask(shown, list(pairs["donor"].unique())), strict=True))
    pairs["before"] = [before[donor] for donor in pairs["donor"]]
    has_truth = hasattr(shown, "counterfactual") and not _is_csv(classifier)
    truth = _true_answers(ask, shown, pairs, protected) if has_truth else None
    show: _Show
    if made is not None:
        pairs["after"] = ask(made, list(pairs.index))
        show = partial(_pictures, made)
    elif editor is not None:
        answer, edits = _answering(classifier), _edits(shown, pairs, protected=protected, editor=editor)
        pairs["after"] = np.concatenate([answer(to_uint8(part)) for part in edits])
        show = partial(_edited_pictures, shown, protected=protected, editor=editor)
    elif truth is not None:
        pairs["after"] = truth
        show = partial(_counterfactual_pictures, shown, protected=protected)
    else:
        raise ConfigError("there are no edits: give `edited`, a dataset with source_id, or an `editor`.")
    pairs["flipped"] = pairs["after"] != pairs["before"]
    pairs["true_flipped"] = truth != pairs["before"] if truth is not None else pd.NA
    people = people_of(shown)[pairs["donor"]].to_numpy()
    return FlipReport(protected, _table(pairs, people, level), pairs, level, _examples(shown, pairs, show))


# ---------------------------------------------------------------------------------------------------------------------
# Pairs


def _pairs_given(faces: FaceDataset, edited: FaceDataset, protected: str) -> pd.DataFrame:
    """Edits of the faces that changed the column, indexed by their ids."""
    if "source_id" not in edited.table:
        raise DatasetError(f"'{edited.name}' has no column source_id, which says whose edit a picture is.")
    own, new = label_texts(faces.column(protected)), label_texts(edited.column(protected))
    donor = donors_of(edited.table, faces.table)
    pairs = pd.DataFrame({"donor": donor, "from": donor.map(own), "to": new}, index=edited.table.index).dropna()
    pairs = pairs[pairs["from"] != pairs["to"]]
    if pairs.empty:
        raise DatasetError(f"'{edited.name}' has no edit of a face of '{faces.name}' with another {protected}.")
    return pairs


def _pairs_drawn(faces: FaceDataset, protected: str, seed: int) -> pd.DataFrame:
    """Each face with one of the other groups."""
    own = label_texts(faces.column(protected)).dropna()
    groups = sorted(own.unique())
    if len(groups) < 2:
        raise DatasetError(f"all faces of '{faces.name}' have the same {protected}; there is nothing to change it to.")
    rng = np.random.default_rng([seed, 4])
    others = [rng.choice([group for group in groups if group != mine]) for mine in own]
    return pd.DataFrame({"donor": own.index.to_numpy(dtype=object), "from": own.to_numpy(), "to": others})


def _true_answers(ask: _Ask, faces: FaceDataset, pairs: pd.DataFrame, protected: str) -> np.ndarray:
    """Answers to the true counterfactuals of drawn faces, in the order of the pairs."""
    answers = np.empty(len(pairs), dtype=object)
    values = {label_text(value): value for value in faces.values(protected)}
    wanted = pairs["to"].to_numpy()
    for group in sorted(set(wanted)):
        rows = np.flatnonzero(wanted == group)
        donors, place = np.unique(pairs["donor"].to_numpy()[rows].astype(str), return_inverse=True)
        drawn = faces.counterfactual(list(donors), **{protected: values.get(group, group)})  # type: ignore[attr-defined]
        answers[rows] = ask(drawn, drawn.ids)[place]
    return answers


def _edits(faces: FaceDataset, pairs: pd.DataFrame, *, protected: str, editor: Editor) -> Iterator[torch.Tensor]:
    """Edits (b, 3, h, w) that are made here, batch by batch, by the calibrated strength from group to group."""
    renderer = editor.renderer
    poles = resolve_poles(protected, sorted({*pairs["from"], *pairs["to"]}), renderer.dipoles)
    if poles is None or poles.name not in renderer.attributes:
        raise ConfigError(f"the editor '{renderer.name}' has no path for '{protected}'; give edits as `edited`.")
    strength = torch.tensor([poles.strength(one, other) for one, other in zip(pairs["from"], pairs["to"], strict=True)])
    for start in range(0, len(pairs), _BATCH):
        part = slice(start, start + _BATCH)
        x_0 = faces.tensor(list(pairs["donor"].iloc[part]), renderer.image_size).to(renderer.device)
        yield renderer.edit(x_0, renderer.encode(x_0), {poles.name: strength[part].float()})


def _edited_pictures(faces: FaceDataset, pairs: pd.DataFrame, *, protected: str, editor: Editor) -> list[Image.Image]:
    return [one for part in _edits(faces, pairs, protected=protected, editor=editor) for one in to_pil(part)]


def _pictures(edited: FaceDataset, pairs: pd.DataFrame) -> list[Image.Image]:
    return [edited.image(item) for item in pairs.index]


def _counterfactual_pictures(faces: FaceDataset, pairs: pd.DataFrame, *, protected: str) -> list[Image.Image]:
    values = {label_text(value): value for value in faces.values(protected)}
    changed = [
        faces.counterfactual([donor], **{protected: values.get(to, to)})  # type: ignore[attr-defined]
        for donor, to in zip(pairs["donor"], pairs["to"], strict=True)
    ]
    return [one.image(one.ids[0]) for one in changed]


def _examples(faces: FaceDataset, pairs: pd.DataFrame, show: _Show) -> tuple[FlipExample, ...]:
    """The first faces of each group whose answers changed, each face once."""
    flipped = pairs[pairs["flipped"].astype(bool)].drop_duplicates("donor")
    chosen = flipped.groupby("from", sort=True).head(NUM_EXAMPLES).sort_values("from", kind="stable")
    found = []
    for place in range(len(chosen)):
        part = chosen.iloc[place : place + 1]
        row = part.iloc[0]
        try:
            pictures = faces.image(row["donor"]), show(part)[0]
        except ImageError:  # answers in a CSV need no pictures
            continue
        donor, group, to, before, after = (str(row[name]) for name in ("donor", "from", "to", "before", "after"))
        found.append(FlipExample(donor, group, to, before, after, pictures))
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------------------
# Answers


def _asked(classifier: Any, size: int | None) -> tuple[_Ask, int]:
    """How a classifier is asked, and at which size."""
    if _is_csv(classifier):
        return _of_csv(Path(classifier)), size or DEFAULT_SIZE
    known = _network(classifier)
    edge = size or (known.input.size if isinstance(known, FaceNetwork) else DEFAULT_SIZE)
    answer = _answering(known)

    def ask(dataset: FaceDataset, ids: Sequence[str]) -> np.ndarray:
        parts = [list(ids[start : start + _BATCH]) for start in range(0, len(ids), _BATCH)]
        return np.concatenate([answer(load_pixels(dataset, part, edge)) for part in parts])

    return ask, edge


def _is_csv(classifier: Any) -> bool:
    return isinstance(classifier, (str, os.PathLike)) and Path(classifier).suffix.lower() == ".csv"


def _network(classifier: Any) -> Any:
    if isinstance(classifier, Classifier):
        return of_classifier(classifier)
    if isinstance(classifier, (str, os.PathLike)):
        return load_network(classifier, needs=("classes",))
    return classifier


def _answering(classifier: Any) -> Callable[[torch.Tensor], np.ndarray]:
    """Pictures, uint8 (b, 3, s, s) => answers (b,) as text."""
    network = _network(classifier)
    if not isinstance(network, FaceNetwork) and not callable(network):
        raise ConfigError(
            f"`classifier` must be a Classifier, a file of one, a function or a CSV; got {type(classifier).__name__}. "
            "Answers in a CSV go with `edited`, not with an editor."
        )

    def answer(pixels: torch.Tensor) -> np.ndarray:
        if isinstance(network, FaceNetwork):
            scores = network.probabilities(to_float(pixels), layout="ffhq")
            return np.array(network.output.labels, dtype=object)[scores.argmax(1).numpy()]
        found = network(to_float(pixels))
        found = found.detach().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found, dtype=object)
        if found.ndim == 2 and found.shape[1] > 1:
            found = found.argmax(1)
        if found.shape != (len(pixels),):
            raise ShapeError(f"the classifier gave {found.shape}; expected ({len(pixels)},) labels or (b, c) scores.")
        return _answers([label_text(value) for value in found.tolist()], "the classifier")

    return answer


def _answers(texts: Sequence[str | None], who: object) -> np.ndarray:
    """Answers (n,) as text; of probabilities each would differ from each, and count as changed."""
    if text := next(filter(_is_probability, texts), None):
        raise LabelError(f"{who} answers {text}, which looks like a probability. Give classes: 1 from 0.5 on.")
    return np.array(texts, dtype=object)


def _is_probability(text: str | None) -> bool:
    with suppress(ValueError):
        return 0 < float(text or "") < 1
    return False


def _of_csv(path: Path) -> _Ask:
    """Answers by id or file name."""
    columns, rows = read_rows(path)
    key = next((name for name in ("id", "file_name") if name in columns), None)
    if key is None or "prediction" not in columns or not rows:
        has = f"it has {', '.join(columns) or 'none'}" + ("" if rows else ", and no row")
        raise LabelError(f"{path} must have rows with the columns prediction and id, or file_name; {has}.")
    known = {row[key]: label_text(row["prediction"]) for row in rows}

    def ask(dataset: FaceDataset, ids: Sequence[str]) -> np.ndarray:
        names = list(ids) if key == "id" else dataset.table.loc[list(ids), "file_name"].astype(str).tolist()
        missing = [name for name in names if known.get(name) is None]
        if missing:
            raise LabelError(f"{path} has no prediction for {len(missing)} pictures, such as '{missing[0]}'.")
        return _answers([known[name] for name in names], path)

    return ask


# ---------------------------------------------------------------------------------------------------------------------
# Rates


def _table(pairs: pd.DataFrame, people: np.ndarray, level: float) -> pd.DataFrame:
    rows = {}
    for group in [*sorted(pairs["from"].unique()), ALL]:
        mine = np.ones(len(pairs), dtype=bool) if group == ALL else (pairs["from"] == group).to_numpy()
        flipped, who = pairs["flipped"].to_numpy(bool)[mine], people[mine]
        row = {"num_pairs": int(mine.sum())} | dict(
            zip(("rate", "low", "high"), share_interval(flipped, who, level), strict=True)
        )
        row |= dict.fromkeys(
            ("true_rate", "true_low", "true_high", "difference", "difference_low", "difference_high"), float("nan")
        )
        if pairs["true_flipped"].notna().all():
            true = pairs["true_flipped"].to_numpy(bool)[mine]
            row |= dict(zip(("true_rate", "true_low", "true_high"), share_interval(true, who, level), strict=True))
            change = _mean(flipped.astype(float) - true, who, level)
            row |= dict(zip(("difference", "difference_low", "difference_high"), change, strict=True))
        rows[group] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def share_interval(flipped: np.ndarray, people: np.ndarray, level: float) -> tuple[float, float, float]:
    """A share with Wilson's interval, of as many items as are worth as much as these.

    Args:
        flipped: bool (n,).
        people: who is in each, any labels (n,); items of one person are no evidence of their own.
        level: coverage.

    Returns:
        The share, and both ends of its interval.
    """
    p, n = float(flipped.mean()), len(flipped)
    num_people = len(np.unique(people))
    variance = _variance(flipped.astype(float), people)
    worth = float(np.clip(p * (1 - p) / variance, num_people, n)) if variance > 0 else float(num_people)
    z = float(norm.ppf((1 + level) / 2))
    centre = (p + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z / (1 + z**2 / worth) * np.sqrt(p * (1 - p) / worth + z**2 / (4 * worth**2))
    return p, max(0.0, min(p, float(centre - half))), min(1.0, max(p, float(centre + half)))


def _mean(x: np.ndarray, people: np.ndarray, level: float) -> tuple[float, float, float]:
    """A mean of paired differences; at least one pair is taken to differ, so that none is certain."""
    variance = max(_variance(x, people), 1 / len(x) ** 2)
    half = float(norm.ppf((1 + level) / 2)) * np.sqrt(variance)
    mean = float(x.mean())
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def _variance(x: np.ndarray, people: np.ndarray) -> float:
    """Of the mean, with people as clusters."""
    _, code = np.unique(people.astype(str), return_inverse=True)
    sums = np.bincount(code, weights=x - x.mean())
    return float((sums**2).sum()) / len(x) ** 2
