"""The hashes of every file of a checkpoint's folder: any byte that changes is noticed, and the file is named.

``manifest.json`` lies beside ``config.json``, of an editor and of each of its parts. The shipped editors are older than
it; their hashes are part of this package (``shipped.json``), so that not even all files together can be replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlbias.arguments import checked_call
from vlbias.checkpoints.find import stays_inside
from vlbias.errors import CheckpointError
from vlbias.files import AnyPath, read_object, sha256_file, write_file

__all__ = ["MANIFEST_FILE", "verify_folder", "whole_folder", "write_manifest"]

MANIFEST_FILE = "manifest.json"
_SHIPPED = Path(__file__).with_name("shipped.json")


@checked_call
def write_manifest(folder: AnyPath, names: Iterable[str] | None = None) -> None:
    """Write the hashes of files of a folder beside them.

    Args:
        folder: where they lie.
        names: of the files; what the manifest says of others stays. ``None`` for all that is there.

    Raises:
        OutputError: the place cannot be written.
    """
    folder = Path(folder)
    files = {} if names is None else _known(folder)
    files |= {name: sha256_file(folder / name) for name in (_files(folder) if names is None else names)}
    files.pop(MANIFEST_FILE, None)
    write_file(folder / MANIFEST_FILE, _text(dict(sorted(files.items()))))


@checked_call
def whole_folder(folder: AnyPath) -> Path:
    """The folder of a checkpoint that is not an editor, or of an editor's part, once its files are as they were saved.

    They are compared with the manifest beside them, else with that of the editor that they are part of. Folders of
    other libraries have neither, and are not compared.

    Raises:
        CheckpointError: a file is missing or changed, or a link leads out of the folder.
    """
    folder = stays_inside(folder)
    if (folder / MANIFEST_FILE).is_file():
        verify_folder(folder, "")
        return folder
    editor = folder.absolute().parent
    try:  # whatever lies there, it may have nothing to do with the folder
        info = {} if (editor / "config.json").is_symlink() else read_object(editor / "config.json")
    except CheckpointError:
        info = {}
    if info.get("kind") == "editor":
        verify_folder(stays_inside(editor), str(info.get("name", "")), part=folder.name)
    return folder


@checked_call
def verify_folder(folder: AnyPath, name: str, *, part: str = "") -> None:
    """Compare every file of a checkpoint's folder with its manifest.

    Files that people lay beside the editor's parts (notes, a licence) are not looked at; no file may have been added to
    a part, as it might be read.

    Args:
        folder: the editor, or another checkpoint.
        name: what an editor calls itself; without a manifest, a shipped name means the hashes of this package.
        part: a folder in it, which alone is compared; empty for all.

    Raises:
        CheckpointError: a file is missing, added or changed, or there is no manifest.
    """
    folder = Path(folder)
    expected = _read_manifest(folder, name)
    inside = f"{part}/" if part else ""
    for file, digest in expected.items():
        if not file.startswith(inside):
            continue
        path = folder / file
        if not path.is_file():
            raise CheckpointError(f"{path} is missing. Fetch the checkpoint again.")
        if sha256_file(path) != digest:
            raise CheckpointError(
                f"{path} is not the file that the checkpoint was saved with (its SHA-256 differs). Fetch it again."
            )
    for file in _files(folder):
        if "/" in file and file.startswith(inside) and file not in expected:
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
        raise CheckpointError(
            f"{folder} has no {MANIFEST_FILE}, and its config.json names no editor of this package ('{name:.80}'), so "
            "its files cannot be checked. Fetch it again, or save it anew."
        )
    return shipped


def _known(folder: Path) -> dict[str, str]:
    """What a manifest says, empty without one that can be read."""
    try:
        return _read_manifest(folder, "")
    except CheckpointError:
        return {}


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
