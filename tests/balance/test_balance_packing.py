"""Balanced sets as shards: the labels and bytes of the imagefolder, read by us and by the libraries they are for."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vlbias import report
from vlbias.balance import Balancer, packing, verify_run
from vlbias.data import load_dataset, open_dataset
from vlbias.errors import ConfigError
from vlbias.provenance import provenance_of

sys.path.append(str(Path(__file__).parents[1] / "data"))
from test_data_metadata import FORMS, values_of

WANTED = ("webdataset", "parquet")


def balance(tiny, faces, out, **options):
    balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=4, **options)
    return balancer.run(faces, balancer.plan(faces, limit=8), out, show_progress=False)


def files(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


@pytest.fixture(scope="module")
def many(faces):
    """The tiny faces with labels of every form."""
    for name, values in FORMS.items():
        faces = faces.with_column(name, [values[row % 6] for row in range(len(faces))])
    return faces


@pytest.fixture(scope="module")
def loose(tiny, many, tmp_path_factory):
    return balance(tiny, many, tmp_path_factory.mktemp("loose") / "out")


@pytest.fixture(scope="module", params=WANTED)
def packed(request, tiny, many, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "out"
    return balance(tiny, many, out, format=request.param, shard_size=20)


def test_labels_and_pictures_are_those_of_the_imagefolder(loose, packed):
    ours, theirs = load_dataset("folder", loose.out_dir), open_dataset(packed.out_dir)
    assert {problem.code for problem in theirs.problems} == {"alike_labels", "unknown_label"}
    assert set(theirs.ids) == set(ours.ids) and set(theirs.table) == set(ours.table)
    ours = ours.select(theirs.ids)
    for name in ours.table:
        got, wanted = values_of(theirs.table[name]), values_of(ours.table[name])
        assert got == wanted and list(map(type, got)) == list(map(type, wanted)), name
    for item in ours.ids:
        assert theirs.file(item).data == ours.path(item).read_bytes()
    edit = next(item for item in ours.ids if "edit-" in item)
    assert provenance_of(Image.open(io.BytesIO(theirs.file(edit).data)))["editor"] == "tiny"
    assert theirs.image(edit).tobytes() == ours.image(edit).tobytes()
    assert theirs.attributes == sorted(ours.attributes) or theirs.attributes == ours.attributes


def test_no_loose_picture_is_left_and_every_shard_is_verified(packed):
    names = [name for name in files(packed.out_dir) if name.endswith((".png", ".tar", ".parquet"))]
    assert len(names) == 4 and all(name.startswith("data/") for name in names)
    assert packed.report["shards"]["num_files"] == {"test": 1, "train": 3} and not verify_run(packed.out_dir)
    shard = packed.out_dir / names[-1]
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-600] + bytes(600 - 1) + b"x")
    assert verify_run(packed.out_dir) == [f"{names[-1]} has changed"]
    shard.write_bytes(sound)


def test_the_page_shows_pairs_out_of_shards(packed):
    page = report.write(packed.out_dir).read_text()
    assert page.count("data:image/") > 8


def test_a_finished_run_in_shards_is_measured_again(tiny, many, packed):
    kind = packed.report["format"]
    again = balance(tiny, many, packed.out_dir, format=kind, shard_size=20, leak=packed_leak(packed))
    assert again.report["leak"]["settings"]["max_pictures"] == 25


def packed_leak(result):
    from vlbias.leak import LeakSettings

    return LeakSettings.from_dict({**result.report["leak"]["settings"], "max_pictures": 25})


@pytest.mark.parametrize("wanted", WANTED)
def test_a_run_that_is_killed_while_packing_ends_with_the_same_bytes(tiny, many, tmp_path, monkeypatch, wanted):
    class Killed(Exception):
        pass

    def killed(*arguments, **options):
        raise Killed

    options = {"format": wanted, "shard_size": 7}
    whole = files(balance(tiny, many, tmp_path / "whole", **options).out_dir)
    with monkeypatch.context() as patched:  # behind the second shard
        name = {"webdataset": "_write_tar", "parquet": "_write_parquet"}[wanted]
        steps = iter([getattr(packing, name)] * 2)
        patched.setattr(packing, name, lambda *arguments: next(steps, killed)(*arguments))
        with pytest.raises(Killed):
            balance(tiny, many, tmp_path / "out", **options)
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2
    with monkeypatch.context() as patched:  # when the loose pictures are gone
        patched.setattr("vlbias.balance.run_folder.RunFolder.finish", killed)
        with pytest.raises(Killed):
            balance(tiny, many, tmp_path / "out", **options)
    assert files(balance(tiny, many, tmp_path / "out", **options).out_dir) == whole


def test_nothing_of_a_shard_says_when_or_who(packed):
    for path in packed.out_dir.glob("data/*.tar"):
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_webdataset_reads_the_shards(packed, loose):
    webdataset = pytest.importorskip("webdataset")
    if packed.report["format"] != "webdataset":
        pytest.skip("Parquet")
    shards = sorted(map(str, packed.out_dir.glob("data/train-*.tar")))
    seen = list(webdataset.WebDataset(shards, shardshuffle=False))
    rows = {row["file_name"]: row for row in (json.loads(sample["json"]) for sample in seen)}
    train = loose.table[loose.table["split"] == "train"]
    assert list(rows) == train["file_name"].tolist()
    for sample, name in zip(seen, rows, strict=True):
        assert sample["png"] == (loose.out_dir / name).read_bytes()
        assert rows[name]["smile"] == int(train.set_index("file_name").at[name, "smile"])


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_reads_the_folder(packed, loose, streaming, tmp_path):
    datasets = pytest.importorskip("datasets")
    options = {"cache_dir": str(tmp_path), "streaming": streaming}
    splits = datasets.load_dataset(str(packed.out_dir), **options)
    assert set(splits) == {"train", "test"}
    train, rows = loose.table[loose.table["split"] == "train"], list(splits["train"])
    assert len(rows) == len(train)
    labels = [row if packed.report["format"] == "parquet" else row["json"] for row in rows]
    assert [row["file_name"] for row in labels] == train["file_name"].tolist()
    assert [row["smile"] for row in labels] == [int(value) for value in train["smile"]]
    picture = rows[0]["image" if packed.report["format"] == "parquet" else "png"]
    assert picture.size == Image.open(loose.out_dir / train["file_name"].iloc[0]).size


def test_a_set_in_shards_is_balanced_again(tiny, packed, tmp_path):
    once = open_dataset(packed.out_dir)
    twice = balance(tiny, once, tmp_path / "twice")
    real = twice.table[twice.table["source_id"].isin(once.ids)].set_index("source_id")
    made = once.table["origin"] == "edited"
    for item in once.ids[:3] + once.table.index[made].tolist()[:3]:
        copy = twice.out_dir / real.loc[[item], "file_name"].iloc[0] if item in real.index else None
        if copy is not None and not copy.name.startswith("edit-"):
            assert Image.open(copy).tobytes() == once.image(item).tobytes()
    edits = [path for path in (twice.out_dir / "train").glob("*.png") if not path.name.startswith("edit-")]
    said = [provenance_of(Image.open(path)) for path in edits]
    assert sum(text.get("synthetic") == "true" for text in said) == int((once.table["split"][made] == "train").sum())


def test_the_report_follows_its_schema(packed, repository):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((repository / "docs" / "schemas" / "balance-report.json").read_text())
    jsonschema.validate(json.loads((packed.out_dir / "report.json").read_text()), schema)
    assert packed.report["shard_size"] == 20


def test_links_have_no_place_in_shards(tiny, faces, tmp_path):
    balancer = Balancer(tiny.TinyEditor(), target="smile", protected="skin", format="webdataset")
    with pytest.raises(ConfigError, match="originals='link' .* leaves pictures where they are, and webdataset shards"):
        balancer.run(faces, balancer.plan(faces, limit=2), tmp_path / "out", originals="link", show_progress=False)
