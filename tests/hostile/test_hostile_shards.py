"""Tar and Parquet shards that somebody with bad intentions hands on."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import SECRET, picture
from watch import watched

from vlbias.data import open_dataset
from vlbias.errors import DatasetError, ImageError


@pytest.fixture
def sound(tmp_path):
    """A shard of one face, and where it stands."""
    face = picture(tmp_path / "faces" / "0.png").read_bytes()
    return tmp_path / "train.tar", [("0.png", face), ("0.json", b'{"smile": 1}')]


def write(path, members, **options):
    with tarfile.open(path, "w", **options) as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))
    return path


NAMES = ["/etc/passwd.png", "../../../up.png", "a/../../up.png", "C:\\up.png", "-rf.png", "\n.png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_shard_are_no_paths(sound, tmp_path, name):
    path, members = sound
    write(path, [*members, (name, members[0][1]), (name.replace(".png", ".json"), b'{"smile": 0}')])
    before = sorted(tmp_path.rglob("*"))
    faces = open_dataset(path)
    assert faces.tensor(faces.ids, 8).shape[0] == len(faces) and sorted(tmp_path.rglob("*")) == before
    assert all(not item.startswith(("/", "..")) for item in faces.ids)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_shard_are_left_out(sound, tmp_path, kind):
    path, members = sound
    (tmp_path / "note.txt").write_bytes(SECRET)
    link = tarfile.TarInfo("1.png")
    link.type, link.linkname = kind, str(tmp_path / "note.txt")
    labels = tarfile.TarInfo("2.json")
    labels.type, labels.linkname = kind, str(tmp_path / "note.txt")
    more = [(link, b""), ("1.json", b"{}"), ("2.png", members[0][1]), (labels, b"")]
    faces = open_dataset(write(path, [*members, *more]))
    assert faces.ids[0] == "train/0.png" and SECRET.decode() not in repr(faces.problems) + faces.table.to_csv()
    assert "1.png" not in " ".join(faces.ids) and len(faces.problems) >= 2


def test_one_name_twice_and_holes_in_a_shard(sound):
    """Who comes first stays; what a hole would be filled with is not made up."""
    path, members = sound
    hole = tarfile.TarInfo("1.png")
    hole.type = tarfile.GNUTYPE_SPARSE
    faces = open_dataset(write(path, [*members, (hole, b""), ("1.json", b"{}"), ("0.json", b'{"smile": 0}')]))
    assert faces.ids == ["train/0.png"] and faces.table["smile"].tolist() == [1]
    write(path, [*members, *members, ("0.PNG", members[0][1])])
    try:
        faces = open_dataset(path)
    except DatasetError as error:
        assert "0.png" in str(error)
    else:
        assert faces.ids.count("train/0.png") == 1


@pytest.mark.parametrize("place", ["../trap/me.png", "{trap}/me.png", "file://{trap}/me.png", "https://example.org/a"])
def test_a_picture_of_a_table_that_lies_elsewhere_is_not_read(tmp_path, trap, place):
    """Parquet files of the hub may hold a path in the place of the bytes."""
    face = picture(tmp_path / "faces" / "0.png").read_bytes()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pictures = pa.array([{"bytes": face, "path": "0.png"}, {"bytes": None, "path": place.format(trap=trap)}], kind)
    pq.write_table(pa.table({"image": pictures, "smile": [0, 1]}), tmp_path / "train.parquet")
    with watched(traps=(trap,)) as seen:
        faces = open_dataset(tmp_path / "train.parquet")
        for item in faces.ids[1:]:
            with pytest.raises(ImageError, match=r"train\.parquet"):
                faces.image(item)
    assert seen.problems == [] and faces.image(faces.ids[0]).size == (8, 8)


def test_a_name_that_is_no_text_is_left_out(sound):
    path, members = sound
    faces = open_dataset(write(path, [("\udcff.png", members[0][1]), *members], errors="surrogateescape"))
    assert faces.ids == ["train/0.png"] and faces.problems[0].detail == "its name is not text in UTF-8"


def pax(path, **headers):
    info = tarfile.TarInfo("1.png")
    info.pax_headers = headers
    return write(path, [(info, b"")], format=tarfile.PAX_FORMAT)


@pytest.mark.parametrize("size", ["-512", "-1", str(2**70), "1e9", "nan"])
def test_a_size_that_is_none_is_refused_or_left_out(sound, size):
    path, members = sound
    data = pax(path, size=size).read_bytes()
    path.write_bytes(data[:-10240] + write(path.with_name("b.tar"), members).read_bytes())
    path.with_name("b.tar").unlink()
    try:
        faces = open_dataset(path)
    except DatasetError as error:
        assert "train.tar" in str(error)
    else:
        assert faces.ids == ["train/0.png"]


def test_a_header_of_gigabytes_is_not_read(sound):
    path, members = sound
    write(path, members)
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**31
    with path.open("wb") as file:
        file.write(long.tobuf(tarfile.GNU_FORMAT))
        file.truncate(2**32)  # sparse on the disk
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"train.tar has a header of 2,147,48\d,\d+ bytes and is not read"):
        open_dataset(path)
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_a_shard_that_is_cut_off(sound):
    path, members = sound
    data = write(path, [*members, ("1.json", b'{"smile": 0}'), ("1.png", bytes(5000))]).read_bytes()
    path.write_bytes(data[:4000])
    faces = open_dataset(path)
    assert faces.ids == ["train/0.png"] and faces.problems[0].detail == "the shard is cut off"
    path.write_bytes(data[: len(members[0][1]) // 512 * 512 + 2048] + b"noise" * 1000)
    faces = open_dataset(path)
    assert faces.ids == ["train/0.png"] and "damaged" in faces.problems[-1].detail
    path.write_bytes(data[:600])
    with pytest.raises((ImageError, DatasetError)):
        faces.image("train/0.png")


@pytest.mark.parametrize(
    "labels",
    [b"[" * 10**5, b'{"a": 1e999}', b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe", b'{"a": NaN}', b"x" * (2**20 + 1)],
)
def test_labels_that_are_none_leave_out_their_picture(sound, labels):
    path, members = sound
    faces = open_dataset(write(path, [*members, ("1.png", members[0][1]), ("1.json", labels)]))
    assert faces.ids == ["train/0.png"] and [problem.code for problem in faces.problems] == ["malformed_line"]


def test_a_column_for_each_picture_is_refused(sound):
    path, members = sound
    rows = [json.dumps({f"{i}-{j}": 1 for j in range(500)}).encode() for i in range(5)]
    parts = [part for i, row in enumerate(rows) for part in ((f"{i}.png", members[0][1]), (f"{i}.json", row))]
    with pytest.raises(DatasetError, match=r"5 pictures with 2,500 labels are more than is read"):
        open_dataset(write(path, parts))


def test_pictures_that_unpack_to_gigabytes_are_not_read(tmp_path):
    path = tmp_path / "train.parquet"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    large = pa.array([{"bytes": bytes(2**27), "path": None}] * 5, kind)
    pq.write_table(pa.table({"image": large, "smile": [1] * 5}), path, compression="zstd", use_dictionary=False)
    del large
    faces = open_dataset(path)
    with pytest.raises(ImageError, match=r"a row group of 671,\d+,\d+ bytes; at most 536,870,912 are read"):
        faces.image(faces.ids[0])
    # one value many times is small in the file
    again = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, dtype=np.int32)), pa.array([bytes(2**20)]))
    pq.write_table(pa.table({"image": again, "smile": [1] * 2000}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10**5
    faces = open_dataset(path)
    before = pa.total_allocated_bytes()
    with pytest.raises(ImageError, match="is not a picture"):
        faces.image(faces.ids[1999])
    assert pa.total_allocated_bytes() - before < 2**28
