"""What multi-objective halving is worth: hypervolume reached at equal epochs, on a table of recorded trainings.

    python benchmarks/search_pruning.py make-table             # once: 108 configurations x 9 epochs in the drawn world
    python benchmarks/search_pruning.py study --seeds 10       # random, TPE, NSGA-II, each with and without halving
    python benchmarks/search_pruning.py curse                  # what choosing on validation does to the gap
    python benchmarks/search_pruning.py choice                 # how often the chosen trial is dominated on test
    python benchmarks/search_pruning.py speed                  # ranks of 15,000 embeddings of 500 people

The table stands in ``benchmarks/search_table.json``; making it takes about fourteen minutes of one core and goes on
where it stopped; processes with ``--part 1/2`` and ``--part 2/2`` share it. The study replays it through the library's
own loop, so what is measured is what users run; that takes a minute.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlbias.progress import track
from vlbias.search.halving import HalvingSettings, make_sampler, work
from vlbias.search.pareto import dominates, front_ranks, hypervolume
from vlbias.search.spaces import DPN_CELL, Configuration
from vlbias.search.storage import CONFIGURATION

TABLE = Path(__file__).with_name("search_table.json")
OBJECTIVES = ("error", "rank_gap")
EPOCHS, MAX_ERROR = 9, 0.9
RULES = ("none", "error", "both")  # what is compared at rungs
CELLS = [(1, 0, 1), (3, 1, 6), (4, 1, 4)]  # the published one, kernels 3-1-3, and one of 1x1 kernels alone
HEADS, OPTIMIZERS = ["cosface", "arcface", "magface"], ["adamw", "adam", "sgd"]
RATES = {"adamw": [1e-4, 5e-4, 2e-3, 1e-2], "adam": [1e-4, 5e-4, 2e-3, 1e-2], "sgd": [0.09, 0.18, 0.4, 0.8]}


def configurations() -> list[Configuration]:
    """The grid of the table, in a fixed order."""
    grid = itertools.product(CELLS, HEADS, OPTIMIZERS, range(4))
    return [Configuration(DPN_CELL, head, opt, RATES[opt][level], cell) for cell, head, opt, level in grid]


# ---------------------------------------------------------------------------------------------------------------------
# The table


def make_table(path: Path, num_images: int, image_size: int, part: str) -> None:
    """Train every configuration to the end: validation objectives after each epoch, test objectives at the end.

    ``part`` "I/N" takes every N-th configuration from the I-th; processes of different parts share the file.
    """
    from vlbias import search
    from vlbias.errors import TrainingError
    from vlbias.locks import FileLock
    from vlbias.search.spaces import space

    def read() -> dict[str, Any]:
        fresh = {"images": num_images, "size": image_size, "rows": {}}
        return json.loads(path.read_text()) if path.is_file() else fresh

    stored = read()
    if (stored["images"], stored["size"]) != (num_images, image_size):
        raise SystemExit(f"{path} holds a table of other images; move it away first.")
    task = search.make_task(
        search.drawn_people(num_images, 6, image_size=image_size), protected="skin", image_size=image_size
    )
    chosen = space([DPN_CELL], skeleton=search.Skeleton.laptop(), embedding_size=64)
    first, step = (int(number) for number in part.split("/"))
    wanted = list(enumerate(configurations()))[first - 1 :: step]
    with track(len(wanted), "table", "configurations") as progress:
        progress.resume_at(sum(c.label() in stored["rows"] for _, c in wanted))
        for number, configuration in wanted:
            if configuration.label() in stored["rows"]:
                continue
            trainer = search.Trainer(
                task, configuration, chosen, max_epochs=EPOCHS, warmup_epochs=1, seed=(0, number),
                settings=search.TrainSettings(batch_size=48),
            )  # fmt: skip
            rows: list[dict[str, Any]] = []
            started = time.process_time()
            try:
                for epoch in range(1, EPOCHS + 1):
                    trainer.advance(epoch)
                    row: dict[str, Any] = {}
                    for split in ("val", "test") if epoch == EPOCHS else ("val",):
                        evaluation = trainer.evaluate(split)
                        values = evaluation.objectives()
                        row[split] = {name: round(values[name], 5) for name in (*OBJECTIVES, "worst_error", "rank")}
                        row["collapsed"] = float(evaluation.is_collapsed)
                    rows.append(row)
            except TrainingError as error:
                rows.append({"failed": str(error)})
            seconds = round(time.process_time() - started, 2)
            with FileLock(path.with_suffix(".lock")):
                stored = read()
                stored["rows"][configuration.label()] = {"epochs": rows, "cpu_seconds": seconds}
                path.write_text(json.dumps(stored) + "\n")
            progress.update(1)


# ---------------------------------------------------------------------------------------------------------------------
# Replaying it


class GridSpace:
    """The table's grid, offered to Optuna like a search space."""

    def suggest(self, trial: Any) -> Configuration:
        cell = CELLS[trial.suggest_categorical("cell", list(range(len(CELLS))))]
        optimizer = trial.suggest_categorical("optimizer", OPTIMIZERS)
        level = trial.suggest_int(f"rate_{optimizer}", 0, 3)
        return Configuration(
            DPN_CELL, trial.suggest_categorical("head", HEADS), optimizer, RATES[optimizer][level], cell
        )


class Replay:
    """A training that is looked up, counting the epochs it would have taken."""

    def __init__(self, rows: list[dict[str, Any]], count: Callable[[int], None]):
        self.rows, self.count, self.epoch = rows, count, 0

    def advance(self, budget: int) -> Mapping[str, float]:
        self.count(budget - self.epoch)
        self.epoch = budget
        row = self.rows[min(budget, len(self.rows)) - 1]
        if "failed" in row:
            raise RuntimeError(row["failed"])
        return {**row["val"], "error_again": row["val"]["error"], "collapsed": row["collapsed"]}

    def finish(self, keep: bool) -> None:
        pass


def one_study(
    table: dict[str, Any], sampler: str, rule: str, seed: int, total_epochs: int, references: dict[str, Any]
) -> dict[str, list[float]]:
    """Hypervolume of the finished trials after each ninth of the epochs, on validation and of the front on test.

    On test only the trials of the validation front count: they are what a user would evaluate there.
    """
    from vlbias.search.storage import Storage

    spent = [0]
    curve: list[tuple[int, dict[str, float]]] = [(0, dict.fromkeys(references, 0.0))]

    def count(epochs: int) -> None:
        spent[0] += epochs

    def start(configuration: Configuration, number: int, on_epoch: Any) -> Replay:
        return Replay(table["rows"][configuration.label()]["epochs"], count)

    budgets, eta = ((EPOCHS,), None) if rule == "none" else ((1, 3, 9), 3.0)
    # A rule that looks at the error alone is that of both objectives with the error in the place of the gap.
    objectives = ("error", "error_again") if rule == "error" else OBJECTIVES
    settings = HalvingSettings(objectives, budgets, eta, MAX_ERROR)
    storage = Storage(None)
    study = storage.study(2, {"seed": seed})
    study.sampler = make_sampler(sampler, seed)
    trials = 0
    while spent[0] < total_epochs:
        trials += 1
        work(study, storage, GridSpace(), start, settings, n_trials=trials)  # type: ignore[arg-type]
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.values]
        last = [table["rows"][Configuration.from_dict(trial.user_attrs[CONFIGURATION]).label()]["epochs"][-1]
                for trial in done]  # fmt: skip
        kept = [row for row in last if row["val"]["error"] <= MAX_ERROR]
        points = {
            split: np.array([[row[split][name] for name in OBJECTIVES] for row in kept]).reshape(-1, 2)
            for split in references
        }
        points["test"] = points["test"][front_ranks(points["val"]) == 0]
        curve.append((spent[0], {split: hypervolume(points[split], references[split]) for split in references}))
    marks = np.linspace(0, total_epochs, 10)[1:]
    # A trial that ends beyond a mark does not count for it.
    at = [[values for epochs, values in curve if epochs <= mark][-1] for mark in marks]
    return {split: [values[split] for values in at] for split in references}


def finals(table: dict[str, Any], split: str) -> tuple[list[str], np.ndarray]:
    """Labels and final objectives (n, 2) of all trainings that ended well."""
    names, values = [], []
    for name, row in table["rows"].items():
        last = row["epochs"][-1]
        if "failed" not in last and not last["collapsed"] and last["val"]["error"] <= MAX_ERROR:
            names.append(name)
            values.append([last[split][objective] for objective in OBJECTIVES])
    return names, np.asarray(values)


def study(path: Path, seeds: int, total_epochs: int, samplers: list[str], out: Path | None) -> None:
    """Every sampler without halving, with that of the error alone, and with that of both objectives; the same seeds."""
    table = json.loads(path.read_text())
    values = {split: finals(table, split)[1] for split in ("val", "test")}
    references = {split: (1.0, float(found[:, 1].max()) * 1.05) for split, found in values.items()}
    best = {split: hypervolume(found, references[split]) for split, found in values.items()}
    print(f"{len(table['rows'])} trainings, {len(values['val'])} feasible, "
          f"{int((front_ranks(values['val']) == 0).sum())} on the front")  # fmt: skip
    shares: dict[str, dict[str, Any]] = {}
    with track(len(samplers) * len(RULES) * seeds, "studies", "studies") as progress:
        for sampler, rule in itertools.product(samplers, RULES):
            curves: dict[str, list[list[float]]] = {split: [] for split in references}
            for seed in range(seeds):
                for split, curve in one_study(table, sampler, rule, seed, total_epochs, references).items():
                    curves[split].append((np.asarray(curve) / best[split]).tolist())
                progress.update(1)
            shares[f"{sampler} {rule}"] = curves
    for name, curves in shares.items():
        ends = {split: np.asarray(rows)[:, -1] for split, rows in curves.items()}
        text = ", ".join(f"{split} {end.mean():.3f} (s.e. {end.std(ddof=1) / np.sqrt(seeds):.3f})"
                         for split, end in ends.items())  # fmt: skip
        print(f"{name:14} hypervolume after {total_epochs} epochs: {text}")
    for sampler, split in itertools.product(samplers, references):
        for other in ("none", "error"):
            both, against = (np.asarray(shares[f"{sampler} {rule}"][split])[:, -1] for rule in ("both", other))
            difference = both - against
            error = difference.std(ddof=1) / np.sqrt(seeds)
            print(f"{sampler}, {split}: halving by both minus {other} {difference.mean():+.3f} (s.e. {error:.3f})")
    if out:
        out.write_text(json.dumps({"total_epochs": total_epochs, "best": best, "curves": shares}, indent=1) + "\n")


def choice(path: Path, replays: int, trials: int = 16) -> None:
    """How often the trial that is chosen on validation is dominated on test by the one with the lowest error there."""
    from vlbias.search.reliability import choose

    table = json.loads(path.read_text())
    val, test = finals(table, "val")[1], finals(table, "test")[1]
    generator = np.random.default_rng(0)
    replayed = [generator.choice(len(val), min(trials, len(val)), replace=False) for _ in range(replays)]
    rules: dict[str, Callable[[np.ndarray], int]] = {"smallest gap": lambda v: int(np.lexsort((v[:, 0], v[:, 1]))[0])}
    for value in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9):
        rules[f"reliability {value}"] = lambda v, value=value: choose(v[:, 0], v[:, 1], value)  # type: ignore[misc]
    for name, rule in rules.items():
        dominated = np.array([
            dominates(test[chosen[val[chosen, 0].argmin()]], test[chosen[rule(val[chosen])]]) for chosen in replayed
        ])  # fmt: skip
        error = np.sqrt(dominated.mean() * (1 - dominated.mean()) / replays)
        print(f"{name:16} dominated on test in {dominated.mean():.1%} (s.e. {error:.1%}) of {replays} replays")


def curse(path: Path) -> None:
    """The validation front against the same models on test people."""
    table = json.loads(path.read_text())
    _, val = finals(table, "val")
    _, test = finals(table, "test")
    front = front_ranks(val) == 0
    for j, name in enumerate(OBJECTIVES):
        print(
            f"{name}: test - validation, front {np.mean(test[front, j] - val[front, j]):+.4f}, "
            f"all {np.mean(test[:, j] - val[:, j]):+.4f}"
        )
    still = front_ranks(test) == 0
    print(f"{int(front.sum())} on the validation front, {int((front & still).sum())} of them on the test front")


def speed(num_images: int = 15000, num_people: int = 500, size: int = 64) -> None:
    from vlbias.search.metrics import identification_ranks

    generator = np.random.default_rng(0)
    people = np.repeat(np.arange(num_people), num_images // num_people)
    z = generator.normal(size=(num_people, size))[people] + 1.5 * generator.normal(size=(len(people), size))
    wall, cpu = time.perf_counter(), time.process_time()
    identification_ranks(z, people)
    print(
        f"{len(people):,} x {num_people}: {time.perf_counter() - wall:.2f} s ({time.process_time() - cpu:.2f} s of CPU)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["make-table", "study", "curse", "choice", "speed"])
    parser.add_argument("--table", type=Path, default=TABLE, metavar="FILE", help=f"default {TABLE.name}")
    parser.add_argument("--images", type=int, default=900, metavar="N", help="faces of the table's world, default 900")
    parser.add_argument("--image-size", type=int, default=24, metavar="PX", help="default 24")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="of the table's configurations, default all")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="studies per method, default 10")
    parser.add_argument("--replays", type=int, default=1000, metavar="N", help="of the choice, default 1000")
    parser.add_argument("--epochs", type=int, default=270, metavar="N", help="epochs of each study, default 270")
    parser.add_argument("--samplers", default="random,tpe,nsga2", metavar="NAME,...", help="default random,tpe,nsga2")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the curves as JSON")
    arguments = parser.parse_args()
    if arguments.job == "make-table":
        make_table(arguments.table, arguments.images, arguments.image_size, arguments.part)
    elif arguments.job == "study":
        study(arguments.table, arguments.seeds, arguments.epochs, arguments.samplers.split(","), arguments.out)
    elif arguments.job == "curse":
        curse(arguments.table)
    elif arguments.job == "choice":
        choice(arguments.table, arguments.replays)
    else:
        speed()


if __name__ == "__main__":
    main()
