"""People refuse edits: those leave, others take their places, and everything else stays the same to the byte."""

from __future__ import annotations

import hashlib
import shutil

import pytest
from typer.testing import CliRunner

from vlbias import report
from vlbias.balance import Balancer, Checks, Decision, Review, add_decisions, verify_run
from vlbias.balance.review import decisions_of
from vlbias.balance.run_folder import RunFolder
from vlbias.cli import app
from vlbias.data import open_dataset
from vlbias.errors import ConfigError, DatasetError, OutputError


def tree(out):
    """Every picture and table but the reviewers' own file, as path -> hash."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".state" not in path.parts and "review.csv" not in path.name
    }


def run(tiny, faces, out, *, review=None, shard=None, originals="copy", **options):
    settings = {"chunk_size": 7, "seed": 3} | options
    balancer = Balancer(tiny.TinyEditor(leak=0.12), target="smile", protected="skin", **settings)
    plan = balancer.plan(faces, limit=20 if settings.get("to") != "mean" else None)
    return balancer.run(faces, plan, out, review=review, shard=shard, originals=originals, show_progress=False)


def edits(result):
    table = result.table[result.table["origin"] == "edited"]
    return table.set_index("file_name")["source_id"].to_dict()


def refuse(out, pictures, reviewer="anna", decision="reject"):
    """Add one decision on each of some (picture, donor); the file."""
    path = out / "review.csv"
    add_decisions(path, [Decision(*pair, decision, reviewer, "a third ear") for pair in pictures])
    return path


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_shards_are_reviewed_like_loose_pictures(tiny, faces, finished, tmp_path, kind):
    loose, pairs = finished
    options = {"format": kind, "shard_size": 16}
    packed = run(tiny, faces, tmp_path / "packed", **options)
    for result, more in ((loose, {}), (packed, options)):
        run(tiny, faces, result.out_dir, review=refuse(result.out_dir, pairs[2:5]), **more)
    ours, theirs = open_dataset(packed.out_dir), open_dataset(loose.out_dir)
    assert set(ours.ids) == set(theirs.ids) and not (packed.out_dir / "train").exists()
    assert all(ours.file(item).data == theirs.file(item).data for item in ours.ids)
    assert verify_run(packed.out_dir) == [] and "edit-" in str(ours.ids)


@pytest.fixture
def finished(tiny, faces, tmp_path):
    result = run(tiny, faces, tmp_path / "out")
    return result, list(edits(result).items())


def test_refused_edits_leave_and_others_come(tiny, faces, finished):
    before, pairs = finished
    out, digests = before.out_dir, tree(before.out_dir)
    after = run(tiny, faces, out, review=refuse(out, pairs[2:5]))
    now = edits(after)
    assert [name for name, donor in pairs if now.get(name) != donor] == [name for name, _ in pairs[2:5]]
    told = after.rejected[after.rejected["reason"] == "refused_by_person"]
    assert told["donor"].tolist() == [donor for _, donor in pairs[2:5]] and set(told["detail"]) == {"a third ear"}
    assert after.report["edits"]["by_reason"]["refused_by_person"] == 3
    assert after.report["review"] == {
        "rule": "any", "reviewers": 1, "decisions": 3, "refused": 3, "replaced": 3, "not_there": 0,
    }  # fmt: skip
    assert after.report["counts_after"] == before.report["counts_after"] and verify_run(out) == []
    assert "refused by a person: 3, 3 of them replaced" in after.summary()
    assert "3 were refused" in (out / "README.md").read_text()
    assert "1 person, rule any: 3 refused" in report.write(out).read_text()
    same = {name for name in digests if name.endswith(".png")} - {name for name, _ in pairs[2:5]}
    assert {name: tree(out)[name] for name in same} == {name: digests[name] for name in same}
    assert set(after.table["file_name"]) == {name for name in tree(out) if name.endswith(".png")}


def test_a_second_review_goes_on_and_a_new_run_comes_to_the_same(tiny, faces, finished, tmp_path):
    before, pairs = finished
    out = before.out_dir
    first = run(tiny, faces, out, review=refuse(out, [pairs[8], pairs[2]]))
    again = [(name, edits(first)[name]) for name in (pairs[2][0], pairs[0][0])]
    second = run(tiny, faces, out, review=refuse(out, again, "ben"))
    assert second.report["review"]["refused"] == 4 and second.report["review"]["reviewers"] == 2
    assert edits(second)[pairs[8][0]] == edits(first)[pairs[8][0]]  # what nobody refused anew stays
    assert edits(second)[pairs[2][0]] not in (pairs[2][1], again[0][1])
    expected = tree(out)
    assert tree(run(tiny, faces, tmp_path / "new", review=out / "review.csv").out_dir) == expected
    # without a review it stays as it is, and the same review does nothing
    assert run(tiny, faces, out).report == second.report == run(tiny, faces, out, review=out / "review.csv").report
    assert tree(out) == expected and verify_run(out) == []


def test_who_takes_all_refusals_back_has_the_first_run_again(tiny, faces, finished):
    before, pairs = finished
    out, expected = before.out_dir, tree(before.out_dir)
    refuse(out, pairs[2:4])
    assert tree(run(tiny, faces, out, review=out / "review.csv").out_dir) != expected
    back = run(tiny, faces, out, review=refuse(out, pairs[2:4], decision="accept"))
    changed = {name for name, digest in tree(out).items() if digest != expected[name]}
    assert changed == {"README.md", "report.html", "report.json"} and back.report["review"]["refused"] == 0


@pytest.mark.parametrize("moment", [0, 2, 10, 24, 28])
def test_killed_in_a_review_and_resumed(tiny, faces, finished, tmp_path, monkeypatch, moment):
    before, pairs = finished
    out, other = before.out_dir, tmp_path / "other"
    shutil.copytree(out, other)
    review = refuse(out, [pairs[9], *pairs[2:4]])
    expected = tree(run(tiny, faces, out, review=review).out_dir)

    class Killed(BaseException):
        pass

    left = [moment]

    def dying(name):
        whole = getattr(RunFolder, name)

        def call(self, *args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(RunFolder, name, call)

    for name in ("put", "place", "commit_chunk", "open_again", "clear_after_review", "finish"):
        dying(name)
    with pytest.raises(Killed):
        run(tiny, faces, other, review=review)
    monkeypatch.undo()
    if moment:  # the review was taken up, so the run goes on with it, asked or not
        assert tree(run(tiny, faces, other).out_dir) == expected
    assert tree(run(tiny, faces, other, review=review).out_dir) == expected and verify_run(other) == []


def test_a_review_that_was_killed_and_taken_back_leaves_nothing(tiny, faces, tmp_path, monkeypatch):
    out, options = tmp_path / "out", {"copies": 0.3}
    before = run(tiny, faces, out, **options)
    expected = tree(out)
    pairs = list(edits(before).items())
    review = refuse(out, pairs)  # all, so that copies take places of edits
    (out / "train" / "mine+notes.txt").write_text("not the run's")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "clear_after_review", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        run(tiny, faces, out, review=review, **options)
    assert {name for name in tree(out) if "+copy" in name} - set(expected)
    run(tiny, faces, out, review=refuse(out, pairs, decision="accept"), **options)
    assert tree(out).keys() - expected.keys() == {"train/mine+notes.txt"} and expected.keys() <= tree(out).keys()


def test_shards_review_together(tiny, faces, finished, tmp_path):
    before, pairs = finished
    out, other = before.out_dir, tmp_path / "other"
    shutil.copytree(out, other)
    review = refuse(out, [pairs[2], pairs[9], pairs[16]])
    expected = tree(run(tiny, faces, out, review=review).out_dir)
    first = run(tiny, faces, other, review=review, shard=(0, 2))
    assert not first.complete and first.report == {"chunks": 3, "chunks_done": 2}
    assert run(tiny, faces, other, review=review, shard=(1, 2)).complete and tree(other) == expected


def test_votes_are_counted_by_rule_and_the_last_one_of_each_counts():
    picture = ("train/edit-000001.png", "7")

    def refused(*votes, rule="any"):
        return bool(Review([Decision(*picture, word, who) for who, word in votes], rule).refused())

    assert refused(("a", "accept"), ("b", "reject")) and not refused(("a", "reject"), ("a", "accept"))
    assert refused(("a", "accept"), ("a", "reject"), rule="majority")
    assert not refused(("a", "accept"), ("b", "reject"), rule="majority")
    assert refused(("a", "accept"), ("b", "reject"), ("c", "reject"), rule="majority")
    with pytest.raises(ConfigError, match="`rule` of Review must be one of"):
        Review([], rule="most")


def test_refusals_stand_in_the_order_in_which_they_came_to_be():
    rows = [("1", "a", "reject"), ("2", "a", "reject"), ("1", "a", "accept"), ("1", "b", "reject")]
    found = Review([Decision(f"train/edit-00000{n}.png", n, word, who) for n, who, word in rows]).refused()
    assert [donor for _, donor in found] == ["2", "1"]


def test_donors_that_an_edit_replaced_come_back(tiny, faces, tmp_path):
    before = run(tiny, faces, tmp_path / "out", to="mean")
    pairs = list(edits(before).items())
    out = before.out_dir
    assert pairs[0][1] not in before.table["source_id"][before.table["origin"] == "real"].tolist()
    after = run(tiny, faces, out, to="mean", review=refuse(out, pairs[:2]))
    real = after.table["source_id"][after.table["origin"] == "real"].tolist()
    assert pairs[0][1] in real and not set(edits(after).values()) & set(real)
    assert set(after.table["file_name"]) == {name for name in tree(out) if name.endswith(".png")}
    assert verify_run(out) == []


def test_faces_from_the_prior_are_refused_with_their_donors(tiny, faces, tmp_path):
    checks = Checks(sampled=-10, identity=0)
    before = run(tiny, faces, tmp_path / "out", source="prior", checks=checks)
    pairs, out = list(edits(before).items()), tmp_path / "out"
    donor = out / "donors" / pairs[0][0].removeprefix("train/")
    seen = donor.read_bytes()
    after = run(tiny, faces, out, source="prior", checks=checks, review=refuse(out, pairs[:2]))
    assert after.report["review"]["replaced"] == 2 and donor.read_bytes() != seen
    assert len(set(edits(after).values())) == len(pairs) and verify_run(out) == []
    new = run(tiny, faces, tmp_path / "new", source="prior", checks=checks, review=out / "review.csv")
    assert tree(new.out_dir) == tree(out)


def test_a_place_without_another_donor_stays_empty_and_its_picture_is_gone(tiny, faces, tmp_path):
    out, review = tmp_path / "out", None
    for _ in range(12):  # refuse whoever stands in one place, until nobody is left
        result = run(tiny, faces, out, review=review)
        mine = [pair for pair in edits(result).items() if pair[0] == "train/edit-000000.png"]
        if not mine:
            break
        review = refuse(out, mine)
    assert not mine and not (out / "train/edit-000000.png").exists()
    assert result.report["review"]["replaced"] == 0 < result.report["review"]["refused"]
    assert result.report["edits"]["unfilled"] > 0 and verify_run(out) == []


def test_a_pseudonymised_run_is_reviewed_with_its_names_alone(tiny, faces, tmp_path):
    out, names = tmp_path / "out", tmp_path / "names.json"
    options = {"pseudonymise": True, "pseudonyms": names}
    pairs = list(edits(run(tiny, faces, out, **options)).items())
    review = refuse(out, pairs[:2])
    with pytest.raises(ConfigError, match="key is forgotten.*--pseudonyms FILE"):
        run(tiny, faces, out, review=review, pseudonymise=True)
    other = tmp_path / "other.json"
    with pytest.raises(ConfigError, match="other names than"):
        run(tiny, faces, out, review=review, pseudonymise=True, pseudonyms=other)
    after = run(tiny, faces, out, review=review, **options)
    assert after.report["review"]["replaced"] == 2 and verify_run(out) == []
    assert not (out / ".state" / "pseudonyms.json").exists()
    assert run(tiny, faces, out, pseudonymise=True).report == after.report


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lacks the column 'picture'"),
        ("picture,donor,decision,reviewer,picture\n", "the column 'picture' twice"),
        ("picture,donor,decision,reviewer,when\n", "a column 'when'"),
        ("picture;donor;decision;reviewer\n", "lacks the column 'picture'.*separated by commas"),
        ("HEAD a.png,1,maybe,anna\n", "line 2: `decision` must be accept or reject; got 'maybe'"),
        ("HEAD a.png,1,reject,\n", "line 2: `reviewer` is empty"),
        ("HEAD a.png,1,reject\n", "line 2: 4 cells are expected, and it has 3"),
        ("HEAD a.png,1,reject,anna\na.png,1,accept,Anna\n", "reviewers 'anna' and 'Anna'"),
        ('HEAD "a.png,1,reject,anna\n', "cannot be read as a table"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
        ("HEAD train/edit-000999.png,1,reject,anna\n", "'train/edit-000999.png' is not an edit of this run"),
        ("HEAD train/0001.png,0001,reject,anna\n", "'train/0001.png' is not an edit of this run"),
        ("HEAD ../edit-000001.png,0001,reject,anna\n", "is not an edit of this run"),
        ("HEAD train/edit-000001.png,nobody,reject,anna\n", "not an edit of 'nobody'.*source_id"),
    ],
)
def test_what_is_no_review_gives_a_sentence_and_changes_nothing(tiny, faces, finished, tmp_path, text, said):
    before, _ = finished
    path, expected = tmp_path / "review.csv", tree(before.out_dir)
    head = "picture,donor,decision,reviewer\n"
    path.write_bytes(text if isinstance(text, bytes) else text.replace("HEAD ", head).encode())
    with pytest.raises(DatasetError, match=said):
        run(tiny, faces, before.out_dir, review=path)
    assert tree(before.out_dir) == expected and verify_run(before.out_dir) == []


def test_decisions_are_added_in_their_order_and_never_through_a_link(tmp_path):
    path = tmp_path / "review.csv"
    first = Decision("train/edit-000001.png", "7", "reject", "anna", 'two ears,\n "one" too many')
    add_decisions(path, [first])
    add_decisions(path, [Decision("train/edit-000001.png", "7", "accept", "anna")])
    add_decisions(path, [Decision("train/edit-000001.png", "7", "accept", "anna")])  # the same command again
    assert [one.decision for one in decisions_of(path)] == ["reject", "accept"]
    assert decisions_of(path)[0].reason == 'two ears, "one" too many'
    with pytest.raises(DatasetError, match="Spell each alike"):
        add_decisions(path, [Decision("train/edit-000001.png", "7", "accept", "ANNA")])
    (tmp_path / "link.csv").symlink_to(path)
    with pytest.raises(OutputError, match="is a link"):
        add_decisions(tmp_path / "link.csv", [first])
    with pytest.raises(DatasetError, match="does not exist"):
        decisions_of(tmp_path / "none.csv")


def test_a_changed_folder_is_not_reviewed(tiny, faces, finished):
    before, pairs = finished
    (before.out_dir / pairs[5][0]).write_bytes(b"")
    with pytest.raises(OutputError, match="has changed"):
        run(tiny, faces, before.out_dir, review=refuse(before.out_dir, pairs[:1]))


def test_the_command_takes_the_review_of_the_folder_or_another(tmp_path):
    missing = CliRunner().invoke(
        app, ["balance", "synthfaces:30", str(tmp_path / "out"), "--target", "smile", "--protected", "skin", "--review"]
    )
    assert missing.exit_code == 1 and f"{tmp_path / 'out'}/review.csv does not exist" in str(missing.exception)
    named = CliRunner().invoke(
        app, ["balance", "synthfaces:30", str(tmp_path / "out"), "--review", "mine.csv", "--target", "smile",
              "--protected", "skin", "--review-rule", "majority"]
    )  # fmt: skip
    assert named.exit_code == 1 and "mine.csv does not exist" in str(named.exception)


def test_a_command_refuses_edits_by_their_names(finished):
    before, pairs = finished
    out, name = str(before.out_dir), pairs[0][0]
    told = CliRunner().invoke(app, ["review", out, name, pairs[1][0], "--reviewer", "ben", "--reason", "a third ear"])
    assert told.exit_code == 0 and "2 refused" in told.output
    assert CliRunner().invoke(app, ["review", out, name, "--accept"]).exit_code == 0
    rows = decisions_of(before.out_dir / "review.csv")
    assert [(row.picture, row.donor, row.decision, row.reviewer) for row in rows] == [
        (*pairs[0], "reject", "ben"), (*pairs[1], "reject", "ben"), (*pairs[0], "accept", "me"),
    ]  # fmt: skip
    wrong = CliRunner().invoke(app, ["review", out, "train/edit-999.png"])
    assert wrong.exit_code == 1 and f"Unknown edit 'train/edit-999.png' for {out}" in str(wrong.exception)
    assert "where names are such as train/edit-0000" in str(wrong.exception)
    empty = CliRunner().invoke(app, ["review", f"{out}/train", name])
    assert empty.exit_code == 1 and "is not the folder of a finished balance run" in str(empty.exception)
