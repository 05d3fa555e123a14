"""The hashes of every file of an editor folder: any byte that changes is noticed, and the file is named.

``manifest.json`` lies beside the editor's ``config.json``. The shipped editors are older than it; their hashes are part
of this package (``shipped.json``), so that not even all files together can be replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from vlbias.errors import CheckpointError
from vlbias.files import AnyPath, read_object, sha256_file, write_file

__all__ = ["MANIFEST_FILE", "verify_folder", "write_manifest"]

MANIFEST_FILE = "manifest.json"
_SHIPPED = Path(__file__).with_name("shipped.json")


def write_manifest(folder: AnyPath) -> None:
    """Write the hashes of all files of a folder beside them.

    Raises:
        OutputError: the place cannot be written.
    """
    folder = Path(folder)
    files = {name: sha256_file(folder / name) for name in sorted(_files(folder)) if name != MANIFEST_FILE}
    write_file(folder / MANIFEST_FILE, _text(files))


def verify_folder(folder: AnyPath, name: str) -> None:
    """Compare every file of an editor folder with its manifest.

    Files that people lay beside the editor's parts (notes, a licence) are not looked at; no file may have been added to
    a part, as it might be read.

    Args:
        folder: the editor.
        name: what it calls itself; a shipped name is compared with the hashes of this package.

    Raises:
        CheckpointError: a file is missing, added or changed, or there is no manifest.
    """
    folder = Path(folder)
    expected = _read_manifest(folder, name)
    for file, digest in expected.items():
        path = folder / file
        if not path.is_file():
            raise CheckpointError(f"{path} is missing. Fetch the checkpoint again.")
        if sha256_file(path) != digest:
            raise CheckpointError(
                f"{path} is not the file that the checkpoint was saved with (its SHA-256 differs). Fetch it again."
            )
    for file in _files(folder):
        if "/" in file and file not in expected:
            raise CheckpointError(f"{folder / file} does not belong to the checkpoint. Remove it, or fetch it again.")


def _read_manifest(folder: Path, name: str) -> dict[str, str]:
    path = folder / MANIFEST_FILE
    if path.is_file():
        values = read_object(path)
        files = values.get("files")
        # written anew it must be the same text: then no byte of it was changed
        if not isinstance(files, dict) or path.read_text(encoding="utf-8") != _text(files) or not files:
            raise CheckpointError(f"{path} was changed or is damaged. Fetch the checkpoint again.")
        for file in files:
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise CheckpointError(f"{path} names the file '{file}', which lies outside the checkpoint.")
        return files
    shipped = read_object(_SHIPPED).get(name)
    if shipped is None:
        raise CheckpointError(f"{folder} has no {MANIFEST_FILE}, so its files cannot be checked. Save the editor anew.")
    return shipped


def _text(files: dict[str, str]) -> str:
    listed = json.dumps(files, indent=1)
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return json.dumps({"sha256": digest, "files": files}, indent=1) + "\n"


def _files(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, with ``/``; hidden ones (drafts, a build in progress) are left out."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if not path.is_dir() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix()
