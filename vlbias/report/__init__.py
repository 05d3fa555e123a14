"""What people look at: one self-contained HTML page and one JSON file, of a balance run, an audit,
an editor's paths, a simulation or a search.

Nothing on a page is fetched: styles, plots (as vector graphics) and pictures are inside it. It follows the reader's
light or dark scheme, prints, and every figure has a table with the same numbers.
"""

from __future__ import annotations

from vlbias.report.write import (
    write,
    write_audit,
    write_drift,
    write_flips,
    write_paths,
    write_search,
    write_simulation,
)

__all__ = ["write", "write_audit", "write_drift", "write_flips", "write_paths", "write_search", "write_simulation"]
