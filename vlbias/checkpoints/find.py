"""Where checkpoints lie, and which one a name means.

A bare name is that of a shipped checkpoint, or of one in the user's own folders; a folder is written with a ``/``, so
that nothing in the working directory can stand in for a shipped editor.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from vlbias.arguments import checked_call
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError
from vlbias.files import AnyPath, links_below

__all__ = [
    "CACHE_VARIABLE",
    "cache_folder",
    "checkpoint_folders",
    "find_checkpoint",
    "list_checkpoints",
    "stays_inside",
]

#: Environment variable that names a further folder of checkpoints.
CHECKPOINTS_VARIABLE = "VLBIAS_CHECKPOINTS"
#: Environment variable that names the folder of all that may be made or fetched again.
CACHE_VARIABLE = "VLBIAS_CACHE"


def _expanded(path: AnyPath) -> Path:
    return Path(os.path.expanduser(path))  # unlike Path.expanduser it leaves an unknown ~user as it is


def cache_folder() -> Path:
    """Folder of what may be made or fetched again: ``$VLBIAS_CACHE``, else ``vlbias`` in the user's cache."""
    if named := os.environ.get(CACHE_VARIABLE):
        return _expanded(named)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "vlbias"


def checkpoint_folders() -> list[Path]:
    """The folders where a checkpoint name is looked up, in order (house plan, section 4)."""
    package = Path(__file__).resolve().parents[1]
    folders = []
    if named := os.environ.get(CHECKPOINTS_VARIABLE):
        folders.append(_expanded(named))
    if (package.parent / "setup.cfg").is_file():
        folders.append(package.parent / "checkpoints")
    folders.append(package / "_checkpoints")
    folders.append(cache_folder() / "checkpoints")
    return folders


def list_checkpoints() -> list[str]:
    """Names of the checkpoints that are present, sorted."""
    names = set()
    for folder in checkpoint_folders():
        if folder.is_dir():
            names |= {entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()}
    return sorted(names)


@checked_call
def find_checkpoint(name_or_path: AnyPath) -> Path:
    """Find a checkpoint by its name in :func:`checkpoint_folders`, or by its path.

    Args:
        name_or_path: a text without ``/`` is a name, or a file of the working directory; any other text, and a
            ``Path``, is a path.

    Raises:
        CheckpointNotFoundError: nowhere there; the message lists the places and the names that exist.
        CheckpointError: it is neither a folder nor a plain file, or a folder with a link that leads out of it.
        ConfigError: neither a text nor a path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ConfigError(f"a checkpoint is a name or a path; got {name_or_path!r:.80}.")
    path = _expanded(name_or_path)
    is_name = isinstance(name_or_path, str) and path.name == name_or_path
    if is_name:
        for folder in checkpoint_folders():
            if os.path.isfile(folder / path / "config.json"):
                return stays_inside(folder / path)
    if os.path.isfile(path):
        return path
    if os.path.isdir(path) and not is_name:
        return stays_inside(path)
    if os.path.exists(path) and not os.path.isdir(path):
        raise CheckpointError(f"{path} is neither a folder nor a plain file.")
    raise _not_found(str(name_or_path), os.path.isdir(path))


#: Of the files that lie at the top of a checkpoint's folder.
_ENDINGS = {".json", ".safetensors", ".pt", ".ckpt", ".onnx", ".bin"}


@checked_call
def stays_inside(folder: AnyPath) -> Path:
    """A checkpoint's folder, none of whose links leads out of it; it may be a link itself.

    In the cache of the Hugging Face hub, files are links from ``snapshots`` into ``blobs`` beside it; these may be.

    Raises:
        CheckpointError: names the link.
    """
    folder = Path(folder)
    try:
        is_checkpoint = any(entry.suffix in _ENDINGS for entry in folder.iterdir())
    except OSError:  # not there, or nobody may look inside: who opens it says so
        return folder
    if not is_checkpoint:
        return folder  # whatever lies further below, and that may be a whole disk, is not read
    place = folder.resolve()
    homes = [place, *(parent.parent / "blobs" for parent in place.parents if parent.name == "snapshots")]
    for path in links_below(folder):
        if path.exists() and not any(path.resolve().is_relative_to(home) for home in homes):
            raise CheckpointError(f"{path} leads out of the checkpoint's folder. Put a copy in its place.")
    return folder


def _not_found(name: str, is_folder: bool) -> CheckpointNotFoundError:
    known = list_checkpoints()
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    if is_folder:
        hint = f"For the folder of that name write './{name}'. "
    places = ", ".join(str(folder) for folder in checkpoint_folders())
    return CheckpointNotFoundError(
        f"No checkpoint '{name}'. {hint}Available: {', '.join(known) or 'none'}. Looked for the path itself and in "
        f"{places}; set ${CHECKPOINTS_VARIABLE} to add a folder."
    )
