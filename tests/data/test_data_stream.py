"""A stream is read once, kept as shards, goes on where it was stopped, and opens no file that is not its own."""

from __future__ import annotations

import io
import json
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from vlbias.data import keep_stream, load_dataset, open_dataset
from vlbias.errors import ConfigError, DatasetError, MissingDependencyError, OutputError, UnknownNameError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLBIAS_CACHE", str(tmp_path / "cache"))


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def png(seed):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(n, first=0):
    return [
        {"image": png(i), "smile": i % 2, "age": None if i == 3 else i, "who": f"p{i}"} for i in range(first, first + n)
    ]


def keep(given, folder, **options):
    return keep_stream(given, folder, show_progress=False, **options)


def test_pictures_and_labels_come_back(tmp_path):
    faces = keep(iter(rows(7)), tmp_path / "kept", shard_size=3)
    assert [path.name for path in faces.shards] == [f"rows-{i:06d}.tar" for i in range(3)]
    assert faces.table["smile"].tolist() == [i % 2 for i in range(7)] and faces.problems == []
    assert faces.table["age"].isna().sum() == 1 and faces.table["who"].tolist() == [f"p{i}" for i in range(7)]
    assert [faces.file(item).data for item in faces.ids] == [png(i) for i in range(7)]
    again = open_dataset(tmp_path / "kept")
    assert again.table.equals(faces.table)


@pytest.mark.parametrize(
    "make", [pixels, lambda i: Image.fromarray(pixels(i)), lambda i: {"bytes": png(i), "path": "x"}]
)
def test_pictures_in_other_forms(tmp_path, make):
    faces = keep([{"face": make(i), "smile": i} for i in range(2)], tmp_path / "kept", picture="face")
    assert [np.asarray(faces.image(item)).tolist() for item in faces.ids] == [pixels(i).tolist() for i in range(2)]


def test_splits_by_key_and_by_stream(tmp_path):
    by_stream = keep({"train": rows(4), "validation": rows(2, 4)}, tmp_path / "a", limit=3)
    assert by_stream.table["split"].tolist() == ["train"] * 3 + ["val"] * 2
    by_key = keep([row | {"split": "test"} for row in rows(2)], tmp_path / "b")
    assert by_key.table["split"].tolist() == ["test"] * 2


@pytest.mark.parametrize("stopped_at", [0, 2, 3, 8, 9])
def test_a_stream_that_was_stopped_goes_on_with_the_same_bytes(tmp_path, stopped_at):
    whole = keep({"train": rows(10), "test": rows(2, 10)}, tmp_path / "whole", shard_size=3)
    read = []

    def until(number):
        for place, row in enumerate(rows(10)):
            if place == number:
                raise ConnectionError("gone")
            read.append(place)
            yield row

    out = tmp_path / "out"
    with pytest.raises(DatasetError, match=r"the stream broke off behind row \d \(gone\)"):
        keep({"train": until(stopped_at), "test": rows(2, 10)}, out, shard_size=3)
    done = stopped_at // 3 * 3
    assert len(list((out / "data").iterdir())) == done // 3  # whole shards alone

    class Skips(list):
        def skip(self, count):
            assert count == done
            return self[count:]

    keep({"train": Skips(rows(10)) if done else rows(10), "test": rows(2, 10)}, out, shard_size=3)
    assert {p.name: p.read_bytes() for p in (out / "data").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "whole" / "data").iterdir()
    }
    assert open_dataset(out).ids == whole.ids


def test_a_finished_one_is_not_read_again(tmp_path):
    first = keep(rows(3), tmp_path / "kept")
    assert keep(iter(()), tmp_path / "kept").ids == first.ids


def test_memory_holds_one_row_at_a_time(tmp_path):
    alive = []

    class Row(dict):
        def __init__(self, *given):
            super().__init__(*given)
            alive.append(1)

        def __del__(self):
            alive.pop()

    def stream():
        for i in range(20):
            assert len(alive) <= 2
            yield Row(rows(1, i)[0])

    assert len(keep(stream(), tmp_path / "kept", shard_size=8)) == 20


def test_rows_without_a_picture_are_listed_and_labels_that_json_has_no_word_for_are_text(tmp_path):
    odd = [{"image": None, "smile": 1}, {"image": b"", "smile": 1}, {"smile": 0}]
    odd += [{"image": png(0), "smile": np.int64(1), "when": np.datetime64("2020-01-02"), "nan": float("nan")}]
    faces = keep(odd, tmp_path / "kept")
    assert [problem.code for problem in faces.problems if problem.code == "missing_image"] == ["missing_image"] * 3
    with tarfile.open(tmp_path / "kept" / "data" / "rows-000000.tar") as archive:
        stored = json.load(archive.extractfile("000000003.json"))
    assert stored == {"smile": 1, "when": "2020-01-02", "nan": None} and len(faces) == 1


def test_what_is_no_stream_is_refused(tmp_path):
    for wrong in (3, "abc", {"train": 3}):
        with pytest.raises(ConfigError, match="`rows` must be rows of pictures"):
            keep(wrong, tmp_path / "a")
    with pytest.raises(ConfigError, match="a split cannot be called '../x'"):
        keep({"../x": rows(1)}, tmp_path / "a")
    for options in ({"shard_size": 0}, {"limit": 0}):
        with pytest.raises(ConfigError, match=f"`{next(iter(options))}` must be"):
            keep(rows(1), tmp_path / "a", **options)
    with pytest.raises(DatasetError, match="row 1 of the stream is a int"):
        keep([rows(1)[0], 3], tmp_path / "b")
    with pytest.raises(DatasetError, match=r"an array of float64 \(3,\) is no picture"):
        keep([{"image": np.zeros(3)}], tmp_path / "c")
    with pytest.raises(DatasetError, match=r"no row of the stream has a picture under 'image' \(2 rows\)"):
        keep([{"picture": png(0)}] * 2, tmp_path / "d")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds other files"):
        keep(rows(1), tmp_path / "mine")
    keep(rows(1), tmp_path / "kept")
    with pytest.raises(OutputError, match="was read with shard_size=1000, not 5"):
        keep(rows(1), tmp_path / "kept", shard_size=5)
    (tmp_path / "kept" / ".stream.json").write_text("{")
    with pytest.raises(OutputError, match="to read the stream anew"):
        keep(rows(1), tmp_path / "kept")


# -- by `datasets` ----------------------------------------------------------------------------------------------------


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    return pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path, datasets):
    """Parquet with named classes, as Hugging Face writes it, with the pictures inside."""
    features = datasets.Features({"photo": datasets.Image(), "sex": datasets.ClassLabel(names=["m", "f"])})
    given = {"photo": [{"bytes": png(i), "path": None} for i in range(6)], "sex": [0, 1, 0, 1, -1, None]}
    made = datasets.Dataset.from_dict(given, features=features)
    (tmp_path / "set").mkdir()
    made.to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
    return tmp_path / "set"


def test_a_set_of_datasets_has_the_names_of_its_classes(folder, tmp_path):
    faces = open_dataset(f"datasets:{folder}")
    assert (
        faces.table["sex"].tolist()[:4] == ["m", "f", "m", "f"] and faces.table["sex"].isna().tolist()[4:] == [True] * 2
    )
    assert set(faces.table["split"]) == {"test"}
    assert [faces.file(item).data for item in faces.ids] == [png(i) for i in range(6)] and faces.name == "set"
    assert load_dataset("datasets", folder, attributes=["sex"], limit=2).attributes == ["sex"]
    assert all(path.is_relative_to(tmp_path / "cache") for path in faces.shards)


def test_an_imagefolder_is_streamed_and_read_anew_when_it_changes(tmp_path, datasets):
    for place in ("train/no/0.png", "train/yes/1.png", "test/yes/2.png"):
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / place).write_bytes(png(int(place[-5])))
    faces = load_dataset("datasets", tmp_path / "set")
    found = sorted(zip(faces.table["split"], faces.table["label"], strict=True))
    assert found == [("test", "yes"), ("train", "no"), ("train", "yes")]
    assert {faces.file(item).data for item in faces.ids} == {png(i) for i in range(3)}
    (tmp_path / "set/test/no").mkdir()
    (tmp_path / "set/test/no/3.png").write_bytes(png(3))
    assert len(load_dataset("datasets", tmp_path / "set")) == 4


def test_no_file_outside_of_the_set_is_opened(tmp_path, datasets):
    (tmp_path / "secret").write_bytes(png(9))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_bytes(png(1))
    (tmp_path / "set" / "link").symlink_to(tmp_path / "secret")
    places = ["secret", "set/../secret", "set/link", "set/mine"]
    features = datasets.Features({"image": datasets.Image(), "a": datasets.Value("int64")})
    pictures = [{"bytes": None, "path": str(tmp_path / place)} for place in places]
    made = datasets.Dataset.from_dict({"image": pictures, "a": range(4)}, features=features)
    made.to_parquet(tmp_path / "set" / "train.parquet")
    faces = load_dataset("datasets", tmp_path / "set")
    assert [faces.file(item).data for item in faces.ids] == [png(1)]
    assert [problem.code for problem in faces.problems] == ["missing_image"] * 3


def test_a_set_on_the_hub_is_read_at_one_commit(tmp_path, folder, datasets, monkeypatch):
    from huggingface_hub import HfApi

    commits, asked, load = ["abc"], [], datasets.load_dataset

    def from_hub(name, config, *, streaming, revision):
        asked.append((name, config, streaming, revision))
        return load(str(folder), streaming=True)

    monkeypatch.setattr(HfApi, "dataset_info", lambda self, name: type("info", (), {"sha": commits[-1]}))
    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    faces = open_dataset("datasets:anna/faces")
    assert asked == [("anna/faces", None, True, "abc")] and len(faces) == 6 and faces.name == "faces"
    shards = faces.shards
    assert open_dataset("datasets:anna/faces").shards == shards
    commits.append("def")
    assert open_dataset("datasets:anna/faces").shards != shards


def test_sets_that_cannot_be_read_say_why(tmp_path, datasets, monkeypatch):
    from huggingface_hub import HfApi

    def unreachable(self, name):
        raise ConnectionError("no network here")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(DatasetError, match=r"`datasets` cannot read nobody/faces \(ConnectionError: no network here\)"):
        open_dataset("datasets:nobody/faces")
    with pytest.raises(DatasetError, match=r"nothing/here/at all is no folder here, and no name on the hub"):
        open_dataset("datasets:nothing/here/at all")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="has no column of pictures, but a, b"):
        load_dataset("datasets", tmp_path / "texts")
    two = datasets.Dataset.from_dict(
        {name: [{"bytes": png(0), "path": None}] for name in ("left", "right")},
        features=datasets.Features({name: datasets.Image() for name in ("left", "right")}),
    )
    (tmp_path / "two").mkdir()
    two.to_parquet(tmp_path / "two" / "train.parquet")
    with pytest.raises(ConfigError, match="several columns of pictures: left, right"):
        load_dataset("datasets", tmp_path / "two")
    with pytest.raises(UnknownNameError, match="middle"):
        load_dataset("datasets", tmp_path / "two", picture="middle")


def test_without_datasets_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"vlbias\[datasets\]"):
        load_dataset("datasets", tmp_path)
