"""What people decide on edits: ``OUT/review.csv``, one row per decision, and which edits it refuses.

```
picture,donor,decision,reviewer,reason
train/edit-000012.png,0031,reject,anna,a third ear
```
``picture`` and ``donor`` are ``file_name`` and ``source_id`` of ``metadata.csv``: an edit that takes the place of a
refused one has its name, but another donor. The order of the rows is that of the decisions, of which the last one of
each reviewer counts. No time is kept.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Literal

from vlbias.data.files import csv_rows
from vlbias.data.metadata import read_metadata
from vlbias.errors import DatasetError, unknown
from vlbias.files import AnyPath, open_plain, refuse_links, sha256_json, write_file, writing
from vlbias.locks import FileLock
from vlbias.settings import Settings

__all__ = ["REVIEW_FILE", "Decision", "Review", "add_decisions", "decide", "decisions_of"]

#: Its name in the folder of a run.
REVIEW_FILE = "review.csv"
#: A larger file is not read, nor one of more rows.
MAX_BYTES, MAX_DECISIONS = 64 * 2**20, 500_000
#: Characters of a name or reason.
MAX_TEXT = 500


@dataclass(frozen=True)
class Decision:
    """One row: what one person decided on one edit.

    Attributes:
        picture: ``file_name`` of the edit.
        donor: its ``source_id``; in a pseudonymised set, the pseudonym.
        decision: ``accept`` or ``reject``.
        reviewer: who; any name or initials, spelt alike each time.
        reason: why, in a few words; stands in ``rejected.csv``.

    Raises:
        DatasetError: another decision, or a field is empty or too long.
    """

    picture: str
    donor: str
    decision: Literal["accept", "reject"]
    reviewer: str
    reason: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            text = " ".join(str(getattr(self, field.name)).split())
            if len(text) > MAX_TEXT:
                raise DatasetError(f"'{text[:40]}...' is too long for a {field.name}; at most {MAX_TEXT} characters.")
            if not text and field.name != "reason":
                raise DatasetError(f"`{field.name}` is empty.")
            object.__setattr__(self, field.name, text)
        if self.decision not in ("accept", "reject"):
            raise DatasetError(f"`decision` must be accept or reject; got '{self.decision}'.")


@dataclass(frozen=True)
class Review(Settings):
    """The decisions of one or several people, and how they are counted.

    Attributes:
        decisions: in their order.
        rule: an edit is refused if ``any`` reviewer rejects it, or if the ``majority`` of those who decided on it do.

    Example:
        >>> said = {"anna": "reject", "ben": "accept"}
        >>> votes = [Decision("train/edit-000012.png", "0031", word, who) for who, word in said.items()]
        >>> len(Review(votes).refused()), len(Review(votes, rule="majority").refused())
        (1, 0)
    """

    decisions: Sequence[Decision] = ()
    rule: Literal["any", "majority"] = "any"

    @classmethod
    def read(cls, path: AnyPath, rule: Literal["any", "majority"] = "any") -> Review:
        """Read a ``review.csv``.

        Raises:
            DatasetError: it is missing or no such table; names the line.
            ConfigError: no such rule.
        """
        return cls(tuple(decisions_of(path)), rule)

    def refused(self) -> dict[tuple[str, str], str]:
        """(picture, donor) => the reasons, of edits that are refused, in the order in which they came to be."""
        said: dict[tuple[str, str], dict[str, Decision]] = {}
        found: dict[tuple[str, str], str] = {}
        for decision in self.decisions:
            key = decision.picture, decision.donor
            votes = said.setdefault(key, {})
            votes[decision.reviewer] = decision
            if self._refuses(votes.values()):
                found[key] = "; ".join(dict.fromkeys(vote.reason for vote in _rejects(votes.values()) if vote.reason))
            else:
                found.pop(key, None)
        return found

    def _refuses(self, votes: Collection[Decision]) -> bool:
        return len(_rejects(votes)) * 2 > (len(votes) if self.rule == "majority" else 0)

    @property
    def digest(self) -> str:
        """A hash of all decisions and the rule."""
        return sha256_json([self.rule, *(list(vars(decision).values()) for decision in self.decisions)])


def _rejects(votes: Iterable[Decision]) -> list[Decision]:
    return [vote for vote in votes if vote.decision == "reject"]


def decisions_of(path: AnyPath) -> list[Decision]:
    """The rows of a ``review.csv``.

    Raises:
        DatasetError: it is missing, cannot be read, has other columns, or a wrong row; names the line.
    """
    most = MAX_DECISIONS + 2  # with the head, and one too many
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
            data = file.read(size)
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        rows = [(line, [cell.strip() for cell in row]) for line, row in islice(csv_rows(path, text, strict=True), most)]
        if len(rows) == most:
            raise ValueError(f"it has more than {MAX_DECISIONS:,} rows")
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist. It has one decision per row: {_HEADER}.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as a table in UTF-8 ({error}).") from error
    rows = [(line, cells) for line, cells in rows if any(cells)]
    columns = _columns(path, rows[0][1] if rows else [])
    decisions = []
    for line, cells in rows[1:]:
        if len(cells) != len(columns):
            raise DatasetError(f"{path}, line {line}: {len(columns)} cells are expected, and it has {len(cells)}.")
        try:
            decisions.append(Decision(**dict(zip(columns, cells, strict=True))))  # type: ignore[arg-type]  # checked there
        except DatasetError as error:
            raise DatasetError(f"{path}, line {line}: {error}") from error
    _refuse_alike(path, decisions)
    return decisions


_NAMES = [field.name for field in fields(Decision)]
_HEADER = ",".join(_NAMES)


def _columns(path: AnyPath, names: list[str]) -> list[str]:
    """The head of the table, with all columns but ``reason``, each once, and no other."""
    missing = [name for name in _NAMES if name not in names and name != "reason"]
    other = next((name for name in names if name not in _NAMES), None)
    if missing or other is not None:
        found = f"lacks the column '{missing[0]}'" if missing else f"has a column '{other:.80}'"
        raise DatasetError(f"{path} {found}. Its columns are {_HEADER}, separated by commas.")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path} has the column '{twice}' twice. Its columns are {_HEADER}.")
    return names


def _refuse_alike(path: AnyPath, decisions: Iterable[Decision]) -> None:
    """One person under two spellings would have two votes."""
    known: dict[str, str] = {}
    for decision in decisions:
        other = known.setdefault(decision.reviewer.casefold(), decision.reviewer)
        if other != decision.reviewer:
            raise DatasetError(f"{path} has the reviewers '{other}' and '{decision.reviewer}'. Spell each alike.")


def decide(
    out_dir: AnyPath, pictures: Sequence[str], decision: Literal["accept", "reject"], *, reviewer: str, reason: str = ""
) -> list[Decision]:
    """The same decision on several edits of a finished run.

    Args:
        out_dir: the run's folder.
        pictures: ``file_name`` of each.
        decision, reviewer, reason: see :class:`Decision`.

    Raises:
        DatasetError: no finished run is there, or a field is wrong.
        OutputError: its table is a link.
        UnknownNameError: a picture is no edit of it.
    """
    place = Path(out_dir) / "metadata.csv"
    refuse_links(place)
    table = read_metadata(place) if place.is_file() else None
    if table is None or "origin" not in table or "source_id" not in table:
        raise DatasetError(f"{out_dir} is not the folder of a finished balance run.")
    edited = table[table["origin"] == "edited"]
    donors = dict(zip(edited["file_name"].astype(str), edited["source_id"].astype(str), strict=True))
    for picture in pictures:
        if picture not in donors:
            names = difflib.get_close_matches(picture, donors, n=5) or list(donors)[:5]
            raise unknown(
                "edit", picture, names, where=f"{out_dir}, where names are such as {next(iter(donors), '...')}"
            )
    return [Decision(picture, donors[picture], decision, reviewer, reason) for picture in pictures]


def add_decisions(path: AnyPath, decisions: Sequence[Decision]) -> None:
    """Add rows to a ``review.csv``, which is made if it is not there; several people may do so at once.

    What a person said last of an edit is not added again, so a command may be repeated.

    Args:
        path: the file, ``OUT/review.csv`` of a run.
        decisions: in their order.

    Raises:
        DatasetError: the file that is there is none, or would become none.
        OutputError: it is a link, or cannot be written.
    """
    path = Path(path)
    refuse_links(path)
    with writing(path), FileLock(path.with_name(f".{path.name}.lock")):
        earlier = decisions_of(path) if os.path.lexists(path) else []
        _refuse_alike(path, [*earlier, *decisions])
        last = {(said.picture, said.donor, said.reviewer): said for said in earlier}
        new = [said for said in decisions if last.get((said.picture, said.donor, said.reviewer)) != said]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerows([_NAMES, *(vars(decision).values() for decision in [*earlier, *new])])
        write_file(path, text.getvalue())
