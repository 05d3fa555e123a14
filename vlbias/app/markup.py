"""Small pieces of HTML; whatever comes from a file or a person is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image

from vlbias.app.browsing import Drift
from vlbias.app.editing import Reading
from vlbias.app.reviewing import Pair
from vlbias.pages.page import data_uri, number, percent, signed
from vlbias.pages.run_page import SCORES
from vlbias.shown import plural, printable

__all__ = ["drift_table", "figure", "gallery", "pair_view", "readings_table", "score_title", "sentence", "table"]


def score_title(name: str) -> str:
    """How a score, or another order of edits, reads."""
    own = {"plan": "Order of the plan", "strength": "Strength"}
    return own.get(name) or SCORES.get(f"score_{name}", (name,))[0]


def _text(value: object) -> str:
    return escape(printable(value))


def sentence(text: str, *, is_error: bool = False) -> str:
    """A line that screen readers speak as soon as it changes."""
    role = "alert" if is_error else "status"
    if re.match(r"[a-z]+ ", text):  # a word, not the name of a file
        text = text[0].upper() + text[1:]
    return f'<p class="said {role}" role="{role}">{_text(text)}</p>' if text else ""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its rows; cells are HTML already."""
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head)
    lines = (
        "".join([f'<th scope="row">{first}</th>', *(f"<td>{cell}</td>" for cell in rest)]) for first, *rest in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    # what scrolls must be reachable by keyboard
    return (
        f'<p class="caption">{_text(caption)}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(caption)}"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(picture: str | None, alt: str, caption: str, *, missing: str = "not kept") -> str:
    """A picture with a caption, or a word where there is none."""
    shown = f'<img src="{picture}" alt="{_text(alt)}">' if picture else f'<div class="none">{_text(missing)}</div>'
    return f"<figure>{shown}<figcaption>{_text(caption)}</figcaption></figure>"


def gallery(pictures: Sequence[tuple[str, Image.Image]]) -> str:
    """Small faces with their names."""
    items = "".join(figure(data_uri(picture), name, name) for name, picture in pictures)
    return f'<div class="faces">{items}</div>'


def strip(picture: Image.Image, path: str, reach: float) -> str:
    """A strip of :meth:`vlbias.app.editing.Bench.strip`."""
    alt = f"The face along {path}, from strength -{reach:g} to +{reach:g}"
    shown = data_uri(picture, max_edge_px=max(picture.size))
    image = f'<img src="{shown}" alt="{_text(alt)}">'
    return f'<div class="scroll strip" role="region" tabindex="0" aria-label="Strip">{image}</div>'


def counts_table(columns: Sequence[str], sizes: Sequence[tuple[str, int]]) -> str:
    """Cells with their numbers of faces."""
    total = sum(size for _, size in sizes)
    rows = [[_text(name), f"{size:,}", percent(size / total, 1)] for name, size in sizes]
    return table(f"Faces by {', '.join(columns)}: {total:,} in {len(sizes)} cells", ["cell", "faces", "share"], rows)


def readings_table(readings: Sequence[Reading], identity: float) -> str:
    """What the scorers read before and after; probabilities of the positive pole."""

    def change(pair: tuple[float, float] | None) -> list[str]:
        if pair is None:
            return ["–"] * 3
        return [percent(pair[0], 1), percent(pair[1], 1), signed(100 * (pair[1] - pair[0]), 1)]

    rows = [
        [f"{_text(one.name)} <small>{_text(one.poles[1])}</small>", *change(one.latent), *change(one.picture)]
        for one in readings
    ]
    head = ["attribute", "probe before", "after", "change", "CLIP before", "after", "change"]
    return (
        f'<p class="identity">Identity {number(identity, 2)} <small>cosine of the two codes: 1 is the same code, 0 '
        "about a stranger</small></p>"
        + table(
            "What scorers read: how sure they are of the positive pole. They err; they are not facts about a person.",
            head,
            rows,
        )
    )


def _heat(value: float) -> str:
    """A number on a ground that is the darker, the further it is from 0."""
    return f'<span class="heat" style="--heat:{min(abs(value), 1):.2f}">{signed(value, 2)}</span>'


def drift_table(drift: Drift) -> str:
    """How far each walk moves every reading."""
    rows = [
        [
            _text(walk),
            percent(success),
            number(identity, 2),
            str(faces),
            *map(_heat, moved),
        ]
        for walk, success, identity, faces, moved in drift.rows
    ]
    head = ["walk", "reached", "identity", "faces", *drift.names]
    return table("Drift: how far a walk moves each reading, 1 is the distance between its poles", head, rows)


def pair_view(pair: Pair, images: tuple[str | None, str | None], place: tuple[int, int], decided: str) -> str:
    """A donor beside its edit, with what verified the edit."""
    came, went = pair.moved
    donor = figure(images[0], f"Donor {pair.donor}, {came}", f"Donor {pair.donor}: {came}")
    edit = figure(images[1], f"Edit of {pair.donor}, {went}", f"Edit: {went}")
    scores = "".join(
        f"<div><dt>{_text(score_title(name))}</dt><dd>{number(value, 2)}</dd></div>"
        for name, value in {"strength": pair.strength, **pair.scores}.items()
    )
    state = {"accept": "you accepted it", "reject": "you rejected it"}.get(decided, "not decided by you")
    return (
        f'<div class="pair {decided}"><p role="status">{place[0] + 1} of {plural(place[1], "edit")} · '
        f'{_text(pair.cell)} · <b>{state}</b></p><div class="two">{donor}{edit}</div><dl>{scores}</dl></div>'
    )
