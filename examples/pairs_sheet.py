"""Lay out donors and their kept edits from a balanced folder: python examples/pairs_sheet.py BALANCED OUT.png [N]

The pairs are evenly spaced through the list, not chosen.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from vlbias.files import write_file
from vlbias.images import contact_sheet, open_image
from vlbias.originals import Original


def main(folder: Path, out: Path, num_pairs: int) -> None:
    table = pd.read_csv(folder / "metadata.csv", dtype={"source_id": str})
    originals = table[table["origin"] != "edited"]
    file_of = dict(zip(originals["source_id"], originals["file_name"], strict=True))
    edits = table[table["origin"] == "edited"]
    if not 1 <= num_pairs <= len(edits):
        raise SystemExit(f"{folder} has {len(edits)} edits; {num_pairs} pairs were asked for.")
    chosen = edits.iloc[[round(i * (len(edits) - 1) / max(num_pairs - 1, 1)) for i in range(num_pairs)]]
    pictures = []
    for row in chosen.itertuples():
        # sampled donors that are no part of the dataset stand in a folder of their own
        sampled = folder / "donors" / Path(row.file_name).name
        donor = sampled if sampled.is_file() else folder / file_of[row.source_id]
        pictures.append(contact_sheet([open_image(donor), open_image(folder / row.file_name)], 2, gap_px=1))
    sheet = contact_sheet(pictures, (num_pairs + 1) // 2, gap_px=8)
    write_file(out, Original.of_picture(sheet).encode(sheet, {"synthetic": "true"}).data)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 12)
