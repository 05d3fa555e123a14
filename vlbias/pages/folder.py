"""Read the folder of a finished balance run: its tables, and the pictures behind them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.data.files import inside_root, linked
from vlbias.data.metadata import read_metadata, read_table
from vlbias.data.origins import COPIED
from vlbias.data.packed import PackedDataset
from vlbias.data.recognise import packed_set
from vlbias.errors import ConfigError, DatasetError, ImageError, VlbiasError
from vlbias.files import links_below, read_json
from vlbias.images import open_image
from vlbias.labelling import ColumnReport, read_reports
from vlbias.labels import group_texts
from vlbias.pages.page import MAX_EDGE_PX, data_uri

__all__ = ["RunFiles", "evenly_spaced"]

_TEXT = {"source_id": str, "donor": str, "path": str, "strength": str, "file_name": str}
_NEEDED = ("counts_before", "counts_after", "edits", "target", "protected")


def evenly_spaced(num_items: int, num_wanted: int) -> list[int]:
    """Evenly spaced positions, so that what is shown is neither the first nor the best.

    Example:
        >>> evenly_spaced(10, 4), evenly_spaced(2, 4)
        ([0, 3, 6, 9], [0, 1])
    """
    if num_items <= num_wanted:
        return list(range(num_items))
    if num_wanted == 1:
        return [num_items // 2]
    return sorted({round(place * (num_items - 1) / (num_wanted - 1)) for place in range(num_wanted)})


@dataclass(frozen=True)
class RunFiles:
    """A finished run on disk.

    Attributes:
        out: its folder.
        follow_links: whether pictures that are links are shown; only whoever made the run knows where they lead.
        max_edge_px: pictures are shown at no more than this many pixels on an edge.

    Raises:
        DatasetError: the folder lacks a file of a finished run, or one of them is damaged.
    """

    out: Path
    follow_links: bool = False
    max_edge_px: int = MAX_EDGE_PX

    def __post_init__(self) -> None:
        for path in links_below(self.out):
            if path.parent == self.out:
                raise DatasetError(f"{path} is a link or no file. Remove it, or make the run again.")
        for name in ("report.json", "metadata.csv", "rejected.csv"):
            if not (self.out / name).is_file():
                raise DatasetError(
                    f"{self.out} has no {name}, so it is not a finished balance run. Finish it with the command that "
                    "started it."
                )
        missing = [key for key in _NEEDED if key not in self.report]
        if missing:
            raise DatasetError(f"{self.out / 'report.json'} lacks {', '.join(missing)}. Run `vlbias balance` again.")

    @contextmanager
    def of_one_run(self) -> Iterator[None]:
        """What goes wrong inside with tables that somebody else changed is a sentence.

        Raises:
            DatasetError: the files of the folder are not of one run.
        """
        try:
            yield
        except ConfigError as error:  # what the files say was given as an argument
            raise self._torn(error) from error
        except VlbiasError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._torn(error) from error

    def _torn(self, error: Exception) -> DatasetError:
        return DatasetError(
            f"{self.out} does not hold together: its tables and report.json are not of one run "
            f"({type(error).__name__}: {error!s:.200}). Run `vlbias balance` again."
        )

    @cached_property
    def report(self) -> dict[str, Any]:
        """report.json."""
        values = read_json(self.out / "report.json")
        if not isinstance(values, dict):
            raise DatasetError(f"{self.out / 'report.json'} is not a report. Run `vlbias balance` again.")
        return values

    @cached_property
    def table(self) -> pd.DataFrame:
        """metadata.csv: one row per picture."""
        table = read_metadata(self.out / "metadata.csv")
        missing = [name for name in ("file_name", "origin", "source_id") if name not in table]
        if missing:
            path = self.out / "metadata.csv"
            raise DatasetError(f"{path} lacks the column '{missing[0]}'. Run `vlbias balance` again.")
        return table

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """rejected.csv: one row per try that was turned down."""
        return self._read("rejected.csv")

    @cached_property
    def labelling(self) -> list[ColumnReport]:
        """labelling.json: columns that a machine filled; empty if people gave all labels."""
        return read_reports(self.out)

    @cached_property
    def edited(self) -> pd.DataFrame:
        """The edited pictures of the table, with the group each came from in ``from`` and went to in ``to``."""
        edited = self.table[self.table["origin"] == "edited"].copy()
        protected = self.report["protected"]
        edited["to"] = self.groups(edited, protected)
        before = pd.Series(self.groups(self.table, protected), index=self.table["source_id"])
        before = before[(self.table["origin"] != "edited").to_numpy()]
        known = before[~before.index.duplicated()].to_dict()
        planned = self._planned_groups()
        names = zip(edited["file_name"], edited["source_id"], strict=True)
        edited["from"] = [planned.get(Path(name).stem) or known.get(donor) for name, donor in names]
        return edited

    @staticmethod
    def groups(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
        """The group of each row as text, several attributes joined; "unknown" where a label is missing."""
        return group_texts(table, columns).fillna("unknown").tolist()

    def donor_image(self, row: Any) -> str | None:
        """The donor of an edited row for ``<img src>``; ``None`` if its picture is not in the folder."""
        stem = Path(str(row["file_name"])).stem
        if stem.startswith("edit-"):
            folder = Path(str(row["file_name"])).parent.as_posix()
            for name in (f"donors/{stem}.png", f"{folder}/face-{stem.removeprefix('edit-')}.png"):
                if self._is_packed(name) or self._place(name) is not None:
                    return self.image(name)
        return self.source_image(str(row["source_id"]))

    def source_image(self, source_id: str) -> str | None:
        """The original of an id for ``<img src>``, if it is in the folder."""
        name = self._originals.get(source_id)
        return None if name is None else self.image(name)

    def image(self, name: str) -> str | None:
        """A picture of the folder for ``<img src>``, of a whole photograph its face; ``None`` if it cannot be read."""
        place = self._place(name)
        try:
            if self._packed is not None and self._is_packed(name):
                picture = self._packed.image(name)
            elif place is None:
                return None
            else:
                picture = open_image(place)
            if box := self._face_boxes.get(name):
                left, top, right, bottom = (int(edge) for edge in box.split(","))
                width, height = picture.size
                picture = picture.crop((max(left, 0), max(top, 0), min(right, width), min(bottom, height)))
            return data_uri(picture, max_edge_px=self.max_edge_px)
        except (ImageError, ValueError):  # ValueError: a face box that is none
            # The report says "not kept"; the pipeline listed the damage where it met it.
            return None

    def _place(self, name: str) -> Path | None:
        """Where a picture of the folder stands; ``None`` if it is not there, or the name leads out of the folder."""
        clean = inside_root(name)
        if clean is None or (not self.follow_links and linked(self.out, [clean])):
            return None
        return self.out / clean if os.path.isfile(self.out / clean) else None

    @cached_property
    def _packed(self) -> PackedDataset | None:
        """The shards that the pictures stand in; ``None`` where they are loose."""
        return packed_set(self.out)

    def _is_packed(self, name: str) -> bool:
        return self._packed is not None and name in self._packed.table.index

    @cached_property
    def _originals(self) -> dict[str, str]:
        others = self.table[~self.table["origin"].isin(["edited", COPIED])]
        return dict(zip(others["source_id"].astype(str), others["file_name"], strict=True))

    @cached_property
    def _face_boxes(self) -> dict[str, str]:
        """File name => where the face lies in it, "left,top,right,bottom", of whole photographs."""
        if "face_box" not in self.table:
            return {}
        known = self.table.dropna(subset="face_box")
        return dict(zip(known["file_name"], known["face_box"].astype(str), strict=True))

    def _planned_groups(self) -> dict[str, str]:
        """File stem of an edit -> the group that its slot was planned from."""
        path = self.out / "plan.csv"
        if not path.is_file():
            return {}
        plan = self._read("plan.csv")
        try:
            return {f"edit-{int(slot):06d}": str(group) for slot, group in zip(plan["slot"], plan["from"], strict=True)}
        except (KeyError, ValueError, OverflowError) as error:
            raise DatasetError(f"{path} is damaged ({error}). Run `vlbias balance` again.") from error

    def _read(self, name: str) -> pd.DataFrame:
        return read_table(self.out / name, dtype=_TEXT, keep_default_na=False, na_values=[""])
