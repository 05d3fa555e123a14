"""Runs whose folders say nothing of their donors' names, of this disk, or of who took the pictures."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, PngImagePlugin
from typer.testing import CliRunner

from vlbias import report
from vlbias.balance import Balancer
from vlbias.cli import app
from vlbias.data import load_dataset
from vlbias.errors import ConfigError, OutputError, PlanError
from vlbias.provenance import read_provenance

PRIVATE = ("Jane Doe", "SN-4711", "secret words", "trailing bytes")


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory):
    """A folder of named people whose files say who took them where, two of them damaged or missing."""
    root = tmp_path_factory.mktemp("home-of-jane") / "holiday"
    faces = tiny.make_faces(root, tiny.CELLS)
    rows = []
    for number, (item, row) in enumerate(faces.table.iterrows()):
        suffix = ".jpg" if number % 5 == 0 else ".png"
        name = f"{'AB'[number % 2]}/visitor_{number:03d}_Mustermann{suffix}"
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(_said(Image.open(faces.path(item)), suffix))
        faces.path(item).unlink()
        rows.append({"file_name": name, "split": row["split"], "smile": row["smile"], "skin": row["skin"]})
    broken = root / rows[1]["file_name"]
    broken.write_bytes(broken.read_bytes()[:60])
    rows.append({"file_name": "A/gone_Mustermann.png", "split": "train", "smile": 1, "skin": "dark"})
    (root / "B" / "extra_Mustermann.png").write_bytes((root / rows[2]["file_name"]).read_bytes())
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


def _said(picture: Image.Image, suffix: str) -> bytes:
    exif, text, buffer = Image.Exif(), PngImagePlugin.PngInfo(), io.BytesIO()
    exif[ExifTags.Base.Artist] = "Jane Doe"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.BodySerialNumber] = "SN-4711"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    text.add_text("Comment", "secret words")
    # a picture that calls itself made, with words of its owner beside it
    text.add_text("synthetic", "true")
    text.add_text("source", "visitor_of_Mustermann.png")
    text.add_text("Author", "Jane Doe")
    if suffix == ".jpg":
        picture.save(buffer, "JPEG", exif=exif, comment=b"secret words", quality=98)
    else:
        picture.save(buffer, "PNG", exif=exif, pnginfo=text)
    return buffer.getvalue() + b"trailing bytes"


def balance(tiny, root, out, *, originals="copy", limit=6, **options):
    faces = load_dataset("folder", root)
    settings = {"chunk_size": 3} | options
    balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", **settings)
    result = balancer.run(faces, balancer.plan(faces, limit=limit), out, originals=originals, show_progress=False)
    report.write(out)
    return result


def everything(out: Path) -> dict[str, str]:
    """What a folder says: each file's name, bytes and, where they are packed, values."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        found[name] = name
        if path.is_symlink():
            found[name] += str(path.readlink())
        elif path.is_file():
            found[name] += path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                found[name] += pq.read_table(path).to_pandas().to_csv() + str(pq.read_schema(path).metadata)
            if path.suffix in (".png", ".jpg"):
                picture = Image.open(path)
                found[name] += f"{picture.info} {dict(picture.getexif())} {picture.getexif().get_ifd(0x8825)}"
    return found


def told(out: Path, *words: str) -> list[tuple[str, str]]:
    """(file, word) for each of the words that a folder says."""
    return [(name, word) for name, text in everything(out).items() for word in words if word in text]


NEWER = [{"format": "webdataset"}, {"format": "parquet"}, {"leak": "low-level"}]


@pytest.mark.parametrize("options", [{}, {"round_trip": True}, {"size": "editor", "originals": "resize"}, *NEWER])
def test_a_pseudonymous_run_names_nobody(tiny, photos, tmp_path, options):
    out = tmp_path / "out"
    result = balance(tiny, photos, out, pseudonymise=True, **options)
    assert told(out, "Mustermann", "visitor_", str(photos), str(photos.parent), *PRIVATE) == []
    table = result.table
    assert set(table.loc[table["origin"] == "edited", "source_id"]) <= set(table["source_id"])
    assert all(re.fullmatch(r"p[0-9a-f]{16}", name) for name in table["source_id"])
    edits = table[table["origin"] == "edited"]
    assert len(edits) == result.report["edits"]["kept"] > 0
    for _, row in edits.iterrows() if "format" not in options else ():
        assert read_provenance(out / row["file_name"])["source"] == row["source_id"]
    # what was damaged or missing is still reported, under other names
    assert {problem["code"] for problem in result.report["left_out"]} == {"missing_image", "no_label"}
    assert len(result.report["unreadable"]) == 1 and result.rejected["detail"].str.contains("p[0-9a-f]{16}").any()
    assert not list(out.glob(".state/**/pseudonyms.json"))
    (out / ".state" / "pseudonyms.json").write_text("{}")  # of a run that was killed at the very end
    again = balance(tiny, photos, out, pseudonymise=True, **options)
    assert not list(out.glob(".state/**/pseudonyms.json"))
    assert again.table.equals(table)


def test_names_are_those_of_the_key(tiny, photos, tmp_path):
    names = tmp_path / "private" / "names.json"
    one = balance(tiny, photos, tmp_path / "one", pseudonymise=True, pseudonyms=names)
    kept = json.loads(names.read_text())
    assert names.stat().st_mode & 0o077 == 0 and set(one.table["source_id"]) <= set(kept["names"])
    assert all("Mustermann" in name for name in kept["names"].values())
    two = balance(tiny, photos, tmp_path / "two", pseudonymise=True, pseudonyms=names)
    assert two.table.equals(one.table) and json.loads(names.read_text()) == kept
    other = balance(tiny, photos, tmp_path / "other", pseudonymise=True)
    assert not set(other.table["source_id"]) & set(one.table["source_id"])


def test_a_killed_run_goes_on_under_the_same_names(tiny, photos, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    names = tmp_path / "names.json"
    with monkeypatch.context() as patch:
        patch.setattr("vlbias.balance.run.assemble", killed)
        with pytest.raises(KeyboardInterrupt):
            balance(tiny, photos, tmp_path / "out", pseudonymise=True, pseudonyms=names)
    shutil.copytree(tmp_path / "out", tmp_path / "stranger")
    with pytest.raises(OutputError, match="begun with another key"):
        values = json.loads(names.read_text()) | {"key": "00" * 32}
        (tmp_path / "other.json").write_text(json.dumps(values))
        balance(tiny, photos, tmp_path / "stranger", pseudonymise=True, pseudonyms=tmp_path / "other.json")
    whole = balance(tiny, photos, tmp_path / "whole", pseudonymise=True, pseudonyms=names)
    assert balance(tiny, photos, tmp_path / "out", pseudonymise=True).table.equals(whole.table)


def test_what_would_give_names_away_is_refused(tiny, photos, tmp_path):
    for originals in ("exact", "link"):
        with pytest.raises(ConfigError, match=f"originals='{originals}' shows"):
            balance(tiny, photos, tmp_path / "out", pseudonymise=True, originals=originals)
    with pytest.raises(ConfigError, match="which is to be passed on"):
        balance(tiny, photos, tmp_path / "out", pseudonymise=True, pseudonyms=tmp_path / "out" / "names.json")
    with pytest.raises(ConfigError, match="give that too"):
        balance(tiny, photos, tmp_path / "out", pseudonyms=tmp_path / "names.json")
    with pytest.raises(ConfigError, match="has no pseudonyms"):
        (tmp_path / "mine.json").write_text("{}")
        balance(tiny, photos, tmp_path / "out", pseudonymise=True, pseudonyms=tmp_path / "mine.json")
    table = pd.read_csv(photos / "metadata.csv")
    shutil.copytree(photos, tmp_path / "copy")
    table.assign(photograph=table["file_name"].str.split("/").str[1]).to_csv(
        tmp_path / "copy" / "metadata.csv", index=False
    )
    with pytest.raises(PlanError, match="'photograph' says what the files are called"):
        balance(tiny, tmp_path / "copy", tmp_path / "out2", pseudonymise=True)


@pytest.mark.parametrize("originals", ["copy", "exact", "link", "omit"])
def test_no_run_says_where_it_was_made(tiny, photos, tmp_path, originals):
    out = tmp_path / "out"
    result = balance(tiny, photos, out, originals=originals)
    assert told(out, str(photos), str(tmp_path)) == []
    if originals in ("copy", "omit"):
        assert told(out, *PRIVATE) == []
    if originals != "omit":
        assert result.rejected["detail"].str.contains("B/visitor_001_Mustermann.png").any()
    if originals == "link":
        links = [path for path in out.rglob("*") if path.is_symlink()]
        assert links and all(not path.readlink().is_absolute() and path.is_file() for path in links)
        shutil.rmtree(out / ".state" / "chunks")
        assert balance(tiny, photos, out, originals="link").complete


def test_the_command_keeps_names_where_it_is_told(tiny, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("vlbias.cli.balance.open_editor", lambda name: tiny.TinyEditor(leak=0.12))
    out, names = tmp_path / "out", tmp_path / "names.json"
    words = ["balance", str(photos), str(out), "--target", "smile", "--protected", "skin", "--limit", "4"]
    refused = CliRunner().invoke(app, [*words, "--pseudonyms", str(names)])
    assert refused.exit_code == 1 and "give that too (--pseudonymise)" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--pseudonymise", "--pseudonyms", str(names)])
    assert done.exit_code == 0, done.output
    kept = json.loads(names.read_text())["names"]
    table = pd.read_csv(out / "metadata.csv")
    assert set(table["source_id"]) <= set(kept) and told(out, "Mustermann", str(photos), *PRIVATE) == []
    assert "other names here" in (out / "README.md").read_text()
