"""Draw docs/images/methods.png from the tables in benchmarks/results: accuracy and what is left of the tie.

    python benchmarks/methods_picture.py

One panel for each table, a point for each method, with 95 % intervals; the same figures as in docs/evidence.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
RESULTS, PICTURE = HERE / "results", HERE.parent / "docs" / "images" / "methods.png"

#: Table => title of its panel.
PANELS = {
    "standard": "drawn faces, six ties",
    "utkface-standard": "photographs at 64 px, four ties",
    "utkface-128": "photographs at 128 px, four ties",
}
#: Method => name at its point, colour, where the name stands from the point (in points). Grey: without edits; hollow:
#: needs what a user does not have.
METHODS = {
    "erm": ("plain training", "#666666", (6, 9)),
    "undersample": ("faces left out", "#666666", (6, 8)),
    "oversample": ("copies", "#666666", (6, 9)),
    "reweight": ("weights", "#666666", (-6, 9)),
    "group-dro": ("GroupDRO", "#666666", (-6, 9)),
    "edits": ("edits", "#c2410c", (6, 9)),
    "edits+oversample": ("half edits,\nhalf copies", "#c2410c", (-7, -13)),
    "oracle": ("true counterfactuals", "#1d4ed8", (-7, -5)),
    "more-real": ("more\nphotographs", "#1d4ed8", (-6, -13)),
}
HOLLOW = ("oracle", "more-real")
X, Y = "accuracy", "equalized_odds_difference"


def figures(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Table => method => what is drawn of it, in the order of :data:`METHODS`."""
    found = {}
    for name in PANELS:
        path = results / f"bench_{name}.json"
        if not path.is_file():
            sys.exit(f"{path} is missing; run `python benchmarks/evidence.py measure WORK --only {name}` first.")
        methods = json.loads(path.read_text(encoding="utf-8"))["table"]["methods"]
        keys = [f"{axis}{end}" for axis in (X, Y) for end in ("", "_low", "_high")]
        found[name] = {method: {key: methods[method][key] for key in keys} for method in METHODS if method in methods}
    return found


def digest(drawn: dict[str, dict[str, Any]]) -> str:
    """Of the figures; it is written into the picture, so that a stale one is found."""
    return hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()


def panel(axes: Axes, methods: dict[str, dict[str, Any]], title: str) -> None:
    """One table."""
    for method, row in methods.items():
        name, colour, (right, up) = METHODS[method]
        x, y = row[X], row[Y]
        face = "white" if method in HOLLOW else colour
        lines = {"color": colour, "linewidth": 1, "alpha": 0.6, "zorder": 1}
        axes.plot([row[f"{X}_low"], row[f"{X}_high"]], [y, y], **lines)
        axes.plot([x, x], [row[f"{Y}_low"], row[f"{Y}_high"]], **lines)
        axes.scatter([x], [y], s=36, facecolor=face, edgecolor=colour, linewidth=1.5, zorder=2)
        side = "left" if right > 0 else "right"
        words = {"color": colour, "fontsize": 8, "linespacing": 0.95, "ha": side, "va": "center"}
        axes.annotate(name, (x, y), (right, up), textcoords="offset points", **words)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("accuracy", fontsize=9)
    axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.7), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = figures()
    for axes, (name, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        panel(axes, drawn[name], title)
    figure.axes[0].set_ylabel("equalised odds difference\n(0: the groups are served alike)", fontsize=9)
    figure.savefig(PICTURE, metadata={"Software": None, "Figures": digest(drawn)})
    print(PICTURE)


if __name__ == "__main__":
    main()
