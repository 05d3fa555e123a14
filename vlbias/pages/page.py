"""From a template and values to one HTML file with everything inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from PIL import Image

from vlbias.shown import printable

__all__ = ["data_uri", "number", "percent", "render", "signed"]

#: Pictures are embedded at no more than this many pixels on an edge.
MAX_EDGE_PX = 160


def data_uri(image: Image.Image, *, max_edge_px: int = MAX_EDGE_PX) -> str:
    """A picture as text for ``<img src>``: PNG when small, JPEG when large."""
    image = image.convert("RGB")
    small = max(image.size) <= 96
    if max(image.size) > max_edge_px:
        image.thumbnail((max_edge_px, max_edge_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=88)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: fixed digits, a real minus sign, a dash for what is unknown.

    Example:
        >>> number(-0.1234), number(None), number(-0.0001)
        ('−0.123', '–', '0.000')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """As :func:`number`, with a sign in front of both directions."""
    text = number(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and float(f"{value:.{digits}f}") > 0 else text


def percent(value: float | None, digits: int = 0) -> str:
    """A share as percent, with a thin space before the sign."""
    if value is not None and 0 < abs(value) < 0.01:
        digits = max(digits, 1)  # a small share is not none
    return "–" if value is None or not math.isfinite(value) else f"{number(100 * value, digits)}\u202f%"


def _visible(value: object) -> Any:
    """Nothing hidden in a label or a file's name; what is markup already stays."""
    return printable(value, keep="\n\t") if type(value) is str else value


@cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vlbias.pages", "templates"),
        autoescape=jinja2.select_autoescape(["html", "j2"], default=True),
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "signed": signed, "percent": percent}
    return environment


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill a template of ``templates/``; a value that it needs and does not get is an error."""
    style = resources.files("vlbias.pages").joinpath("templates/style.css").read_text("utf-8")
    return _environment().get_template(template).render(style=style, **values)
