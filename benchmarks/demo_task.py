"""How strongly smiling is tied to skin in the demo: found by a rule, on validation faces.

    python benchmarks/demo_task.py                 # writes benchmarks/results/demo_task.json

The rule is :func:`vlbias.demo.choose`: of a fixed grid of ties, from the weakest on, the first at which the demo's own
classifier serves the two groups of validation faces with accuracies that differ by more than
:data:`vlbias.demo.MIN_GAP`. The demo's test faces are not drawn here.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

import numpy as np

from vlbias.classify import FitSettings, fit
from vlbias.demo import GRID, NUM_STEPS, PROTECTED, TARGET, biased_faces, choose, validation_faces
from vlbias.images import load_pixels
from vlbias.optim import in_threads

RESULT = Path(__file__).parent / "results" / "demo_task.json"
SEEDS, NUM_FACES = (0, 1), 400


def main() -> None:
    """Follow the rule with the demo's classifiers: of one thread each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    validation = validation_faces(seed=0)
    pictures = load_pixels(validation, validation.ids, 64)
    found: dict[str, dict[str, object]] = {}
    for tied in GRID:
        with in_threads(1):
            found[str(tied)] = tried(tied, validation.table, pictures)
        print(tied, found[str(tied)], flush=True)
        chosen = choose({int(key): row["accuracy_gap"] for key, row in found.items()})
        if chosen is not None:
            break
    out.parent.mkdir(exist_ok=True)
    today = datetime.date.today().isoformat()
    record = {"command": "python benchmarks/demo_task.py", "date": today, "seeds": SEEDS, "found": found}
    out.write_text(json.dumps(record | {"chosen": chosen}, indent=2) + "\n")


def tried(tied: int, table, pictures) -> dict[str, object]:
    """What plain training does on validation faces where so many of 400 faces are dark and smile."""
    faces = biased_faces(NUM_FACES, seed=0, tied=tied)
    images, labels = load_pixels(faces, faces.ids, 64), faces.table[TARGET].tolist()

    def right(seed: int) -> np.ndarray:
        settings = FitSettings(num_steps=NUM_STEPS, seed=seed)
        return np.array(fit(images, labels, settings=settings).predict(pictures)) == table[TARGET].to_numpy()

    answers = [right(seed) for seed in SEEDS]
    groups = [(table[PROTECTED] == value).to_numpy() for value in ("light", "dark")]
    gaps = [abs(one[groups[0]].mean() - one[groups[1]].mean()) for one in answers]
    return {
        "accuracy": round(float(np.mean(answers)), 4),
        "accuracy_gap": round(float(np.mean(gaps)), 4),
        "gaps": [round(float(gap), 4) for gap in gaps],
    }


if __name__ == "__main__":
    main()
