"""Measure the tables of docs/evidence.md, and write the page from what was measured.

    python benchmarks/evidence.py measure WORK [--only world-0.9 ...] [--utkface UTKFace/] [--budget quick]
    python benchmarks/evidence.py page [--check]

``measure`` runs what is missing and may be run by any number of processes with one WORK; a table that is complete is
written to benchmarks/results (with ``--budget quick`` to WORK/results), with what each fit on drawn faces predicted, so
that it is not fitted again in another WORK. ``page`` fills benchmarks/evidence_template.md with the tables in
benchmarks/results. What other benchmarks print stands in the template, with the command that prints it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, TEMPLATE, PAGE = HERE / "results", HERE / "evidence_template.md", HERE.parent / "docs" / "evidence.md"

WIDE = (
    "undersample", "oversample", "reweight", "trivial-augment", "mixup", "group-dro", "just-train-twice", "edits",
    "edits+group-dro", "edits+oversample",
)  # fmt: skip
SHORT = ("undersample", "oversample", "reweight", "group-dro", "edits", "edits+oversample")
#: What edits are without their direction, without their change, on faces that all passed the editor, and backwards.
CONTROLS = ("round-trip", "random-direction", "edits", "edits+round-trip", "amplify")
#: Who is compared with the others on average: where the figures stand in a table's JSON, and what the page calls them.
ON_AVERAGE = {
    "edits": ("ahead_on_average", "edits"),
    "edits+oversample": ("both_ahead_on_average", "half edits, half copies"),
}
#: The library's own classifier, at its own settings: tuned as well, a table would take days of a core.
OWN = {"classifier": "standard", "tune": False}
#: Of the tables that say most: three fits tell little apart.
FIVE = {"num_seeds": 5}
#: Per cent of the way to more photographs, on gender x skin.
WAY_BAR = 60
#: Accuracy of the oracle below which a task is too hard for the classifier.
LEARNED = 0.6
#: What edits are compared with other methods by, on average over tasks.
AHEAD_IN = {"accuracy": "accuracy", "equalized_odds_difference": "equalised odds difference"}
#: Of the ablations: each variant needs a set of edits of its own and three fits, minutes of a core.
ONE_PAIR = ("world-smile-skin-0.9",)


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        title: its heading.
        methods: arms beside plain training and the oracle.
        tasks: names or patterns.
        variants: of the balanced set, each a row for every method; as ``--set`` takes them.
        options: of ``vlbias.bench.BenchSettings``.
    """

    title: str
    methods: Sequence[str]
    tasks: Sequence[str]
    variants: Sequence[dict[str, Any]] = ({},)
    options: dict[str, Any] = field(default_factory=dict)


TABLES = {
    "world-0.9": Table("Drawn faces, correlation 0.9", WIDE, ["world-*-0.9"]),
    "controls": Table("What it is in edits that helps", CONTROLS, ONE_PAIR),
    "world-0.7": Table("Drawn faces, correlation 0.7", ("undersample", "oversample", "edits"), ["world-*-0.7"]),
    "share": Table(
        "How many edits are enough", ("edits",), ONE_PAIR, [{"share": x} for x in (0.25, 0.5)] + [{}, {"share": 2.0}]
    ),
    "unverified": Table("What verification is worth", ("edits",), ONE_PAIR, [{}, {"verified": False}]),
    "source": Table("Edits of given faces and of drawn ones", ("edits", "edits-prior"), ONE_PAIR),
    "wrong-labels": Table(
        "Wrong protected labels",
        ("oversample", "group-dro", "edits"),
        ONE_PAIR,
        [{}, {"wrong_labels": 0.1}, {"wrong_labels": 0.3}],
    ),
    "strength": Table(
        "Strength as far as needed, and the published random one", ("edits",), ONE_PAIR, [{}, {"strength": "random"}]
    ),
    "varied": Table(
        "Edits as varied as their group, or all like its typical member",
        ("edits",),
        ONE_PAIR,
        [{}, {"varied": 0.0}],
    ),
    "evaluations": Table(
        "Network evaluations of an edit", ("edits",), ONE_PAIR, [{}, *({"edit_steps": n} for n in (1, 6, 18))]
    ),
    "standard": Table(
        "Drawn faces, correlation 0.9, the library's own classifier, ties that it can read",
        ("undersample", "oversample", "reweight", "group-dro", "edits", "edits+oversample"),
        ["world-smile-*-0.9", "world-glasses-*-0.9", "world-gender-*-0.9"],
        options=OWN | FIVE,
    ),
    "fine-tune": Table(
        "The published protocol: plain training first, from where each method goes on",
        ("undersample", "oversample", "edits", "edits+oversample"),
        ONE_PAIR,
        options=OWN | {"protocol": "fine-tune"},
    ),
    "utkface-standard": Table(
        "Photographs of UTKFace, gender or age tied to another label, 64 px, the library's own classifier",
        ("undersample", "oversample", "reweight", "group-dro", "edits", "edits+oversample", "more-real"),
        ["utkface-*-planted"],
        options=OWN | FIVE,
    ),
    "utkface-wide": Table(
        "Every arm on the photographs, 64 px, the library's own classifier",
        (*WIDE, *(arm for arm in CONTROLS if arm not in WIDE), "edits-prior", "more-real"),
        ["utkface-*-planted"],
        options=OWN,
    ),
    "utkface-natural": Table(
        "Photographs of UTKFace as they come, 64 px, the library's own classifier",
        ("undersample", "oversample", "group-dro", "edits", "edits+oversample"),
        ["utkface-*-natural"],
        options=OWN,
    ),
    "utkface-128": Table(
        "Photographs of UTKFace, gender or age tied to another label, 128 px, the library's own classifier",
        ("undersample", "oversample", "reweight", "group-dro", "edits", "more-real"),
        ["utkface-*-planted"],
        options=OWN | FIVE | {"image_size": 128},
    ),
}


def tables(budget: str, utkface: str | None) -> list[str]:
    """Those that are measured where none is named: the first one, or all that there are faces for."""
    there = [name for name in TABLES if utkface is not None or not name.startswith("utkface")]
    return there if budget == "full" else there[:1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("measure")
    one.add_argument("work", type=Path, help="folder for single results; processes that share it share the work")
    which = "tables; by default world-0.9 (quick) or all that there are faces for (full)"
    one.add_argument("--only", nargs="+", choices=list(TABLES), help=which)
    one.add_argument("--budget", choices=("full", "quick"), default="full")
    one.add_argument("--utkface", help="folder of the photographs")
    one.add_argument("--machine", help="what stands below a table; else the processors and the version of PyTorch")
    other = commands.add_parser("page")
    other.add_argument("--check", action="store_true", help="fail if the page is not what would be written")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        from vlbias.processors import keep_freed_memory, share_processors

        share_processors()  # as the commands do, before PyTorch is loaded
        keep_freed_memory()
        for name in arguments.only or tables(arguments.budget, arguments.utkface):
            measure(name, arguments)
    elif not arguments.check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE} is not what `python benchmarks/evidence.py page` writes.")


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(name: str, arguments: argparse.Namespace) -> None:
    """Run what is missing of a table, print it, and write it."""
    from vlbias.bench import BenchTable, Variant, bench

    table, quick = TABLES[name], arguments.budget == "quick"
    roots = {} if arguments.utkface is None else {"utkface": arguments.utkface}
    options = {"roots": roots, "budget": arguments.budget} | table.options | ({"num_seeds": 1} if quick else {})
    tasks = ONE_PAIR if quick and roots == {} else table.tasks
    methods = [name for name in table.methods if not quick or name not in WIDE or name in SHORT]
    if not quick:
        recall(name, arguments.work)
    parts = [bench(methods, arguments.work, tasks=tasks, variant=Variant(**one), **options) for one in table.variants]
    found = BenchTable(
        list({(r.task, r.label, r.seed): r for part in parts for r in part.results}.values()),
        list(dict.fromkeys(note for part in parts for note in part.notes)),
    )
    print(f"{table.title}\n{found}", flush=True)
    folder = arguments.work / "results" if quick else RESULTS
    path = folder / f"bench_{name}.json"
    record = {
        "title": table.title,
        "command": f"python benchmarks/evidence.py measure WORK --only {name}",
        "definition": asdict(table),
        "seeds": sorted({result.seed for result in found.results}),
        "machine": arguments.machine or machine(),
        "date": datetime.date.today().isoformat(),
        "table": found.to_dict(),
    }
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["table"] == record["table"]:  # nothing was measured today
            record |= {key: before[key] for key in ("machine", "date")}
    if "edits" in found.labels:
        ahead = found.ahead("edits").round(4)
        record["ahead"] = {
            task: part.droplevel(0).to_dict("index") for task, part in ahead.groupby(level=0, sort=False)
        }
        for label, (key, _) in ON_AVERAGE.items():
            if len(found.tasks) > 1 and label in found.labels:
                record[key] = {
                    metric: found.ahead(label, metric, on_average=True).round(4).to_dict("index") for metric in AHEAD_IN
                }
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if not quick and not name.startswith("utkface"):  # labels of photographs are not ours to hand on
        keep(name, arguments.work, found.results)


def machine() -> str:
    """What this process works with, as a few words."""
    import torch

    from vlbias.processors import usable_processors

    number = usable_processors()
    return f"{number} CPU core{'s' * (number > 1)}, torch {torch.__version__}"


def recall(name: str, work: Path, results: Path = RESULTS) -> None:
    """Put the fits that a table was made of among those of WORK."""
    path = results / f"fits_{name}.jsonl"
    if not path.is_file():
        return
    from vlbias.bench.results import open_store
    from vlbias.bench.run import RESULTS_FILE

    store = open_store(work / RESULTS_FILE)
    known = store.read()
    for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if (key := record.pop("run")) not in known:
            store.add(key, record)


def keep(name: str, work: Path, fits: Sequence[Any], results: Path = RESULTS) -> None:
    """Write the fits of a table, one line each, in an order that does not depend on who came first."""
    from vlbias.bench.results import open_store
    from vlbias.bench.run import RESULTS_FILE

    wanted = [fit.to_dict() for fit in fits]
    # where an older state came to the same, its key is not the one that is asked for today
    found = {json.dumps(one): key for key, one in open_store(work / RESULTS_FILE).read().items() if one in wanted}
    lines = [
        json.dumps({"run": key, **json.loads(record)}) for record, key in sorted(found.items(), key=lambda x: x[1])
    ]
    (results / f"fits_{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- the page ---------------------------------------------------------------------------------------------------------


def page(results: Path = RESULTS, template: Path = TEMPLATE) -> str:
    """The template with tables in the places of its marks: ``<!-- bench: NAME -->``, ``<!-- demo -->``."""
    text = template.read_text(encoding="utf-8")
    text = re.sub(r"<!-- bench: (\S+) -->", lambda match: _section(results / f"bench_{match[1]}.json"), text)
    text = re.sub(
        r"<!-- ranks: (\S+) (\S+) -->", lambda match: _ranks(*(_read(results, name) for name in match.groups())), text
    )
    text = text.replace("<!-- demo -->", _demo(results / "demo_task.json"))
    text = text.replace("<!-- flips -->", _flips(results / "flips.json"))
    return "<!-- Written by `python benchmarks/evidence.py page`; change the template or measure again. -->\n\n" + text


def _section(path: Path) -> str:
    from vlbias.bench.table import HEADINGS, row_words

    if not path.is_file():
        return (
            f"Not measured yet: `python benchmarks/evidence.py measure WORK --only {path.stem.removeprefix('bench_')}`."
        )
    record = json.loads(path.read_text(encoding="utf-8"))
    methods, tasks = record["table"]["methods"], record["table"]["tasks"]
    lines = [
        f"### {record['title']}",
        "",
        f"`{record['command']}`: {len(tasks)} task{'s' * (len(tasks) > 1)}, seeds {_listed(record['seeds'])}; "
        f"{record['machine']}; {record['date']}.",
        "",
        *_table(HEADINGS, [row_words(label, row) for label, row in methods.items()]),
    ]
    if len(tasks) > 1:
        lines += [
            "",
            "Equalised odds difference of each task:",
            "",
            *_table(("method", *tasks), list(_by_task(methods, tasks))),
        ]
    of_bars = len(tasks) > 1 and all(task.endswith("-0.9") for task in tasks)  # bars are for means over such ties
    notes = [*(_findings(methods) if of_bars else []), *_not_learned(tasks)]
    notes += _on_photographs(tasks, record.get("ahead", {}))
    for key, words in ON_AVERAGE.values():
        notes += _on_average(record.get(key, {}), words, len(tasks))
    notes += record["table"]["notes"]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)] if notes else lines)


def _read(results: Path, name: str) -> dict[str, Any]:
    path = results / f"bench_{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["table"]["tasks"] if path.is_file() else {}


def _ranks(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Whether two tables rank methods alike, on the tasks and methods that both have."""
    from scipy.stats import spearmanr

    found = []
    for task in sorted(set(one) & set(other)):
        methods = sorted(set(one[task]) & set(other[task]))
        ranks = [[table[task][method]["equalized_odds_difference"] for method in methods] for table in (one, other)]
        found.append(f"{spearmanr(*ranks).statistic:.2f} on `{task}` ({len(methods)} methods)")
    if not found:
        return "Whether both classifiers rank methods alike was not measured yet."
    return f"Rank correlation of the two tables in equalised odds difference: {', '.join(found)}."


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _by_task(methods: dict[str, Any], tasks: dict[str, Any]) -> Iterator[list[str]]:
    for label in methods:
        cells = [tasks[task].get(label) for task in tasks]
        yield [label, *("" if cell is None else f"{cell['equalized_odds_difference']:.3f}" for cell in cells)]


def _findings(methods: dict[str, Any]) -> list[str]:
    """What the figures say of arms with edits against the bars, in sentences that follow from them."""
    if not {"erm", "oracle"} <= set(methods):
        return []
    arms = {"edits": "Edits", "edits+oversample": "Edits and copies (`edits+oversample`)"}
    return [
        sentence
        for name, title in arms.items()
        if name in methods
        for sentence in _against_bars(title, methods[name], methods["erm"])
    ]


def _against_bars(title: str, arm: dict[str, Any], plain: dict[str, Any]) -> Iterator[str]:
    parts = [
        (f"cut the {measure} of plain training by {_cut(plain[key], arm[key])} %", _cut(plain[key], arm[key]), 70)
        for key, measure in (
            ("accuracy_gap", "accuracy gap"),
            ("equalized_odds_difference", "equalised odds difference"),
        )
    ]
    if arm["way"] is not None:
        parts.append((f"go {100 * arm['way']:.0f} % of the way to the oracle", round(100 * arm["way"]), 80))
    for text, value, bar in parts:
        yield f"{title} {text} (bar {bar}, {_met(value >= bar)})."
    yield (
        f"{title} come to an accuracy of {arm['accuracy']:.3f}, plain training to {plain['accuracy']:.3f} (bar: not "
        f"lower, {_met(arm['accuracy'] >= plain['accuracy'])})."
    )
    is_met = arm["dominated"] <= arm["tasks"] / 8 and not arm["on_average"]
    yield (
        f"{title} are dominated on {arm['dominated']} of {arm['tasks']} tasks, on average by "
        f"{arm['on_average'] or 'none'} (bar: on one of eight at most, on average by none; "
        f"{_met(is_met)})."
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _not_learned(tasks: dict[str, Any]) -> Iterator[str]:
    """Tasks that the classifier cannot do even with true counterfactuals, and what the others say without them."""
    with_oracle = {task: methods for task, methods in tasks.items() if "oracle" in methods}
    too_hard = [task for task, methods in with_oracle.items() if methods["oracle"]["accuracy"] < LEARNED]
    if not too_hard or len(too_hard) == len(with_oracle):
        return
    others = [methods for task, methods in with_oracle.items() if task not in too_hard]
    names = [name for name in others[0] if all(name in methods for methods in others)]
    words = []
    for name in names:
        accuracy, gap = (
            sum(methods[name][key] for methods in others) / len(others)
            for key in ("accuracy", "equalized_odds_difference")
        )
        words.append(f"`{name}` {accuracy:.3f}, {gap:.3f}")
    yield (
        f"What did not work: on {' and '.join(f'`{task}`' for task in too_hard)} the classifier is right on less "
        f"than {LEARNED} of the faces whatever it is trained on, true counterfactuals included, so these tasks tell "
        f"nothing. Accuracy and equalised odds difference on the other {len(others)}: {'; '.join(words)}."
    )


def _on_photographs(tasks: dict[str, Any], ahead: dict[str, Any]) -> Iterator[str]:
    """Task by task: edits against the best method without any, and their way to as many more photographs."""
    key, won = "equalized_odds_difference", 0
    shown = {task: methods for task, methods in tasks.items() if {"erm", "edits", "more-real"} <= set(methods)}
    for task, methods in shown.items():
        plain = [name for name in methods if "edits" not in name and name != "more-real"]
        best = min(plain, key=lambda name: methods[name][key])
        by, low, high = (ahead[task][best][name] for name in ("ahead", "low", "high"))
        won += low > 0
        most = methods["erm"][key] - methods["more-real"][key]
        share = 100 * (methods["erm"][key] - methods["edits"][key]) / most if most > 0 else 0.0
        way = f"; {share:.0f} % of the way to more photographs"
        if "gender-skin" in task:
            way += f" (bar {WAY_BAR}, {_met(share >= WAY_BAR)})"
        yield (
            f"`{task}`: edits are {'ahead of' if by >= 0 else 'behind'} the best method without any ({best}) by "
            f"{abs(by):.3f} (ahead by {low:.3f} to {high:.3f}) in equalised odds difference{way if most > 0 else ''}."
        )
    if shown:
        is_met = _met(4 * won >= 3 * len(shown))
        yield f"Ahead with the interval above 0: {won} of {len(shown)} tasks (bar: 3 of 4, {is_met})."
        names = [name for name in next(iter(shown.values())) if "edits" not in name and name != "more-real"]
        if len(shown) > 1:
            counts = {name: sum(ahead[task][name]["low"] > 0 for task in shown) for name in names}
            yield (
                f"Of each method without edits they are so ahead on, of {len(shown)} tasks: "
                f"{', '.join(f'`{name}` {count}' for name, count in counts.items())}."
            )


def _on_average(ahead: dict[str, dict[str, Any]], who: str, num_tasks: int) -> Iterator[str]:
    """How far a method is ahead of each other one, by each measure."""
    for metric, methods in ahead.items():
        words = [
            f"`{name}` {one['ahead']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})" for name, one in methods.items()
        ]
        yield (
            f"By {AHEAD_IN[metric]}, mean of {num_tasks} tasks, {who} are better than (below 0: worse) "
            f"{'; '.join(words)}."
        )


def _cut(before: float, after: float) -> int:
    return round(100 * (before - after) / before) if before else 0


def _demo(path: Path) -> str:
    if not path.is_file():
        return "The rule was not followed yet: `python benchmarks/demo_task.py`."
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            tied,
            f"{one['accuracy']:.3f}",
            f"{one['accuracy_gap']:.3f}",
            "chosen" if int(tied) == record["chosen"] else "",
        ]
        for tied, one in record["found"].items()
    ]
    headings = ("dark faces that smile, of 200", "accuracy", "accuracy gap", "")
    return "\n".join(
        [f"`{record['command']}`, validation faces, seeds {_listed(record['seeds'])}:", "", *_table(headings, rows)]
    )


#: Points of a hundred within which flip rates by edits are to be the true ones, and on how many of the four targets.
FLIPS_BAR, FLIPS_TARGETS = 5, 3


def _flips(path: Path) -> str:
    if not path.is_file():
        return "Not measured yet: `python benchmarks/flips.py`."
    record = json.loads(path.read_text(encoding="utf-8"))
    rows, within = [], {}
    for name, one in record["tasks"].items():
        _, target, protected, _ = name.split("-")
        points = [100 * one[key] for key in ("difference", "difference_low", "difference_high")]
        within.setdefault(protected, []).append(abs(points[0]) <= FLIPS_BAR)
        rows.append(
            [
                target,
                protected.replace("_", " "),
                f"{one['accuracy']:.3f}",
                *(f"{100 * one[key]:.1f} %" for key in ("rate", "true_rate")),
                f"{points[0]:+.1f} ({points[1]:+.1f} to {points[2]:+.1f})",
                f"{100 * one['agree']:.1f} %",
            ]
        )
    headings = (
        "target",
        "protected",
        "accuracy",
        "flips by edits",
        "true flips",
        "difference, points",
        "same face by face",
    )
    found = "; ".join(
        f"{protected.replace('_', ' ')} {sum(good)} of {len(good)}, {_met(sum(good) >= FLIPS_TARGETS)}"
        for protected, good in within.items()
    )
    faces = next(iter(record["tasks"].values()))["num_faces"]
    return "\n".join(
        [
            f"`{record['command']}`: {faces} test faces a row, seed {record['seed']}; {record['date']}.",
            "",
            *_table(headings, rows),
            "",
            f"- Within {FLIPS_BAR} points of the true rate (bar: {FLIPS_TARGETS} of 4 targets): {found}.",
        ]
    )


if __name__ == "__main__":
    main()
