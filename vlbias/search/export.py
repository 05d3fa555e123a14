"""A found model as a folder: weights, configuration, and a card that says what it was evaluated on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.checkpoints import build_filled, load_tensors, save_tensors, whole_folder, write_manifest
from vlbias.errors import CheckpointError, ConfigError, UnknownNameError
from vlbias.files import make_folder, read_object, write_file, write_json
from vlbias.search.cell import Skeleton
from vlbias.search.front import Candidate, Front
from vlbias.search.spaces import Configuration, Space
from vlbias.search.trainer import Embedder, Trainer
from vlbias.shown import in_code, in_markdown

__all__ = ["load_model", "save_model"]

_FORMAT = "vlbias-search-model"


def save_model(
    trainer: Trainer, candidate: Candidate, objectives: Sequence[str], folder: Path, front: Front | None
) -> Path:
    """Write ``config.json``, ``model.safetensors`` (backbone and head) and ``README.md``; returns the folder."""
    make_folder(folder)
    task = trainer.task
    tensors = {f"model.{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    tensors |= {f"head.{name}": tensor for name, tensor in trainer.head.state_dict().items()}
    save_tensors(folder / "model.safetensors", tensors)
    write_json(
        folder / "config.json",
        {
            "format": _FORMAT,
            "configuration": candidate.configuration.to_dict(),
            "embedding_size": trainer.space.embedding_size,
            "skeleton": vars(trainer.space.skeleton) | {"inc_sec": list(trainer.space.skeleton.inc_sec)},
            "task": task.fingerprint(),
            "classes": list(task.classes),
            "groups": list(task.groups),
            "image_size": task.image_size,
        },
    )
    card = _card(trainer, candidate, objectives, front)
    write_file(folder / "README.md", card)
    write_manifest(folder, ["README.md", "config.json", "model.safetensors"])
    return folder


@checked_call
def load_model(folder: str | os.PathLike[str]) -> Embedder:
    """The embedding network of a saved model, in evaluation mode: image in [-1, 1] (b, 3, h, w) => (b, d).

    Its ``image_size`` is that which it was trained at; :func:`vlbias.search.evaluate` brings images to it.

    Raises:
        CheckpointError: not a folder that :meth:`Study.save` wrote.
    """
    place = whole_folder(folder)
    config = read_object(place / "config.json")
    if config.get("format") != _FORMAT:
        raise CheckpointError(f"{place} is not a model saved by a search (format {config.get('format')!r:.80}).")
    tensors = load_tensors(place / "model.safetensors")
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        return build_filled(_builder(config), weights, str(place)).eval()
    except (KeyError, TypeError, ValueError, AttributeError, UnknownNameError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{place / 'config.json'} does not describe a model of a search: {error}") from error


def _builder(config: dict[str, Any]) -> Callable[[], Embedder]:
    """What builds the network of a saved model."""
    edge, size = config["image_size"], config["embedding_size"]
    if type(edge) is not int or not 8 <= edge <= 2048 or type(size) is not int or not 2 <= size <= 65_536:
        raise ConfigError(f"pictures of {edge!r:.40} px and embeddings of {size!r:.40} numbers are out of range.")
    skeleton = Skeleton(**{**config["skeleton"], "inc_sec": tuple(config["skeleton"]["inc_sec"])})
    configuration = Configuration.from_dict(config["configuration"])
    names = (configuration.backbone,), (configuration.head,), (configuration.optimizer,)
    return partial(Embedder, configuration, Space(*names, skeleton=skeleton, embedding_size=size), edge)


def _card(trainer: Trainer, candidate: Candidate, objectives: Sequence[str], front: Front | None) -> str:
    task = trainer.task
    rule = "It has the lowest error of those whose gap may well be the smallest"
    chosen = [f"{rule}; {candidate.why}.", ""] if candidate.why else []
    lines = [
        f"# {in_markdown(candidate.configuration.label())}",
        "",
        f"Found by a search over architectures and hyperparameters: task {task.kind}, groups by "
        f"{in_code(task.protected)} ({', '.join(map(in_markdown, task.groups))}), {len(task.train)} training images of "
        f"{task.image_size} px. It was chosen on validation data, so the validation numbers flatter it. The model may "
        "still treat groups differently; the tables say by how much here, not on other data.",
        "",
        *chosen,
        "## Validation",
        "",
        _markdown(pd.DataFrame([{name: candidate.values[name] for name in ("error", *objectives)}])),
        "",
        _markdown(trainer.evaluate("val").table().reset_index()),
        "",
    ]
    if front is not None and candidate.number in front.table.index:
        row = front.table.loc[[candidate.number]]
        lines += [
            f"## Held out ({front.split}, mean of {front.refits} refits, {front.level:.0%} intervals)",
            "",
            _markdown(row.drop(columns="label").reset_index()),
            "",
            _markdown(front.groups.loc[candidate.number].reset_index()),
            "",
        ]
    dataset = getattr(task.dataset, "name", "unnamed")
    lines += [f"Data: {in_markdown(dataset)}. Images of one person never stand in two splits.", ""]
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return f"{value:.4f}" if isinstance(value, float) else in_markdown(value)

    header = "| " + " | ".join(map(in_markdown, table.columns)) + " |"
    rule = "|" + " --- |" * len(table.columns)
    rows = ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join([header, rule, *rows])
