"""The page in a real browser: what people do on it, what it asks of the network, and whether everybody can use it."""

from __future__ import annotations

import csv
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_editor
from doubles import CHROMIUM

from vlbias.balance import Balancer
from vlbias.provenance import examine_provenance

pytest.importorskip("gradio", reason="the page needs gradio: make app")
axe = pytest.importorskip("axe_playwright_python", reason="no axe here: pip install axe-playwright-python")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]

#: Gradio's own, of a stream that it closes: no fault of a page, and nothing that a page can change.
GRADIOS_OWN = "Method not implemented."
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Balances drawn faces, and again with what people decided; the table of the balanced set."""
    work = tmp_path_factory.mktemp("work")
    faces = tiny_editor.make_faces(work / "faces", tiny_editor.CELLS)

    def again(review=None):
        balancer = Balancer(tiny_editor.TinyEditor(leak=0.12), target="smile", protected="skin", chunk_size=7, seed=3)
        plan = balancer.plan(faces, limit=12)
        return balancer.run(faces, plan, work / "out", review=review, show_progress=False)

    return again


@pytest.fixture(scope="module")
def run(made):
    return made().out_dir


@pytest.fixture(scope="module")
def served(editor_folder, run):
    from vlbias.app import serve

    with serve([run], [editor_folder]) as page:
        yield page.url


#: A page that hears every answer a moment after it was given.
SLOW_TO_HEAR = """
const ask = window.fetch;
window.fetch = async (...asked) => {
  const answer = await ask(...asked);
  if (!answer.url.includes("/queue/data")) return answer;
  const late = new TransformStream({
    async transform(part, out) {
      await new Promise((done) => setTimeout(done, 200));
      out.enqueue(part);
    },
  });
  return new Response(answer.body.pipeThrough(late), { status: answer.status, headers: answer.headers });
};
"""


@contextmanager
def visit(browser, served, script=""):
    """The page with its sliders there; afterwards the console must be silent and nobody else asked."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(PATIENCE_MS)
    tab.add_init_script(script)
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(served)
    tab.wait_for_selector("#path-age input[type=range]")
    yield tab
    tab.close()
    assert [text for text in said if text != GRADIOS_OWN] == []
    assert asked and [url for url in asked if not url.startswith((served, "data:", "blob:"))] == []


@pytest.fixture
def page(browser, served):
    with visit(browser, served) as tab:
        yield tab


def drop(page, path):
    page.set_input_files("#photo input[type=file]", str(path))


def after(page):
    """Address of the edited picture."""
    return page.locator("#shown img").last.get_attribute("src")


def changed(page, before):
    page.wait_for_function(
        "before => { const all = document.querySelectorAll('#shown img'); return all.length && all[all.length - 1].src "
        "!== before; }",
        arg=before,
    )
    return after(page)


def violations(page):
    """What axe-core finds serious or critical, once what is new has faded in."""
    faded = "[...document.querySelectorAll('.html-container')].every(e => +getComputedStyle(e).opacity === 1)"
    page.wait_for_function(faded)
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text("utf-8"))
    found = page.evaluate("async () => (await axe.run(document)).violations")
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in serious]


def test_a_slider_moves_the_face_and_the_file_says_how_it_was_made(page, face, tmp_path):
    drop(page, face)
    page.wait_for_selector("#readings .identity")
    still = after(page)
    page.focus("#path-age input[type=range]")
    page.keyboard.press("End")
    preview = changed(page, still)
    full = changed(page, preview)
    assert len({still, preview, full}) == 3
    assert "Identity" in page.inner_text("#readings") and "skin_tone" in page.inner_text("#readings")
    with page.expect_download() as download:
        page.click("#edit-file-make")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    found = examine_provenance(saved)
    assert saved.name == "face-edited.png" and found.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert found.said["edits"] == "{'age': 1.5}" and found.said["editor"] == "tiny"


def test_a_broken_file_gives_a_sentence_and_nothing_stays_of_the_picture_before(page, face, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture at all")
    width = page.locator("#photo").bounding_box()["width"]
    drop(page, face)
    page.wait_for_selector("#readings .identity")
    page.get_by_role("button", name="A strip").click()
    page.get_by_role("button", name="Show the strip").click()
    page.wait_for_selector("#strip img")
    drop(page, tmp_path / "broken.png")
    page.wait_for_selector("#said [role=alert]")
    text = page.inner_text("#said")
    assert not page.locator("#strip img, #shown img, #readings table").count()
    assert page.locator("#photo").bounding_box()["width"] == width  # the page is as wide, whatever stands on it
    assert text == "broken.png is not a picture that can be read. Convert it to PNG or JPEG."
    assert "Traceback" not in page.content()


def test_a_path_is_learned(page, face):
    drop(page, face)
    page.wait_for_selector("#readings .identity")
    page.get_by_role("button", name="Learn a new path").click()
    page.fill("#learn-name textarea, #learn-name input", "hat")
    page.fill("#learn-positive textarea, #learn-positive input", "a person with a hat")
    page.fill("#learn-negative textarea, #learn-negative input", "a person")
    page.fill("#learn-steps input[type=number]", "0")
    page.click("#learn")
    page.wait_for_selector("#path-hat input[type=range]")
    assert "'hat' is learned" in page.inner_text("#learned")


def edits(result):
    """(picture, donor) of each edit, in the order of the plan."""
    table = result.table[result.table["origin"] == "edited"].sort_values("file_name")
    return list(zip(table["file_name"], table["source_id"], strict=True))


def test_two_edits_are_rejected_by_key_and_leave_the_set(page, run, made):
    before = edits(made())
    page.get_by_role("tab", name="Review a run").click()
    page.get_by_role("button", name="Open the run").click()
    page.wait_for_selector(".pair img")
    page.keyboard.press("r")
    page.wait_for_selector("#review-said [role=alert]")  # nobody is named
    page.fill("#reviewer textarea, #reviewer input", "anna")
    page.locator("#highest input").focus()
    page.locator("#highest input").blur()
    for place in (1, 2):
        page.wait_for_function(f"document.querySelector('#pair').innerText.startsWith('{place} of {len(before)}')")
        page.keyboard.press("r")
    page.wait_for_function(f"document.querySelector('#pair').innerText.startsWith('3 of {len(before)}')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".pair.reject img")
    assert f"rejected 2; {len(before) - 2} are left" in page.inner_text("#tally")
    with (run / "review.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["picture"], row["decision"], row["reviewer"]) for row in rows] == [
        (picture, "reject", "anna") for picture, _ in before[:2]
    ]
    after = edits(made(review=run / "review.csv"))
    assert not set(after) & set(before[:2]) and set(before[2:]) <= set(after)


def test_what_cannot_be_opened_takes_the_place_of_what_was_open(page):
    page.get_by_role("tab", name="Review a run").click()
    page.get_by_role("button", name="Open the run").click()
    page.wait_for_selector(".pair img")
    page.fill("#run input", "/elsewhere")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Open the run").click()
    page.wait_for_selector("#review-said [role=alert]")
    assert not page.locator(".pair").count()
    page.get_by_role("tab", name="A dataset").click()
    for _ in range(2):  # the second time the columns are the same, and yet counted
        page.get_by_role("button", name="Open the dataset").click()
        page.wait_for_selector("#faces img")
        page.wait_for_selector("#counts table")
    page.get_by_role("button", name="Open the dataset").click()  # nobody waits for it
    page.fill("#dataset input", "/elsewhere")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Open the dataset").click()
    page.wait_for_selector("[role=alert] >> visible=true")
    assert not page.locator("#faces img, #counts table").count()


def test_no_answer_is_lost_on_a_page_that_hears_late(browser, served):
    with visit(browser, served, SLOW_TO_HEAR) as page:
        page.get_by_role("tab", name="A dataset").click()
        for folder, shown in [("/elsewhere", "[role=alert] >> visible=true"), ("synthfaces:50", "#faces img")] * 2:
            page.fill("#dataset input", folder)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Open the dataset").click()
            page.wait_for_selector(shown)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_everybody_can_use_it(page, face, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    drop(page, face)
    page.wait_for_selector("#readings .identity")
    for name in ("How the picture", "A strip", "Learn a new path"):
        page.get_by_role("button", name=name).click()
    assert violations(page) == []
    page.get_by_role("tab", name="Review a run").click()
    page.get_by_role("button", name="Open the run").click()
    page.wait_for_selector(".pair img")
    assert violations(page) == []
    page.get_by_role("tab", name="A dataset").click()
    page.get_by_role("button", name="Open the dataset").click()
    page.wait_for_selector("#faces img")
    page.click("#measure")
    page.wait_for_selector("#drift table")
    assert violations(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_files_beside_the_page_are_not_served(served, run, repository):
    for path in (run / "report.json", repository / "setup.cfg", Path("/etc/passwd")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served}gradio_api/file={path}", timeout=60)
        assert refused.value.code in (403, 404)
