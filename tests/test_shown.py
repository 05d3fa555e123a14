"""Text of strangers does nothing where it is shown."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from vlbias.balance.card import dataset_card
from vlbias.report.page import render
from vlbias.report.plots import Estimate, counts_plot, estimates_plot
from vlbias.shown import in_code, in_markdown, printable

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
        "judges": {"x": {"image": {"name": text}}},
        "identity_judge": {"kind": "network", "name": text},
        "alignment": {"write": "whole", "detector": text},
        "warnings": [text],
    }


class _Plan:
    settings = {"mode": "reduce"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_has_the_same_structure_whatever_its_labels(text):
    card = dataset_card(report_of(text), _Plan())
    head, body = card.split("---\n", 2)[1:]
    assert head == "license: other\ntags: [faces, fairness, synthetic]\n"
    plain = dataset_card(report_of("plain"), _Plan()).split("---\n", 2)[2]
    assert tokens(body) == tokens(plain)
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


def test_dollars_are_no_formula():
    assert r"$\frac{$" in counts_plot({"0": {r"$\frac{$": 3}}, {"0": {r"$\frac{$": 4}}, "smile")


def test_text_of_the_world_stays_legible():
    for text in ("Frau Müller", "肌色", "می‌خواهم", "naïve & co", "a\u00a0b"):
        assert printable(text) == text
    assert in_markdown("plain words, (and) 3.5 %!") == "plain words, (and) 3.5 %!"
    assert in_code("skin_tone") == "`skin_tone`"
