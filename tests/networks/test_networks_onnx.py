"""ONNX files: known answers, and files that are wrong, damaged or hostile."""

from __future__ import annotations

import json
import os
import resource
import sys

import numpy as np
import onnx_files
import pytest
import torch
from onnx import helper

from vlbias.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ConfigError,
    MissingDependencyError,
    ShapeError,
    UnknownNameError,
    UnsafeCheckpointError,
)
from vlbias.networks import load_network

pytest.importorskip("onnxruntime", reason="needs the extra 'faces'")

AS_IS = {"layout": None, "mean": 0, "std": 1}


def sidecar(path, **values):
    path.with_suffix(".json").write_text(json.dumps(values))
    return path


def colours(*rgb) -> torch.Tensor:
    """One picture of a single colour for each triple of 0..255."""
    return (torch.tensor(rgb, dtype=torch.float32).view(-1, 3, 1, 1) / 127.5 - 1).expand(-1, 3, 8, 8)


def test_the_graph_is_given_rgb_or_bgr_with_mean_and_std(tmp_path):
    x = colours((250, 100, 50))
    path = onnx_files.channel_means(tmp_path / "face.onnx")
    sidecar(path, **AS_IS)
    assert load_network(path).outputs(x, layout="ffhq")[0].tolist() == pytest.approx([250, 100, 50], abs=1e-3)
    sidecar(path, channels="BGR", layout=None, mean=[50, 100, 150], std=[1, 2, 4])
    assert load_network(path).outputs(x, layout="ffhq")[0].tolist() == pytest.approx([0, 0, 25], abs=1e-3)
    sidecar(path, layout=None)
    default = load_network(path).outputs(x, layout="ffhq")[0].tolist()
    assert default == pytest.approx([250 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1], abs=1e-4)


def test_a_graph_that_normalises_by_itself_gets_plain_pixels(tmp_path):
    path = sidecar(onnx_files.channel_means(tmp_path / "mx.onnx", normalised=True), layout=None)
    network = load_network(path)
    assert (network.input.mean, network.input.std) == ((0, 0, 0), (1, 1, 1))
    expected = [(value - 127.5) / 128 for value in (250, 100, 50)]
    assert network.outputs(colours((250, 100, 50)), layout="ffhq")[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_arcface_is_taken_for_an_embedder_of_112_pixels_that_says_nothing(tmp_path):
    network = load_network(onnx_files.channel_means(tmp_path / "w600k.onnx", size=112), needs=("embedding",))
    assert (network.input.size, network.input.layout, network.input.channels) == (112, "arcface", "RGB")
    assert network.input.mean == network.input.std == (127.5,) * 3 and network.output.kind == "embedding"
    with pytest.raises(ConfigError, match=r"face.json: how faces must lie in its pictures of 8 pixels is not known"):
        load_network(onnx_files.channel_means(tmp_path / "face.onnx"))


def test_the_crop_reaches_the_graph_in_either_order_of_axes(tmp_path):
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    first = load_network(sidecar(onnx_files.flat(tmp_path / "a.onnx"), layout="arcface"))
    last = load_network(sidecar(onnx_files.flat(tmp_path / "b.onnx", channels_last=True), layout="arcface"))
    expected = first.input(x, layout="utkface")
    assert torch.allclose(first.outputs(x, layout="utkface").reshape(2, 3, 8, 8), expected.double())
    turned = last.outputs(x, layout="utkface").reshape(2, 8, 8, 3).permute(0, 3, 1, 2)
    assert torch.allclose(turned, expected.double())


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_graph_of_a_fixed_batch_answers_for_any_number(tmp_path, batch):
    x = colours((1, 2, 3), (4, 5, 6), (7, 8, 9))
    network = load_network(sidecar(onnx_files.channel_means(tmp_path / "f.onnx", batch=batch), **AS_IS))
    assert torch.allclose(network.outputs(x, layout="ffhq"), torch.arange(1.0, 10).reshape(3, 3).double(), atol=1e-3)
    assert network.outputs(x[:0], layout="ffhq").shape == (0, 0)


def test_classes_and_numbers_with_logits_or_a_softmax_inside(tmp_path):
    x = colours((2, 0, 0), (0, 1, 0))
    weight, bias = np.array([[1.0, 0], [0, 1], [0, 0]]), np.zeros(2)
    plain = sidecar(onnx_files.linear(tmp_path / "g.onnx", weight, bias), classes=["f", "m"], **AS_IS)
    inside = sidecar(onnx_files.linear(tmp_path / "p.onnx", weight, bias, softmax=True), classes=["f", "m"], **AS_IS)
    expected = torch.tensor([[2.0, 0], [0, 1]]).double().softmax(1)
    assert load_network(inside).output.activation == "none"
    for path in (plain, inside):
        found = load_network(path, needs=("classes", "number")).probabilities(x, layout="ffhq")
        assert torch.allclose(found, expected, atol=1e-5)
    sidecar(plain, values=[20, 40], **AS_IS)
    numbers = load_network(plain).numbers(x, layout="ffhq")
    assert torch.allclose(numbers, expected @ torch.tensor([20.0, 40.0]).double(), atol=1e-4)


def test_a_named_output_of_several(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["max"], axes=[2, 3], keepdims=0),
    ]
    path = onnx_files.write(tmp_path / "two.onnx", nodes, outputs=[("mean", ("n", 3)), ("max", ("n", 3))])
    with pytest.raises(CheckpointError, match="several outputs: mean, max. Name one"):
        load_network(sidecar(path, **AS_IS))
    with pytest.raises(UnknownNameError, match="Unknown output 'min' for two.onnx"):
        load_network(sidecar(path, output="min", **AS_IS))
    x = torch.full((1, 3, 8, 8), -1.0)
    x[..., 0, 0] = 1
    assert load_network(sidecar(path, output="max", **AS_IS)).outputs(x, layout="ffhq")[0].tolist() == [255] * 3


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_missing_packages_are_named_with_the_command(tmp_path, monkeypatch):
    path = onnx_files.channel_means(tmp_path / "face.onnx", size=112)
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as hidden:
            hidden.setitem(sys.modules, package, None)
            with pytest.raises(
                MissingDependencyError, match=r"need onnxruntime and onnx .* pip install 'vlbias\[faces\]'"
            ):
                load_network(path)


@pytest.mark.parametrize("content", [b"", b"no graph at all", os.urandom(4000), b"\x08\x07" * 50])
def test_files_that_are_no_onnx(tmp_path, content):
    (tmp_path / "face.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="face.onnx (is damaged or not an ONNX file|cannot be loaded)"):
        load_network(tmp_path / "face.onnx")


def test_a_truncated_file(tmp_path):
    path = onnx_files.linear(tmp_path / "face.onnx", np.ones((3, 64)), np.zeros(64))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="face.onnx"):
        load_network(path)


def test_places_without_a_network(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="nothing.onnx does not exist. Give a local file or folder"):
        load_network(tmp_path / "nothing.onnx")
    with pytest.raises(CheckpointError, match="has no network"):
        load_network(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="notes.txt cannot be read, only .onnx"):
        load_network(tmp_path / "notes.txt")
    onnx_files.channel_means(tmp_path / "a.onnx", size=112)
    assert load_network(tmp_path).name == "a.onnx"
    onnx_files.channel_means(tmp_path / "b.onnx", size=112)
    with pytest.raises(CheckpointError, match="has several networks: a.onnx, b.onnx"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("n", 12), "must have one input of float pictures"),
        (("n", 1, 8, 8), "must have one input of float pictures"),
        (("n", 3, 8, 6), "wants pictures of 6x8 pixels; they must be square"),
    ],
)
def test_graphs_that_want_something_else(tmp_path, shape, message):
    path = onnx_files.write(tmp_path / "odd.onnx", [helper.make_node("Flatten", ["x"], ["y"])], shape=shape)
    with pytest.raises(CheckpointError, match=message):
        load_network(path)


def test_a_graph_that_gives_one_row_for_all(tmp_path):
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[0, 2, 3], keepdims=0)
    path = onnx_files.write(tmp_path / "sum.onnx", [node], outputs=[("y", (3,))])
    network = load_network(sidecar(path, **AS_IS))
    with pytest.raises(ShapeError, match=r"sum.onnx gave float32 \(3,\) for 2 pictures"):
        network.outputs(colours((1, 2, 3), (4, 5, 6)), layout="ffhq")


def test_a_graph_that_breaks_while_it_runs(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "dims"], ["y"])]
    path = onnx_files.write(tmp_path / "shape.onnx", nodes, [("dims", [5, 7])])
    network = load_network(sidecar(path, **AS_IS))
    with pytest.raises(ShapeError, match=r"shape.onnx cannot run on pictures \(1, 3, 8, 8\)"):
        network.outputs(colours((1, 2, 3)), layout="ffhq")


def test_nan_is_passed_on_for_the_caller_to_judge(tmp_path):
    path = onnx_files.linear(tmp_path / "nan.onnx", np.full((3, 2), np.nan), np.zeros(2))
    network = load_network(sidecar(path, **AS_IS))
    assert torch.isnan(network.embeddings(colours((1, 2, 3)), layout="ffhq")).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sise": 8}, "face.json has the unknown key 'sise'. Known: about, activation, "),
        ({"size": 16}, "face.json: `size` is 16, but the graph wants 8 pixels"),
        ({"size": 8, "layout": "arkface"}, "face.json: Unknown layout 'arkface'"),
        ({"size": 8, "layout": None, "std": 0}, "face.json: `std` must be > 0"),
        ({"layout": None, "classes": ["a"]}, "face.json: `classes` must name at least two"),
    ],
)
def test_sidecars_that_are_wrong(tmp_path, values, message):
    path = sidecar(onnx_files.channel_means(tmp_path / "face.onnx"), **values)
    with pytest.raises((ConfigError, UnknownNameError), match=message):
        load_network(path)


def test_sidecars_that_are_no_object(tmp_path):
    path = onnx_files.channel_means(tmp_path / "face.onnx")
    path.with_suffix(".json").write_text("[1]")
    with pytest.raises(ConfigError, match="must hold one JSON object; got list"):
        load_network(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        load_network(path)


def test_a_free_size_must_be_said(tmp_path):
    path = onnx_files.write(
        tmp_path / "free.onnx",
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)],
        shape=("n", 3, "h", "w"),
    )
    with pytest.raises(ConfigError, match="takes pictures of any size"):
        load_network(path)
    assert load_network(sidecar(path, size=24, **AS_IS)).input.size == 24


def test_the_other_kind_of_output_is_refused_by_name(tmp_path):
    embedder = onnx_files.channel_means(tmp_path / "face.onnx", size=112)
    with pytest.raises(
        ConfigError, match=r'what the outputs of face.onnx mean is not known. Say it in .*face.json: "cl'
    ):
        load_network(embedder, needs=("classes", "number"))
    classifier = sidecar(onnx_files.channel_means(tmp_path / "gender.onnx"), classes=["a", "b", "c"], **AS_IS)
    with pytest.raises(ConfigError, match="gender.onnx is not a face embedder: .*gender.json says what"):
        load_network(classifier, needs=("embedding",))


# -- weights beside the graph -----------------------------------------------------------------------------------------


def test_weights_beside_the_graph_are_read_and_count_for_its_hash(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = sidecar(onnx_files.beside(tmp_path / "big.onnx", "big.bin", values), **AS_IS)
    (tmp_path / "big.bin").write_bytes(values.tobytes())
    network = load_network(path)
    assert network.outputs(colours((1, 1, 1)), layout="ffhq")[0].tolist() == pytest.approx([6, 9], abs=1e-4)
    (tmp_path / "big.bin").write_bytes((values + 1).tobytes())
    assert load_network(path).digest != network.digest


@pytest.mark.parametrize("where", ["above", "absolute", "link", "nul", "long"])
def test_weights_outside_the_folder_are_refused_before_they_are_read(tmp_path, where):
    values = np.ones((3, 2), dtype=np.float32)
    (tmp_path / "secret.bin").write_bytes(values.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    location = {"above": "../secret.bin", "absolute": str(tmp_path / "secret.bin"), "link": "w.bin"}
    location = (location | {"nul": "w\0.bin", "long": "w" * 5000})[where]
    if where == "link":
        (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    path = onnx_files.beside(folder / "face.onnx", location, values)
    with pytest.raises(UnsafeCheckpointError, match="keeps 'w' in .* outside its own folder; it was not read"):
        load_network(path)


def test_a_graph_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "face.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse on the disk
    with pytest.raises(CheckpointError, match=r"face\.onnx is damaged or not an ONNX file \(it has 2 GiB or more"):
        load_network(path)


def test_weights_inside_a_branch_are_looked_for_too(tmp_path):
    """A hostile path may hide in the graph of an ``If``."""
    from onnx import TensorProto

    def branch(name):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"
        nodes = [helper.make_node("Identity", [name], [f"{name}_y"])]
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1])
        return helper.make_graph(nodes, name, [], [out], [tensor])

    truth = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Constant", [], ["cond"], value=truth),
        helper.make_node("If", ["cond"], ["y"], then_branch=branch("a"), else_branch=branch("b")),
    ]
    path = onnx_files.write(tmp_path / "face.onnx", nodes, outputs=[("y", (1,))])
    with pytest.raises(UnsafeCheckpointError, match="outside its own folder"):
        load_network(path)


def test_missing_weights_beside_the_graph(tmp_path):
    path = onnx_files.beside(tmp_path / "face.onnx", "gone.bin", np.ones((3, 2), dtype=np.float32))
    with pytest.raises(CheckpointError, match="keeps its weights in 'gone.bin', which is not beside it"):
        load_network(path)


def test_operators_of_others_are_not_loaded(tmp_path):
    node = helper.make_node("RunCommand", ["x"], ["y"], domain="evil")
    path = onnx_files.write(tmp_path / "evil.onnx", [node])
    with pytest.raises(CheckpointError, match="evil.onnx cannot be loaded by onnxruntime"):
        load_network(path)


def test_the_hash_follows_the_file_and_its_sidecar(tmp_path):
    first = load_network(sidecar(onnx_files.channel_means(tmp_path / "a.onnx"), **AS_IS))
    same = load_network(sidecar(onnx_files.channel_means(tmp_path / "b.onnx"), **AS_IS))
    other = load_network(sidecar(onnx_files.channel_means(tmp_path / "a.onnx"), **(AS_IS | {"std": 2})))
    assert len(first.digest) == 64 and first.digest == same.digest != other.digest


def computed(path, nodes, **initializers):
    """The mean of each channel, plus the mean of what some nodes made and call ``big``."""
    ends = [
        helper.make_node("ReduceMean", ["big"], ["little"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["m", "little"], ["y"]),
    ]
    return sidecar(onnx_files.write(path, [*nodes, *ends], list(initializers.items())), **AS_IS)


@pytest.mark.parametrize("side", [4, 60_000])
@pytest.mark.parametrize("how", ["ConstantOfShape", "Expand", "Tile", "RandomNormal", "in steps"])
def test_what_a_graph_computes_is_bounded(tmp_path, how, side):
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["dims"], ["big"])],
        "Expand": [helper.make_node("Expand", ["one", "dims"], ["big"])],
        "Tile": [helper.make_node("Tile", ["one", "dims"], ["big"])],
        "RandomNormal": [helper.make_node("RandomNormal", [], ["big"], shape=[side, side])],
        # a size that no look at the file tells
        "in steps": [
            helper.make_node("Mul", ["side", "side"], ["squared"]),
            helper.make_node("Cast", ["squared"], ["count"], to=7),
            helper.make_node("ConstantOfShape", ["count"], ["big"]),
        ],
    }[how]
    path = computed(tmp_path / "a.onnx", nodes, one=[[1.0]], dims=[side, side], side=[side])
    network = load_network(path)
    if side == 4:
        assert network.outputs(colours((9, 9, 9)), layout="ffhq").shape == (1, 3)
        return
    with pytest.raises(ShapeError, match="it needs more than the 768 MB that a graph may take|Tile"):
        network.outputs(colours((9, 9, 9)), layout="ffhq")


def test_batches_that_need_more_memory_are_run_in_parts(tmp_path):
    tiled = helper.make_node("Tile", ["x", "dims"], ["big"])
    ends = helper.make_node("ReduceMean", ["big"], ["y"], axes=[2, 3], keepdims=0)
    path = onnx_files.write(tmp_path / "a.onnx", [tiled, ends], [("dims", [1, 1, 300, 300])])  # 69 MB a picture
    network = load_network(sidecar(path, **AS_IS))
    x = colours(*[(i, 2 * i, 3 * i) for i in range(16)])
    expected = torch.tensor([(i, 2 * i, 3 * i) for i in range(16)], dtype=torch.float64)
    # a mean of millions of equal float32 numbers is off by a hundredth
    assert torch.allclose(network.outputs(x, layout="ffhq"), expected, rtol=0.02)


def test_loops_and_functions_without_end_are_refused(tmp_path):
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    path = computed(tmp_path / "a.onnx", [helper.make_node("Loop", ["count", ""], ["big"], body=body)], count=10**9)
    with pytest.raises(UnsafeCheckpointError, match="contains a loop .'Loop'."):
        load_network(path)
    path = computed(tmp_path / "b.onnx", [helper.make_node("f0", ["one"], ["big"], domain="own")], one=1.0)
    model = onnx_files.onnx.load(str(path))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i in range(30):  # each calls the next twice
        inner = ("Identity", "") if i == 29 else (f"f{i + 1}", "own")
        nodes = [helper.make_node(inner[0], [a], [b], domain=inner[1]) for a, b in (("a", "b"), ("b", "c"))]
        model.functions.append(helper.make_function("own", f"f{i}", ["a"], ["c"], nodes, opsets))
    model.opset_import.append(opsets[1])
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeCheckpointError, match="more than 1,000,000 operations"):
        load_network(path)


def slow(path, how):
    """A graph of some kilobytes that works for minutes, each of its products within the memory that it may take."""
    side, one = 9000, helper.make_node("ConstantOfShape", ["dims"], ["a0"])
    nodes, more = {
        "products": (
            [one, *(helper.make_node("MatMul", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(9))],
            {"dims": [side // 2, side // 2]},
        ),
        "one convolution": (
            [
                one,
                helper.make_node("ConstantOfShape", ["dims"], ["k"]),
                helper.make_node("Conv", ["a0", "k"], ["a9"], pads=[2500] * 4),
            ],
            {"dims": [1, 1, 5000, 5000]},
        ),
        "many": (
            [one, *(helper.make_node("Sqrt", [f"a{i}"], [f"a{i + 1}"]) for i in range(3000))],
            {"dims": [side, side // 2]},
        ),
    }[how]
    return computed(path, [*nodes, helper.make_node("Identity", [nodes[-1].output[0]], ["big"])], **more)


@pytest.mark.parametrize("how", ["products", "one convolution", "many"])
def test_a_graph_that_takes_too_long_is_stopped(tmp_path, how, monkeypatch):
    monkeypatch.setattr("vlbias.networks.graph_process.SECONDS", 0.5)
    network = load_network(slow(tmp_path / "slow.onnx", how))
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(2):  # there is a new process for the second
        with pytest.raises(UnsafeCheckpointError, match=r"slow\.onnx worked for more than 0.5 seconds and was stopped"):
            network.outputs(colours((9, 9, 9), (8, 8, 8)), layout="ffhq")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime < 5
    # a process begins with what its parent holds, and the figure is the highest of all so far
    known = max(begun.ru_maxrss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert ended.ru_maxrss < max(1.1 * 2**20, known + 1)  # KB


def test_a_graph_goes_on_after_a_fork_and_after_an_interruption(tmp_path):
    network = load_network(sidecar(onnx_files.channel_means(tmp_path / "face.onnx"), **AS_IS))
    x = colours((1, 2, 3), (4, 5, 6))
    expected = network.outputs(x, layout="ffhq")
    process = network.run._process
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(network.outputs(x, layout="ffhq"), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    first = process._child.pid
    process._end()
    assert torch.equal(network.outputs(x, layout="ffhq"), expected) and process._child.pid != first
    os.kill(process._child.pid, 11)
    with pytest.raises(CheckpointError, match=r"face\.onnx ended the process that ran it \(SIGSEGV\)"):
        network.outputs(x, layout="ffhq")
