"""The one door to the Hugging Face hub: editors and paths fetched by name, folders sent there with a card.

Nothing is fetched unless somebody writes a name ``user/name`` that is no place on this disk. Of a repository only plain
data is taken, at one commit: JSON, safetensors and the words of a tokenizer, in the folders that an editor has. They
are counted and measured before the first is fetched, and what came is compared with the manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlbias.checkpoints import find_checkpoint, stays_inside, verify_folder
from vlbias.checkpoints.manifest import MANIFEST_FILE
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError, OutputError
from vlbias.files import AnyPath, refuse_links
from vlbias.shown import front_matter, in_code, in_markdown

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = [
    "check_hub_name",
    "dataset_commit",
    "find_or_fetch",
    "is_hub_name",
    "license_entries",
    "model_card",
    "push_folder",
]

#: ``user/name`` as the hub allows it.
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?/[A-Za-z0-9](?:[\w.-]{0,94}\w)?", re.ASCII)
#: What is fetched: the files of an editor or of a set of paths.
_WANTED = re.compile(
    r"(?:(?:diffae|clip|paths|student)/)?(?:[\w.-]+\.(?:json|safetensors)|bpe_merges\.txt\.gz)", re.ASCII
)
#: More is not fetched.
MAX_FILES, MAX_BYTES = 100, 16 * 2**30
#: Licences that the hub knows by a name of its own; any other is "other", in its own words.
_LICENSES = ("mit", "apache-2.0", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0")


def find_or_fetch(name_or_path: AnyPath) -> Path:
    """The folder of a checkpoint: found on this disk, or fetched if it is a name ``user/name`` of the hub.

    Args:
        name_or_path: as :func:`vlbias.checkpoints.find_checkpoint` takes it. A text ``user/name`` means the hub only
            where neither it nor a folder ``user`` is there. ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and
            ``HF_HUB_OFFLINE`` are those of huggingface_hub.

    Raises:
        CheckpointNotFoundError: neither here nor on the hub.
        CheckpointError: the hub cannot be reached, or holds no checkpoint, or one that is too large.
    """
    return _fetch(str(name_or_path)) if is_hub_name(name_or_path) else find_checkpoint(name_or_path)


def is_hub_name(name: object) -> bool:
    """Whether a text means a repository of the hub: it is ``user/name``, and neither that nor ``user`` is here."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return False
    return not os.path.lexists(name) and not os.path.lexists(name.partition("/")[0])


def _fetch(name: str) -> Path:
    api = _api()
    with _reaching(name, api.endpoint, " No folder of that name is here."):
        info = api.model_info(name, files_metadata=True)
        files = {item.rfilename: item.size or 0 for item in info.siblings or []}
        wanted = {file: size for file, size in files.items() if _WANTED.fullmatch(file)}
        for file in ("config.json", MANIFEST_FILE):
            if file not in wanted:
                raise CheckpointError(f"{name} on the hub has no editor or paths that push_to_hub sent: no {file}.")
        if len(wanted) > MAX_FILES or sum(wanted.values()) > MAX_BYTES:
            raise CheckpointError(
                f"{name} on the hub has {len(wanted)} files of {sum(wanted.values()) / 2**30:.1f} GiB; at most "
                f"{MAX_FILES} files of {MAX_BYTES >> 30} GiB are fetched."
            )
        found = api.snapshot_download(name, revision=info.sha, allow_patterns=list(wanted))
    folder = stays_inside(str(found))
    verify_folder(folder, "")
    return folder


def dataset_commit(name: str) -> str:
    """The newest commit of a dataset on the hub; what its client raises is left as it is."""
    return str(_api().dataset_info(name).sha)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="vlbias")


@contextmanager
def _reaching(name: str, endpoint: str, hint: str = "") -> Iterator[None]:
    """Turn what the hub's client raises into one sentence that names the repository and the remedy."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except (CheckpointError, OutputError):
        raise
    except RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"No checkpoint '{name}': no such folder is here, and {endpoint} shows no such repository. Check "
            "the name, or log in with `hf auth login` if it is private."
        ) from error
    except OfflineModeIsEnabled as error:
        raise CheckpointError(f"'{name}' is not here, and HF_HUB_OFFLINE forbids asking the hub for it.") from error
    except Exception as error:  # of the HTTP library beneath, which is another one in each version
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name} at {endpoint} cannot be reached or read ({reason:.200}).{hint}") from error


# -- sending ----------------------------------------------------------------------------------------------------------


def check_hub_name(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        ConfigError: it is not ``user/name``.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a repository of the hub is called user/name, such as 'anna/faces-64'; got {name!r:.80}.")


def push_folder(
    folder: AnyPath,
    name: str,
    *,
    kind: Literal["model", "dataset"],
    private: bool,
    left_out: Sequence[str] = (),
    replaced: Sequence[str] = (),
) -> str:
    """Send a folder to the hub as one commit.

    Args:
        folder: all of it but hidden files.
        name: ``user/name``; made if it is not there. ``HF_TOKEN`` or ``hf auth login`` say who you are.
        kind: of repository.
        private: whether a repository that is made shows itself to its owner alone.
        left_out: patterns of files that stay here.
        replaced: patterns of files there that go if they are not in the folder.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: ``name`` is none.
        OutputError: the folder holds links.
        CheckpointError: the hub cannot be reached, or refuses.
    """
    check_hub_name(name)
    refuse_links(folder)
    hidden = [".*", "*/.*", ".*/**"]
    api = _api()
    with _reaching(name, api.endpoint):
        address = api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=Path(folder),
            repo_type=kind,
            ignore_patterns=[*hidden, *left_out],
            delete_patterns=list(replaced),
            commit_message="Upload with vlbias",
        )
    return str(address)


# -- cards ------------------------------------------------------------------------------------------------------------


def license_entries(license: str | None) -> dict[str, str]:
    """The licence for the head of a card: a name that the hub knows, else "other" with its own words.

    Example:
        >>> license_entries("MIT"), license_entries("research only")
        ({'license': 'mit'}, {'license': 'other', 'license_name': 'research only'})
    """
    known = (license or "").lower()
    if known in _LICENSES:
        return {"license": known}
    return {"license": "other", **({} if license is None else {"license_name": license})}


def model_card(
    title: str,
    *,
    license: str | None,
    dipoles: Mapping[str, Any],
    load: str,
    facts: Mapping[str, object],
    tags: Sequence[str],
) -> str:
    """The card of an editor or of a set of paths: what it is, its licence, and what it must not be used for.

    Args:
        title: its name.
        license: of the weights, in their makers' words; ``None`` where it is not stated.
        dipoles: attribute => its dipole.
        load: the line of Python that opens it.
        facts: what else is known, as (words => value).
        tags: for the hub's search, beside those that every card has.
    """
    research = license is None or "research" in license.lower() or "non-commercial" in license.lower()
    head: dict[str, Any] = license_entries(license)
    head |= {"library_name": "vlbias", "tags": ["vlbias", "faces", "fairness", *tags, *(["research-only"] * research)]}
    lines = [front_matter(head), f"# {in_markdown(title)}", ""]
    lines += ["Edits of faces by attribute, made with vlbias.", "", "```python", load, "```", ""]
    lines += ["| attribute | strength -1 | strength +1 |", "|---|---|---|"]
    for name, dipole in dipoles.items():
        lines.append(f"| {in_code(name)} | {in_markdown(dipole.negative[0])} | {in_markdown(dipole.positive[0])} |")
    lines += ["", f"- licence: {in_markdown(license or 'not stated; treat it as research only')}"]
    lines += [f"- {in_markdown(words)}: {in_markdown(value)}" for words, value in facts.items() if value]
    lines += [
        "",
        "## Limits",
        "- Edited pictures are synthetic. They show nobody as they look and prove nothing about anybody.",
        "- Attributes are read from pictures by machines and prompts. They are not facts about a person.",
        "- Made to measure and mitigate bias in datasets. Do not use it to judge, identify or deceive people.",
    ]
    return "\n".join(lines) + "\n"
