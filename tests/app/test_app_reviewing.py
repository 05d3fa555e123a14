"""The second tab without a page: pairs in an order, and decisions in ``review.csv``."""

from __future__ import annotations

import csv
import json

import pytest
import tiny_editor
from finished_run import write_run

from vlbias.app.places import checked_roots
from vlbias.app.reviewing import Selection, open_run
from vlbias.balance import Balancer
from vlbias.errors import DatasetError, UnknownNameError


@pytest.fixture
def desk(tmp_path):
    write_run(tmp_path / "out")
    return open_run("out", checked_roots([tmp_path]))


def rows(desk):
    with desk.decisions_path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_come_in_the_order_that_is_asked_for(desk):
    planned = desk.select(Selection())
    assert len(planned) == 58 and planned == desk.pairs
    assert desk.select(Selection(highest_first=True)) == planned[::-1]
    identities = [pair.scores["identity"] for pair in desk.select(Selection("identity"))]
    assert identities == sorted(identities) and len(set(identities)) > 1
    strengths = [abs(pair.strength) for pair in desk.select(Selection("strength", highest_first=True))]
    assert strengths == sorted(strengths, reverse=True)
    assert "others" not in desk.orders  # that score was not measured


def test_pairs_of_one_cell(desk):
    assert desk.cells == ["smile=0 & light", "smile=1 & dark"]
    found = desk.select(Selection(cell="smile=1 & dark"))
    assert len(found) == 34 and {pair.moved for pair in found} == {("light", "dark")}
    with pytest.raises(UnknownNameError, match="Unknown cell"):
        desk.select(Selection(cell="smile=2 & dark"))
    with pytest.raises(UnknownNameError, match="Unknown score"):
        desk.select(Selection("beauty"))


@pytest.mark.parametrize("change", [{"protected": None}, {"protected": []}, {"target": "</p>{{7*7}}"}])
def test_a_run_of_a_stranger_that_does_not_hold_together_is_a_sentence(desk, change):
    path = desk.files.out / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DatasetError, match="does not hold together|is not a report|lacks"):
        open_run("out", checked_roots([desk.files.out.parent]))


def test_both_pictures_are_shown(desk):
    donor, edit = desk.images(desk.pairs[0])
    assert donor.startswith("data:image/png") and edit.startswith("data:image/png") and donor != edit


def test_decisions_are_written_at_once_and_the_last_counts(desk):
    first, second = desk.pairs[:2]
    desk.decide(first, "reject", "anna", "a third ear")
    desk.decide(second, "accept", "anna")
    desk.decide(first, "accept", "anna")
    desk.decide(first, "reject", "ben")
    assert [(row["picture"], row["decision"], row["reviewer"], row["reason"]) for row in rows(desk)] == [
        (first.picture, "reject", "anna", "a third ear"),
        (second.picture, "accept", "anna", ""),
        (first.picture, "accept", "anna", ""),
        (first.picture, "reject", "ben", ""),
    ]
    assert desk.tally("anna") == {"accept": 2, "undecided": 56} and desk.tally("ben")["reject"] == 1
    assert desk.select(Selection(only="reject"), "ben") == [first]
    assert len(desk.select(Selection(only="undecided"), "anna")) == 56


def test_nobody_decides_without_a_name(desk):
    with pytest.raises(DatasetError, match="say who you are"):
        desk.decide(desk.pairs[0], "reject", " ")
    assert not desk.decisions_path.exists()


def test_an_edit_along_several_paths_has_the_strength_of_the_longest(desk, tmp_path):
    path = tmp_path / "out" / "metadata.csv"
    path.write_text(path.read_text().replace(",0.700,", ",0.700;-1.2,").replace(",-0.700,", ",-0.700;0.1,"))
    assert {-1.2, -0.7} & {pair.strength for pair in open_run("out", checked_roots([tmp_path])).pairs}


def test_what_is_no_finished_run_is_refused(desk, tmp_path):
    (tmp_path / "out" / "rejected.csv").unlink()
    with pytest.raises(DatasetError, match="has no rejected.csv"):
        open_run("out", checked_roots([tmp_path]))
    out = write_run(tmp_path / "bare")
    table = (out / "metadata.csv").read_text().splitlines()
    (out / "metadata.csv").write_text("\n".join(line for line in table if ",edited," not in line))
    with pytest.raises(DatasetError, match="nothing to review"):
        open_run("bare", checked_roots([tmp_path]))


def test_what_is_rejected_here_is_gone_from_the_run_that_is_made_again(tmp_path):
    faces = tiny_editor.make_faces(tmp_path / "faces", tiny_editor.CELLS)

    def made(review=None):
        balancer = Balancer(tiny_editor.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=7, seed=3)
        plan = balancer.plan(faces, limit=12)
        return balancer.run(faces, plan, tmp_path / "made", review=review, show_progress=False)

    made()
    seated = open_run("made", checked_roots([tmp_path]))
    refused = seated.select(Selection("identity"))[:2]
    for pair in refused:
        seated.decide(pair, "reject", "anna")
    made(review=seated.decisions_path)
    now = {(pair.picture, pair.donor) for pair in open_run("made", checked_roots([tmp_path])).pairs}
    assert not now & {(pair.picture, pair.donor) for pair in refused}
    assert len(now & {(pair.picture, pair.donor) for pair in seated.pairs}) == len(seated.pairs) - 2
