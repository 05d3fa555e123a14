"""Pages in a real browser: nothing on the console, nothing fetched, another order on request, and a print."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from finished_run import audit_result, write_run

from vlbias import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
