"""Text of strangers, made safe to show: labels, file names and licences in a terminal, in Markdown, in a picture."""

from __future__ import annotations

import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import NamedTuple

__all__ = ["Glance", "Shown", "front_matter", "in_code", "in_markdown", "plain_text", "plural", "printable"]

#: Categories that move the cursor, turn the direction of writing, or show nothing: controls, formats, separators of
#: lines and paragraphs, and half characters from names that are not UTF-8.
_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}
#: Joiners, without which words of some scripts are misspelt.
_JOINERS = "\u200c\u200d"
#: What Markdown or HTML would act on inside a line.
_MARKED = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
#: What stands before the sign that would begin a list, a rule or a heading: nothing, or the number of an item.
_BEGINNING = re.compile(r"^(?=[-+=]+(?:[-=\s]|$))|^\d{1,9}(?=[.)](?:\s|$))")
_LINE_ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "place"), plural(1200, "try", "tries")
        ('1 place', '1,200 tries')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def printable(text: object, keep: str = "") -> str:
    """Text with everything escaped that a terminal would act on and nobody would see.

    Args:
        text: a path or message.
        keep: characters that are left alone, such as line ends.

    Example:
        >>> printable("a\\x1b[2Jb\\u202etxt.png")
        'a\\\\x1b[2Jb\\\\u202etxt.png'
    """
    text, keep = str(text), keep + _JOINERS
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_unseen(character) else _escaped(character) for character in text
    )


def in_markdown(text: object) -> str:
    """Text that Markdown shows as it stands: no line, link, picture, table cell or HTML can begin in it.

    Example:
        >>> in_markdown("![](https://a.b/c.gif)\\n- licence: MIT")
        '!\\\\[\\\\](https://a.b/c.gif) - licence: MIT'
    """
    line = _one_line(text).strip()
    # at its beginning, a list or a rule could begin as well
    return _BEGINNING.sub(r"\g<0>\\", _MARKED.sub(r"\\\1", line), count=1)


def in_code(text: object) -> str:
    """Text between backticks, in a table or out of it.

    Example:
        >>> in_code("a`b|c")
        "`a'b/c`"
    """
    # nothing can be escaped inside a code span, so what would end it or its table cell is replaced
    return f"`{_one_line(text).translate({ord('`'): chr(39), ord('|'): '/'}) or ' '}`"


def front_matter(values: Mapping[str, object]) -> str:
    """The YAML head of a card, in which no value can begin another entry: each is written as JSON, which YAML includes.

    Args:
        values: texts, numbers, lists of them, and mappings.

    Example:
        >>> print(front_matter({"license": "other", "license_name": "a: b\\n---"}))
        ---
        license: "other"
        license_name: "a: b ---"
        ---
    """
    lines = [f"{name}: {json.dumps(_plain(value), ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_one_line(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, int | float) else _one_line(value)


class Glance(NamedTuple):
    """What an object shows of itself at a glance.

    Attributes:
        line: what it is, in one line.
        head: titles of a small table; empty for none.
        rows: its rows, as many values each; more than :data:`MAX_ROWS` are cut.
    """

    line: str
    head: Sequence[object] = ()
    rows: Sequence[Sequence[object]] = ()


#: Rows that a table in a notebook shows; a glance is no listing.
MAX_ROWS = 12


class Shown:
    """An object that a prompt shows as one line, and a notebook as a line and a small table."""

    def _glance(self) -> Glance:
        raise NotImplementedError

    def __repr__(self) -> str:
        return printable(f"<{type(self).__name__}: {self._glance().line}>")

    def _repr_html_(self) -> str:
        line, head, rows = self._glance()
        rest = f"<p>{len(rows) - MAX_ROWS} more</p>" if len(rows) > MAX_ROWS else ""
        text = f"<p><b>{type(self).__name__}</b> {_cell(line)}</p>"
        if not rows:
            return text
        titles = "".join(f'<th scope="col">{_cell(title)}</th>' for title in head)
        cells = ("".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows[:MAX_ROWS])
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"{text}<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>{rest}"


def _cell(value: object) -> str:
    """A value as HTML shows it: real numbers short, nothing hidden, nothing acted on."""
    return escape(f"{value:.3f}" if isinstance(value, float) else _one_line(value))


@contextmanager
def plain_text() -> Iterator[None]:
    """Within the block, matplotlib draws dollar signs and backslashes as they stand; also a decorator.

    Letters that its font lacks are drawn as boxes, or left to the page's font, without a word.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _one_line(text: object) -> str:
    return printable(_LINE_ENDS.sub(" ", str(text)))


def _is_unseen(character: str) -> bool:
    """Also of the two that are no characters, which XML refuses."""
    return unicodedata.category(character) in _UNSEEN or character in "\ufffe\uffff"


def _escaped(character: str) -> str:
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"
