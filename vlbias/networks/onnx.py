"""The one door to ONNX files: read without running anything else, and run on the processor.

A graph may keep its weights in files beside it. Those outside its folder are refused, and all of them count for its
digest. What a graph computes may be as large and take as long as its author likes, and no look at the file tells how
long. So loops are refused, and it runs in a process of its own whose memory and time are bounded (`graph_process.py`).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vlbias.errors import CheckpointError, MissingDependencyError, ShapeError, UnsafeCheckpointError, unknown
from vlbias.files import open_plain
from vlbias.networks.graph_process import MAX_BYTES, GraphProcess

__all__ = ["OnnxNetwork"]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
#: Nodes of a graph when its functions, which may call each other, are written out.
_MAX_NODES = 1_000_000
#: Operators that repeat a graph as often as a number in the file says.
_REPEATING = ("Loop", "Scan")


class OnnxNetwork:
    """A graph with one input of pictures.

    Args:
        path: the ``.onnx`` file.
        output: name of the output; ``None`` where there is only one.

    Attributes:
        size: edge in pixels of its pictures; ``None`` where the graph takes any.
        files: the file itself and those with its weights, sorted.
        normalises: whether the graph begins by subtracting and scaling, so that it wants pixels 0..255 as they are.
        ends_in_softmax: whether its outputs are probabilities by construction.

    Raises:
        MissingDependencyError: onnxruntime or onnx is not installed.
        CheckpointError: the file is missing, damaged, of an unknown kind, or not a network on pictures.
        UnsafeCheckpointError: it names a file outside its folder, contains a loop, or takes too long to load.
        UnknownNameError: no such output.
    """

    def __init__(self, path: str | os.PathLike[str], *, output: str | None = None):
        self.path = Path(path)
        _need_packages()
        graph = _read(self.path)
        _refuse_endless(graph, self.path)
        self.files = sorted({self.path, *_weight_files(graph, self.path)})
        self.normalises = _normalises(graph)
        self._process = GraphProcess(self.path, sum(file.stat().st_size for file in self.files))
        inputs = self._process.inputs
        name, kind, shape = inputs[0] if inputs else ("", "", [])
        if len(inputs) != 1 or len(shape) != 4 or kind not in _FLOATS or 3 not in (shape[1], shape[3]):
            described = "; ".join(f"{name} {kind} {shape}" for name, kind, shape in inputs) or "none"
            raise CheckpointError(
                f"{self.path} must have one input of float pictures, (b, 3, h, w) or (b, h, w, 3); it has {described}."
            )
        self._name, self._dtype = name, _FLOATS[kind]
        self._channels_last = shape[1] != 3
        sides = [side for side in (shape[1:3] if self._channels_last else shape[2:4]) if isinstance(side, int)]
        if len(set(sides)) > 1:
            raise CheckpointError(f"{self.path} wants pictures of {sides[1]}x{sides[0]} pixels; they must be square.")
        self.size = sides[0] if sides else None
        self._batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
        self._output = self._choose(output)
        self.ends_in_softmax = any(
            node.op_type == "Softmax" and self._output in node.output for node in graph.graph.node
        )

    def _choose(self, output: str | None) -> str:
        names = self._process.outputs
        if output is not None and output not in names:
            raise unknown("output", output, names, where=self.path.name)
        if output is None and len(names) != 1:
            raise CheckpointError(f'{self.path} has several outputs: {", ".join(names)}. Name one, "output": "...".')
        return output or names[0]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures (b, 3, h, w), normalised as the graph wants them => its output as float32 (b, n) on the CPU.

        Raises:
            ShapeError: the graph refuses the pictures, needs too much memory for one, or gives another number of rows.
            UnsafeCheckpointError: it takes too long.
            CheckpointError: it ended the process that ran it.
        """
        pictures = x.detach().cpu().numpy().astype(self._dtype)
        if self._channels_last:
            pictures = np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))
        step = self._batch or max(len(pictures), 1)
        if self._batch is None and len(pictures) > 1 and not self._process.longest_s:
            self._process.run(self._name, self._output, pictures[:1])  # how long one takes
        rows = [self._run(pictures[start : start + step], step) for start in range(0, len(pictures), step)]
        return torch.cat(rows) if rows else torch.empty(0, 0)

    def _run(self, pictures: np.ndarray, step: int) -> torch.Tensor:
        count = len(pictures)
        if self._batch is not None and count < step:
            # a graph of a fixed batch: the last one is filled up, and what came of the filling is dropped
            pictures = np.concatenate([pictures, np.repeat(pictures[-1:], step - count, axis=0)])
        said, found = self._process.run(self._name, self._output, pictures)
        if said.get("memory"):
            return self._run_in_parts(pictures)
        if "error" in said:
            raise ShapeError(f"{self.path} cannot run on pictures {pictures.shape}: {said['error']}")
        if found is None or found.ndim < 1 or len(found) != len(pictures):
            raise ShapeError(
                f"{self.path} gave {said['dtype']} {tuple(said['shape'])} for {len(pictures)} pictures; expected one "
                "row of numbers for each."
            )
        return torch.from_numpy(found.reshape(len(found), -1).astype(np.float32))[:count]

    def _run_in_parts(self, pictures: np.ndarray) -> torch.Tensor:
        """The same of pictures that need too much memory together."""
        if self._batch is not None or len(pictures) == 1:
            needed = f"more than the {MAX_BYTES / 2**20:.0f} MB that a graph may take"
            raise ShapeError(f"{self.path} cannot run on pictures {pictures.shape}: it needs {needed}.")
        return torch.cat([self._run(part, len(part)) for part in np.array_split(pictures, 2)])


def _need_packages() -> None:
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"ONNX files need onnxruntime and onnx ({package} is missing): pip install 'vlbias[faces]'."
            )


def _read(path: Path) -> Any:
    """The graph without its external weights."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size >= 2**31:
                raise ValueError("it has 2 GiB or more, which no graph can have")
            graph = onnx.load_model_from_string(file.read())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist. Give a local file; nothing is downloaded.") from error
    except (DecodeError, OSError, ValueError) as error:
        why = _first_line(error)
        raise CheckpointError(f"{path} is damaged or not an ONNX file ({why}). Fetch it again.") from error
    if not graph.graph.node:
        raise CheckpointError(f"{path} is damaged or not an ONNX file (no graph in it). Fetch it again.")
    return graph


def _refuse_endless(model: Any, path: Path) -> None:
    """Refuse what a small file can make work for years.

    Raises:
        UnsafeCheckpointError: a loop, or functions that call each other too often.
    """
    functions = {(item.domain, item.name): item for item in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(part: Any) -> int:
        total = 0
        for node in part.node:
            if node.op_type in _REPEATING:
                raise UnsafeCheckpointError(
                    f"{path} contains a loop ('{node.op_type}'), which may run without end; it was not run. "
                    "Export the network without loops."
                )
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                sizes[key] = _MAX_NODES + 1  # for one that calls itself
                sizes[key] = size(functions[key])
            total += sizes.get(key, 1)
            total += sum(size(inner) for item in node.attribute for inner in (item.g, *item.graphs))
        return total

    try:
        if size(model.graph) > _MAX_NODES:
            raise UnsafeCheckpointError(f"{path} contains more than {_MAX_NODES:,} operations; it was not run.")
    except RecursionError as error:
        raise UnsafeCheckpointError(f"{path} contains graphs inside graphs without end; it was not run.") from error


def _weight_files(graph: object, path: Path) -> list[Path]:
    """Files beside the graph that hold its weights.

    Raises:
        UnsafeCheckpointError: one lies outside the graph's folder.
        CheckpointError: one is missing.
    """
    folder = path.parent.resolve()
    found = []
    for tensor in _tensors(graph):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location")
        if location is None:
            continue
        try:
            place = (folder / location).resolve()
            is_there, is_inside = place.is_file(), not Path(location).is_absolute() and place.is_relative_to(folder)
        except (OSError, ValueError):  # too long, or with a null character
            is_there = is_inside = False
        if not is_inside:
            raise UnsafeCheckpointError(
                f"{path} keeps '{tensor.name}' in '{location:.200}', outside its own folder; it was not read. Save the "
                "graph with its weights inside, or beside it."
            )
        if not is_there:
            raise CheckpointError(f"{path} keeps its weights in '{location}', which is not beside it. Fetch that too.")
        found.append(path.parent / location)
    return found


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a model holds: of its graph, of graphs inside nodes, of its functions."""
    stack = [graph.graph, *graph.functions]
    while stack:
        part = stack.pop()
        yield from getattr(part, "initializer", ())
        for sparse in getattr(part, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in part.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors, attribute.sparse_tensor.values)
                stack += [inner for inner in (attribute.g, *attribute.graphs) if inner.node]


def _normalises(graph: Any) -> bool:
    """Whether the pictures are subtracted from and scaled by the graph itself, as in exports from MXNet."""
    weights = {tensor.name for tensor in graph.graph.initializer}
    names = {item.name for item in graph.graph.input} - weights
    done = set()
    for wanted in ({"Sub", "Add"}, {"Mul", "Div"}):
        node = next((node for node in graph.graph.node if names & set(node.input)), None)
        if node is None or node.op_type not in wanted:
            break
        done.add(node.op_type)
        names = set(node.output)
    return len(done) == 2


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
