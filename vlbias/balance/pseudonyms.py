"""Other names for the pictures of a dataset, so that nothing of a run says what the files of its donors were called.

A name is a keyed hash (HMAC-SHA-256) of the picture's id: the same for the same key, and of no use to whoever lacks it.
The key is drawn for each run, kept in its state while it goes on and removed at its end; who wants to trace pictures
back has key and names written to a file of their own, outside of the run's folder.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from functools import partial
from pathlib import Path
from typing import Any

from vlbias.balance.originals import label_columns
from vlbias.balance.run_folder import RunFolder
from vlbias.data import FaceDataset
from vlbias.data.renamed import PseudonymousFaces
from vlbias.errors import CheckpointError, ConfigError, OutputError, PlanError
from vlbias.files import make_folder, read_object, write_json

__all__ = ["check_pseudonyms", "forget_key", "pseudonymous"]

#: The key of a run that goes on, in its state.
KEY_FILE = "pseudonyms.json"
_KEY_BYTES = 32
_KEY = re.compile(f"[0-9a-f]{{{2 * _KEY_BYTES}}}")


def check_pseudonyms(names: str | os.PathLike[str] | None, originals: str, out: str | os.PathLike[str]) -> None:
    """Refuse settings under which true names would get out.

    Raises:
        ConfigError: says which.
    """
    if originals in ("exact", "link"):
        raise ConfigError(f"originals='{originals}' shows what the files are called or say. Use 'copy' or 'resize'.")
    folder = Path(out).resolve()
    if names is not None and folder in (Path(names).resolve(), *Path(names).resolve().parents):
        raise ConfigError(f"{names} lies in {out}, which is to be passed on. Give `pseudonyms` a file outside of it.")


def pseudonymous(faces: FaceDataset, run: RunFolder, names: str | os.PathLike[str] | None) -> PseudonymousFaces:
    """The dataset under other ids.

    Args:
        faces: the dataset.
        run: the run's folder, whose state keeps the key until :func:`forget_key`.
        names: file that keeps key and names; one that is there gives its key, so that several runs have the same
            names. ``None`` keeps none.

    Raises:
        ConfigError: ``names`` is another kind of file.
        OutputError: the run was begun with another key, or a file cannot be written.
        PlanError: a column of labels repeats the files' names.
    """
    _refuse_names_in_labels(faces)
    known = {} if names is None else _read_names(Path(names))
    key = run.first_wins(KEY_FILE, {"key": known.get("key") or secrets.token_hex(_KEY_BYTES)}).get("key")
    if not _KEY.fullmatch(str(key)) or known.get("key", key) != key:
        raise OutputError(f"{run.out} was begun with another key of pseudonyms. Give the same file, or a new folder.")
    renamed = PseudonymousFaces.of(faces, partial(_pseudonym, str(key)))
    if names is not None:
        path = make_folder(Path(names).parent) / Path(names).name
        write_json(path, {"key": key, "names": known.get("names", {}) | dict(renamed.ids_there)})
        path.chmod(0o600)
    return renamed


def forget_key(run: RunFolder) -> None:
    """Remove the key from the state of a finished run, drafts of it as well."""
    for path in (run.state / KEY_FILE, *(run.state / "tmp").glob(f"*-{KEY_FILE}")):
        path.unlink(missing_ok=True)


def _pseudonym(key: str, name: str) -> str:
    """64 bits of a keyed hash; the letter keeps it a text wherever a table is read."""
    return "p" + hmac.new(bytes.fromhex(key), name.encode(), hashlib.sha256).hexdigest()[:16]


def _read_names(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    try:
        values = read_object(path)
    except CheckpointError as error:
        raise ConfigError(f"`pseudonyms` must be a new file, or one of an earlier run: {error}") from error
    if not _KEY.fullmatch(str(values.get("key"))) or not isinstance(values.get("names"), dict):
        raise ConfigError(f"{path} has no pseudonyms. Give a new file, or one that a run wrote.")
    return values


def _refuse_names_in_labels(faces: FaceDataset) -> None:
    """A column that says what each file is called would undo it all."""
    names = faces.table["file_name"].astype(str)
    for column in label_columns(faces):
        pairs = [(str(value), Path(name)) for value, name in zip(faces.table[column], names, strict=True)]
        same = sum(value in (str(path), path.name, path.stem) for value, path in pairs)
        if same > len(pairs) / 2:
            raise PlanError(f"the column '{column}' says what the files are called. Leave it out of the dataset.")
