"""Reading and writing checkpoints; above all, that a hostile pickle runs nothing."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from vlbias import checkpoints
from vlbias.checkpoints import (
    ForeignReference,
    aligned,
    find_checkpoint,
    load_tensors,
    read_foreign_pickle,
    save_tensors,
)
from vlbias.errors import CheckpointError, CheckpointNotFoundError, UnsafeCheckpointError


class Hostile:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class LooksLikeACallback:
    """A class whose reference alone is in the file, as Lightning does with its callbacks."""


def test_tensors_of_every_kind_are_read_as_torch_reads_them(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    saved = {
        "state_dict": collections.OrderedDict(a=base, view=base[1:, ::2], transposed=base.T, half=base.half()),
        "parameter": torch.nn.Parameter(base),
        "integers": torch.tensor([1, 2]),
        "flags": torch.tensor([True, False]),
        "brain": base.bfloat16(),
        "scalar": torch.tensor(3.0),
        "nothing": torch.empty(0, 3),
        "plain": {"lr": 1e-4, "sizes": (1, 2), "name": "x", "none": None, "bytes": b"ab"},
        "numpy": np.float64(2.5),
    }
    torch.save(saved, tmp_path / "a.ckpt")
    read = read_foreign_pickle(tmp_path / "a.ckpt")
    for name, tensor in saved["state_dict"].items():
        assert torch.equal(read["state_dict"][name], tensor) and read["state_dict"][name].dtype == tensor.dtype
    for name in ("parameter", "integers", "flags", "brain", "scalar", "nothing"):
        assert torch.equal(read[name], saved[name].detach())
    assert read["plain"] == saved["plain"] and read["numpy"] == 2.5


def test_a_class_as_a_key_becomes_an_inert_reference(tmp_path):
    torch.save({"callbacks": {LooksLikeACallback: {"best": 1}}}, tmp_path / "a.ckpt")
    (key,) = read_foreign_pickle(tmp_path / "a.ckpt")["callbacks"]
    assert isinstance(key, ForeignReference) and key.name == "LooksLikeACallback"


@pytest.mark.parametrize(
    ("function", "argument", "named"),
    [
        (os.system, "touch {}", "system"),
        (eval, "open('{}', 'w')", "eval"),
        (exec, "open('{}', 'w')", "exec"),
        (os.mkdir, "{}", "mkdir"),
        (np.load, "{}", "load"),
        (torch.load, "{}", "load"),
        (LooksLikeACallback, None, "LooksLikeACallback"),
    ],
)
def test_a_pickle_that_calls_is_refused_and_nothing_runs(tmp_path, function, argument, named):
    trace = tmp_path / "trace"
    arguments = () if argument is None else (argument.format(trace),)
    torch.save({"state_dict": Hostile(function, *arguments)}, tmp_path / "bad.ckpt")
    with pytest.raises(UnsafeCheckpointError, match=rf"bad\.ckpt was refused.*{named}"):
        read_foreign_pickle(tmp_path / "bad.ckpt")
    assert not trace.exists()


def test_an_object_built_without_a_call_is_refused(tmp_path):
    torch.save({"hyper_parameters": LooksLikeACallback()}, tmp_path / "bad.ckpt")
    with pytest.raises(UnsafeCheckpointError, match="was refused"):
        read_foreign_pickle(tmp_path / "bad.ckpt")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.zeros(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (key,) = [name for name in entries if name.endswith("data/0")]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data[:4] if name == key else data)
    with pytest.raises(UnsafeCheckpointError, match="4 bytes where 16 are needed"):
        read_foreign_pickle(path)


def test_truncated_legacy_and_missing_files_are_told_apart(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"a": torch.zeros(400)}, path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CheckpointError, match="not a complete torch.save file"):
        read_foreign_pickle(path)
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="older format"):
        read_foreign_pickle(tmp_path / "b.ckpt")
    with pytest.raises(CheckpointNotFoundError, match=r"c\.ckpt does not exist"):
        read_foreign_pickle(tmp_path / "c.ckpt")
    with zipfile.ZipFile(tmp_path / "d.ckpt", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(CheckpointError, match=r"no data\.pkl"):
        read_foreign_pickle(tmp_path / "d.ckpt")


def test_safetensors_keep_values_and_refuse_overflow(tmp_path):
    tensors = {"a": torch.randn(3, 4), "same": torch.ones(2), "count": torch.tensor([1, 2])}
    tensors["again"] = tensors["same"]
    save_tensors(tmp_path / "a.safetensors", tensors)
    read = load_tensors(tmp_path / "a.safetensors")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)
    save_tensors(tmp_path / "h.safetensors", {"a": tensors["a"]}, dtype=torch.float16)
    half = load_tensors(tmp_path / "h.safetensors")["a"]
    assert half.dtype == torch.float32 and torch.allclose(half, tensors["a"], atol=2e-3)
    with pytest.raises(CheckpointError, match="beyond the range of torch.float16"):
        save_tensors(tmp_path / "x.safetensors", {"a": torch.tensor([1e6])}, dtype=torch.float16)


def test_every_tensor_read_begins_where_kernels_expect_it(tmp_path):
    """Sizes that put the file's own tensors at odd places; a view into the middle of a storage among them."""
    tensors = {f"w{number}": torch.arange(float(number)) for number in (3, 7, 100, 1000, 5)}
    save_tensors(tmp_path / "a.safetensors", tensors)
    torch.save(tensors | {"view": torch.arange(50.0)[3:]}, tmp_path / "a.ckpt")
    safe, foreign = load_tensors(tmp_path / "a.safetensors"), read_foreign_pickle(tmp_path / "a.ckpt")
    assert len(safe) == 5 and len(foreign) == 6
    assert {name: tensor.data_ptr() % 64 for name, tensor in safe.items()} == dict.fromkeys(safe, 0)
    assert {name: foreign[name].data_ptr() % 64 for name in tensors} == dict.fromkeys(tensors, 0)
    assert aligned(safe["w3"]) is safe["w3"] and foreign["view"].data_ptr() % 64
    view = aligned(foreign["view"])
    assert view.data_ptr() % 64 == 0 and torch.equal(view, torch.arange(50.0)[3:])


def test_damaged_safetensors_are_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x00\x01")
    with pytest.raises(CheckpointError, match=r"a\.safetensors is damaged"):
        load_tensors(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        load_tensors(tmp_path / "none.safetensors")


def test_names_are_looked_up_in_order(tmp_path, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "tiny").mkdir(parents=True)
        (folder / "tiny" / "config.json").write_text("{}")
    (second / "other").mkdir()
    (second / "other" / "config.json").write_text("{}")
    monkeypatch.setattr("vlbias.checkpoints.find.checkpoint_folders", lambda: [first, second])
    assert find_checkpoint("tiny") == first / "tiny"
    assert find_checkpoint("other") == second / "other"
    assert find_checkpoint(second / "tiny") == second / "tiny"
    with pytest.raises(
        CheckpointNotFoundError, match=r"No checkpoint 'nope'\. Available: other, tiny\. .*VLBIAS_CHECKPOINTS"
    ):
        find_checkpoint("nope")


def test_the_environment_variable_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("VLBIAS_CHECKPOINTS", str(tmp_path))
    assert checkpoints.checkpoint_folders()[0] == tmp_path


def test_the_cache_is_the_user_s(tmp_path, monkeypatch):
    monkeypatch.setenv("VLBIAS_CACHE", str(tmp_path / "mine"))
    assert checkpoints.cache_folder() == tmp_path / "mine"
    assert checkpoints.checkpoint_folders()[-1] == tmp_path / "mine" / "checkpoints"
    monkeypatch.delenv("VLBIAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert checkpoints.cache_folder() == tmp_path / "vlbias"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert checkpoints.cache_folder().parts[-2:] == (".cache", "vlbias")
