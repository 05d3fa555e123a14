"""How well edits of real photographs can be told from originals of the same cell, and what a round trip does about it.

    python benchmarks/leak.py UTKFace/ WORK [--protected skin] [--edits 300] [--size own] [--network] [--no-round-trip]

Photographs of adults that the editor was not trained on, gender by skin or by age group: in two cells there are twice
as many as in the other two, and edits fill these up, so that as many edits as originals are compared. Edits are told
from originals as photographs have them (before) and from the same originals after they passed through the editor
(after); beside each, the unedited donors against the same originals. Finished runs stay in WORK.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from vlbias.balance import Balancer
from vlbias.data import load_dataset
from vlbias.editor import Editor
from vlbias.leak import Auc, Leak, LeakSettings, auc_text, describe, leak_lines, measure_leak, size_text

ADULT = 16  # years; the editor was taught on adults
#: For the low-level probe at 128 and 224 px, by protected attribute, and for what a network adds.
BARS, NETWORK_BAR = {"skin": 0.60, "age_group": 0.65}, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the UTKFace photographs")
    parser.add_argument("work", type=Path, help="folder for the runs; research only, as the photographs are")
    parser.add_argument("--protected", choices=sorted(BARS), default="skin")
    parser.add_argument("--editor", default="utkface-64")
    parser.add_argument("--edits", type=int, default=300, help="edits planned in all, at most; as many originals")
    parser.add_argument("--size", choices=("own", "editor"), default="own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", action="store_true", help="a small network as well, at 128 px")
    parser.add_argument("--no-round-trip", action="store_true", help="measure the edits alone")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)

    faces = chosen(arguments)
    probe = "network" if arguments.network else "low-level"
    settings = LeakSettings(probe=probe, seed=arguments.seed, network_size=128)
    balancer = Balancer(
        Editor.from_pretrained(arguments.editor),
        target="gender",
        protected=arguments.protected,
        splits=("train",),
        seed=arguments.seed,
        size=arguments.size,
        leak=settings,
        round_trip=not arguments.no_round_trip,
    )
    way = "edits" if arguments.no_round_trip else "round-trip"
    out = arguments.work / f"{arguments.protected}-{arguments.size}-{way}-{arguments.seed}"
    result = balancer.run(faces, balancer.plan(faces), out)
    print(result.summary())
    found = {"before": before(result.table, out, faces, arguments.protected, settings)}
    if not arguments.no_round_trip:
        print(f"round trip: {result.report['round_trip']}")
        found["after"] = Leak.from_dict(result.report["leak"])
    report(found, arguments.protected)


def chosen(arguments: argparse.Namespace):
    """Unseen adults, all in split "train": half of the planned edits' number in two cells, as many in the others."""
    faces = load_dataset("utkface", arguments.root)
    table = faces.table[(faces.table["split"] != "train") & (faces.table["age"] >= ADULT)]
    table = table.dropna(subset=[arguments.protected])
    one, other = sorted(table[arguments.protected].unique())
    cells = table.groupby(["gender", arguments.protected])
    long = {("female", one), ("male", other)}
    share = min(arguments.edits // 2, *(len(part) // (2 if cell in long else 1) for cell, part in cells))
    parts = [part.sample(2 * share if cell in long else share, random_state=arguments.seed) for cell, part in cells]
    picked = faces.select(pd.concat(parts).index)
    print(f"{share} originals and as many planned edits in each of two cells", flush=True)
    return replace(picked, table=picked.table.assign(split="train"))


def before(table: pd.DataFrame, out: Path, faces, protected: str, settings: LeakSettings) -> Leak:
    """The same edits against the originals as the dataset has them."""
    passed = table["origin"] == "round-trip"
    as_they_were = table.assign(
        file_name=table["file_name"].mask(passed, None), origin=table["origin"].mask(passed, "real")
    )
    return measure_leak(as_they_were, out, target="gender", protected=protected, settings=settings, original=faces.path)


def report(found: dict[str, Leak], protected: str) -> None:
    for name, leak in found.items():
        print(f"\n{name}: {leak.num_edits} edits against {leak.num_originals} originals of the same cell")
        for row in leak.readings:
            bar = BARS[protected] if row.size is not None else None
            mark = "" if bar is None else f"   bar {bar:.2f} {'met' if row.edits.value <= bar else 'MISSED'}"
            print(
                f"  {size_text(row.size):>10}: edits {auc_text(row.edits)}   unedited donors {_text(row.donors)}   "
                f"editing adds {_text(row.excess)}   cell by cell {_text(row.apart)}, donors {_text(row.donors_apart)}"
                f"{mark}\n{'':13}most by {describe(row.statistic)}: {row.statistic_auc:.2f}"
            )
        if leak.network is not None:
            met = "met" if leak.network.excess.value <= NETWORK_BAR else "MISSED"
            print(f"  {leak_lines(leak)[-1]}   bar {NETWORK_BAR:.2f} {met}")


def _text(auc: Auc | None) -> str:
    return "–" if auc is None else auc_text(auc)


if __name__ == "__main__":
    main()
