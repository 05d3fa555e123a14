"""Files that wait for ever, never end, or unpack to gigabytes: each gives a sentence that names it, at once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import struct
import tracemalloc
import zlib
from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from doubles import tiny_editor
from PIL import Image, ImageCms

from vlbias import Editor, clip
from vlbias.balance.review import decisions_of
from vlbias.checkpoints import build_filled, load_tensors, read_foreign_pickle, save_tensors, verify_folder
from vlbias.classify import Classifier, FitSettings, create_backbone
from vlbias.data import open_dataset
from vlbias.data.celeba import parse_identities
from vlbias.data.celebahq import CELEBA_ATTRIBUTES
from vlbias.data.files import MAX_COLUMNS, read_text
from vlbias.data.landmarks import LandmarkCache
from vlbias.data.metadata import read_metadata
from vlbias.data.pairs import load_pairs
from vlbias.diffae import DiffAE
from vlbias.errors import CheckpointError, ConfigError, DatasetError, ImageError, OutputError, VlbiasError
from vlbias.files import open_plain, read_json, sha256_file
from vlbias.images import colour_space, in_turn, open_image, picture_size
from vlbias.locks import FileLock
from vlbias.networks import load_network
from vlbias.originals import Original
from vlbias.paths import PathSet, Probes
from vlbias.rendering import RenderSettings
from vlbias.runstore import RunStore
from vlbias.search.storage import Storage
from vlbias.simulate.noise import LabelNoise


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
        ('{"a": 1e999}', "line 1: not JSON .*too large for a number"),
    ],
)
def test_lines_of_json_that_are_refused(tmp_path, line, said):
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(DatasetError, match=said):
        read_metadata(tmp_path / "metadata.jsonl")


def test_a_table_of_one_long_line_or_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "metadata.csv"
    for text in ("file_name,smile\n0.png," + "a" * 2**22, "file_name," + "," * 2**22):
        path.write_text(text)
        with pytest.raises(DatasetError, match=r"metadata\.csv, line [12]: more than 4,194,304 characters"):
            small(read_metadata, path)
    for name in ("metadata.csv", "metadata.jsonl"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)  # sparse on the disk
        with pytest.raises(DatasetError, match=rf"{name} has 1,099,511,627,776 bytes; of a label file"):
            small(read_metadata, tmp_path / name)


def test_a_number_of_thousands_of_digits_is_no_number(tmp_path):
    people, problems = parse_identities(f"000001.jpg {'9' * 5000}\n000002.jpg 7\n", "identity_CelebA.txt")
    assert people == {"000002.jpg": "7"} and problems[0].code == "malformed_line"
    with pytest.raises(ConfigError, match="expected a number of faces after the colon"):
        open_dataset("synthfaces:" + "9" * 5000)


def test_a_parquet_of_few_rows_and_long_lists_is_not_read(tmp_path):
    path = tmp_path / "metadata.parquet"
    lists = pa.ListArray.from_arrays(pa.array([0, 21_000_000], pa.int32()), pa.array(np.zeros(21_000_000, np.int8)))
    pq.write_table(pa.table({"file_name": ["0.png"], "codes": lists}), path, compression="zstd")
    with pytest.raises(DatasetError, match=r"metadata\.parquet has 21,000,001 values; at most 20,000,000"):
        small(read_metadata, path)


def test_a_parquet_of_half_a_million_columns_is_not_looked_at(tmp_path, monkeypatch):
    path = tmp_path / "metadata.parquet"
    table = pa.table({"file_name": ["0.png"], **{f"c{i}": [1] for i in range(200)}})
    pq.write_table(table, path, store_schema=False)
    assert read_metadata(path).shape == (1, 201)
    monkeypatch.setattr("vlbias.data.metadata.MAX_PARTS", 200)
    with pytest.raises(DatasetError, match=r"metadata\.parquet cannot be read: .*[Ll]imit"):
        read_metadata(path)


def test_notes_in_a_parquet_that_are_nested_without_end(tmp_path):
    path = tmp_path / "train.parquet"
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": (tmp_path / "0.png").read_bytes(), "path": None}], kind)
    for name in ("pandas", "huggingface"):
        told = pa.table({"image": pictures, "smile": [1]}).replace_schema_metadata({name: "[" * 100_000})
        pq.write_table(told, path)
        if name == "pandas":
            with pytest.raises(DatasetError, match="its notes for pandas are damaged"):
                open_dataset(path)
        else:
            assert open_dataset(path).table["smile"].tolist() == [1]


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


def of_many_scans(edge: int, num_scans: int) -> bytes:
    """A grey progressive JPEG that goes over its pixels again and again, for some bytes a time."""
    num_blocks = (-(-edge // 8)) ** 2
    dht = bytes([1] + [0] * 15)
    head = b"\xff\xd8\xff\xdb\0\x43\0" + bytes([1] * 64)
    head += b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, edge, edge, 1) + bytes([1, 0x11, 0])
    head += b"\xff\xc4\0\x14\0" + dht + b"\0" + b"\xff\xc4\0\x14\x10" + dht + b"\xe0"
    first = b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(num_blocks // 8 + 1)
    return head + first + b"\xff\xda\0\x08\1\1\0\1\x3f\1\x7f\0\x7f\0" * num_scans + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(tmp_path):
    """Each scan of a few bytes touches every pixel; Pillow decodes a small file of them for minutes."""
    path = tmp_path / "face.jpg"
    path.write_bytes(of_many_scans(64, 10))
    assert open_image(path).size == (64, 64) and Original.read(path).size == (64, 64)
    path.write_bytes(of_many_scans(64, 1000))
    for read in (open_image, Original.read):
        with pytest.raises(ImageError, match=r"face\.jpg has more than 1,000 scans"):
            read(path)
    path.write_bytes(of_many_scans(8900, 101))
    with pytest.raises(ImageError, match=r"face\.jpg has more than 100 scans"):
        open_image(path)
    # as large encoders make them, with a second picture behind the first
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(path, "MPO", save_all=True, append_images=[noise], progressive=True)
    assert open_image(path).size == (64, 64)
    path.write_bytes(path.read_bytes() + b"\xff\xda" * 5000)  # the film that a telephone puts behind its photograph
    assert open_image(path).size == (64, 64)
    # what stands in a comment ends nothing
    scans = of_many_scans(64, 1000)
    at = scans.index(b"\xff\xda", 200)
    path.write_bytes(scans[:at] + b"\xff\xfe\0\x04\xff\xd9" + scans[at:])
    with pytest.raises(ImageError, match="more than 1,000 scans"):
        open_image(path)


@pytest.mark.parametrize("piece", [b"\xff\xfe\0\2", b"\xff\x01", b"\xff\xe1\0\x0aExif\0\0II"])
def test_a_jpeg_of_many_segments_is_not_read(tmp_path, piece):
    path = tmp_path / "face.jpg"
    Image.new("RGB", (8, 8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:2] + b"\xff" * 10**6 + whole[2:])  # that only fill
    assert open_image(path).size == picture_size(path) == (8, 8)
    path.write_bytes(whole[:2] + piece * 10_001 + whole[2:])
    for read in (open_image, picture_size, Original.read):
        with pytest.raises(ImageError, match=r"face\.jpg is damaged .*more than (10,000 segments|16 notes)"):
            read(path)


def test_a_png_of_a_million_chunks_is_not_read(tmp_path):
    path = tmp_path / "face.png"
    Image.new("RGB", (8, 8)).save(path)
    whole, nothing = path.read_bytes(), struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    for place in (33, len(whole) - 12):  # behind the header, and behind the pixels
        path.write_bytes(whole[:place] + nothing * 1000 + whole[place:])
        assert open_image(path).size == picture_size(path) == (8, 8)
        path.write_bytes(whole[:place] + nothing * 100_001 + whole[place:])
        for read in (open_image, picture_size, Original.read):
            with pytest.raises(ImageError, match=r"face\.png is damaged .*more than 100,000 chunks"):
                read(path)


def test_a_png_takes_no_memory_for_a_chunk_that_is_not_there(tmp_path):
    path = tmp_path / "face.png"
    Image.new("RGB", (8, 8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + struct.pack(">I4s", 2**31 - 1, b"tEXt") + b"key\0text")
    for read in (open_image, picture_size, Original.read):
        with pytest.raises(ImageError, match=r"face\.png is damaged .*a chunk of 2,147,483,647 bytes is not there"):
            small(read, path)


@pytest.mark.parametrize("kind", ["classic", "big"])
def test_a_tiff_of_a_million_tiles_is_not_read(tmp_path, kind):
    path = tmp_path / "face.tif"
    Image.new("L", (8, 8)).save(path, big_tiff=kind == "big")
    whole = path.read_bytes()
    assert open_image(path).size == picture_size(path) == (8, 8)
    entry, number = (struct.pack("<HH", 273, 4), "<Q") if kind == "big" else (struct.pack("<HH", 273, 4), "<I")
    assert whole.count(entry) == 1
    at = whole.index(entry) + 4
    many = struct.pack(number, 100_001)
    path.write_bytes(whole[:at] + many + whole[at + len(many) :])
    for read in (open_image, picture_size, Original.read):
        with pytest.raises(ImageError, match=r"face\.tif is damaged .*more than 100,000 tiles or strips"):
            read(path)


# -- lists and tables of nothing but lines ----------------------------------------------------------------------------

LISTS = {
    "pairs.txt": load_pairs,
    "pairs.csv": load_pairs,
    "identities.csv": lambda path: open_dataset(path.parent),
    "list_attr_celeba.txt": lambda path: open_dataset(path.parent),
    "fer2013.csv": lambda path: open_dataset(path.parent),
    "train.idx": lambda path: open_dataset(path.parent),
    "noise.csv": LabelNoise.load,
    "metadata.csv": read_metadata,
    "metadata.jsonl": read_metadata,
    "review.csv": decisions_of,
}


@pytest.fixture
def listed(tmp_path):
    """Where a list stands beside pictures, by its name."""

    def at(name):
        (tmp_path / "img_align_celeba").mkdir(exist_ok=True)
        (tmp_path / "list_eval_partition.txt").write_text("0.png 0\n")
        for picture in ("0.png", "img_align_celeba/0.png"):
            Image.new("RGB", (8, 8)).save(tmp_path / picture)
        (tmp_path / "train.rec").write_bytes(bytes(64))
        return tmp_path / name

    return at


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_a_million_odd_lines_ends_soon(name, listed, monkeypatch):
    """A line takes a hundred times its two bytes once it is a row, or a problem that is told."""
    for limit in (
        "data.files.MAX_LINES",
        "data.table.MAX_PROBLEMS",
        "data.metadata.MAX_ROWS",
        "data.metadata.MAX_LINES",
    ):
        monkeypatch.setattr(f"vlbias.{limit}", 1000)
    monkeypatch.setattr("vlbias.balance.review.MAX_DECISIONS", 1000)
    heads = {"pairs.csv": "first,second,same", "identities.csv": "path,identity", "fer2013.csv": "emotion,pixels,Usage"}
    heads |= {"list_attr_celeba.txt": " ".join(CELEBA_ATTRIBUTES), "metadata.csv": "file_name"}
    heads |= {"review.csv": "picture,donor,decision,reviewer"}
    line = {"metadata.jsonl": "{}", "review.csv": "a,b,reject,c"}.get(name, "x")
    path = listed(name)
    path.write_text(heads.get(name, line) + f"\n{line}" * 20_000)
    with pytest.raises(VlbiasError, match=rf"{name}.* (more than 1,000 |20,00\d rows|1,001 rows|the same groups)"):
        small(LISTS[name], path, megabytes=20)


def test_lines_of_a_list_are_counted_before_they_are_kept(tmp_path):
    for end in ("\n", "\r", "\r\n"):
        (tmp_path / "list.txt").write_bytes(f"x 1{end}".encode() * 10)
        assert len(read_text(tmp_path / "list.txt", max_lines=10).split()) == 20
        with pytest.raises(DatasetError, match=r"list\.txt has more than 9 lines"):
            read_text(tmp_path / "list.txt", max_lines=9)


@pytest.mark.parametrize("name", ["pairs.csv", "identities.csv", "list_attr_celeba.txt", "noise.csv", "metadata.csv"])
def test_a_table_of_a_hundred_thousand_columns_ends_soon(name, listed):
    """Each named twice, too: to look for the one that is takes as long as they are many, for each."""
    names = {"list_attr_celeba.txt": CELEBA_ATTRIBUTES, "pairs.csv": ["first", "second", "same"]}
    names |= {"identities.csv": ["path", "identity"], "metadata.csv": ["file_name"]}
    sign = " " if name.endswith("txt") else ","
    path = listed(name)
    for columns in ([f"c{i}" for i in range(100_000)], [f"c{i // 2}" for i in range(100_000)]):
        path.write_text(sign.join([*names.get(name, [""]), *columns]) + "\nx\n" * 100)
        with pytest.raises(VlbiasError, match=rf"{name}.* 100,0\d\d columns"):
            small(LISTS[name], path)


@pytest.mark.parametrize("name", ["pairs.csv", "fer2013.csv", "metadata.csv", "review.csv", "noise.csv"])
@pytest.mark.parametrize("head", ["", "first,second,same,file_name\n"])
def test_a_row_that_goes_over_all_lines_is_not_read(name, head, listed):
    path = listed(name)
    path.write_text(head + '"\n      ",' * 500_000)
    with pytest.raises(VlbiasError, match=rf"{name}.*(a row of more than 4,194,304 characters|lacks the column)"):
        small(LISTS[name], path, megabytes=200)


def test_a_key_that_stands_twice_is_found_among_a_hundred_thousand(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{" + "".join(f'"k{i}": 1, ' for i in range(100_000)) + '"k99999": 2}')
    with pytest.raises(CheckpointError, match="the key 'k99999' stands twice"):
        read_json(path)


def test_columns_of_a_review_are_looked_up_at_once(tmp_path):
    path = tmp_path / "review.csv"
    path.write_text(",".join(f"c{i}" for i in range(100_000)))
    with pytest.raises(DatasetError, match=r"review\.csv lacks the column 'picture'"):
        decisions_of(path)
    path.write_text("picture,donor,decision,reviewer" + ",reason" * 100_000)
    with pytest.raises(DatasetError, match=r"review\.csv has the column 'reason' twice"):
        decisions_of(path)


# -- pictures that take their decoder long ----------------------------------------------------------------------------


def of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 256 colours whose pixels are written as runs."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + head + bytes(1024) + runs


def test_a_bmp_of_runs_is_small(tmp_path):
    """Pillow fills up a row that ends early pixel by pixel: 37 KB take it nine seconds."""
    path = tmp_path / "face.bmp"
    path.write_bytes(of_runs(64, 64, b"\1\1\0\0" * 64))
    assert open_image(path).size == (64, 64)
    path.write_bytes(of_runs(8900, 8900, b"\1\1\0\0" * 8900))
    for read in (open_image, Original.read):
        with pytest.raises(ImageError, match=r"face\.bmp has 79,210,000 pixels; at most 16,000,000"):
            read(path)


def test_a_tiff_of_a_million_entries_is_not_read(tmp_path):
    path = tmp_path / "face.tif"
    Image.new("L", (8, 8)).save(path, big_tiff=True)
    whole = path.read_bytes()
    (at,) = struct.unpack_from("<Q", whole, 8)
    (count,) = struct.unpack_from("<Q", whole, at)
    more = struct.pack("<HHQQ", 60_000, 4, 1, 7) * 70_000
    entries = struct.pack("<Q", count + 70_000) + whole[at + 8 : at + 8 + 20 * count] + more + bytes(8)
    path.write_bytes(whole[:8] + struct.pack("<Q", len(whole)) + whole[16:] + entries)
    for read in (open_image, picture_size, Original.read):
        with pytest.raises(ImageError, match=r"face\.tif is damaged .*more than 65,536 entries"):
            read(path)


def test_a_profile_of_a_thousand_steps_is_passed_over(tmp_path):
    """Each step is computed for each colour."""
    path, own = tmp_path / "face.png", ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"    "), (b"gXYZ", b"rXYZ"), (b"    ", b"gXYZ"), (b"\0s\0R\0G\0B", b"\0o\0w\0n\0.")):
        own = own.replace(old, new, 1)  # red and green change their places
    face = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    face.save(path, icc_profile=own)
    assert colour_space(own, "RGB") is not None and not np.array_equal(np.asarray(open_image(path)), np.asarray(face))
    for more in (b"mpet\0\0\0\0\0\3\0\3" + struct.pack(">I", 10_000), b"clut\0\0\0\0" + struct.pack(">HH", 15, 3)):
        face.save(path, icc_profile=own + more)
        assert colour_space(own + more, "RGB") is None
        assert np.array_equal(np.asarray(open_image(path)), np.asarray(face))


# -- networks that ask for more than their weights --------------------------------------------------------------------


def test_a_tensor_whose_name_stands_twice_is_refused(tmp_path):
    path, one = tmp_path / "model.safetensors", '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'

    def write(header):
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(4))

    write(f"{{{one}}}")
    assert load_tensors(path)["a"].tolist() == [0]
    write(f"{{{one}, {one}}}")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged .*the key 'a' stands twice"):
        load_tensors(path)


SHAPES = {"strides": [0, 2**62, 2**62], "dimensions": [1] * 100, "beyond": [2**70]}


@pytest.mark.parametrize("kind", [*SHAPES, "many"])
def test_tensors_that_cannot_be_are_refused(tmp_path, kind):
    path, one = tmp_path / "model.safetensors", {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    if kind == "many":
        header = {f"tensor-{number}": one for number in range(80_000)}
    else:
        size = 4 * (kind == "dimensions")
        header = {"a": {"dtype": "F32", "shape": SHAPES[kind], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * (kind == "dimensions")))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load_tensors(path)


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
    (tmp_path / "manifest.json").unlink()  # it would notice every change
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
    (tmp_path / "manifest.json").unlink()  # it would notice every change
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
    from functools import partial

    from vlbias.simulate.runs import _decoded, _encode

    packed = base64.b64encode(zlib.compress(bytes(2**28))).decode()
    store = RunStore(tmp_path / "store.log", "simulate", {}, partial(_decoded, num_items=20, num_classes=2))
    store.add("bomb", {"predicted": packed})
    store.add("others", {"predicted": _encode(np.full(20, 7))})
    store.add("good", {"predicted": _encode(np.arange(20) % 2)})
    assert list(small(store.read)) == ["good"]


PROGRAMS = {
    "view": "CREATE VIEW more AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x FROM n",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END",
    "table": "CREATE TABLE more (a TEXT, b TEXT GENERATED ALWAYS AS (hex(zeroblob(500000000))))",
    "index": "CREATE INDEX i ON {table} (hex(zeroblob(5)))",
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_database_that_runs_something_is_refused(kind, tmp_path):
    landmarks, study = tmp_path / "landmarks.sqlite", tmp_path / "study.db"
    LandmarkCache(landmarks).close()
    Storage(f"sqlite:///{study}").study(2, {})
    for path, table in ((landmarks, "found_1"), (study, "studies")):
        with closing(sqlite3.connect(path)) as database:
            database.execute(PROGRAMS[kind].format(table=table))
            database.commit()
    with pytest.raises(OutputError, match=rf"landmarks\.sqlite contains a {kind} that would run on its own"):
        LandmarkCache(landmarks)
    with pytest.raises(OutputError, match=rf"study\.db contains a {kind} that would run on its own"):
        Storage(f"sqlite:///{study}")


def test_a_study_that_is_too_large_is_not_read(tmp_path):
    """Optuna reads all of it, each value as text, and each record one by one."""
    study = tmp_path / "study.db"
    Storage(f"sqlite:///{study}").study(2, {})
    more = "INSERT INTO study_user_attributes (study_id, key, value_json) "
    for name, what, said in (
        ("value", "VALUES (1, 'k', zeroblob(17000000))", "string or blob too big"),
        ("rows", "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 150000) SELECT 1, x, 1 FROM n",
         "more rows than are read"),
    ):  # fmt: skip
        copy = tmp_path / f"{name}.db"
        copy.write_bytes(study.read_bytes())
        with closing(sqlite3.connect(copy)) as database:
            database.execute(more + what)
            database.commit()
        with pytest.raises(VlbiasError, match=rf"{name}\.db .*{said}"):
            Storage(f"sqlite:///{copy}")
    os.truncate(study, 2**40)  # sparse on the disk
    with pytest.raises(OutputError, match=r"study\.db has 1,099,511,627,776 bytes; at most"):
        Storage(f"sqlite:///{study}")
    journal = tmp_path / "study.log"
    journal.write_text('{"op_code": 0}\n' * 150_000)
    with pytest.raises(ConfigError, match=r"study\.log has 2,250,000 bytes in 150001 lines; of a study at most"):
        Storage(journal)
    os.truncate(journal, 2**40)
    with pytest.raises(ConfigError, match=r"study\.log has 1,099,511,627,776 bytes in more lines"):
        small(Storage, journal)


def test_a_journal_of_a_database_removes_nothing_else(tmp_path):
    """SQLite removes the file that a left journal names as the one above it, whatever that is."""
    landmarks, study, mine = tmp_path / "landmarks.sqlite", tmp_path / "study.db", tmp_path / "thesis.tex"
    LandmarkCache(landmarks).close()
    Storage(f"sqlite:///{study}").study(2, {})
    mine.write_text("years of work")
    name = os.fsencode(mine)
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 0, 1, 512, 4096)
    tail = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    for path, opened in ((landmarks, LandmarkCache), (study, lambda path: Storage(f"sqlite:///{path}"))):
        journal = path.with_name(f"{path.name}-journal")
        journal.write_bytes(header.ljust(512, b"\0") + tail)
        with pytest.raises(OutputError, match="-journal would have SQLite remove another file"):
            opened(path)
        journal.unlink()
        journal.symlink_to(mine)
        with pytest.raises(OutputError, match="-journal is a link to"):
            opened(path)
        journal.unlink()
    assert mine.read_text() == "years of work"


def test_a_database_whose_schema_is_no_text_is_set_aside(tmp_path):
    path = tmp_path / "landmarks.sqlite"
    LandmarkCache(path).close()
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE")
    path.write_bytes(content[:at] + b"CREA\xff\xfe" + content[at + 6 :])
    with pytest.warns(UserWarning, match="landmarks.sqlite is damaged .* set aside"):
        LandmarkCache(path).close()


def test_what_is_no_database_by_its_name_is_not_set_aside(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,smile\n" * 100)
    with pytest.raises(OutputError, match=r"metadata\.csv is not a file of landmarks"):
        LandmarkCache(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metadata.csv"]


def test_a_worker_of_a_study_is_no_path(tmp_path):
    """What stands in a journal as a worker's name leads to no file elsewhere."""
    store = Storage(tmp_path / "study.log")
    study = store.study(1, {})
    (tmp_path / "mine.lock").write_text("mine")
    for name in ("../../mine", str(tmp_path / "mine"), 7, ["x"]):
        study.ask().set_user_attr("worker", name)
    with FileLock(tmp_path / "mine.lock"):  # somebody else's: who looks at it would take the worker for alive
        assert len(store.recover(study)) == 4
    assert (tmp_path / "mine.lock").read_text() == "mine"


def test_a_view_is_no_cache_of_landmarks(tmp_path):
    path = tmp_path / "landmarks.sqlite"
    LandmarkCache(path).close()
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE found_1")
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT x AS found, x AS photo FROM n"
        database.execute(f"CREATE VIEW found_1 AS {endless}")
    with pytest.raises(OutputError, match=r"landmarks\.sqlite contains a view"):
        LandmarkCache(path)


# -- every byte counts ------------------------------------------------------------------------------------------------


def places(size, rng):
    return sorted({0, size - 1, *rng.integers(0, size, 3).tolist()})


def refuses_flips(folder, check):
    """Any byte of any file, some of each: refused with the file's name."""
    rng = np.random.default_rng(0)
    check(folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        whole = path.read_bytes()
        for at in places(len(whole), rng):
            flip = 1 << int(rng.integers(8))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match=path.name):
                check(folder)
        path.write_bytes(whole)
    check(folder)


def test_a_flipped_byte_of_a_saved_editor_is_refused(tmp_path):
    tiny_editor().save_pretrained(tmp_path / "e")
    refuses_flips(tmp_path / "e", lambda folder: verify_folder(folder, "tiny"))
    os.mkfifo(tmp_path / "e" / "diffae" / "more.json")
    with pytest.raises(CheckpointError, match=r"more\.json does not belong"):
        Editor.from_pretrained(tmp_path / "e")


@pytest.mark.parametrize("name", ["synthfaces-64", "utkface-64"])
def test_a_flipped_byte_of_a_shipped_editor_is_refused(name, tmp_path, repository):
    import shutil

    shutil.copytree(repository / "checkpoints" / name, tmp_path / "copy")
    refuses_flips(tmp_path / "copy", lambda folder: verify_folder(folder, name))
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace(f'"{name}"', f'"{name[:-1]}5"'))  # a flip in its very name
    with pytest.raises(CheckpointError, match=rf"config\.json names no editor of this package \('{name[:-1]}5'\)"):
        Editor.from_pretrained(tmp_path / "copy")


@pytest.mark.parametrize("part", ["diffae", "paths", "clip"])
def test_a_flipped_byte_of_a_part_of_an_editor_is_refused(part, tmp_path, repository):
    """Opened by itself, it is compared with what its editor says of it."""
    import shutil

    shutil.copytree(repository / "checkpoints" / "synthfaces-64", tmp_path / "copy")
    load = {"diffae": DiffAE.from_pretrained, "paths": PathSet.from_pretrained, "clip": clip.load}[part]
    load(tmp_path / "copy" / part)
    weights = next((tmp_path / "copy" / part).glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{weights.name} is not the file"):
        load(tmp_path / "copy" / part)


def saved_parts(folder):
    """Everything that saves a folder of its own, saved: folder and loader of each."""
    renderer = tiny_editor().renderer
    small = clip.small.ClipConfig(
        embed_dim=16, image_size=32, vision_width=8, text_width=16, text_heads=2, context_length=16
    )
    settings = FitSettings(image_size=32, backbone_options={"channels": [8] * 4, "stem_width": 8})
    module = create_backbone("resnet10t", 2, options=settings.backbone_options)
    clip.small.new_clip(small, ["a photo of an old person"], seed=0).save_pretrained(folder / "clip")
    renderer.diffae.save_pretrained(folder / "diffae")
    renderer.paths.save_pretrained(folder / "paths")
    Probes(("age", "smile"), 4, accuracy={"age": 0.9, "smile": 0.8}).save_pretrained(folder / "probes")
    Classifier(module, ["a", "b"], settings, [0.5]).save_pretrained(folder / "classifier")
    kinds = {"diffae": DiffAE, "paths": PathSet, "probes": Probes, "classifier": Classifier}
    return [("clip", clip.load), *((name, kind.from_pretrained) for name, kind in kinds.items())]


def test_a_flipped_byte_of_any_saved_folder_is_refused(tmp_path):
    for name, load in saved_parts(tmp_path):
        refuses_flips(tmp_path / name, load)


def test_paths_and_probes_of_one_folder_are_both_compared(tmp_path):
    """Each notes its own files, and leaves alone what lies beside them."""
    (tmp_path / "notes.txt").write_text("mine")
    tiny_editor().renderer.paths.save_pretrained(tmp_path)
    Probes(("age", "smile"), 16, accuracy={"age": 0.9, "smile": 0.8}).save_pretrained(tmp_path)
    listed = json.loads((tmp_path / "manifest.json").read_text())["files"]
    assert list(listed) == ["config.json", "paths.safetensors", "probes.json", "probes.safetensors"]
    for path in map(tmp_path.joinpath, listed):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        for load in (PathSet.from_pretrained, Probes.from_pretrained):
            with pytest.raises(CheckpointError, match=path.name):
                load(tmp_path)
        path.write_bytes(content)
