"""Measure on a balanced dataset how well its edits can be told from the originals of the same cell.

The pictures are read as the dataset holds them, at the size they are written in and at sizes that people train at. The
unedited donors of the edits are compared with the same originals: they come from another group, so they differ a little
without any editing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from vlbias.arguments import checked_call
from vlbias.classify import FitSettings
from vlbias.data.origins import are_copies
from vlbias.errors import ConfigError, unknown
from vlbias.images import picture_size, to_tensor, to_uint8, to_upright_rgb
from vlbias.labels import group_texts, label_texts
from vlbias.leak.network import FOLDS, network_pairs
from vlbias.leak.probe import Auc, Pairs, cross_fitted, interval, repeated_folds, resampled_faces, single_aucs
from vlbias.leak.statistics import Box, Source, cropped, statistics_at, stored_picture
from vlbias.progress import track
from vlbias.settings import Settings, number, with_changes

__all__ = ["MAX_AUC", "Cell", "Leak", "LeakSettings", "NetworkReading", "Reading", "leak_of", "measure_leak"]

#: An AUC above this is warned of.
MAX_AUC = 0.65
#: Fewer edits or originals than this in a cell say nothing of it; fewer in all cells, nothing at all.
MIN_OF_CELL, MIN_IN_ALL = 5, 20
_NUM_THREADS = 4

Original = Callable[[str], Source | None]


@dataclass(frozen=True)
class LeakSettings(Settings):
    """How the leak is measured.

    Attributes:
        probe: ``"low-level"``, or ``"network"`` for that and a small network, which takes minutes.
        sizes: edges in pixels that people train at, beside the size as written. Sizes of twice the largest picture or
            more show nothing that it does not, and are left out.
        max_pictures: at most so many edits, and as many originals, are drawn for it.
        seed: of what is drawn and of the folds.
        network_size: edge in pixels that the network sees.
        network_steps: optimisation steps of each of its fits.

    Raises:
        ConfigError: a value out of range.
    """

    probe: Literal["low-level", "network"] = "low-level"
    sizes: tuple[int, ...] = number((128, 224), 16, 2048)
    max_pictures: int = number(300, MIN_IN_ALL)
    seed: int = 0
    network_size: int = number(64, 16, 2048)
    network_steps: int = number(250, 1)

    def network(self) -> FitSettings:
        """Settings of the network."""
        return FitSettings(image_size=self.network_size, num_steps=self.network_steps, seed=self.seed)


@dataclass(frozen=True)
class Cell:
    """A cell that edits were written into.

    Attributes:
        target, group: its class and its group.
        edits, originals: pictures of either kind in the dataset.
    """

    target: str
    group: str
    edits: int
    originals: int

    @property
    def is_enough(self) -> bool:
        """Whether it holds enough of both to be compared."""
        return min(self.edits, self.originals) >= MIN_OF_CELL


@dataclass(frozen=True)
class Reading:
    """What the low-level probe reaches at one size.

    Attributes:
        size: edge in pixels; ``None`` for files as they are written.
        edits: of edits against originals of the same cell, by what edits into all cells have in common.
        donors: of the unedited donors against the same originals; ``None`` if they are not at hand.
        excess: the first less the second: what editing adds to what tells the groups apart; ``None`` without donors.
        apart, donors_apart: as ``edits`` and ``donors``, where the probe reads each cell in its own way; ``None`` where
            there is one cell.
        statistic: the one that tells most alone, a name of ``low_level_statistics``.
        statistic_auc: how much, .5 .. 1.
    """

    size: int | None
    edits: Auc
    donors: Auc | None
    excess: Auc | None
    apart: Auc | None
    donors_apart: Auc | None
    statistic: str
    statistic_auc: float


@dataclass(frozen=True)
class NetworkReading:
    """What a small network reaches.

    Attributes:
        size: edge in pixels that it sees.
        edits: of edits against originals of the same cell.
        donors: of the unedited donors against the same originals.
        excess: the first less the second; what editing adds.
    """

    size: int
    edits: Auc
    donors: Auc
    excess: Auc


@dataclass(frozen=True)
class Leak:
    """How well edits can be told from originals of the same cell.

    Attributes:
        cells: all cells that hold edits; those with too few of a kind were left out.
        num_edits, num_originals: pictures that were compared.
        readings: of the low-level probe, one a size; none where the pictures are too few.
        network: of the network; ``None`` if it was not asked for, or the pictures are too few.
        settings: how it was measured.
    """

    cells: tuple[Cell, ...]
    num_edits: int
    num_originals: int
    readings: tuple[Reading, ...]
    network: NetworkReading | None
    settings: LeakSettings

    @property
    def worst(self) -> Reading | None:
        """The reading with the largest AUC."""
        return max(self.readings, key=lambda reading: reading.edits.value, default=None)

    @property
    def is_warned_of(self) -> bool:
        """Whether an AUC is above :data:`MAX_AUC`."""
        return self.worst is not None and self.worst.edits.value > MAX_AUC

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, numbers to four digits."""
        return _rounded(asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Leak:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an entry is missing or unknown.
        """
        try:
            network = values["network"]
            return cls(
                cells=tuple(Cell(**cell) for cell in values["cells"]),
                num_edits=values["num_edits"],
                num_originals=values["num_originals"],
                readings=tuple(Reading(**row | _aucs(row, *_READ)) for row in values["readings"]),
                network=network and NetworkReading(**network | _aucs(network, "edits", "donors", "excess")),
                settings=LeakSettings(**values["settings"]),
            )
        except (KeyError, TypeError) as error:
            raise ConfigError(f"not a measurement of the leak: {error}. Run `vlbias balance` again.") from error


_READ = ("edits", "donors", "excess", "apart", "donors_apart")


def _aucs(row: Mapping[str, Any], *names: str) -> dict[str, Auc | None]:
    return {name: None if row[name] is None else Auc(**row[name]) for name in names}


def leak_of(report: Mapping[str, Any]) -> Leak | None:
    """The measurement in a run's report; ``None`` for a run that was made before it was measured.

    Raises:
        ConfigError: the entry is damaged.
    """
    return Leak.from_dict(report["leak"]) if report.get("leak") else None


def _rounded(value: object) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


# ---------------------------------------------------------------------------------------------------------------------
# Who is compared


@dataclass(frozen=True)
class _Shown:
    """A picture, or the face in it."""

    source: Source
    box: Box | None

    @property
    def key(self) -> tuple[Any, Box | None]:
        """The same for the same pixels of the same file."""
        return (self.source if isinstance(self.source, Path) else id(self.source)), self.box


@dataclass(frozen=True)
class _Pictures:
    """Pictures that are compared: edits or donors, and the originals beside them."""

    sources: list[_Shown]
    is_edit: np.ndarray
    cells: np.ndarray
    faces: np.ndarray


@checked_call
def measure_leak(
    table: pd.DataFrame,
    folder: str | Path | Original,
    *,
    target: str,
    protected: str | Sequence[str],
    splits: Sequence[str] = ("train",),
    settings: LeakSettings | None = None,
    original: Original | None = None,
    show_progress: bool = False,
) -> Leak:
    """Measure how well a dataset's edits can be told from its originals of the same cell.

    Args:
        table: one row per picture: ``file_name`` (missing where only ``original`` has it), ``split``, the labels,
            ``origin`` and ``source_id``, as ``metadata.csv`` has them. With ``face_box`` only the face is looked at.
        folder: what file names are relative to; or what gives the picture of a file name, where they stand in shards.
        target, protected: columns whose values make the cells.
        splits: splits to look at.
        settings: ``None`` for the defaults.
        original: the unedited picture of an id, or ``None`` where there is none, for those that the folder lacks;
            ``None`` where there is no more than the folder.
        show_progress: whether a line on stderr tells how far it is.

    Raises:
        ConfigError: ``network_size`` and the like out of range.
        ImageError: a picture cannot be read.
    """
    settings = with_changes(LeakSettings, settings, {})
    rows = _rows(table, target, [protected] if isinstance(protected, str) else list(protected), splits)
    cells = _cells(rows)
    drawn = _drawn(rows, [cell for cell in cells if cell.is_enough], settings)
    num_edits = int(drawn["is_edit"].sum())
    leak = Leak(tuple(cells), num_edits, len(drawn) - num_edits, (), None, settings)
    if min(leak.num_edits, leak.num_originals) < MIN_IN_ALL:
        return leak
    place = folder if callable(folder) else Path(folder)
    pictures = _pictures(drawn, place, original)
    donors = _donors(rows, drawn, place, original)
    compared = [pictures] if donors is None else [pictures, donors]
    readings = _low_level(compared, settings, show_progress)
    if settings.probe == "network" and donors is not None:
        return replace(leak, readings=readings, network=_network(compared, settings, show_progress))
    return replace(leak, readings=readings)


def _rows(table: pd.DataFrame, target: str, protected: Sequence[str], splits: Sequence[str]) -> pd.DataFrame:
    """The labelled rows of some splits with ``target``, ``group`` and ``is_edit``."""
    groups = group_texts(table, protected)
    if target not in table:
        raise unknown("column", target, table.columns)
    labels = label_texts(table[target])
    # a copy is an original that is there already
    known = table["split"].isin(list(splits)) & labels.notna() & groups.notna() & ~are_copies(table)
    rows = table.loc[known].reindex(columns=["file_name", "source_id", "origin", "face_box"])
    rows = rows.astype(object).reset_index(drop=True)
    rows["target"], rows["group"] = labels[known].to_numpy(), groups[known].to_numpy()
    rows["is_edit"] = rows["origin"] == "edited"
    return rows


def _box(text: object) -> Box | None:
    """``face_box`` of a row, "left,top,right,bottom"; ``None`` where the picture is the face."""
    if not isinstance(text, str):
        return None
    left, top, right, bottom = (int(edge) for edge in text.split(","))
    return left, top, right, bottom


def _cells(rows: pd.DataFrame) -> list[Cell]:
    found = []
    for (target, group), part in rows.groupby(["target", "group"], sort=True):
        edits = int(part["is_edit"].sum())
        if edits:
            found.append(Cell(str(target), str(group), edits, len(part) - edits))
    return found


def _drawn(rows: pd.DataFrame, cells: Sequence[Cell], settings: LeakSettings) -> pd.DataFrame:
    """Rows of the cells, at most ``max_pictures`` of either kind, with the number of their cell."""
    random = np.random.default_rng(settings.seed)
    share = settings.max_pictures // max(1, len(cells))
    parts = [rows.iloc[:0].assign(cell=0)]
    for place, cell in enumerate(cells):
        mine = rows[(rows["target"] == cell.target) & (rows["group"] == cell.group)]
        for kind in (True, False):
            part = mine[mine["is_edit"] == kind]
            chosen = np.sort(random.permutation(len(part))[: max(share, MIN_OF_CELL)])
            parts.append(part.iloc[chosen].assign(cell=place))
    return pd.concat(parts, ignore_index=True)


def _pictures(drawn: pd.DataFrame, folder: Path | Original, original: Original | None) -> _Pictures:
    rows = drawn[["file_name", "source_id", "face_box"]].itertuples(index=False)
    return _Pictures(
        [_Shown(_source(name, item, folder, original), _box(face)) for name, item, face in rows],
        drawn["is_edit"].to_numpy(bool),
        drawn["cell"].to_numpy(int),
        drawn["source_id"].astype(str).to_numpy(),
    )


def _source(file_name: object, source_id: object, folder: Path | Original, original: Original | None) -> Source:
    if isinstance(file_name, str):
        found = folder(file_name) if callable(folder) else folder / file_name
    else:
        found = None if original is None else original(str(source_id))
    if found is None:
        raise ConfigError(f"the picture of '{source_id}' is not in {folder}. Say where originals are with `original`.")
    return found


def _name_beside(folder: Path, edit: str) -> str | None:
    """The donor that was drawn for an edit, where it was kept."""
    beside = sorted((folder / "donors").glob(f"{Path(edit).stem}.*"))
    return beside[0].relative_to(folder).as_posix() if beside else None


def _donors(
    rows: pd.DataFrame, drawn: pd.DataFrame, folder: Path | Original, original: Original | None
) -> _Pictures | None:
    """The donors of the drawn edits in the place of these; ``None`` if not all of them are at hand."""
    unedited = rows[~rows["is_edit"]].drop_duplicates("source_id").set_index("source_id")["file_name"]
    edits = drawn.loc[drawn["is_edit"]].drop_duplicates(["cell", "source_id"]).copy()
    names: list[Any] = []
    for row in edits.itertuples():
        name = None if callable(folder) else _name_beside(folder, str(row.file_name))
        names.append(name or unedited.get(row.source_id))
        # nobody kept a donor that was drawn from the prior
        if not isinstance(names[-1], str) and (original is None or original(str(row.source_id)) is None):
            return None
    edits["file_name"] = names
    return _pictures(pd.concat([edits, drawn.loc[~drawn["is_edit"]]]), folder, original)


# ---------------------------------------------------------------------------------------------------------------------
# Readings


def _low_level(compared: Sequence[_Pictures], settings: LeakSettings, show_progress: bool) -> tuple[Reading, ...]:
    """The low-level probe at each size; the first of ``compared`` are edits, the second, if any, their donors."""
    sources = {shown.key: shown for part in compared for shown in part.sources}
    sizes: list[int | None] = [None, *(size for size in settings.sizes if size < 2 * _largest_edge(sources.values()))]
    found: dict[Any, dict[int | None, dict[str, float]]] = {}
    with (
        track(len(sources), "measuring the leak", "pictures", show=show_progress) as bar,
        ThreadPoolExecutor(_NUM_THREADS) as pool,
    ):
        every = pool.map(lambda shown: statistics_at(shown.source, sizes, shown.box), sources.values())
        for key, values in zip(sources, every, strict=True):
            found[key] = values
            bar.update(1)
    folds = [repeated_folds(part.is_edit, part.cells, part.faces, seed=settings.seed) for part in compared]
    return tuple(_reading(compared, folds, found, size, settings.seed) for size in sizes)


def _largest_edge(sources: Iterable[_Shown]) -> int:
    def edge(shown: _Shown) -> int:
        if shown.box is not None:
            left, top, right, bottom = shown.box
            return max(right - left, bottom - top)
        source = shown.source
        return max(picture_size(source) if isinstance(source, (str, Path)) else stored_picture(source).size)

    return max(map(edge, sources))


def _reading(
    compared: Sequence[_Pictures],
    folds: Sequence[np.ndarray],
    found: Mapping[object, Mapping[int | None, Mapping[str, float]]],
    size: int | None,
    seed: int,
) -> Reading:
    tables = [pd.DataFrame([found[shown.key][size] for shown in part.sources]) for part in compared]
    edits = compared[0]
    alone = single_aucs(tables[0], edits.is_edit, edits.cells)

    def aucs(apart: bool) -> tuple[Auc, Auc | None, Auc | None]:
        parts = zip(tables, compared, folds, strict=True)
        pairs = [cross_fitted(x.to_numpy(), part.is_edit, part.cells, mine, apart=apart) for x, part, mine in parts]
        return _aucs_of(compared, pairs, seed)

    told, donors, excess = aucs(False)
    several = len(np.unique(edits.cells)) > 1
    apart, donors_apart, _ = aucs(True) if several else (None, None, None)
    return Reading(size, told, donors, excess, apart, donors_apart, str(alone.index[0]), float(alone.iloc[0]))


def _aucs_of(compared: Sequence[_Pictures], pairs: Sequence[Pairs], seed: int) -> tuple[Auc, Auc | None, Auc | None]:
    """AUCs of edits, of their donors, and their difference, for which both meet the same resampled faces."""
    draws = resampled_faces([face for part in compared for face in part.faces], seed=seed)
    values = [float(each.auc()[0]) for each in pairs]
    resampled = [each.auc(draws[part.faces].to_numpy()) for part, each in zip(compared, pairs, strict=True)]
    told = [interval(value, drawn) for value, drawn in zip(values, resampled, strict=True)]
    if len(told) == 1:
        return told[0], None, None
    return told[0], told[1], interval(values[0] - values[1], resampled[0] - resampled[1], bounds=(-1.0, 1.0))


def _network(compared: Sequence[_Pictures], settings: LeakSettings, show_progress: bool) -> NetworkReading:
    """The network on the edits and on their donors."""
    steps = 2 * FOLDS * settings.network_steps
    with track(steps, "measuring the leak by a network", "steps", show=show_progress) as bar:
        pairs = [
            network_pairs(
                _tensor(part.sources, settings.network_size),
                part.is_edit,
                part.cells,
                part.faces,
                settings=settings.network(),
                progress=bar,
            )
            for part in compared
        ]
    told, donors, excess = _aucs_of(compared, pairs, settings.seed)
    assert donors is not None and excess is not None  # there are edits and donors
    return NetworkReading(settings.network_size, told, donors, excess)


def _tensor(sources: Sequence[_Shown], size: int) -> torch.Tensor:
    def one(shown: _Shown) -> torch.Tensor:
        return to_uint8(to_tensor(cropped(to_upright_rgb(stored_picture(shown.source)), shown.box), size))

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        return torch.cat(list(pool.map(one, sources)))
