"""Files that wait for ever, never end, or unpack to gigabytes: each gives a sentence that names it, at once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from doubles import tiny_editor
from PIL import Image

from vlbias import Editor, clip
from vlbias.checkpoints import build_filled, load_tensors, read_foreign_pickle, save_tensors, verify_folder
from vlbias.classify import FitSettings, create_backbone
from vlbias.data import open_dataset
from vlbias.data.landmarks import LandmarkCache
from vlbias.data.metadata import MAX_COLUMNS, read_metadata
from vlbias.diffae import DiffAE
from vlbias.errors import CheckpointError, ConfigError, DatasetError, ImageError, OutputError, VlbiasError
from vlbias.files import open_plain, read_json, sha256_file
from vlbias.images import in_turn, open_image, picture_size
from vlbias.networks import load_network
from vlbias.originals import Original
from vlbias.paths import PathSet, Probes
from vlbias.rendering import RenderSettings
from vlbias.runstore import RunStore
from vlbias.search.storage import Storage


@pytest.fixture(autouse=True)
def _at_once():
    """Who waits for a pipe waits for ever; the tests do not."""

    def give_up(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)  # a busy machine imports slowly
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# -- what is no file --------------------------------------------------------------------------------------------------

OPENERS = {
    "face.jpg": open_image,
    "size.png": picture_size,
    "original.png": Original.read,
    "metadata.csv": read_metadata,
    "metadata.jsonl": read_metadata,
    "metadata.parquet": read_metadata,
    "config.json": read_json,
    "last.ckpt": DiffAE.from_published,
    "weights.pt": read_foreign_pickle,
    "model.safetensors": load_tensors,
    "bpe_merges.txt.gz": lambda path: clip.tokenizer.load_tokenizer(path, 16),
    "face.onnx": load_network,
    "store.log": lambda path: RunStore(path, "simulate", {}),
    "study.log": Storage,
    "landmarks.sqlite": LandmarkCache,
}


@pytest.mark.parametrize("name", OPENERS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_by_name(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(VlbiasError, match=name):
        OPENERS[name](path)
    if kind == "device":
        path.unlink()  # tests that walk through the folders of others find no link


def test_a_plain_file_is_opened_and_others_are_not(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    with open_plain(tmp_path / "a") as file:
        assert file.read() == b"abc"
    os.mkfifo(tmp_path / "b")
    for call in (open_plain, sha256_file):
        with pytest.raises(OSError, match="no plain file"):
            call(tmp_path / "b")
        with pytest.raises(IsADirectoryError):
            call(tmp_path)
        with pytest.raises(FileNotFoundError):
            call(tmp_path / "c")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "a.png"])
def test_a_dataset_with_a_pipe_does_not_wait(tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    os.mkfifo(tmp_path / name)
    faces = open_dataset(tmp_path)
    assert faces.ids == ["0.png"] and faces.tensor(["0.png"], 8).shape == (1, 3, 8, 8)


# -- what unpacks to more than it is ----------------------------------------------------------------------------------


def small(call, *arguments, megabytes=100):
    """What a call raises or gives, and that Python and NumPy took little memory for it."""
    tracemalloc.start()
    try:
        return call(*arguments)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < megabytes * 2**20


def test_a_table_that_unpacks_to_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "metadata.parquet"
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(60_000_000, dtype=np.int8)), pa.array(["0.png"]))
    pq.write_table(pa.table({"file_name": many}), path, compression="zstd")
    with pytest.raises(DatasetError, match=r"metadata\.parquet has 60,000,000 rows of 1 columns; at most"):
        small(read_metadata, path)
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, dtype=np.int8)), pa.array(["x" * 10**6]))
    pq.write_table(pa.table({"file_name": long}), path, compression="zstd")
    assert path.stat().st_size < 10_000
    with pytest.raises(DatasetError, match=r"metadata\.parquet unpacks to more than 536,870,912 bytes of text"):
        small(read_metadata, path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name" + ",x" * MAX_COLUMNS),
        ("metadata.csv", "file_name," + ",".join(f"c{i}" for i in range(1500)) + "\n" + "0.png\n" * 40_000),
        ("metadata.jsonl", "\n".join(json.dumps({"file_name": "0.png", f"c{i}": 1}) for i in range(MAX_COLUMNS))),
    ],
)
def test_a_table_of_empty_cells_is_not_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=r"at most 2,000 columns and 20,000,000 cells"):
        small(read_metadata, tmp_path / name)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "line 1: not JSON .*too deep"),
        ('{"a": 1, "a": 2}', "line 1: not JSON .*'a' stands twice"),
        ('{"a": ' + "9" * 5000 + "}", "line 1: not JSON .*5000 digits"),
        ('{"a": 1e999}', "line 1: not JSON .*beyond every number"),
    ],
)
def test_lines_of_json_that_are_refused(tmp_path, line, said):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=said):
        read_metadata(tmp_path / "metadata.jsonl")


def test_a_plain_table_reads_as_before(tmp_path):
    table = pd.DataFrame({"file_name": ["a.png", "b.png"], "smile": [1, 0], "who": ["x", None]})
    table.to_parquet(tmp_path / "metadata.parquet")
    read = read_metadata(tmp_path / "metadata.parquet")
    assert read["file_name"].tolist() == ["a.png", "b.png"] and read["smile"].tolist() == [1, 0]
    assert read["who"].isna().tolist() == [False, True]


def test_a_name_that_no_disk_can_hold_is_a_missing_picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_text(f"file_name\n0.png\n{'1' * 5000}.png\n")
    with pytest.raises(DatasetError, match="lacks 1 of 2 pictures"):
        open_dataset(tmp_path)


def test_merges_that_inflate_are_not_read(tmp_path):
    path = tmp_path / "bpe_merges.txt.gz"
    path.write_bytes(gzip.compress(bytes(2**24)) * 20)
    with pytest.raises(CheckpointError, match=r"bpe_merges\.txt\.gz"):
        small(clip.tokenizer.load_tokenizer, path, 16)


def test_a_picture_of_16_bits_is_converted_in_strips(tmp_path, monkeypatch):
    """The same picture, whatever the strips; and there is no second one of full size in floats."""
    levels = np.random.default_rng(0).integers(0, 2**16, (60, 40)).astype(np.uint16)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    pictures = {"deep.png": Image.fromarray(levels), "palette.gif": grey.quantize(9)}
    pictures["clear.png"] = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 40, 4), dtype=np.uint8))
    pictures["ink.tif"] = pictures["clear.png"].convert("RGB").convert("CMYK")
    pictures["float.tif"] = Image.fromarray(levels.astype(np.float32) / 257)
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        whole = open_image(tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr("vlbias.images._LARGE_PIXELS", 700)
            strips = open_image(tmp_path / name)
        assert strips.mode == whole.mode == "RGB" and np.array_equal(np.asarray(strips), np.asarray(whole)), name


def test_a_large_picture_is_refused_by_its_header_and_others_come_in_turn(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    Image.new("RGB", (100, 100)).save(tmp_path / "a.webp")
    monkeypatch.setattr("vlbias.images._MAX_PIXELS_OF", {"WEBP": 9_999})
    with pytest.raises(ImageError, match=r"a\.webp has 10,000 pixels; at most 9,999"):
        open_image(tmp_path / "a.webp")
    monkeypatch.setattr("vlbias.images._LARGE_PIXELS", 9_999)
    with in_turn(tmp_path / "a.png") as lock:
        assert lock is not None and open_image(tmp_path / "a.png").size == (100, 100)  # the same thread goes on


# -- networks that ask for more than their weights --------------------------------------------------------------------


def test_a_network_is_built_no_further_than_its_weights(tmp_path):
    state = create_backbone("resnet10t", 2, options={"channels": [8, 8, 8, 8]}).state_dict()
    for options in ({"channels": [4096] * 4}, {"channels": [8] * 4, "layers": [4000] * 4}):
        with pytest.raises((CheckpointError, ConfigError), match="my file"):
            small(build_filled, lambda own=options: create_backbone("resnet10t", 2, options=own), state, "my file")
    built = build_filled(lambda: create_backbone("resnet10t", 2, options={"channels": [8] * 4}), state, "my file")
    assert all(torch.equal(value, state[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("paths/config.json", {"dim": 10**9}),
        ("paths/config.json", {"dim": 9}),
        ("paths/config.json", {"step_size": 1e-12}),
        ("diffae/config.json", {"T": 10**9}),
        ("diffae/config.json", {"num_res_blocks": 10**6}),
        ("config.json", {"render": {"corrections": 10**9}}),
        ("config.json", {"render": {"decode_steps": 10**9}}),
    ],
)
def test_numbers_of_an_editor_are_bounded(tmp_path, part, change):
    from vlbias.checkpoints import write_manifest

    tiny_editor().save_pretrained(tmp_path / "e")
    path = tmp_path / "e" / part
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    write_manifest(tmp_path / "e")
    with pytest.raises(CheckpointError, match=r"(config\.json|paths\.safetensors)"):
        small(Editor.from_pretrained, tmp_path / "e")


def test_lengths_of_paths_and_deviations_are_bounded(tmp_path):
    tiny_editor().renderer.paths.save_pretrained(tmp_path)
    state = load_tensors(tmp_path / "paths.safetensors")
    for change, said in (({"lengths": state["lengths"] * 1e7}, "10,000 steps"), ({"std": state["std"] * 0}, "`std`")):
        save_tensors(tmp_path / "paths.safetensors", state | change)
        with pytest.raises(CheckpointError, match=rf"paths\.safetensors: .*{said}"):
            PathSet.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"dim": 10**9}, {"names": "age"}, {"names": ["age", "age"]}, {"accuracy": {"age": "high"}}, {"accuracy": None}],
)
def test_configs_of_probes_that_are_wrong(tmp_path, change):
    probes = Probes(("age", "smile"), 4, accuracy={"age": 0.9, "smile": float("nan")})
    probes.save_pretrained(tmp_path)
    assert Probes.from_pretrained(tmp_path).names == ("age", "smile")
    config = json.loads((tmp_path / "probes.json").read_text())
    for text in (json.dumps(config | change), json.dumps({key: config[key] for key in config if key not in change})):
        (tmp_path / "probes.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"probes\.json does not describe probes"):
            Probes.from_pretrained(tmp_path)


def test_settings_have_upper_ends():
    for settings, name in ((RenderSettings, "corrections"), (RenderSettings, "batch_size"), (FitSettings, "num_steps")):
        with pytest.raises(ConfigError, match=f"`{name}`"):
            settings(**{name: 10**9})


# -- stores -----------------------------------------------------------------------------------------------------------


def test_a_line_of_a_store_unpacks_to_what_belongs_there(tmp_path):
    import base64
    import zlib
    from functools import partial

    from vlbias.simulate.runs import _decoded, _encode

    packed = base64.b64encode(zlib.compress(bytes(2**28))).decode()
    store = RunStore(tmp_path / "store.log", "simulate", {}, partial(_decoded, num_items=20, num_classes=2))
    store.add("bomb", {"predicted": packed})
    store.add("others", {"predicted": _encode(np.full(20, 7))})
    store.add("good", {"predicted": _encode(np.arange(20) % 2)})
    assert list(small(store.read)) == ["good"]


def test_a_view_is_no_cache_of_landmarks(tmp_path):
    import sqlite3

    path = tmp_path / "landmarks.sqlite"
    LandmarkCache(path).close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE found_1")
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS found, x AS photo FROM n"
        database.execute(f"CREATE VIEW found_1 AS {endless}")
    with pytest.raises(OutputError, match=r"landmarks\.sqlite is not a file of landmarks"):
        LandmarkCache(path)


# -- every byte counts ------------------------------------------------------------------------------------------------


def places(size, rng):
    return sorted({0, size - 1, *rng.integers(0, size, 3).tolist()})


def refuses_flips(folder, name):
    """Any byte of any file, some of each: refused with the file's name."""
    rng = np.random.default_rng(0)
    verify_folder(folder, name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        whole = path.read_bytes()
        for at in places(len(whole), rng):
            flip = 1 << int(rng.integers(8))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=path.name):
                verify_folder(folder, name)
        path.write_bytes(whole)
    verify_folder(folder, name)


def test_a_flipped_byte_of_a_saved_editor_is_refused(tmp_path):
    tiny_editor().save_pretrained(tmp_path / "e")
    refuses_flips(tmp_path / "e", "tiny")
    os.mkfifo(tmp_path / "e" / "diffae" / "more.json")
    with pytest.raises(CheckpointError, match=r"more\.json does not belong"):
        Editor.from_pretrained(tmp_path / "e")


@pytest.mark.parametrize("name", ["synthfaces-64", "utkface-64"])
def test_a_flipped_byte_of_a_shipped_editor_is_refused(name, tmp_path, repository):
    import shutil

    shutil.copytree(repository / "checkpoints" / name, tmp_path / "copy")
    refuses_flips(tmp_path / "copy", name)
