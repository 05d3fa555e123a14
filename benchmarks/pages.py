"""How long people wait for what they look at and type: python benchmarks/pages.py [report app start]

report: a run of 10,000 edits becomes a page; its size, and how long a browser takes to open it.
app: from a slider of `vlbias app` to a picture, encoded as the browser is sent it. On a face that was just dropped, a
preview and the full render with its readings; the bars are for two cores.
start: processor seconds, user and system, of a fresh process: `--help` of every command (the slowest counts), imports,
and one edit. What is compared with `import torch` is measured in turns with it.

Medians, each with its ratio to its bar. The exit status is 1 if a ratio is above 1.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

#: Class => group => faces: 10,000 places to fill.
BEFORE = {"0": {"dark": 6000, "light": 1000}, "1": {"dark": 1000, "light": 6000}}
#: (what, its median or a number, its bar, unit)
Row = tuple[str, float, float, str]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# -- report -----------------------------------------------------------------------------------------------------------


@cache
def drawn(kind: int, target: str, group: str) -> bytes:
    """A face of the embedded world as a PNG of 128 px."""
    from vlbias.images import to_pil
    from vlbias.world import render, sample

    file = io.BytesIO()
    to_pil(render(sample(1, seed=kind).replace(smile=int(target), skin=group), 128))[0].save(file, "PNG")
    return file.getvalue()


def measure_report(rounds: int) -> Iterator[Row]:
    from finished_run import write_run

    from vlbias import report

    def picture(key: str, group: str, target: str) -> bytes:
        return drawn(int(key.rpartition("-")[2]) % 400, target, group)

    with tempfile.TemporaryDirectory() as folder:
        out = write_run(Path(folder), picture, before=BEFORE)
        took = seconds(lambda: report.write(out))
        page = out / "report.html"
        yield "page of 10,000 edits, written (no bar)", took, float("inf"), "s"
        yield "page of 10,000 edits, size", page.stat().st_size / 1e6, 8.0, "MB"
        yield "page of 10,000 edits, opened", statistics.median(opened(page, rounds)), 2.0, "s"


def opened(page: Path, rounds: int) -> list[float]:
    """Seconds from an address to a page whose pictures are there and painted, each in a new context."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    painted = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def show() -> None:
            tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            tab.goto(page.as_uri(), wait_until="load")
            tab.evaluate(painted)

        took = [seconds(show) for _ in range(rounds)]
        browser.close()
    return took


# -- app --------------------------------------------------------------------------------------------------------------


def measure_app(rounds: int, name: str) -> Iterator[Row]:
    import torch

    from vlbias import Editor
    from vlbias.app.editing import Bench, Edit, Lookup
    from vlbias.images import save_png, to_pil
    from vlbias.world import render, sample

    editor = Editor.from_pretrained(name, device="cpu")
    path = editor.attributes[0]
    took: dict[str, list[float]] = {}

    def encoded(edit: Edit) -> None:
        """Both pictures as the divided picture gets them."""
        for picture in (edit.before, edit.after):
            picture.save(io.BytesIO(), format="PNG")

    def full(bench: Bench) -> None:
        edit = bench.edit({path: 0.9})
        encoded(edit)
        bench.readings(edit)
        bench.identity(edit)

    with tempfile.TemporaryDirectory() as folder:
        for number, face in enumerate(to_pil(render(sample(rounds, seed=5), size=editor.image_size))):
            bench, file = Bench(editor), Path(folder) / f"{number}.png"
            save_png(face, file)
            steps: dict[str, Callable[[], object]] = {
                "dropped": lambda bench=bench, file=file: bench.open(file, Lookup(find="face", check=False)),
                "first": lambda bench=bench: encoded(bench.edit({path: 0.5}, preview=True)),
                "later": lambda bench=bench: encoded(bench.edit({path: 0.7}, preview=True)),
                "full": lambda bench=bench: full(bench),
            }
            for step, work in steps.items():
                took.setdefault(step, []).append(seconds(work))
    median = {step: statistics.median(values) for step, values in took.items()}
    with_threads = f"{name}, {torch.get_num_threads()} threads"
    yield f"face dropped, {with_threads} (no bar)", median["dropped"], float("inf"), "s"
    yield f"first preview, {with_threads}", median["first"], 1.0, "s"
    yield f"later preview, {with_threads}", median["later"], 1.0, "s"
    yield f"full render, {with_threads}", median["full"], 4.0, "s"


# -- start ------------------------------------------------------------------------------------------------------------


def processor_seconds(*words: str) -> float:
    """User and system seconds of Python with these words."""
    quiet = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(quiet.pid, 0)
    quiet.returncode = os.waitstatus_to_exitcode(status)
    if quiet.returncode:
        raise SystemExit(f"python {' '.join(words)} ended with {quiet.returncode}.")
    return used.ru_utime + used.ru_stime


def commands() -> list[list[str]]:
    """The words of every command."""
    import typer

    from vlbias.cli import app

    def below(group: typer.core.TyperGroup) -> Iterator[list[str]]:
        for name, command in group.commands.items():
            deeper = list(below(command)) if hasattr(command, "commands") else []
            yield name.split()
            yield from ([*name.split(), *words] for words in deeper)

    return list(below(typer.main.get_command(app)))  # type: ignore[arg-type]


def measure_start(rounds: int) -> Iterator[Row]:
    cli = ("-m", "vlbias.cli")
    helped = {
        " ".join(words): statistics.median(processor_seconds(*cli, *words, "--help") for _ in range(rounds))
        for words in commands()
    }
    slowest = max(helped, key=helped.__getitem__)
    yield f"--help of {len(helped)} commands, slowest: {slowest}", helped[slowest], 0.5, "s"
    python = statistics.median(processor_seconds("-c", "pass") for _ in range(rounds))
    bare = statistics.median(processor_seconds("-c", "import vlbias") for _ in range(rounds))
    yield "import vlbias", bare - python, 0.1, "s"
    with tempfile.TemporaryDirectory() as folder:
        face = Path(folder) / "face.png"
        face.write_bytes(drawn(1, "1", "light"))
        words = {
            "torch": ("-c", "import torch"),
            "editor": ("-c", "from vlbias import Editor"),
            "edit": (*cli, "edit", str(face), folder + "/out", "--age", "1", "--overwrite"),
        }
        took: dict[str, list[float]] = {name: [] for name in words}
        for _ in range(rounds):
            for name, typed in words.items():
                took[name].append(processor_seconds(*typed))
    median = {name: statistics.median(values) for name, values in took.items()}
    yield "import torch (no bar)", median["torch"], float("inf"), "s"
    yield "from vlbias import Editor, more than torch", median["editor"] - median["torch"], 0.5, "s"
    yield "vlbias edit face.png OUT --age 1, of import torch", median["edit"] / median["torch"], 1.75, "x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="report, app, start; all by default")
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="default 20; of starts, a quarter as many")
    arguments = parser.parse_args()
    measures: dict[str, Callable[[], Iterator[Row]]] = {
        "report": lambda: measure_report(arguments.rounds),
        "app": lambda: measure_app(arguments.rounds, arguments.editor),
        "start": lambda: measure_start(max(arguments.rounds // 4, 1)),
    }
    if wrong := [part for part in arguments.parts if part not in measures]:
        parser.error(f"no part '{wrong[0]}'; there are {', '.join(measures)}")
    missed = False
    for part in arguments.parts or measures:
        for what, value, bar, unit in measures[part]():
            print(f"{what:<58} {value:7.3f} {unit:2}  {value / bar:5.2f} of the bar", flush=True)
            missed |= value > bar
    sys.exit(missed)


if __name__ == "__main__":
    main()
