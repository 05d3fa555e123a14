"""Searches: on the tiny faces, on written-down curves, and by a slow worker that tells when an epoch is half done."""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import numpy as np
from tiny_faces import TinyFaces, tiny_space, tiny_table

from vlbias import search
from vlbias.search.halving import HalvingSettings, make_sampler, work
from vlbias.search.spaces import space
from vlbias.search.storage import Storage
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


class Curve:
    """A run whose objective table is written down: error falls with the budget, number by number."""

    def __init__(self, configuration, number, fail=()):
        self.rate, self.number, self.fail = configuration.learning_rate, number, fail
        self.kept = None

    def advance(self, budget):
        if self.number in self.fail:
            raise RuntimeError(f"trial {self.number} ran out of memory")
        error = 0.1 + abs(np.log10(self.rate) + 3) / 4 + 0.3 / budget
        gap = 0.05 + abs(np.log10(self.rate) + 2.5) / 4 + 0.1 / budget  # the front lies between 10^-3 and 10^-2.5
        return {"error": error, "rank_gap": gap, "collapsed": 0.0}

    def finish(self, keep):
        self.kept = keep


def table_study(tmp_path, n_trials=12, *, settings=None, runner=Curve, sampler="random", name="s.log", n_more=0):
    settings = settings or HalvingSettings(("error", "rank_gap"), (1, 3, 9), 3.0, 0.9)
    storage = Storage(tmp_path / name if name else None)
    study = storage.study(2, {"seed": 0})
    chosen = space(["resnet10t"], ["cosface"], ["adamw", "adam"])
    study.sampler = make_sampler(sampler, 0, chosen.default_parameters())

    def start_run(configuration, number, on_epoch):
        return runner(configuration, number)

    work(study, storage, chosen, start_run, settings, n_trials=n_trials)
    if n_more:
        work(study, storage, chosen, start_run, settings, n_trials=n_trials + n_more)
    return search.Study(study, storage, settings)
