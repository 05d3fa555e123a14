"""Programs for the pickle machine that nobody's ``torch.save`` writes: each ends in a sentence, quickly and small."""

from __future__ import annotations

import pickle
import resource
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from vlbias.checkpoints import ForeignReference, read_foreign_pickle
from vlbias.errors import CheckpointError, UnsafeCheckpointError


def write_archive(path, program, entries=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", program)
        for name, data in (entries or {}).items():
            archive.writestr(f"a/data/{name}", data)
    return path


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def storage(count, key="0", kind="FloatStorage"):
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(stored, offset, size, stride):
    def numbers(values):
        return b"(" + b"".join(number(value) for value in values) + b"t"

    shape = numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + number(offset) + shape + b"\x89" + b"NtR"


FOUR = {"0": np.arange(4, dtype="f4").tobytes()}


def test_a_program_written_by_hand_is_read(tmp_path):
    path = write_archive(tmp_path / "a.ckpt", b"\x80\x02" + tensor(storage(4), 1, [3], [1]) + b".", FOUR)
    assert read_foreign_pickle(path).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_is_read(tmp_path, protocol):
    state = OrderedDict(w=torch.ones(2), b=torch.zeros(3, dtype=torch.bfloat16))
    state._metadata = {"": {"version": 1}}
    numbers = {2, 3} if protocol > 3 else ()  # older ones call a function for a set
    saved = {"state_dict": state, "keys": {(1, "a"): b"x", None: numbers}, "n": np.float32(0.5), "long": 2**70}
    torch.save(saved, tmp_path / "a.ckpt", pickle_protocol=protocol)
    read = read_foreign_pickle(tmp_path / "a.ckpt")
    assert list(read["state_dict"]) == ["w", "b"] and read["state_dict"]["b"].dtype == torch.bfloat16
    assert read["keys"] == saved["keys"] and read["n"] == 0.5 and read["long"] == 2**70


def test_names_alone_are_inert(tmp_path):
    path = write_archive(tmp_path / "a.ckpt", b"\x80\x02cposix\nsystem\n.")
    assert read_foreign_pickle(path) == ForeignReference("posix", "system")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"cposix\nsystem\n" + text("touch x") + b"\x85R.", "asks to call posix.system"),
        (b"cposix\nsystem\n" + text("x") + b"\x85\x81.", "asks to call posix.system"),
        (b"(" + text("x") + b"iposix\nsystem\n.", "uses the instruction INST"),
        (b"(cposix\nsystem\n" + text("x") + b"o.", "uses the instruction OBJ"),
        (b"\x82\x01.", "uses the instruction EXT1"),
        (b"\x96" + struct.pack("<Q", 2**40) + b".", "malformed"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1) + b".", "malformed"),
        (b"]" + text("a") + b"}b.", "sets the state of a str"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n}" + b"b.", "sets the state of a ForeignReference"),
        (b"}" + b"}" + b"K\x01s.", "uses a dict as a key"),
        (b"K\x01K\x02a.", "takes a int for a list"),
        (b"h\x07.", "damaged"),
        (b"a.", "malformed"),
        (b"(((", "malformed|damaged"),
        (b"cnumpy\ndtype\n" + text("V999999999") + b"\x85R.", "NumPy value of type"),
        (b"cnumpy\ndtype\n" + text("O") + b"\x85R.", "NumPy value of type"),
        (b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n" + text("f8") + b"\x85RC\x01a\x86R.", "number is malformed"),
        (tensor(storage(4), 0, [4], [2]) + b".", "beyond its stored values"),
        (tensor(storage(4), 5, [1], [1]) + b".", "beyond its stored values"),
        (tensor(storage(4), 0, [2**20, 2**12], [0, 0]) + b".", "larger than its stored values"),
        (tensor(storage(4), 0, [-1], [1]) + b".", "other than whole numbers"),
        (tensor(storage(4), 0, [2**62, 2**62], [0, 0]) + b".", "other than whole numbers"),
        (tensor(storage(4), 0, [2], [1, 1]) + b".", "malformed"),
        (tensor(text("x"), 0, [2], [1]) + b".", "description is malformed"),
        (storage(5) + b".", "16 bytes where 20 are needed"),
        (storage(2**60) + b".", "bytes where"),
        (storage(4, kind="Tensor") + b".", "unknown kind of stored object"),
        (storage(4, key="../../x") + b".", "damaged"),
        (storage(4) + storage(4, kind="IntStorage") + b"\x86.", "is of two types"),
    ],
)
def test_a_hostile_program_is_refused(tmp_path, program, said):
    path = write_archive(tmp_path / "bad.ckpt", b"\x80\x02" + program, FOUR)
    with pytest.raises(CheckpointError, match=said) as failure:
        read_foreign_pickle(path)
    assert "bad.ckpt" in str(failure.value)


def test_deep_nesting_ends_in_a_sentence_or_in_a_value(tmp_path):
    """The hash of a tuple in a tuple in a tuple... would end the interpreter."""
    deep = b")" + b"\x85" * 200_000
    with pytest.raises(UnsafeCheckpointError, match="uses a tuple as a key"):
        read_foreign_pickle(write_archive(tmp_path / "a.ckpt", b"\x80\x02}" + deep + b"K\x01s."))
    assert read_foreign_pickle(write_archive(tmp_path / "b.ckpt", b"\x80\x02" + deep + b".")) is not None


def test_entries_that_share_their_bytes_are_counted(tmp_path):
    """Views of one storage, and a compressed archive: a small file must not become a large network."""
    views = b"(" + tensor(storage(4096), 0, [4096], [1]) * 400 + b"t."
    zeros = {"0": bytes(4 * 4096)}
    with pytest.raises(UnsafeCheckpointError, match="larger than its stored values"):
        read_foreign_pickle(write_archive(tmp_path / "a.ckpt", b"\x80\x02" + views, zeros))
    with pytest.raises(UnsafeCheckpointError, match="is compressed or larger"):
        path = write_archive(tmp_path / "b.ckpt", b"\x80\x02N.", zeros, zipfile.ZIP_DEFLATED)
        read_foreign_pickle(path)
    with pytest.raises(UnsafeCheckpointError, match="is compressed or larger"):
        read_foreign_pickle(write_archive(tmp_path / "c.ckpt", b"\x80\x02" + b"]0" * 2**22 + b"N."))


def test_what_an_entry_says_to_take_is_not_set_aside(tmp_path):
    path = write_archive(tmp_path / "a.ckpt", b"\x80\x02" + storage(4) + b".", FOUR)
    entry = zipfile.ZipFile(path).getinfo("a/data/0")
    data, size = path.read_bytes(), entry.file_size.to_bytes(4, "little")
    listed = data.rindex(b"a/data/0") - 46  # in the list at the end, where the size in the file comes first
    assert data[listed + 20 : listed + 28] == size * 2
    path.write_bytes(data[: listed + 20] + (2**32 - 100).to_bytes(4, "little") + data[listed + 24 :])
    tracemalloc.start()
    with pytest.raises(UnsafeCheckpointError, match="is compressed or larger"):
        read_foreign_pickle(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_random_changes_end_in_success_or_in_a_sentence(tmp_path):
    torch.save({"state_dict": OrderedDict(w=torch.ones(3)), "n": np.float64(2), "x": {"a": (1, None)}}, tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        program = archive.read(name)
    random, started = np.random.default_rng(0), time.process_time()
    refused = 0
    for _ in range(600):
        mutant = bytearray(program)
        for place in random.integers(len(program), size=random.integers(1, 4)):
            mutant[place] = random.integers(256)
        try:
            read_foreign_pickle(write_archive(tmp_path / "b", bytes(mutant), {"0": bytes(12)}))
        except CheckpointError:
            refused += 1
    assert refused > 100 and time.process_time() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 * 2**20  # in KB


def test_what_our_own_pickle_writes_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match="save it anew with a current PyTorch"):
        read_foreign_pickle(tmp_path / "a.pkl")
