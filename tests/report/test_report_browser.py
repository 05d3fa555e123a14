"""Pages in a real browser: nothing on the console, nothing fetched, another order on request, and a print."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest
from doubles import CHROMIUM
from finished_run import audit_result, write_measured, write_run

from vlbias import report
from vlbias.audit.results import ArmSummary

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    out = write_run(tmp_path_factory.mktemp("run"))
    return report.write(out, audit=audit_result(bootstrap=20, num_test=80))


def browse(page, *options):
    """What the browser says on its console while it shows a page."""
    fixed = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    place = f"--user-data-dir={page.parent / '.browser'}"
    told = subprocess.run(
        [str(CHROMIUM), *fixed, place, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return [line for line in told.stderr.splitlines() if "CONSOLE" in line]


def picture(page, name, *options):
    file = page.parent / name
    assert browse(page, f"--screenshot={file}", "--window-size=1280,2400", *options) == []
    return file.read_bytes()


def test_a_page_says_nothing_on_the_console_and_takes_another_order(page):
    as_planned = picture(page, "plan.png")
    text = page.read_text("utf-8").replace('id="by-plan" checked', 'id="by-plan"')
    other = page.with_name("other.html")
    # the same number of bytes of markup, another radio button
    other.write_text(text.replace('id="by-strength"', 'id="by-strength" checked'), "utf-8")
    plain = page.with_name("plain.html")
    style = "main:has(#by-strength:checked) .pair { order: var(--strength, 0); }"
    plain.write_text(other.read_text("utf-8").replace(style, ""), "utf-8")
    strongest, unsorted = picture(other, "strength.png"), picture(plain, "plain.png")
    assert strongest != as_planned and strongest != unsorted


def test_what_a_page_must_not_do_would_be_seen(page):
    bad = page.with_name("bad.html")
    fetching = '<img src="https://example.org/beacon.gif" alt=""><script>1</script>'
    bad.write_text(page.read_text("utf-8").replace("<main>", f"<main>{fetching}"), "utf-8")
    told = " ".join(browse(bad, f"--screenshot={page.parent / 'bad.png'}"))
    assert "Content Security Policy" in told and "example.org" in told


def test_a_page_prints(page):
    file = page.parent / "page.pdf"
    assert browse(page, f"--print-to-pdf={file}") == []
    data = file.read_bytes()
    assert data.startswith(b"%PDF") and data.count(b"/Type /Page") > 3


# -- every page, driven as people do ----------------------------------------------------------------------------------

KINDS = ["balance", "audit", "arms", "flips", "paths", "drift", "simulate", "search"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Kind of a page => its file."""
    from test_report_paths import written
    from test_report_studies import STUDY, front, simulated

    base = tmp_path_factory.mktemp("pages")
    found = audit_result(bootstrap=20, num_test=80)
    chosen = {"learning_rate": 1e-3, "validation_loss": 0.2}
    arms = {name: ArmSummary(f"{name}, in a few words", chosen) for name in found.predictions}
    return {
        "balance": report.write(write_run(base / "run"), audit=found),
        "audit": report.write_audit(base / "audit", found),
        "arms": report.write_audit(base / "arms", replace(found, arms=arms)),
        "paths": written(base / "paths"),
        **write_measured(base),
        "simulate": report.write_simulation(base / "simulate", simulated(shares=(0.0, 0.2, 0.5))),
        "search": report.write_search(base / "search", STUDY, front()),
    }


@pytest.fixture
def show(browser, pages):
    """Opens a page; afterwards its console must be silent and nobody else asked."""
    told, contexts = [], []

    def opened(kind, *, width=1280, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: told.append(message.text))
        tab.on("pageerror", lambda error: told.append(str(error)))
        tab.on("request", lambda request: told.extend([request.url] * (request.url[:5] not in ("file:", "data:"))))
        tab.goto(pages[kind].as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert told == []


def violations(tab):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    found = axe.Axe().run(tab).response
    assert len(found["passes"]) > 10  # it looked
    return [(item["id"], item["nodes"][0]["html"]) for item in found["violations"] if item["impact"] != "minor"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_everybody_can_use_every_page(show, kind, scheme):
    wide, narrow = show(kind, scheme=scheme), show(kind, scheme=scheme, width=390)
    assert violations(wide) == [] and violations(narrow) == []
    for tab in (wide, narrow):  # what is wider than the page scrolls inside of it
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_nobody_can_use_would_be_seen(show):
    tab = show("audit")
    tab.evaluate("document.body.append(new Image())")
    assert "image-alt" in [name for name, _ in violations(tab)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_dark_where_people_want_it_dark_and_prints(show, kind):
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = (show(kind, scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(paper) == "rgb(253, 252, 249)" and dark.evaluate(paper) == "rgb(23, 24, 27)"
    printed = dark.pdf()
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    dark.emulate_media(media="print")
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("kind", ["balance", "simulate", "search"])
def test_contents_are_followed_by_keyboard(show, kind):
    tab = show(kind)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.tagName") == "A"  # the contents come first
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.querySelector(location.hash).getBoundingClientRect().top < innerHeight")


def test_pairs_are_put_in_order_by_keyboard(show):
    tab = show("balance")
    strengths = """() => {
        const place = pair => pair.getBoundingClientRect();
        const pairs = [...document.querySelector(".pairs").children];
        pairs.sort((a, b) => place(a).top - place(b).top || place(a).left - place(b).left);
        return pairs.map(pair => pair.innerText.match(/[\\d.]+$/)[0]);
    }"""
    planned = tab.evaluate(strengths)
    tab.focus("#by-plan")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.is_checked("#by-strength")
    assert tab.evaluate(strengths) == sorted(planned, key=float, reverse=True) != planned
