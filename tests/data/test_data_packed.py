"""Datasets in tar and Parquet shards that others wrote: labels, splits, ids, and what is left out."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlbias.data import load_dataset, open_dataset, recognise
from vlbias.data.twins import refuse_shared_pictures
from vlbias.errors import ConfigError, DatasetError, ImageError, LabelError, UnknownNameError
from vlbias.originals import Original


def picture(seed=0, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def tar(path, members):
    """A tar file of (name, content), or (a TarInfo, content)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(key, seed, labels, ending="png"):
    kind = {"png": "PNG", "jpg": "JPEG"}[ending]
    return [(f"{key}.{ending}", picture(seed, kind)), (f"{key}.json", json.dumps(labels).encode())]


def of(values):
    return [None if value is None or pd.isna(value) else value for value in values.tolist()]


@pytest.fixture
def shards(tmp_path):
    train = [*sample("a/0", 0, {"smile": 1, "skin": "light"}), *sample("a/1", 1, {"smile": None, "skin": "01"}, "jpg")]
    tar(tmp_path / "set" / "train-000.tar", train)
    tar(tmp_path / "set" / "val-000.tar", sample("a/0", 2, {"smile": 0, "skin": "NA"}))
    return tmp_path / "set"


@pytest.mark.parametrize("spec", ["{}", "{}/*.tar", "webdataset:{}"])
def test_tar_shards_by_folder_pattern_and_word(shards, spec):
    faces = open_dataset(spec.format(shards))
    assert faces.ids == ["train-000/a/0.png", "train-000/a/1.jpg", "val-000/a/0.png"]
    assert faces.table["split"].tolist() == ["train", "train", "val"] and not faces.problems
    assert of(faces.table["smile"]) == [1, None, 0] and of(faces.table["skin"]) == ["light", "01", "NA"]
    assert faces.attributes == ["skin", "smile"] and recognise(shards) == "webdataset"
    assert faces.image("val-000/a/0.png").tobytes() == Image.open(io.BytesIO(picture(2))).tobytes()
    assert faces.tensor(faces.ids, 8).shape == (3, 3, 8, 8) and faces.stored_size(faces.ids[1])[:2] == (8, 8)
    assert faces.file(faces.ids[1]).suffix == ".jpg" and faces.original(faces.ids[1]).options["qtables"]
    assert not list(shards.rglob("*.png"))


def test_one_shard_with_classes(tmp_path):
    members = [member for i in range(3) for member in ((f"{i}.jpg", picture(i, "JPEG")), (f"{i}.cls", b"%d" % (i % 2)))]
    faces = open_dataset(tar(tmp_path / "faces.tar", members), unsplit="test")
    assert faces.table["label"].tolist() == [0, 1, 0] and set(faces.table["split"]) == {"test"}


def test_what_a_shard_says_of_split_and_name_counts(tmp_path):
    rows = [{"file_name": "x/0.png", "split": "validation"}, {"file_name": "../../me.png", "split": "test"}]
    rows += [{"file_name": "x/0.png", "split": "train"}]
    tar(tmp_path / "train.tar", [part for i, row in enumerate(rows) for part in sample(f"{i}", i, row | {"n": i})])
    faces = load_dataset("webdataset", tmp_path)
    assert dict(faces.table["split"]) == {"x/0.png": "val", "train/1.png": "test"}
    assert [problem.code for problem in faces.problems] == ["duplicate_name"]
    tar(tmp_path / "train.tar", sample("0", 0, {"split": "somewhere", "smile": 1}))
    with pytest.raises(LabelError, match=r"has the split 'somewhere'; expected dev"):
        open_dataset(tmp_path)


def test_equal_pictures_are_dealt_to_one_split(tmp_path):
    members = [part for i in range(40) for part in sample(f"{i:03d}", i % 2, {"smile": i % 2})]
    faces = open_dataset(tar(tmp_path / "shard0.tar", members))
    assert faces.table.groupby("smile")["split"].nunique().tolist() == [1, 1]


def test_a_picture_in_two_splits_of_shards_is_found(tmp_path):
    for split in ("train", "test"):
        tar(tmp_path / f"{split}.tar", [part for i in range(4) for part in sample(f"{i}", i, {"smile": i % 2})])
    faces = open_dataset(tmp_path)
    ids = {split: faces.split(split).ids for split in ("train", "test")}
    with pytest.raises(DatasetError, match=r"4 pictures of the split 'test' are in another split as well"):
        refuse_shared_pictures(faces, ids)


def test_what_cannot_be_used_is_listed(tmp_path):
    link = tarfile.TarInfo("5.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("6.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "0.png"
    device = tarfile.TarInfo("7.png")
    device.type = tarfile.CHRTYPE
    members = [*sample("0", 0, {"smile": 1}), ("1.json", b"{}"), ("2.png", picture(2)), ("2.json", b"{"), (link, b"")]
    members += [("5.json", b"{}"), (hard, b""), (device, b""), ("8.png", b"no picture"), ("8.json", b'{"smile": 0}')]
    members += [("9.png", picture(9)), ("9.json", b"[1]"), ("../../up.png", picture(3)), ("../../up.json", b"{}")]
    faces = open_dataset(tar(tmp_path / "train.tar", members))
    assert faces.ids == ["train/0.png", "train/8.png"]
    codes = [problem.code for problem in faces.problems]
    wanted = {"missing_image": 2, "malformed_line": 2, "link": 2, "no_file": 1, "malformed_name": 1}
    assert {code: codes.count(code) for code in codes} == wanted
    with pytest.raises(ImageError, match=r"train.tar: train/8.png is not a picture that can be read"):
        faces.image("train/8.png")
    left = faces.check_images(show_progress=False)
    assert left.ids == ["train/0.png"] and str(tmp_path) not in left.problems[-1].detail


def test_no_shards_and_archives_without_labels(tmp_path):
    with pytest.raises(DatasetError, match=r"\*\.tar has no \.tar file"):
        open_dataset(tmp_path / "*.tar")
    tar(tmp_path / "faces.tar", [("0.png", picture())])
    with pytest.raises(DatasetError, match=r"an archive without labels .*Unpack it first: tar -xf"):
        open_dataset(tmp_path)
    (tmp_path / "faces.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DatasetError, match=r"faces.tar is not a tar file, or is damaged"):
        open_dataset(tmp_path)
    tar(tmp_path / "faces.tar", sample("0", 0, {"smile": 1}))
    with pytest.raises(UnknownNameError, match="Unknown attribute 'simle'"):
        load_dataset("webdataset", tmp_path, attributes=["simle"])
    with pytest.raises(ConfigError, match="`unsplit` must be"):
        load_dataset("webdataset", tmp_path, unsplit="none")


def test_shards_that_are_links_are_left_out(shards, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.tar").symlink_to(shards / "train-000.tar")
    with pytest.raises(DatasetError, match="are links or stand behind one"):
        open_dataset(tmp_path / "other")
    assert len(open_dataset(tmp_path / "other", follow_links=True)) == 2


def parquet(path, names=None, rows=10, group=4, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [{"bytes": picture(i), "path": None} for i in range(rows)]
    ages = [None if i == 3 else 2**60 + i for i in range(rows)]
    columns = columns or {"label": [i % 2 for i in range(rows)], "age": ages}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(pictures, kind), **columns})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    note = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    pq.write_table(table.replace_schema_metadata(note), path, row_group_size=group)
    return path


@pytest.mark.parametrize("spec", ["{}", "{}/data/*.parquet", "{}/data/train-0.parquet"])
def test_parquet_with_pictures_and_named_classes(tmp_path, spec):
    parquet(tmp_path / "data" / "train-0.parquet", ["no", "yes"])
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data" / "other.parquet")
    faces = open_dataset(spec.format(tmp_path))
    assert len(faces) == 10 and set(faces.table["split"]) == {"train"}
    assert faces.table["label"].tolist() == ["no", "yes"] * 5
    assert of(faces.table["age"]) == [None if i == 3 else 2**60 + i for i in range(10)]
    for i in (0, 9, 5, 4):
        assert faces.file(faces.ids[i]).data == picture(i) and faces.file(faces.ids[i]).suffix == ".png"
    assert isinstance(faces.original(faces.ids[2]), Original)


def test_what_hugging_face_writes_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.open(io.BytesIO(picture(i))) for i in range(6)]
    features = datasets.Features({"image": datasets.Image(), "sex": datasets.ClassLabel(names=["m", "f"])})
    made = datasets.Dataset.from_dict({"image": pictures, "sex": [0, 1, 0, 1, 0, 1]}, features=features)
    made.to_parquet(tmp_path / "test-00000-of-00001.parquet")
    faces = open_dataset(tmp_path)
    assert faces.table["sex"].tolist() == ["m", "f"] * 3 and set(faces.table["split"]) == {"test"}
    assert [faces.image(item).tobytes() for item in faces.ids] == [one.tobytes() for one in pictures]


def test_parquet_without_pictures_or_damaged(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match="no Parquet file with a column of pictures"):
        open_dataset(tmp_path)
    paths = pa.array([{"bytes": None, "path": "a.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": paths, "a": [1]}), tmp_path / "train.parquet")
    with pytest.raises(DatasetError, match="Write them with the pictures inside"):
        open_dataset(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(DatasetError, match=r"train.parquet cannot be read"):
        open_dataset(tmp_path)
    parquet(tmp_path / "train.parquet")
    faces = open_dataset(tmp_path)
    data = bytearray((tmp_path / "train.parquet").read_bytes())
    data[4:400] = bytes(396)
    (tmp_path / "train.parquet").write_bytes(bytes(data))
    with pytest.raises(ImageError, match=r"train.parquet: row 0 of row group 0 cannot be read"):
        faces.image(faces.ids[0])
