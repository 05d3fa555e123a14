"""The pages: everything inside, every number right, nothing said that was not measured."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from finished_run import audit_result, write_run
from PIL import Image

from vlbias import report
from vlbias.audit import Composition
from vlbias.errors import CheckpointError, ConfigError, DatasetError, OutputError
from vlbias.pages.folder import RunFiles, evenly_spaced
from vlbias.pages.page import data_uri, number, percent, signed
from vlbias.pages.plots import Estimate, counts_plot, estimates_plot

VOID = {"meta", "img", "br", "path", "rect", "circle", "use", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads a page, checks that tags nest, and keeps what the tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.images, self.ids, self.texts, self.alts = [], [], [], [], [], []
        self.feed(text)
        assert self.open == [], f"tags left open: {self.open}"
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if tag == "a" else []
        if tag == "img":
            self.images.append(values["src"])
            self.alts.append(values.get("alt"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = write_run(tmp_path_factory.mktemp("run"))
    audit = audit_result(bootstrap=50, num_test=200)
    page = report.write(out, audit=audit, command="vlbias demo out/demo")
    return out, audit, page.read_text("utf-8")


def test_the_page_is_self_contained_and_well_formed(run):
    _, _, text = run
    page = Page(text)
    assert not re.search(r"<script|<link|@import|https?://(?!www\.w3\.org)", text)
    assert not re.findall(r"url\((?!#)", text)
    assert all(source.startswith("data:image/") for source in page.images)
    assert all(page.alts), "every picture has a text"
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert "#0102" not in text, "a stand-in colour was left in a plot"


def test_the_page_says_what_was_measured(run):
    _, audit, text = run
    page = Page(text)
    summary = audit.summary
    for name in ("baseline", "balanced", "oracle"):
        for metric in ("accuracy", "equalized_odds_difference", "worst_cell_accuracy"):
            assert number(summary[name][metric]["mean"]) in page.text
    assert "58 of 60 planned edits" in page.text
    assert "2 places stayed empty" in page.text
    assert "vlbias demo out/demo" in page.text
    for reason in ("target_changed", "identity_lost", "protected_not_reached", "no_donor_left"):
        assert reason in page.text
    assert "dark → light, strength −0.70" in page.text
    assert "light → dark, strength +0.70" in page.text
    for word in ("debiased", "solved", "removes bias", "None", "nan"):
        assert not re.search(rf"\b{word}\b", page.text), word


def test_report_json_holds_the_promised_keys_and_keeps_what_the_run_wrote(run):
    out, audit, _ = run
    values = json.loads((out / "report.json").read_text())
    assert values["counts_before"]["1"]["dark"] == 4 and values["counts_after"]["1"]["dark"] == 38
    assert {"planned", "kept", "rejected"} <= set(values["edits"])
    assert values["unet_evaluations_per_kept_image"] == 45.75
    for name in ("baseline", "balanced", "oracle"):
        for key in (
            "accuracy",
            "accuracy_gap",
            "equal_opportunity_difference",
            "equalized_odds_difference",
            "worst_cell_accuracy",
        ):
            assert values["classifiers"][name][key] == pytest.approx(audit.summary[name][key]["mean"], abs=1e-6)
    assert values["editor"] == "synthfaces-64"


def test_writing_again_gives_the_same_bytes_and_needs_no_audit(tmp_path):
    out = write_run(tmp_path)
    first = report.write(out).read_bytes()
    numbers = (out / "report.json").read_bytes()
    assert report.write(out).read_bytes() == first
    assert (out / "report.json").read_bytes() == numbers
    page = Page(first.decode())
    assert "What it did to the classifier" not in page.text
    assert "vlbias balance DATASET OUT --target smile --protected skin" in page.text


def test_a_title_is_escaped_and_shown(tmp_path):
    page = report.write(write_run(tmp_path), title="Faces <b>& more</b>").read_text()
    assert "<b>&" not in page and "Faces &lt;b&gt;&amp; more&lt;/b&gt;" in page


def test_an_unsure_change_is_called_unsure(tmp_path):
    audit = audit_result(bootstrap=50, num_test=200, oracle=False)
    audit.predictions["balanced"] = audit.predictions["baseline"].copy()
    text = Page(report.write(write_run(tmp_path), audit=audit).read_text()).text
    assert "no more than chance may explain" in text
    assert "falls from" not in text and "rises from" not in text
    assert "Compared with perfect edits" not in text


def test_a_classifier_that_guesses_is_called_out(tmp_path):
    audit = audit_result(bootstrap=50, num_test=200, oracle=False)
    audit.predictions["baseline"] = audit.predictions["baseline"] * 0
    text = Page(report.write(write_run(tmp_path), audit=audit).read_text()).text
    assert "trained on the dataset as it is are hardly better than guessing" in text
    assert "falls from" not in text


def test_missing_pictures_and_files_are_said_not_hidden(tmp_path):
    out = write_run(tmp_path)
    donor = RunFiles(out).edited.iloc[0]["source_id"]
    (out / "train" / f"{donor}.png").unlink()
    assert "donor not kept" in report.write(out).read_text()
    (out / "rejected.csv").unlink()
    with pytest.raises(DatasetError, match="has no rejected.csv, so it is not a finished balance run"):
        report.write(out)
    (out / "rejected.csv").write_text("")
    with pytest.raises(DatasetError, match="rejected.csv cannot be read"):
        report.write(out)
    (out / "report.json").write_text('{"target": "smile"}')
    with pytest.raises(DatasetError, match="lacks counts_before, counts_after, edits, protected"):
        report.write(out)
    (out / "report.json").write_text("[]")
    with pytest.raises(DatasetError, match="is not a report"):
        report.write(out)


def test_what_the_dataset_left_out_is_listed(tmp_path):
    out = write_run(tmp_path)
    assert "Noticed in the dataset" not in report.write(out).read_text()
    values = json.loads((out / "report.json").read_text())
    values["left_out"] = [{"file": f"{i}.jpg", "code": "malformed_name", "detail": "no digits"} for i in range(24)]
    values["left_out"].append({"file": "24.jpg", "code": "no_face", "detail": "no face was found in 24.jpg"})
    (out / "report.json").write_text(json.dumps(values))
    text = Page(report.write(out).read_text()).text
    assert "25 remarks on files, rows and labels of the dataset (malformed_name 24, no_face 1); the first 20." in text
    assert "19.jpg" in text and "20.jpg" not in text and "malformed_name" in text
    assert json.loads((out / "report.json").read_text()) == values


def test_pairs_use_the_sampled_donor_beside_the_edit(tmp_path):
    out = write_run(tmp_path)
    row = RunFiles(out).edited.iloc[0]
    (out / "donors").mkdir()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(out / "donors" / row["file_name"].split("/")[1])
    assert RunFiles(out).donor_image(row) == data_uri(Image.new("RGB", (8, 8), (255, 0, 0)))


def test_an_empty_plan_has_a_page_too(tmp_path):
    out = write_run(tmp_path)
    values = json.loads((out / "report.json").read_text())
    values["counts_after"] = values["counts_planned"] = values["counts_before"]
    values["edits"] = {"planned": 0, "kept": 0, "unfilled": 0, "rejected": 0, "by_reason": {}}
    values["unet_evaluations_per_kept_image"] = None
    (out / "report.json").write_text(json.dumps(values))
    table = pd.read_csv(out / "metadata.csv")
    table[table["origin"] == "real"].to_csv(out / "metadata.csv", index=False)
    pd.read_csv(out / "rejected.csv").iloc[:0].to_csv(out / "rejected.csv", index=False)
    text = Page(report.write(out).read_text()).text
    assert "no edit was planned" in text and "Nothing was turned down" in text and "No edit was kept" in text


def test_a_plan_that_was_limited_says_that_cells_may_differ(tmp_path):
    out = write_run(tmp_path)
    values = json.loads((out / "report.json").read_text())
    assert "was limited" not in Page(report.write(out).read_text()).text
    (out / "report.json").write_text(json.dumps(values | {"limit": values["edits"]["planned"]}))
    assert "The plan was limited to 60 edits, so cells may still differ." in Page(report.write(out).read_text()).text


def composition():
    counts = pd.DataFrame([[40, 16], [4, 40]], index=[0, 1], columns=["dark", "light"])
    return Composition("biased set", "smile", ["skin"], counts, 3)


def test_an_audit_without_a_run(tmp_path):
    audit = audit_result(bootstrap=50, num_test=200, oracle=False)
    path = report.write_audit(tmp_path / "new", audit, compositions=[composition()], command="vlbias audit x")
    text = Page(path.read_text()).text
    assert "The smallest cell is smile 1, dark, with 4 images" in text
    assert "3 rows lack one of the labels" in text
    values = json.loads((tmp_path / "new" / "report.json").read_text())
    assert values["datasets"][0]["counts"]["1"] == {"dark": 4, "light": 40}
    assert "accuracy_gap" in values["classifiers"]["balanced"]
    alone = report.write_audit(tmp_path / "alone", compositions=[composition()])
    assert "What a classifier makes of it" not in alone.read_text()
    with pytest.raises(ConfigError, match="nothing to report"):
        report.write_audit(tmp_path)
    with pytest.raises(OutputError, match="has the report of a balance run"):
        report.write_audit(write_run(tmp_path / "run"), audit)
    for damaged in ("null", "[]", "3", ""):
        (tmp_path / "new" / "report.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"report.json .* or remove it"):
            report.write_audit(tmp_path / "new", audit)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="A part of the path is a file"):
        report.write_audit(tmp_path / "file" / "x", audit)


def test_plots_follow_the_page_and_keep_their_text():
    svg = counts_plot(
        {"0": {"a": 3, "a very long name of a group": 5}}, {"0": {"a": 5, "a very long name of a group": 5}}, "t"
    )
    assert svg.startswith("<svg") and 'role="img"' in svg and "var(--balanced)" in svg and ">t = 0<" in svg
    assert "a very long nam…" in svg and "#0102" not in svg
    same = [("row", {"one": Estimate(0.5, 0.4, 0.6, (0.45, 0.55), 0.1), "two": Estimate(0.6)})]
    assert estimates_plot(same, "x & <y>") == estimates_plot(same, "x & <y>")
    assert "x &amp; &lt;y>" in estimates_plot(same, "x & <y>")


def test_numbers_for_people():
    assert (number(0.12345), number(-0.5, 1), number(float("nan")), number(None)) == ("0.123", "−0.5", "–", "–")
    assert (signed(0.25, 2), signed(-0.25, 2), signed(0.0001)) == ("+0.25", "−0.25", "0.000")
    assert (percent(0.256), percent(-1.09), percent(None)) == ("26\u202f%", "−109\u202f%", "–")
    assert evenly_spaced(100, 5) == [0, 25, 50, 74, 99] and evenly_spaced(9, 1) == [4] and evenly_spaced(0, 3) == []
    assert data_uri(Image.new("RGB", (400, 200))).startswith("data:image/jpeg")


@pytest.mark.parametrize(("enough", "shown"), [({"latent": 0.37, "image": 0.61}, "0.37"), (None, "–")])
def test_margins_that_the_originals_set_are_shown(tmp_path, enough, shown):
    out = write_run(tmp_path)
    values = json.loads((out / "report.json").read_text())
    values["checks"]["reached"] = None
    if enough is not None:
        values["enough"] = enough
    (out / "report.json").write_text(json.dumps(values))
    text = Page(report.write(out).read_text("utf-8")).text
    assert f"Protected attribute, latent probe {shown} " in text and "The least certain of the kept edits" in text


def test_a_page_shows_nothing_from_outside_of_its_folder(tmp_path):
    out = write_run(tmp_path / "run")
    secret = tmp_path / "secret.png"
    Image.new("RGB", (24, 24), (1, 2, 3)).save(secret)
    (out / "train" / "linked.png").symlink_to(secret)
    files = RunFiles(out)
    for name in ("../secret.png", str(secret), "train/../../secret.png", "train/linked.png", "", "train"):
        assert files.image(name) is None
    assert RunFiles(out, follow_links=True).image("train/linked.png") == data_uri(Image.open(secret))
    assert RunFiles(out, follow_links=True).image("../secret.png") is None


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("metadata.csv", "origin", "orange"),
        ("metadata.csv", "source_id", "saucer"),
        ("plan.csv", "slot,", "slut,"),
        ("plan.csv", "\n", "\nb"),
        ("plan.csv", "\n", "\n1e999,dark\n"),
    ],
)
def test_tables_that_somebody_changed_are_named(tmp_path, name, before, after):
    out = write_run(tmp_path)
    if not (out / name).is_file():
        (out / name).write_text("slot,from\n0,dark\n")
    text = (out / name).read_text()
    (out / name).write_text(text.replace(before, after, 1))
    with pytest.raises(DatasetError, match=name):
        report.write(out)


def test_tables_of_two_runs_are_refused(tmp_path):
    out = write_run(tmp_path)
    values = json.loads((out / "report.json").read_text())
    (out / "report.json").write_text(json.dumps(values | {"protected": 3}))
    with pytest.raises(DatasetError, match="does not hold together"):
        report.write(out)
