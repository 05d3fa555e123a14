"""An editor as a folder: ``config.json``, ``diffae/``, ``clip/``, ``paths/``, ``student/``, and a manifest of all."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from vlbias.checkpoints import list_checkpoints, verify_folder, write_manifest
from vlbias.checkpoints.manifest import MANIFEST_FILE
from vlbias.clip import Clip
from vlbias.clip import load as load_clip
from vlbias.diffae import DiffAE, Student
from vlbias.errors import CheckpointError, ConfigError
from vlbias.files import draft_folder, read_json, write_file, write_json
from vlbias.hub import check_hub_name, find_or_fetch, is_hub_name, model_card, push_folder
from vlbias.optim import device_of
from vlbias.paths import PathSet, Probes
from vlbias.rendering import Qualities, Renderer, RenderSettings, read_varied

__all__ = ["editor_card", "push_editor", "read_editor", "write_editor"]


def read_editor(
    name_or_path: str | Path,
    *,
    paths: str | Path | None = None,
    clip: str | Path | Clip | Literal[False] | None = None,
    device: str | torch.device | None = None,
) -> Renderer:
    """Load an editor's networks; the arguments and errors are those of ``Editor.from_pretrained``."""
    source = {"name_or_path": name_or_path, "paths": paths, "clip": clip, "device": device}
    device = device_of(device)
    place = find_or_fetch(name_or_path)
    info: dict[str, object] = {"name": place.stem}
    settings, student = RenderSettings(), None
    if place.is_file():
        diffae = DiffAE.from_published(place)
    else:
        info = _read_config(place)
        settings = _settings_of(info, place)
        diffae = DiffAE.from_pretrained(place / "diffae")
        size, stated = diffae.config.image_size, info.get("image_size")
        if stated is not None and (stated != size or isinstance(stated, bool)):
            raise CheckpointError(f"{place / 'config.json'}: `image_size` is {stated!r:.60}, but diffae/ has {size}.")
        paths = paths or (place / "paths" if (place / "paths").is_dir() else None)
        if clip is None and (place / "clip").is_dir():
            clip = place / "clip"
        if (place / "student").is_dir():
            student = Student.from_pretrained(place / "student", diffae.to(device))
    path_set, probes = _load_paths(paths)
    renderer = Renderer(
        diffae.to(device),
        clip=load_clip(clip, device=device) if isinstance(clip, str | Path) else clip or None,
        paths=None if path_set is None else path_set.to(device),
        probes=None if probes is None else probes.to(device),
        settings=settings,
        info=info,
        student=student,
    )
    renderer.source = None if isinstance(clip, Clip) else source
    return renderer


def write_editor(parts: Renderer, folder: str | Path, *, dtype: torch.dtype) -> None:
    """Write an editor's networks; the arguments and errors are those of ``Editor.save_pretrained``."""
    parts.info.pop("sha256", None)  # of an older format; the manifest holds the hashes now
    usual_db = parts.usual_rebuild_db
    parts.info |= {} if usual_db is None or not math.isfinite(usual_db) else {"usual_rebuild_db": round(usual_db, 3)}
    parts.info |= {"kind": "editor", "image_size": parts.image_size, "render": asdict(parts.settings)}
    with draft_folder(folder) as draft:
        parts.diffae.save_pretrained(draft / "diffae", dtype=dtype)
        if parts.clip is not None:
            parts.clip.save_pretrained(draft / "clip", dtype=dtype)
        if parts.paths is not None:
            parts.paths.save_pretrained(draft / "paths")
        if parts.probes is not None:
            parts.probes.save_pretrained(draft / "paths")
        if parts.student is not None:
            parts.student.save_pretrained(draft / "student", dtype=dtype)
        write_json(draft / "config.json", parts.info)
        for part in draft.glob(f"*/{MANIFEST_FILE}"):
            part.unlink()  # one for all of the editor
        write_manifest(draft)


def editor_card(parts: Renderer, load_name: str) -> str:
    """The card of an editor, which says how to open it by ``load_name``; see :func:`vlbias.hub.model_card`."""
    student = parts.student
    each_way = None if student is None else student.edit_evaluations
    return model_card(
        parts.name,
        license=parts.license,
        dipoles={} if parts.paths is None else parts.paths.dipoles,
        load=f'from vlbias import Editor\n\neditor = Editor.from_pretrained("{load_name}")',
        facts={
            "pictures": f"{parts.image_size} px",
            "trained on": parts.info.get("trained_on"),
            "layout of faces": parts.layout,
            "few-step student": each_way and f"edits of {each_way} network evaluations there and {each_way} back",
        },
        tags=["image-editing", "diffusion-autoencoder"],
    )


def push_editor(parts: Renderer, name: str, *, private: bool, dtype: torch.dtype) -> str:
    """Send an editor to the hub; the arguments and errors are those of ``Editor.push_to_hub``."""
    check_hub_name(name)
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "editor"
        write_editor(parts, folder, dtype=dtype)
        write_file(folder / "README.md", editor_card(parts, name))
        replaced = [f"{part}/*" for part in ("diffae", "clip", "paths", "student")]
        return push_folder(folder, name, kind="model", private=private, replaced=replaced)


def _read_config(folder: Path) -> dict[str, object]:
    """What an editor's folder says of itself, once its weights are those that it describes."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} has no editor (no config.json). Give an editor's folder or a name: "
            f"{', '.join(list_checkpoints()) or 'none is installed'}."
        )
    info = read_json(folder / "config.json")
    kind = info.get("kind") if isinstance(info, dict) else type(info).__name__
    if kind != "editor":
        raise CheckpointError(
            f"{folder} is not an editor folder (its config.json says kind={kind!r}). "
            "Give the folder that contains diffae/, clip/ and paths/."
        )
    verify_folder(folder, str(info.get("name", "")))
    for key in ("name", "license", "trained_on", "layout"):
        is_text = isinstance(info.get(key), str) and (info[key] or key != "name")
        if key in info and not is_text and (info[key] is not None or key == "name"):
            raise CheckpointError(f"{folder / 'config.json'}: `{key}` must be a text; got {info[key]!r:.60}.")
    return info


def _settings_of(info: Mapping[str, object], folder: Path) -> RenderSettings:
    try:
        Qualities.from_dict(info.get("qualities", {}))  # type: ignore[arg-type]  # whatever stands there
        read_varied(info)
        return RenderSettings.from_dict(info.get("render", {}))  # type: ignore[arg-type]  # whatever stands there
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error


def _load_paths(paths: str | Path | None) -> tuple[PathSet | None, Probes | None]:
    if paths is None:
        return None, None
    folder = find_or_fetch(paths) if is_hub_name(paths) else Path(paths)
    if (folder / "latent_paths_model.pt").is_file():
        return PathSet.from_published(folder), None
    probes = Probes.from_pretrained(folder) if (folder / "probes.json").is_file() else None
    return PathSet.from_pretrained(folder), probes
