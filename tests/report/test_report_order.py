"""The page of a run: its order, its pairs in several orders, and its size."""

from __future__ import annotations

import re
import runpy
import time

import numpy as np
import pandas as pd
import pytest
from finished_run import audit_result, write_run
from PIL import Image

from vlbias import report
from vlbias.pages.folder import RunFiles
from vlbias.pages.page import data_uri
from vlbias.pages.run_page import MAX_PAIRS, run_values
from vlbias.provenance import examine_provenance


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def test_a_reader_meets_the_question_first_and_the_remake_last(run):
    text = report.write(run, audit=audit_result(bootstrap=20, num_test=80)).read_text("utf-8")
    found = re.findall(r'<h2 id="([a-z]+)"', text)
    wanted = ["asked", "counts", "edits", "rejected", "classifiers", "scorers", "cost", "limits", "provenance"]
    assert [name for name in found if name in wanted] == wanted
    assert re.findall(r'<a href="#([a-z]+)"', text) == found


def test_pairs_can_be_put_in_order_by_their_scores(run):
    files = RunFiles(run)
    edited = files.edited.set_index("file_name")
    for move in run_values(files, title=None, command=None)["edits"]["moves"]:
        orders = [pair["orders"] for pair in move["pairs"]]
        for name in ("margin", "strength", "identity"):
            assert sorted(order[name] for order in orders) == list(range(1, len(orders) + 1))
    part = edited[edited["smile"].astype(str) == "0"]
    assert len(part) == 24
    shown = run_values(files, title=None, command=None)["edits"]["moves"][0]["pairs"]
    strongest = min(shown, key=lambda pair: pair["orders"]["strength"])
    assert "−1.16" in strongest["caption"]  # the last edit of the list is the strongest
    text = report.write(run).read_text("utf-8")
    for name in ("margin", "strength", "identity"):
        assert f"main:has(#by-{name}:checked) .pair {{ order: var(--{name}, 0); }}" in text
        assert f'type="radio" name="order" id="by-{name}"' in text and f"--{name}:1;" in text


def test_a_rejected_try_stands_beside_an_accepted_edit(run):
    files = RunFiles(run)
    examples = run_values(files, title=None, command=None)["rejected"]["examples"]
    assert len(examples) == 12
    for example in examples:
        start = example["caption"].split(":")[0]
        assert example["accepted"]["caption"].startswith(start) and example["accepted"]["edit"].startswith("data:")


def test_the_example_lays_pairs_out_and_the_sheet_says_that_it_is_made(run, repository, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pairs_sheet.py", str(run), str(tmp_path / "sheet.png"), "6"])
    runpy.run_path(str(repository / "examples" / "pairs_sheet.py"), run_name="__main__")
    assert Image.open(tmp_path / "sheet.png").size > (100, 20)
    assert examine_provenance(tmp_path / "sheet.png").said["synthetic"] == "true"


def test_the_page_of_ten_thousand_edits_is_small(tmp_path, monkeypatch):
    out = write_run(tmp_path)
    rng = np.random.default_rng(0)
    table = pd.read_csv(out / "metadata.csv")
    edits = table[table["origin"] == "edited"].sample(10_000, replace=True, random_state=0).reset_index(drop=True)
    edits["file_name"] = [f"train/edit-{slot:06d}.png" for slot in range(len(edits))]
    edits["skin"], edits["smile"] = rng.integers(0, 6, len(edits)), rng.integers(0, 4, len(edits))
    pd.concat([table[table["origin"] != "edited"], edits]).to_csv(out / "metadata.csv", index=False)
    pictures = iter(range(10**6))

    def photograph(*_):
        # broad light, features of some pixels, and the grain of a sensor at the size that is embedded
        rng = np.random.default_rng(next(pictures))
        layers = [Image.fromarray(rng.integers(60, 200, (edge, edge, 3), dtype=np.uint8)) for edge in (4, 40)]
        broad, fine = (np.asarray(layer.resize((160, 160), Image.Resampling.BICUBIC), float) for layer in layers)
        pixels = 0.75 * broad + 0.25 * fine + rng.normal(0, 4, (160, 160, 3))
        return data_uri(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))

    monkeypatch.setattr(RunFiles, "image", photograph)
    monkeypatch.setattr(RunFiles, "donor_image", photograph)
    started = time.monotonic()
    page = report.write(out)
    text = page.read_text("utf-8")
    assert 50 < text.count('class="pair"') <= MAX_PAIRS + 24
    assert "evenly spaced" in text
    print(f"{page.stat().st_size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    assert page.stat().st_size <= 8_000_000
