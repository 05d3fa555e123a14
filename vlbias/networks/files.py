"""Networks from files on this machine: ONNX, timm, the library's own classifiers; nothing is downloaded.

How pictures are cut and what outputs mean stands in a JSON beside the file, ``face.json`` for ``face.onnx``
(``vlbias.json`` in a folder). Its keys are the fields of :class:`FaceInput` and :class:`FaceOutput`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from vlbias.arguments import checked_call
from vlbias.checkpoints import stays_inside
from vlbias.classify import Classifier
from vlbias.errors import CheckpointError, CheckpointNotFoundError, ConfigError, UnknownNameError
from vlbias.files import read_json, sha256_file, sha256_json
from vlbias.networks.inputs import FaceInput
from vlbias.networks.network import FaceNetwork
from vlbias.networks.onnx import OnnxNetwork
from vlbias.networks.outputs import FaceOutput
from vlbias.networks.weights import WEIGHT_SUFFIXES, timm_network

__all__ = ["load_network", "of_classifier"]

_INPUT = [item.name for item in fields(FaceInput)]
_OUTPUT = [item.name for item in fields(FaceOutput)]
#: What else a sidecar may say: which output of a graph, the architecture of bare weights, and words for people.
_OTHERS = ["output", "architecture", "num_classes", "model_args", "about", "license", "source"]
#: More outputs than any network on faces has.
MAX_OUTPUTS = 1_000_000
#: Edge of the pictures of ArcFace and its many relatives, which share one way to cut faces.
ARCFACE_PX = 112


@checked_call
def load_network(
    path: str | os.PathLike[str], *, needs: Sequence[str] = (), device: torch.device | str | None = None
) -> FaceNetwork:
    """Read a network on faces.

    Args:
        path: an ``.onnx`` file; ``.safetensors`` (or ``.pt``, ``.pth`` of tensors) with an ``architecture`` of timm in
            its sidecar; a folder of ``Classifier.save_pretrained``, or of timm (``config.json``, weights); or a folder
            with one ``.onnx``.
        needs: kinds of output that are wanted (``embedding``, ``classes``, ``number``); () for any.
        device: where a network of torch runs; ONNX runs on the CPU.

    What is not said is taken as an embedder of the ArcFace family has it: RGB, (pixel - 127.5) / 127.5 unless the graph
    does that itself, and, for an embedder of 112 px, faces cut as ArcFace does.

    Raises:
        CheckpointNotFoundError: nothing there.
        CheckpointError: damaged, or not a network that is understood.
        UnsafeCheckpointError: it asks for other files or for code to be run.
        ConfigError: the sidecar has an unknown key or a value out of range, or says too little.
        MissingDependencyError: ONNX without onnxruntime.
    """
    place = Path(path)
    if not place.exists():
        raise CheckpointNotFoundError(f"{place} does not exist. Give a local file or folder; nothing is downloaded.")
    file, sidecar = _find(stays_inside(place) if place.is_dir() else place)
    if file.name == "classifier.json":
        classifier = Classifier.from_pretrained(place, device=None if device is None else str(device))
        network = of_classifier(classifier, place.name)
    else:
        values = _sidecar(sidecar)
        try:
            network = _onnx(file, values) if file.suffix == ".onnx" else _torch(file, values, device)
        except (ConfigError, UnknownNameError) as error:
            raise type(error)(f"{sidecar}: {error}") from error
    if needs and network.output.kind not in needs:
        raise _other_kind(network, sidecar, needs)
    return network


def of_classifier(classifier: Classifier, name: str = "classifier") -> FaceNetwork:
    """A trained classifier of the library as a network on faces; it sees pictures as they lie, as in its training."""
    classes = tuple(_as_text(label) for label in classifier.classes)
    digest = hashlib.sha256()
    for key, value in sorted(classifier.module.state_dict().items()):
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    seen = FaceInput(classifier.settings.image_size)
    return FaceNetwork(name, classifier.logits, seen, FaceOutput(classes=classes), digest.hexdigest())


def _as_text(label: object) -> str:
    """A class as a dataset's tables show it: 1, 1.0 and True are "1"."""
    if isinstance(label, (bool, int, float)) and float(label).is_integer():
        return str(int(label))
    return str(label)


def _find(place: Path) -> tuple[Path, Path]:
    """(file that holds or describes the network, its sidecar, which may be absent)."""
    if not place.is_dir():
        return place, place.with_suffix(".json")
    if (place / "classifier.json").is_file():
        return place / "classifier.json", place / "vlbias.json"
    for suffixes in ((".onnx",), WEIGHT_SUFFIXES[:1], WEIGHT_SUFFIXES[1:]):
        found = sorted(entry for entry in place.iterdir() if entry.suffix in suffixes)
        if len(found) > 1:
            names = ", ".join(entry.name for entry in found)
            raise CheckpointError(f"{place} has several networks: {names}. Give one of them.")
        if found:
            own = place / "vlbias.json"
            return found[0], own if own.is_file() or found[0].suffix != ".onnx" else found[0].with_suffix(".json")
    raise CheckpointError(f"{place} has no network: an .onnx file, weights with a config.json, or a classifier.")


def _sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values = read_json(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold one JSON object; got {type(values).__name__}.")
    known = [*_INPUT, *_OUTPUT, *_OTHERS]
    wrong = sorted(set(values) - set(known))
    if wrong:
        raise ConfigError(f"{path} has the unknown key '{wrong[0]}'. Known: {', '.join(sorted(known))}.")
    return values


def _onnx(file: Path, values: Mapping[str, Any]) -> FaceNetwork:
    graph = OnnxNetwork(file, output=values.get("output"))
    stated = dict(values)
    if graph.size is not None and stated.setdefault("size", graph.size) != graph.size:
        raise ConfigError(f"`size` is {stated['size']}, but the graph wants {graph.size} pixels.")
    if "size" not in stated:
        raise ConfigError('the graph takes pictures of any size; say the edge in pixels: "size": 112.')
    if graph.normalises:
        stated = {"mean": 0.0, "std": 1.0} | stated
    if graph.ends_in_softmax:
        stated = {"activation": "none"} | stated
    return _network(file.name, graph, stated, graph.files)


def _torch(file: Path, values: Mapping[str, object], device: torch.device | str | None) -> FaceNetwork:
    if file.suffix not in WEIGHT_SUFFIXES:
        raise CheckpointError(f"{file} cannot be read, only .onnx, {', '.join(WEIGHT_SUFFIXES)}, or a folder.")
    config = file.parent / "config.json"
    stated = (_of_timm(read_json(config)) if config.is_file() else {}) | dict(values)
    if "architecture" not in stated:
        raise ConfigError(f'{file.name} has only weights; say what they are in timm: "architecture": "resnet34".')
    if "size" not in stated:
        raise ConfigError('say the edge of its pictures in pixels: "size": 112.')
    outputs = stated.get("num_classes", 0)
    options = stated.get("model_args") or {}
    if isinstance(outputs, bool) or not isinstance(outputs, int) or not 0 <= outputs <= MAX_OUTPUTS:
        raise ConfigError(f"`num_classes` must be a whole number in 0..{MAX_OUTPUTS:,}; got {outputs!r:.80}.")
    run = timm_network(file, str(stated["architecture"]), num_classes=outputs, options=options, device=device)
    return _network(file.name, run, stated, [file])


def _of_timm(config: object) -> dict[str, Any]:
    """What timm's ``config.json`` says of a network, in our words."""
    if not isinstance(config, dict) or "architecture" not in config:
        return {}
    found = {key: config[key] for key in ("architecture", "num_classes", "model_args") if key in config}
    made = config.get("pretrained_cfg")
    made = made if isinstance(made, dict) else {}
    if isinstance(made.get("input_size"), list) and len(made["input_size"]) == 3:
        found["size"] = made["input_size"][-1]
    if "mean" in made and "std" in made:
        found |= {"range": 1, "mean": made["mean"], "std": made["std"]}
    if "label_names" in config:
        found["classes"] = config["label_names"]
    return found


def _network(name: str, run: Any, stated: Mapping[str, Any], files: Iterable[Path]) -> FaceNetwork:
    reading = FaceOutput(**{key: stated[key] for key in _OUTPUT if key in stated})
    cut = {key: stated[key] for key in _INPUT if key in stated}
    if reading.kind == "embedding" and not {"layout", "landmarks"} & set(cut):
        if cut["size"] != ARCFACE_PX:
            raise ConfigError(
                f'how faces must lie in its pictures of {cut["size"]} pixels is not known; say it: "layout": '
                '"arcface" (or null: as they are).'
            )
        cut["layout"] = "arcface"
    decided = sha256_json([stated, [sha256_file(file) for file in files]])
    return FaceNetwork(name, run, FaceInput(**cut), reading, decided)


def _other_kind(network: FaceNetwork, sidecar: Path, needs: Sequence[str]) -> ConfigError:
    if "embedding" in needs:
        return ConfigError(f"{network.name} is not a face embedder: {sidecar} says what its outputs mean.")
    return ConfigError(
        f'what the outputs of {network.name} mean is not known. Say it in {sidecar}: "classes": ["female", '
        '"male"], or "values" for numbers such as ages.'
    )
