"""Files of a dataset: the pictures below a folder, and the lines of annotation files, whatever wrote them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vlbias.data.table import Problem
from vlbias.errors import DatasetError
from vlbias.files import AnyPath, is_text, open_plain
from vlbias.images import IMAGE_SUFFIXES
from vlbias.settings import checked_number

__all__ = [
    "DEFAULT_MAX_MISSING",
    "MAX_COLUMNS",
    "MAX_LINES",
    "MAX_ROW_CELLS",
    "MAX_TABLE_BYTES",
    "PICTURE_SUFFIXES",
    "csv_rows",
    "drop_missing",
    "fields_of",
    "inside_root",
    "is_file",
    "is_number",
    "leave_out_links",
    "linked",
    "list_images",
    "list_pictures",
    "read_rows",
    "read_text",
    "refuse_link",
    "refuse_long",
]

#: What `datasets` takes for a picture by its name; not all of these are read.
# fmt: off
PICTURE_SUFFIXES = IMAGE_SUFFIXES | {
    ".apng", ".blp", ".bmp", ".bufr", ".bw", ".cur", ".dcx", ".dds", ".dib", ".emf", ".eps", ".fit", ".fits", ".flc",
    ".fli", ".ftc", ".ftu", ".gbr", ".gif", ".grib", ".icb", ".icns", ".ico", ".iim", ".im", ".j2c", ".j2k", ".jfif",
    ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpeg", ".mpg", ".msp", ".pbm", ".pcd", ".pcx", ".pgm",
    ".png", ".pnm", ".ppm", ".ps", ".psd", ".pxr", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda",
    ".vst", ".webp", ".wmf", ".xbm", ".xpm",
}
# fmt: on

#: A larger table of labels is not read, nor a row of it that is longer, or of more columns.
MAX_TABLE_BYTES, MAX_ROW_LENGTH, MAX_COLUMNS = 2**28, 2**22, 2000
#: Of a list of labels, whose lines are taken apart one by one, less is read; the longest that was published has 27 MB.
MAX_LIST_BYTES, MAX_LINES = 2**25, 600_000
#: Cells of a table whose rows are kept as such: each takes more than ten times its text.
MAX_ROW_CELLS = 5_000_000
#: What to do about a link: it can lead anywhere, to pictures that nobody meant to pass on.
_REMEDY = "If you trust where links of this dataset lead, pass follow_links=True (--follow-links)."

#: Share of pictures that may be missing before a dataset is taken for broken.
DEFAULT_MAX_MISSING = 0.1


#: A name that is clean as it stands: no drive, no way up, no part that a system takes for another.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+(?:[-.][A-Za-z0-9_]+)*(?:/[A-Za-z0-9_]+(?:[-.][A-Za-z0-9_]+)*)*")


def is_number(text: str) -> bool:
    """Whether a text is a whole number in plain digits, of a size that files have.

    Example:
        >>> is_number("007"), is_number("²"), is_number("9" * 5000)
        (True, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) < 19


def refuse_long(path: Path, max_bytes: int = MAX_TABLE_BYTES) -> None:
    """Refuse a label file whose text would take gigabytes of memory.

    Raises:
        DatasetError: it has more than ``max_bytes``.
        OSError: it cannot be looked at.
    """
    if (size := path.stat().st_size) > max_bytes:
        raise DatasetError(f"{path} has {size:,} bytes; of a label file at most {max_bytes:,} are read.")


def read_text(path: Path, *, max_bytes: int = MAX_LIST_BYTES, max_lines: int = MAX_LINES) -> str:
    """The text of a label file.

    Raises:
        DatasetError: missing, a folder, too long, or not UTF-8; the message names the file.
    """
    try:
        with open_plain(path) as file:
            refuse_long(path, max_bytes)
            content = file.read(os.fstat(file.fileno()).st_size)
        if max(content.count(b"\n"), content.count(b"\r")) > max_lines:
            raise DatasetError(f"{path} has more than {max_lines:,} lines; it is not read. Split it into parts.")
        return content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist.") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not a text file in UTF-8 ({error.reason} at byte {error.start}).") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV file with a header; a cell that a row lacks is empty, one too many is left out.

    Raises:
        DatasetError: as :func:`read_text`, or no table.
    """
    try:
        rows = csv_rows(path, io.StringIO(read_text(path)), skipinitialspace=True)
        _, columns = next(rows, (0, []))
        if len(columns) > MAX_COLUMNS:
            raise DatasetError(f"{path} has {len(columns):,} columns; at most {MAX_COLUMNS:,} are read.")
        found: list[dict[str, str]] = []
        for _, cells in rows:
            found.append(dict(zip(columns, [*cells, *[""] * len(columns)], strict=False)))
            if len(found) * len(columns) > MAX_ROW_CELLS:
                raise DatasetError(f"{path} has more than {MAX_ROW_CELLS:,} cells. Leave out columns and rows.")
        return columns, found
    except csv.Error as error:
        raise DatasetError(f"{path} is not a table ({error}).") from error


def csv_rows(path: AnyPath, lines: Iterable[str], **options: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row of a CSV file that is not blank, with the number of the line that it ends in.

    Args:
        path: of the file, for messages.
        lines: of it. A cell in quotes goes over several, so what is bounded is a row.
        options: of ``csv.reader``.

    Raises:
        DatasetError: a row is longer than is read.
        csv.Error: it is no table.
    """
    length = 0

    def counted() -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length > MAX_ROW_LENGTH:
                raise DatasetError(f"{path} has a row of more than {MAX_ROW_LENGTH:,} characters; it is not read.")
            yield line

    reader = csv.reader(counted(), **options)
    for cells in reader:
        length = 0
        if cells:
            yield reader.line_num, cells


def fields_of(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and fields of each line that is not blank.

    Fields stand apart by any white space; lines end as on any system, the last one with or without a line end.
    """
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if fields := line.split():
            yield number, fields


def inside_root(name: str, folder: PurePosixPath | None = None) -> str | None:
    """A file name of a label file as a clean path below the root; ``None`` if it leaves the root.

    Args:
        name: as written, relative to ``folder``; backslashes count as separators.
        folder: where the label file stands, relative to the root; ``None`` for the root itself.

    Example:
        >>> inside_root("a/../b.png"), inside_root("../b.png"), inside_root("/etc/passwd")
        ('b.png', None, None)
    """
    if _PLAIN_NAME.fullmatch(name):  # most are, and there may be a million
        return f"{folder}/{name}" if folder is not None and folder.parts else name
    if not name.strip() or "\0" in name or "://" in name or PureWindowsPath(name).drive:
        return None
    slashed = name.replace("\\", "/")
    if slashed.startswith("/"):
        return None
    clean = os.path.normpath(slashed).replace(os.sep, "/")
    # a name may not leave the folder of its own label file either; `datasets` refuses that as well
    if clean in (".", "..") or clean.startswith("../"):
        return None
    return clean if folder is None else (folder / clean).as_posix()


def list_images(
    root: Path, *, limit: int | None = None, follow_links: bool = False, left_out: list[str] | None = None
) -> list[str]:
    """Pictures that can be read below a folder; see :func:`list_pictures`."""
    return list_pictures(root, suffixes=IMAGE_SUFFIXES, limit=limit, follow_links=follow_links, left_out=left_out)


def list_pictures(
    root: Path,
    *,
    suffixes: Collection[str] = PICTURE_SUFFIXES,
    limit: int | None = None,
    follow_links: bool = False,
    left_out: list[str] | None = None,
) -> list[str]:
    """Pictures below a folder as sorted paths relative to it; hidden files and folders are passed over.

    Args:
        root: the folder; it may be a link itself.
        suffixes: of pictures, in lower case; those that `datasets` takes for pictures.
        limit: stop after so many, in no particular order; ``None`` for all.
        follow_links: whether links below the root are gone along; no folder is visited twice.
        left_out: takes the links that were not.

    Raises:
        DatasetError: a folder cannot be listed, or a name is no text.
    """
    found: list[str] = []
    waiting, visited = [(str(root), "")], {os.path.realpath(root)}
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DatasetError(f"{folder} cannot be listed ({error.strerror or error}).") from error
        for entry in entries:
            is_picture = os.path.splitext(entry.name)[1].lower() in suffixes and is_file(entry)
            is_folder = not is_picture and not entry.name.startswith("__") and os.path.isdir(entry)
            if entry.name.startswith(".") or not (is_picture or is_folder):
                continue
            if not is_text(entry.name):
                raise DatasetError(f"{entry.path}: the name is not text in UTF-8, which tables need. Rename it.")
            if entry.is_symlink() and not follow_links:
                if left_out is not None:
                    left_out.append(prefix + entry.name)
            elif is_picture:
                found.append(prefix + entry.name)
                if limit is not None and len(found) >= limit:
                    return found
            elif not entry.is_symlink() or (place := os.path.realpath(entry.path)) not in visited:
                visited.update([place] if entry.is_symlink() else [])
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
    return sorted(found)


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file or a link to one; one that leads to itself is none."""
    return os.path.isfile(entry) if entry.is_symlink() else entry.is_file()


def linked(root: Path, names: Iterable[str]) -> set[str]:
    """Names below a root that are links, or stand in a folder that is one; the root itself may be a link."""
    known = {"": False, ".": False}

    def is_linked(name: str) -> bool:
        way = [name]
        while way[-1] not in known:
            way.append(way[-1].rpartition("/")[0])
        for place, above in zip(way[-2::-1], way[:0:-1], strict=True):
            known[place] = known[above] or os.path.islink(f"{root}/{place}")
        return known[name]

    return {name for name in names if is_linked(name)}


def refuse_link(path: Path, *, follow_links: bool, root: Path | None = None) -> Path:
    """A label file that is no link, so that nothing of another place is taken for a label.

    Args:
        path: the file, or a folder of pictures.
        follow_links: whether it may be one.
        root: the dataset's folder, above which links are the user's own; ``None`` for the folder of ``path``.

    Raises:
        DatasetError: it is one, or stands behind one.
    """
    root = path.parent if root is None else root
    if not follow_links and linked(root, [path.relative_to(root).as_posix()]):
        raise DatasetError(f"{path} is a link. {_REMEDY}")
    return path


def leave_out_links(links: Iterable[str], *, root: Path, num_left: int) -> list[Problem]:
    """Report links that are not gone along.

    Raises:
        DatasetError: nothing else is in the folder.
    """
    links = sorted(links)
    if links and not num_left:
        raise DatasetError(f"all pictures of {root} are links or stand behind one, such as {links[0]}. {_REMEDY}")
    return [Problem(name, "link", _REMEDY) for name in links]


def drop_missing(names: list[str], is_there: list[bool], *, max_missing: float, root: Path) -> list[Problem]:
    """Report pictures that a label file names and that are not on disk.

    Args:
        names: of the pictures, relative to ``root``.
        is_there: whether each exists.
        max_missing: share of them that may be missing, 0..1.
        root: the dataset's folder, for the message.

    Raises:
        ConfigError: ``max_missing`` out of range.
        DatasetError: more are missing, or all.
    """
    checked_number("max_missing", max_missing, float, low=0, high=1)
    missing = [name for name, there in zip(names, is_there, strict=True) if not there]
    if missing and (len(missing) == len(names) or len(missing) > max_missing * len(names)):
        near = _namesake(root, missing[0])
        there = f", where {near} is there" if near else ""
        raise DatasetError(
            f"{root} lacks {len(missing)} of {len(names)} pictures, the first is {missing[0]:.200}{there}. At most a "
            f"share of {max_missing:g} may be missing: correct the names, restore the pictures, take out their rows, "
            "or pass `max_missing` in Python."
        )
    return [Problem(name, "missing_image", "named in the labels, not on disk") for name in missing]


def _namesake(root: Path, name: str) -> str | None:
    """A picture that may be meant: of the same name but for its folder, its ending, or capitals."""
    wanted = PurePosixPath(name)
    for folder in (root / wanted.parent, root):
        with suppress(OSError):
            for found in sorted(os.listdir(folder)):
                path = PurePosixPath(found)
                is_picture = path.suffix.lower() in PICTURE_SUFFIXES and is_text(found)
                if is_picture and wanted.stem.casefold() == path.stem.casefold():
                    return (folder / found).relative_to(root).as_posix()
    return None
