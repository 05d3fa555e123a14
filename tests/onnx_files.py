"""Tiny ONNX files whose answers can be worked out on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np

onnx = __import__("pytest").importorskip("onnx", reason="needs the extra 'faces'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


def write(path: Path, nodes, initializers=(), *, shape=("n", 3, 8, 8), outputs=(("y", ("n", "k")),)) -> Path:
    """A graph from ``x`` to its outputs."""
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(name, FLOAT, dims) for name, dims in outputs],
        [
            numpy_helper.from_array(np.asarray(value, dtype=np.float32 if name != "dims" else np.int64), name)
            for name, value in initializers
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def channel_means(path: Path, size: int = 8, batch: str | int = "n", normalised: bool = False) -> Path:
    """The mean of each channel, (b, 3): what the network is given can be read off its output."""
    nodes = [helper.make_node("ReduceMean", ["s" if normalised else "x"], ["y"], axes=[2, 3], keepdims=0)]
    weights = []
    if normalised:
        nodes = [
            helper.make_node("Sub", ["x", "shift"], ["c"]),
            helper.make_node("Mul", ["c", "factor"], ["s"]),
            *nodes,
        ]
        weights = [("shift", 127.5), ("factor", 1 / 128)]
    return write(path, nodes, weights, shape=(batch, 3, size, size), outputs=[("y", (batch, 3))])


def flat(path: Path, size: int = 8, channels_last: bool = False) -> Path:
    """The pixels themselves as one row: the crop can be read off the output."""
    shape = ("n", size, size, 3) if channels_last else ("n", 3, size, size)
    return write(path, [helper.make_node("Flatten", ["x"], ["y"])], shape=shape)


def linear(path: Path, weight, bias, *, size: int = 8, softmax: bool = False) -> Path:
    """``channel means @ weight + bias``, (b, k), as logits or as probabilities."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "w", "b"], ["logits" if softmax else "y"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    return write(path, nodes, [("w", weight), ("b", bias)], shape=("n", 3, size, size))


def beside(path: Path, location: str, values: np.ndarray) -> Path:
    """A graph whose weight (3, k) stands in the file ``location``."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]
    write(path, nodes, [("w", values)])
    model = onnx.load(str(path))
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path
