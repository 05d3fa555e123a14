"""Give wrong values to public names and to every option of every command, and count what ends in a raw traceback.

    python benchmarks/bad_inputs.py [--only WORD] [--seconds 10] [--taken]

A call may succeed, raise a ``VlbiasError``, or, on the command line, end with exit status 0, 1 or 2. Anything else is
raw; each is printed, and the exit status is 1. A call that is still at work after some seconds has taken its value.
Every path that is given lies in a temporary folder: what is written by a call that takes its value is removed with it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import enum
import functools
import importlib
import inspect
import io
import math
import os
import resource
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_origin

import numpy as np
import pandas as pd
import torch
import typer.main
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from doubles import people, tiny_editor  # noqa: E402  (of the tests)
from jobs import make_inputs, quickly, small_jobs  # noqa: E402

from vlbias import Balancer, cli, load_dataset  # noqa: E402
from vlbias.errors import VlbiasError  # noqa: E402
from vlbias.settings import Settings  # noqa: E402

#: Rooms whose public functions and classes are called.
ROOMS = ("alignment", "attributes", "audit", "balance", "bench", "checkpoints", "classify", "clip", "data", "diffae",
         "editor", "engine", "fairness", "images", "labelling", "labels", "leak", "networks", "optim", "paths",
         "provenance", "recipes", "rendering", "report", "search", "simulate", "types", "world")  # fmt: skip


class TookTooLong(BaseException):
    """The call is at work with its value."""


class Tally:
    """Outcomes of calls, and the raw ones.

    Args:
        seconds: longest time of a call, >= 1.
        show_taken: also print what took its value.
    """

    def __init__(self, seconds: int, show_taken: bool = False):
        self.seconds, self.show_taken = seconds, show_taken
        self.counts, self.raw = Counter[str](), list[str]()

    def call(self, what: str, function: Callable[[], Any]) -> None:
        """Note what becomes of one call."""
        outcome = "taken"
        try:
            with self._limited(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                with contextlib.redirect_stdout(io.StringIO()):
                    function()
        except VlbiasError:
            outcome = "sentence"
        except TookTooLong:
            outcome = "at work"
        except SystemExit as error:
            outcome = {0: "taken", None: "taken", 1: "sentence", 2: "usage"}.get(error.code, "raw")  # type: ignore[arg-type]
        except Exception as error:  # what is looked for
            outcome = "raw"
            self.raw.append(f"{what}: {type(error).__name__}: {str(error)[:120]!r}")
            print(self.raw[-1], flush=True)
        self.counts[outcome] += 1
        if self.show_taken and outcome in ("taken", "at work"):
            print(f"{outcome}: {what}", flush=True)

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            raise TookTooLong

        before = signal.signal(signal.SIGALRM, stop)
        signal.alarm(self.seconds)
        try:
            yield
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            torch.set_grad_enabled(True)  # a call may be cut off where it is not


def wrong_values(work: Path) -> dict[str, Any]:
    """What no argument means, by a word for it; all paths lie in ``work``."""
    return {
        "None": None, "NaN": math.nan, "infinity": math.inf, "true": True, "-1": -1, "0": 0, "huge": 10**30,
        "half": 0.5, "empty text": "", "text": "nosuch", "bytes": b"x", "list": [], "list of None": [None], "dict": {},
        "set": {1}, "object": object(), "no folder": work / "plain.txt" / "place", "folder": work / "folder",
        "file": work / "plain.txt", "array": np.full((2, 2), np.nan), "tensor": torch.zeros(2, 2),
        "table": pd.DataFrame(), "type": int, "complex": 1j, "digit": "١", "half a character": "\udcff",
        "nested": [[["a"]]], "function": len, "date": pd.Timestamp("2020-01-01"), "NUL": "a\0b", "missing": pd.NA,
    }  # fmt: skip


def wrong_words(work: Path) -> tuple[str, ...]:
    """What no option means; all paths lie in ``work``, or below its working directory."""
    plain = work / "plain.txt"
    return ("", " ", "nan", "-1", "0", "1e400", "²", "nosuch", "x" * 3000, str(work / "folder"), str(plain / "place"),
            str(plain), "a=b", "a=b,a=b", "1/0", ",", '"', "\x1b[31m", "🙂", "--", "synthfaces:999999999", "\udcff",
            "a\0b", "None", "1e5", "0.5", "١", "http://localhost:9/x", "s3://nosuch/x", "~nosuch/x", "/dev/null",
            "..", "a\nb", "99999999999999999999")  # fmt: skip


def good_values(work: Path) -> dict[str, Any]:
    """Argument name => a value that belongs there; the other arguments of a call have these."""
    (work / "folder").mkdir()
    (work / "plain.txt").write_text("plain")
    faces = load_dataset("folder", people(work / "people"))
    picture = Image.linear_gradient("L").convert("RGB").resize((16, 16))
    editor, pixels = tiny_editor(), torch.zeros(1, 3, 16, 16)
    parts = editor.renderer
    return {
        "faces": faces, "dataset": faces, "baseline": faces, "balanced": faces, "datasets": [faces], "photo": picture,
        "training_sets": {"a": faces}, "target": "smile", "protected": "gender", "image": picture, "images": [picture],
        "editor": editor, "y_true": [0, 1, 0, 1], "y_pred": [0, 1, 1, 1], "groups": list("aabb"),
        "path": work / "people" / "00.png", "root": work / "people", "spec": work / "people", "folder": work / "out",
        "out_dir": work / "out", "kind": "folder", "column": "smile", "name": "age", "text": "ita:28",
        "which": faces.ids[:2], "item": faces.ids[0], "items": faces.ids[:2], "size": 16, "x": pixels, "x_0": pixels,
        "x_T": pixels, "z_sem": torch.zeros(1, 16), "model": parts.diffae,
        "diffae": parts.diffae, "dipoles": editor.dipoles, "paths": parts.paths, "codes": torch.zeros(8, 16), "n": 2,
        "out": work / "out", "table": faces.table, "columns": ("smile",), "counts": np.ones((2, 2, 2), int), "seed": 0,
        "checkpoint": work / "people", "place": work / "people", "name_or_path": work / "tiny", "strength": 1.0,
        "num_steps": 1, "steps": 1, "results": [], "texts": ["a"], "positive": "a", "negative": "b",
    }  # fmt: skip


def arguments_of(function: Callable[..., Any], good: dict[str, Any]) -> tuple[list[str], dict[str, Any]] | None:
    """The names of a function's arguments, and good values for those that must be given; None if one is not known."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    if dataclasses.is_dataclass(function) and not issubclass(function, Settings):  # type: ignore[arg-type]
        return None  # what the library makes itself
    named = [item for item in parameters.values() if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    needed = [item.name for item in named if item.default is item.empty]
    if not named or not set(needed) <= set(good):
        return None
    return [item.name for item in named], {name: good[name] for name in needed}


def try_python(tally: Tally, work: Path, good: dict[str, Any], only: str) -> None:
    """Every public function and class of the rooms, and the methods of the objects that people hold."""
    balancer = Balancer(good["editor"], target="smile", protected="gender")
    holders: dict[str, Any] = {"Editor()": good["editor"], "Balancer()": balancer, "FaceDataset()": good["faces"]}
    members = {
        holder: {name: getattr(owner, name) for name in dir(type(owner)) if not name.startswith("_")}
        for holder, owner in holders.items()
    }
    for room in ROOMS:
        module = importlib.import_module(f"vlbias.{room}")
        members[room] = {name: getattr(module, name) for name in module.__all__}
    for holder, functions in members.items():
        for name, function in functions.items():
            if only in f"{holder}.{name}" and callable(function) and (found := arguments_of(function, good)):
                _try_all(tally, f"{holder}.{name}", function, *found, wrong_values(work))


def _try_all(
    tally: Tally,
    what: str,
    function: Callable[..., Any],
    names: list[str],
    given: dict[str, Any],
    wrong: dict[str, Any],
) -> None:
    for name in names:
        for word, value in wrong.items():
            values = {**given, name: value}
            tally.call(f"{what}({name}={word})", lambda values=values: function(**values))
    tally.call(f"{what}(nosuch=1)", lambda: function(**given, nosuch=1))


def try_commands(tally: Tally, work: Path, only: str) -> None:
    """Every option of every command, and its first arguments."""
    typer.main.get_command = functools.cache(typer.main.get_command)  # it takes longer than most calls
    root: Any = typer.main.get_command(cli.app)
    for name, job in small_jobs(work / "inputs", work / "cli").items():
        command, name_left = root, name
        while name_left:
            part = name_left if name_left in command.commands else name_left.split()[0]
            command, name_left = command.commands[part], name_left.removeprefix(part).strip()
        if not any(part in f"vlbias {name}" for part in only.split(",")):
            continue
        words = job[len(name.split()) :]
        for item in command.params:
            if item.opts[0].startswith("--"):
                for word in _words_for(item, wrong_words(work)):
                    _try_command(tally, [*job, item.opts[0], word])
        for place in range(min(2, len(words))):
            for word in wrong_words(work):
                _try_command(tally, [*name.split(), *words[:place], word, *words[place + 1 :]])


def _words_for(option: Any, words: tuple[str, ...]) -> tuple[str, ...]:
    """Words that the command itself must judge: Typer takes numbers alone for a number, and nothing for a flag."""
    kind = option.type_descriptor.annotation
    if kind in (int, float):
        return ("-1", "0", "1000000000", "99999999999999999999", "nan", "1e400", "")
    return words[:1] if option.is_flag or _is_choice(kind) else words


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, enum.Enum))


def _try_command(tally: Tally, argv: list[str]) -> None:
    def run() -> None:
        sys.argv = ["vlbias", *argv]
        cli.main()

    tally.call(f"vlbias {' '.join(argv)[-150:]!r}", run)


def main(argv: list[str] | None = None) -> int:
    """Try everything; the number of raw tracebacks decides the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a name, such as audit or 'vlbias edit,vlbias strip'")
    parser.add_argument("--seconds", type=int, default=10, help="longest time of one call")
    parser.add_argument("--taken", action="store_true", help="also print the calls that took their value")
    options = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30,) * 2)  # a number that is too large ends the call alone
    for name in ("torch._dynamo", "torchvision.models", "timm"):  # a call that is cut off must not cut an import
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        work = Path(place) / "a" / "b"  # a word of two dots stays within
        work.mkdir(parents=True)
        os.environ.update(HOME=place, VLBIAS_CACHE=str(work / "cache"))
        good = good_values(work)
        good["editor"].save_pretrained(work / "tiny")
        os.chdir(work)
        tally = Tally(options.seconds, options.taken)
        try_python(tally, work, good, options.only)
        if not options.only or options.only.startswith("vlbias"):
            make_inputs(work / "inputs")
            with quickly():
                try_commands(tally, work, options.only)
        os.chdir(REPOSITORY)
    print(f"{sum(tally.counts.values())} calls: {', '.join(f'{n} {word}' for word, n in tally.counts.most_common())}")
    return 1 if tally.raw else 0


if __name__ == "__main__":
    raise SystemExit(main())
