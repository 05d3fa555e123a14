"""Open a dataset by kind, or by a word or folder whose kind is found."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlbias.arguments import checked_call
from vlbias.data.celeba import find_celeba, load_celeba
from vlbias.data.celebahq import ATTRIBUTE_FILE, load_celebahq
from vlbias.data.expressions import (
    find_affectnet,
    find_rafdb,
    load_affectnet,
    load_cafe,
    load_rafdb,
    looks_like_cafe,
    looks_like_rafdb,
)
from vlbias.data.fer2013 import find_fer2013, load_fer2013, looks_like_fer2013
from vlbias.data.files import is_number, list_images, list_pictures, refuse_link
from vlbias.data.folder import load_folder
from vlbias.data.huggingface import load_datasets
from vlbias.data.identities import LIST_FILE, is_identity_list, load_identities
from vlbias.data.metadata import METADATA_FILES, odd_labels
from vlbias.data.packed import PackedDataset, packed_kind
from vlbias.data.parquet import load_parquet
from vlbias.data.recordio import find_records, load_recordio
from vlbias.data.synthfaces import load_synthfaces
from vlbias.data.table import FaceDataset
from vlbias.data.utkface import load_utkface, looks_like_utkface
from vlbias.data.vggface2 import find_vggface2, load_vggface2
from vlbias.data.webdataset import load_webdataset
from vlbias.errors import ConfigError, DatasetError, unknown
from vlbias.remote import fetch, is_url
from vlbias.world.joint import JointOptions

__all__ = ["KINDS", "load_dataset", "open_dataset", "packed_set", "recognise"]

KINDS: dict[str, Callable[..., FaceDataset]] = {
    "synthfaces": load_synthfaces,
    "utkface": load_utkface,
    "celebahq": load_celebahq,
    "celeba": load_celeba,
    "vggface2": load_vggface2,
    "recordio": load_recordio,
    "identities": load_identities,
    "affectnet": load_affectnet,
    "rafdb": load_rafdb,
    "fer2013": load_fer2013,
    "cafe": load_cafe,
    "webdataset": load_webdataset,
    "parquet": load_parquet,
    "datasets": load_datasets,
    "folder": load_folder,
}
#: Kinds that may be one file, or a pattern.
_PACKED = {".tar": "webdataset", ".parquet": "parquet"}

#: The folder that CelebAMask-HQ unpacks into.
_INNER = "CelebAMask-HQ"
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")


@checked_call
def load_dataset(kind: str, root: str | os.PathLike[str] | None = None, **options: object) -> FaceDataset:
    """Open a dataset of a known kind.

    Args:
        kind: a key of ``vlbias.data.KINDS``, such as ``"synthfaces"``, ``"utkface"``, ``"celeba"`` or ``"folder"``.
        root: its folder; none for synthfaces.
        options: of the kind, see the function of that name, such as ``load_utkface``.

    Raises:
        UnknownNameError: another kind.
        ConfigError: an option that the kind does not have, or a root where none belongs.
        DatasetError: the folder is not of that kind.
    """
    if kind not in KINDS and os.path.exists(os.path.expanduser(kind)):
        raise ConfigError(f"'{kind}' is a place, not a kind of dataset: open_dataset({kind!r}) finds out what it is.")
    if kind not in KINDS:
        raise unknown("dataset kind", str(kind), KINDS)
    loader = KINDS[kind]
    known = _options(loader)
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ConfigError(f"`{wrong[0]}` is not an option of '{kind}'. It has: {', '.join(known)}.")
    if kind != "synthfaces":
        if root is None:
            raise ConfigError(f"'{kind}' needs `root`, the folder of the dataset; got {root!r:.60}.")
        root = fetch(str(root)) if is_url(root) else os.path.expanduser(root)
        _refuse_archive(Path(root), kind)
    dataset = loader(root, **options)
    if kind != "synthfaces":
        dataset.problems.extend(odd_labels(dataset.table[dataset.attributes]))
    return dataset


@checked_call
def open_dataset(spec: str | os.PathLike[str], **options: object) -> FaceDataset:
    """Open ``"synthfaces"``, ``"synthfaces:N"``, or a folder whose kind is recognised from what it holds.

    Args:
        spec: the word; a folder; a list of pictures and people; shards such as ``"shards/*.tar"``; or a URL of these
            (extra ``remote``), which is fetched into the user's cache. ``"folder:PATH"`` and the like say the kind.
        options: of the kind that it turns out to be; options that only other kinds have are passed over, so that one
            command can give ``seed`` to whatever the user names.

    Raises:
        DatasetError: no such folder, or nothing in it that is known.
        ConfigError: N is no number >= 1, or an option that no kind has.
    """
    known = {name for loader in KINDS.values() for name in _options(loader)}
    if wrong := sorted(set(options) - known):
        raise ConfigError(f"`{wrong[0]}` is not an option of any dataset. There are: {', '.join(sorted(known))}.")
    text = os.path.expanduser(spec)
    if is_url(text):
        return open_dataset(fetch(text), **options)
    word, colon, count = text.partition(":")
    if word in KINDS and is_url(count):
        return load_dataset(word, count, **_only(KINDS[word], options))
    if colon and word in KINDS and word != "synthfaces" and not os.path.exists(text):
        return load_dataset(word, _inner(Path(count), word, options), **_only(KINDS[word], options))
    if word == "synthfaces" and not os.path.exists(text):
        if colon:
            if not (is_number(count) and int(count) > 0):
                raise ConfigError(f"'{text}': expected a number of faces after the colon, such as synthfaces:1000.")
            options = options | {"n": int(count)}
        return load_dataset("synthfaces", **_only(load_synthfaces, options))
    kind = recognise(text, follow_links=bool(options.get("follow_links")))
    return load_dataset(kind, _inner(Path(text), kind, options), **_only(KINDS[kind], options))


@checked_call
def recognise(root: str | os.PathLike[str], *, follow_links: bool = False) -> str:
    """The kind of the dataset in a folder, a key of ``KINDS``.

    Args:
        root: the folder.
        follow_links: whether links below the root are gone along.

    Raises:
        DatasetError: no such folder, an archive, or nothing that is known.
    """
    root = Path(root)
    if not root.is_dir() and root.suffix in _PACKED and (root.exists() or any(sign in root.name for sign in "*?[")):
        return _PACKED[root.suffix]
    _refuse_archive(root)
    if is_identity_list(root):
        return "identities"
    if not root.is_dir():
        what = "a file, not a folder" if root.exists() else "not there"
        raise DatasetError(f"{root} is {what}. Give a folder of pictures, or synthfaces[:N].")
    if kind := packed_kind(root):
        return kind
    if any((root / inner / ATTRIBUTE_FILE).is_file() for inner in ("", _INNER)):
        return "celebahq"
    if any((root / name).is_file() for name in METADATA_FILES):
        return "folder"
    own_files = {
        "celeba": find_celeba,
        "vggface2": find_vggface2,
        "recordio": find_records,
        "affectnet": find_affectnet,
        "rafdb": find_rafdb,
        "fer2013": find_fer2013,
    }
    if kind := next((kind for kind, find in own_files.items() if find(root) is not None), None):
        return kind
    if (root / LIST_FILE).is_file():
        return "identities"
    links: list[str] = []
    images = list_images(root, limit=200, follow_links=follow_links, left_out=links)
    sample = [name.rsplit("/", 1)[-1] for name in images]
    by_names = {
        "utkface": looks_like_utkface,
        "cafe": looks_like_cafe,
        "rafdb": looks_like_rafdb,
        "fer2013": looks_like_fer2013,
    }
    if kind := next((kind for kind, looks_like in by_names.items() if looks_like(sample)), None):
        return kind
    if sample or links:
        return "folder"
    for suffix, kind in _PACKED.items():
        if list_pictures(root, suffixes={suffix}, limit=1, follow_links=follow_links, left_out=links) or links:
            return kind
    raise DatasetError(f"{root} has no picture and no {METADATA_FILES[0]}. Expected one of: {', '.join(KINDS)}.")


def packed_set(root: Path) -> PackedDataset | None:
    """What vlbias wrote as shards into a folder; ``None`` where its pictures are loose.

    Raises:
        DatasetError: a shard is damaged.
    """
    loaders = {"webdataset": load_webdataset, "parquet": load_parquet}
    kind = packed_kind(root)
    return None if kind is None else loaders[kind](root)


def _inner(root: Path, kind: str, options: Mapping[str, object]) -> Path:
    """CelebAMask-HQ unpacks into a folder of its own name; either may be given."""
    if kind != "celebahq" or (root / ATTRIBUTE_FILE).is_file() or not (root / _INNER).is_dir():
        return root
    return refuse_link(root / _INNER, follow_links=bool(options.get("follow_links")))


def _only(loader: Callable[..., FaceDataset], options: dict[str, object]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in _options(loader)}


def _options(loader: Callable[..., FaceDataset]) -> list[str]:
    """What a loader can be given beside the root."""
    parameters = inspect.signature(loader).parameters.values()
    collected = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return [name for name in named if name != "root"] + (list(JointOptions.__annotations__) if collected else [])


def _refuse_archive(root: Path, kind: str = "") -> None:
    if kind not in _PACKED.values() and root.is_file() and root.name.lower().endswith(_ARCHIVES):
        command = f"tar -xf {root}" if ".t" in root.name.lower() else "unpack it"
        raise DatasetError(f"{root} is an archive; datasets are read from folders. Unpack it first: {command}")
