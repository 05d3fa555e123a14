"""A search on the tiny faces, and a slow worker that tells when it is in the middle of an epoch."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TinyFaces, tiny_space, tiny_table

from vlbias import search
from vlbias.search.trainer import Trainer

OPTIONS = {
    "protected": "gender",
    "image_size": 16,
    "fidelity": ("epochs", 1, 4),
    "sampler": "random",
    "max_error": 1.0,
    "seed": 3,
    "show_progress": False,
}


def start(storage, n_trials, **options):
    settings = search.TrainSettings(batch_size=16, device="cpu")
    merged = {"eta": None, "space": tiny_space(), **OPTIONS, **options}
    return search.run(TinyFaces(tiny_table()), storage=storage, n_trials=n_trials, training=settings, **merged)


def slow_worker(storage, n_trials, marker):
    """Run in a process of its own: touches ``marker`` half-way through the second epoch and lingers there."""
    set_rate = Trainer._set_rate

    def slow(self, epoch):
        if epoch % 1 >= 0.5 and self.epoch >= 1:
            marker.touch()
            time.sleep(60)
        return set_rate(self, epoch)

    Trainer._set_rate = slow
    start(storage, n_trials)
