"""Originals that pass through the editor end where they began, and carry what editing leaves behind."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from vlbias import audit, load_dataset, report
from vlbias.balance import Balancer
from vlbias.errors import ConfigError, DatasetError
from vlbias.images import open_image
from vlbias.leak import Leak, LeakSettings
from vlbias.provenance import read_provenance

CELLS = {
    ("train", 0, "light"): 24,
    ("train", 0, "dark"): 11,
    ("train", 1, "light"): 11,
    ("train", 1, "dark"): 24,
    ("test", 0, "light"): 2,
    ("test", 1, "dark"): 2,
}
#: What this editor leaves behind: a checkerboard that the faces' own patterns hardly hold.
CHECKERS = 0.2 * (1 - 2 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)).float()


def telltale(tiny):
    """An editor that leaves a trace in all that it decodes."""

    class Telltale(tiny.TinyDiffAE):
        def decode(self, *args, **kwargs):
            return (super().decode(*args, **kwargs) + CHECKERS).clamp(-1, 1)

    editor = tiny.TinyEditor()
    editor.diffae = Telltale()
    return editor


@pytest.fixture(scope="module")
def many(tiny, tmp_path_factory):
    return tiny.make_faces(tmp_path_factory.mktemp("many"), CELLS)


def walking(tiny, **settings):
    """An editor that adds what an edit changed, so that originals are walked there and back."""
    return tiny.TinyEditor(method="difference", **settings)


def balancer(editor, **settings):
    settings = {"leak": LeakSettings(sizes=()), "chunk_size": 8, "round_trip": True} | settings
    return Balancer(editor, target="smile", protected="skin", **settings)


def run(editor, faces, out, *, options=None, **settings):
    made = balancer(editor, **settings)
    return made.run(faces, made.plan(faces), out, show_progress=False, **(options or {}))


@pytest.fixture(scope="module")
def passed(tiny, many, tmp_path_factory):
    return run(walking(tiny), many, tmp_path_factory.mktemp("run") / "out")


def hashes(out):
    files = sorted(path for path in out.rglob("*") if path.is_file() and ".state" not in path.parts)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_originals_of_balanced_splits_pass_and_the_others_stay(passed, many):
    table = passed.table.set_index("source_id")
    train = table[(table["split"] == "train") & (table["origin"] != "edited")]
    assert set(train["origin"]) == {"round-trip"} and len(train) == 70
    assert passed.report["round_trip"] | {"unet_evaluations": 0} == {
        "planned": 70,
        "passed": 70,
        "left_as_they_were": {},
        "unet_evaluations": 0,
    }
    test = table[table["split"] == "test"]
    assert set(test["origin"]) == {"real"}
    for item, name in test["file_name"].items():
        assert (passed.out_dir / name).read_bytes() == many.path(item).read_bytes()
    assert train["skin_tone"].notna().all()  # nothing was edited, so no label became untrue
    assert passed.report["counts_after"] == {"0": {"light": 24, "dark": 24}, "1": {"light": 24, "dark": 24}}


def test_they_end_where_they_began_and_say_where_they_were(passed, tiny, many):
    model = tiny.TinyDiffAE()
    rows = passed.table[passed.table["origin"] == "round-trip"]
    for row in rows.to_dict("records"):
        pictures = many.image(row["source_id"]), open_image(passed.out_dir / row["file_name"])
        x_0, x_back = map(tiny.to_tensor, pictures)
        # two walks of this editor undo each other, but for pixels that were white or black on the way
        assert (x_0 - x_back).abs().mean() < 0.003
        assert model.encode(x_back)[0, 0].sign() == model.encode(x_0)[0, 0].sign()
    text = read_provenance(passed.out_dir / rows.iloc[0]["file_name"])
    assert text["made_by"] == "vlbias balance: an original that passed through the editor"
    assert text["source"] == rows.iloc[0]["source_id"] and text["path"] == "skin_tone" and float(text["strength"]) != 0


def test_evaluations_are_counted_and_priced(tiny, many, passed):
    trips = passed.report["round_trip"]["unet_evaluations"]
    assert trips == 70 * 2 * 10  # an inversion of 4 and two decodes of 3, there and back
    edits = passed.report["unet_evaluations"] - trips
    assert passed.report["unet_evaluations_per_kept_image"] == pytest.approx(edits / 26, abs=0.01)
    with_trips, without = (balancer(walking(tiny), round_trip=on).plan(many) for on in (True, False))
    assert with_trips.cost.unet_evaluations - without.cost.unet_evaluations == trips


def test_shards_and_resumed_runs_give_the_same_bytes(tiny, many, passed, tmp_path):
    first = run(walking(tiny), many, tmp_path / "out", options={"shard": (1, 2)})
    assert not first.complete and first.report["chunks"] == 4 + 9
    second = run(walking(tiny), many, tmp_path / "out", options={"shard": (0, 2)})
    assert second.complete and hashes(tmp_path / "out") == hashes(passed.out_dir)


def test_a_trace_in_all_that_is_decoded_no_longer_tells(tiny, many, tmp_path):
    before = run(telltale(tiny), many, tmp_path / "before", round_trip=False)
    after = run(telltale(tiny), many, tmp_path / "after")
    told = [Leak.from_dict(result.report["leak"]).readings[0].edits for result in (before, after)]
    assert told[0].value > 0.9 and "--round-trip" in before.summary()
    assert told[1].low < 0.5 < told[1].high and "warning: low-level" not in after.summary()


def test_faces_that_do_not_come_back_stay_as_they_are(tiny, many, tmp_path):
    class Drifting(tiny.TinyEditor):
        """Every walk ends at somebody else, whichever way it goes."""

        def walk(self, z_sem, strengths):
            z = super().walk(z_sem, strengths)
            z[:, 5] += 0.25 * torch.as_tensor(strengths["skin_tone"]).abs()
            return z

    result = run(Drifting(method="difference"), many, tmp_path / "out")
    left = result.report["round_trip"]["left_as_they_were"]
    assert set(left) == {"identity_lost"} and 10 < left["identity_lost"] < 70
    real = result.table[(result.table["origin"] == "real") & (result.table["split"] == "train")]
    assert len(real) == sum(left.values())
    for row in real.to_dict("records"):
        assert (result.out_dir / row["file_name"]).read_bytes() == many.path(row["source_id"]).read_bytes()


def test_it_is_said_on_the_card_and_the_page(passed):
    assert "70 of 70 originals passed through the editor" in (passed.out_dir / "README.md").read_text()
    page = report.write(passed.out_dir).read_text()
    assert "copy; 70 of 70 passed through the editor" in page and "--round-trip" in page


def test_they_are_nothing_to_test_on(passed):
    with pytest.raises(DatasetError, match="images that an editor made or changed"):
        faces = load_dataset("folder", passed.out_dir)
        audit.compare(faces, faces, target="smile", protected="skin", test=faces.split("train"))


def test_settings_that_contradict_it_are_refused(tiny, many, tmp_path):
    with pytest.raises(ConfigError, match="`round_trip` makes originals like edits of originals"):
        balancer(tiny.TinyEditor(), source="prior")
    with pytest.raises(ConfigError, match="originals='omit' leaves them out"):
        run(tiny.TinyEditor(), many, tmp_path / "out", options={"originals": "omit"})


def test_at_the_editors_size_they_are_written_like_its_edits(tiny, many, tmp_path):
    result = run(tiny.TinyEditor(), many, tmp_path / "out", size="editor", options={"originals": "resize"})
    assert {open_image(result.out_dir / name).size for name in result.table["file_name"]} == {(8, 8)}
    assert json.loads((result.out_dir / "report.json").read_text())["round_trip"]["passed"] == 70
