"""Text of strangers does nothing where it is shown."""

from __future__ import annotations

import io
import unicodedata
from html.parser import HTMLParser
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vlbias import errors
from vlbias.balance import Plan
from vlbias.balance.card import dataset_card
from vlbias.cli.terminal import _Safe
from vlbias.data import FaceDataset
from vlbias.pages.page import render
from vlbias.pages.plots import Estimate, counts_plot, estimates_plot
from vlbias.provenance import xmp_packet
from vlbias.shown import in_code, in_markdown, printable

#: Texts that act somewhere: on a terminal, in Markdown, in HTML, in a formula, and what stands between them.
ACTING = st.sampled_from(
    [
        *("\x1b[2J", "\x1b]0;x\x07", "\x9b", "\u202e", "\u2066", "\u200b", "\x00", "\r", "\n", "\u2028", "\ud800"),
        *("# ", "- ", "+ ", "12. ", "3) ", "---", "===", "> ", "    ", "\t", "```", "~~~", "|", "`", "*", "_", "\\"),
        *("$", "<b>", "</p>", "<!--", "-->", "<script>", "&lt;", "&#60;", "'", '"', "{{", "}}", "![](", "]("),
    ]
)
TEXTS = st.lists(st.one_of(ACTING, st.text(max_size=4)), min_size=1, max_size=6).map("".join)
HOSTILE = [
    "$$",
    r"$\frac{$",
    r"a\d\1",
    "<script>alert(1)</script>",
    "![](https://example.org/beacon.gif)",
    "[free](https://example.org)",
    "x\n\n# Licence\n- licence of the pictures: MIT",
    "a|b`c`",
    "<img src=https://example.org/b.gif onerror=x>",
    "\x1b]0;title\x07\x1b[2J",
    "\u202egnp.exe",
]
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(text: str) -> list[str]:
    """What a Markdown reader finds, pieces of lines included."""
    found = []
    for token in MARKDOWN.parse(text):
        found.append(token.type)
        found += [child.type for child in token.children or ()]
    return [kind for kind in found if kind != "text"]


def report_of(text: str) -> dict:
    """What a run came to, with a stranger's text wherever there is room for one."""
    return {
        "dataset": text,
        "target": text,
        "protected": [text],
        "mode": "reduce",
        "source": "real",
        "splits": [text],
        "editor": text,
        "license": text,
        "editor_license": text,
        "edits": {"planned": 3, "kept": 2, "unfilled": 1, "rejected": 4},
        "counts_before": {text: {text: 3}},
        "counts_after": {text: {text: 5}},
        "scorers": {"x": {"image": {"name": text}}},
        "identity_scorer": {"kind": "network", "name": text},
        "alignment": {"write": "whole", "detector": text},
        "warnings": [text],
    }


class _Plan:
    settings = {"mode": "reduce"}


def card_structure(card: str) -> tuple[list[str], object, list[str], list[str]]:
    """What no label may change: entries of the head, licence, tags, and the form of the text."""
    begin, head, body = card.split("---\n", 2)
    assert begin == ""
    entries = yaml.safe_load(head)
    return list(entries), entries["license"], entries["tags"], tokens(body)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_has_the_same_structure_whatever_its_labels(text):
    card = dataset_card(report_of(text), _Plan())
    assert card_structure(card) == card_structure(dataset_card(report_of("plain"), _Plan()))
    assert "\x1b" not in card and "\u202e" not in card


@pytest.mark.parametrize("text", HOSTILE)
def test_plots_and_pages_show_labels_as_they_stand(text):
    counts = counts_plot({text: {text: 3}}, {text: {text: 4}}, text)
    estimates = estimates_plot([(text, {text: Estimate(0.5, 0.4, 0.6)})], text)
    for svg in (counts, estimates):
        assert svg.count("<svg") == 1 and "<script" not in svg and "<img" not in svg
        assert "\x1b" not in svg and "\x07" not in svg and "\u202e" not in svg
    page = render("base.html.j2", {"title": text, "eyebrow": text, "lede": [text], **_empty()})
    assert "<script" not in page and "<img" not in page and "\x1b" not in page and "\u202e" not in page
    assert "default-src 'none'" in page


def _empty() -> dict:
    return {"version": "0", "tiles": [], "contents": [], "footer": []}


def is_seen(text: str) -> bool:
    """Whether nothing in a text is hidden or moves the cursor, line ends aside."""
    signs = set(text) - set("\n\u200c\u200d")
    return not any(unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Cs") for sign in signs)


@given(TEXTS)
def test_any_text_is_one_line_that_is_seen(text):
    for shown in (printable(text), in_markdown(text), in_code(text)):
        assert is_seen(shown) and "\n" not in shown


@given(TEXTS)
def test_any_text_leaves_markdown_as_it_was(text):
    """Behind each sign that a card puts before a text, and in a table."""
    shown, code = in_markdown(text), in_code(text)
    for around in ("- {}\n- b", "# {}\n\nb", "- licence: {}\n", "a\n{}\nb", "| a | b |\n|---|---|\n| {} | c |\n"):
        for inside, plain in ((shown, "x"), (code, "`x`")):
            found = tokens(around.format(inside))
            assert found == tokens(around.format(plain if inside else "")) or not inside


@given(TEXTS)
def test_any_text_leaves_a_card_as_it_was(text):
    assume(in_markdown(text))  # an item of a list that says nothing is another thing
    card = dataset_card(report_of(text), _Plan())
    assert card_structure(card) == card_structure(dataset_card(report_of("plain"), _Plan()))
    assert is_seen(card)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[object] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, sorted(name for name, _ in attrs)))

    def handle_endtag(self, tag):
        self.found.append(tag)

    def handle_comment(self, data):
        self.found.append("comment")


def structure(page: str) -> list[object]:
    parser = _Tags()
    parser.feed(page)
    return parser.found


@given(TEXTS)
def test_any_text_leaves_a_page_as_it_was(text):
    def page(text):
        return render("base.html.j2", {"title": text, "eyebrow": text, "lede": [text], **_empty()})

    assert structure(page(text)) == structure(page("plain")) and is_seen(page(text).replace("\t", ""))


@given(TEXTS)
def test_any_name_of_an_editor_leaves_xmp_as_it_was(text):
    packet = xmp_packet({"synthetic": "true", "editor": text}).decode()
    found = ElementTree.fromstring(packet[packet.index("?>") + 2 : packet.rindex("<?")])
    plain = xmp_packet({"synthetic": "true", "editor": "plain"}).decode()
    wanted = ElementTree.fromstring(plain[plain.index("?>") + 2 : plain.rindex("<?")])
    assert [(part.tag, sorted(part.attrib)) for part in found.iter()] == [
        (part.tag, sorted(part.attrib)) for part in wanted.iter()
    ]


@given(TEXTS)
def test_any_text_in_an_error_is_one_line(text):
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.VlbiasError)]
    assert len(kinds) > 10
    for kind in kinds:
        error = errors.FaceError(text, code="x", remedy=text) if kind is errors.FaceError else kind(text)
        assert is_seen(str(error)) and "\n" not in str(error)
    assert is_seen(str(errors.unknown(text, text, [text], where=text)))


@given(TEXTS)
def test_any_text_in_what_objects_say_of_themselves_is_seen(text):
    text = text.encode(errors="replace").decode()  # tables hold no halves of characters
    plan = Plan(pd.DataFrame(), {text: {text: 1}}, {text: {text: 2}}, {text: (text,)}, {"target": text}, notes=(text,))
    faces = FaceDataset(text, pd.DataFrame({"file_name": [text], "split": ["train"]}))
    for said, lines in ((str(plan), 3), (repr(faces), 1)):
        assert is_seen(said) and said.count("\n") == lines - 1


@given(TEXTS)
def test_any_text_in_a_terminal_is_seen(text):
    stream = io.StringIO()
    _Safe(stream).write(text)
    assert is_seen(stream.getvalue().removesuffix("\r").replace("\t", ""))


@pytest.mark.parametrize("text", ["\x00", "\x1b[2J", "\n\n", "\u202e", "\uffff", " ", "x" * 300, "\U0010ffff"])
def test_plots_draw_any_text(text):
    assert is_seen(counts_plot({text: {text: 3}}, {text: {text: 4}}, text).replace("\t", ""))


def test_dollars_are_no_formula():
    assert r"$\frac{$" in counts_plot({"0": {r"$\frac{$": 3}}, {"0": {r"$\frac{$": 4}}, "smile")


def test_text_of_the_world_stays_legible():
    for text in ("Frau Müller", "肌色", "می‌خواهم", "naïve & co", "a\u00a0b"):
        assert printable(text) == text
    assert in_markdown("plain words, (and) 3.5 %!") == "plain words, (and) 3.5 %!"
    assert in_code("skin_tone") == "`skin_tone`"
