"""Kill every command while it writes, run the same command again, and compare every byte with an uninterrupted run.

    python benchmarks/kills.py [--only edit,audit] [--kills 6]

A command is killed (-9) right before its k-th write: a file that is opened to be written, renamed or removed, or a
folder that is made, in OUT or beside it. Files that tell how long something took may differ; nothing else may, and
nothing hidden may stay that an uninterrupted run has not. The jobs are those of ``tests/jobs.py``. Exit status 1 if one
fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from doubles import tree_hash  # noqa: E402  (of the tests)
from jobs import SILENT, TIMES, make_inputs, prepare, run_job, small_jobs  # noqa: E402

#: Events of the interpreter that change what is on the disk, with the place of the path among their arguments.
WRITES = {"os.rename": 0, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0, "shutil.rmtree": 0}


def watch_writes(place: Path, told: Callable[[int], None]) -> None:
    """Call a function with the number of each write in a folder, before it is done; for the life of this process."""
    count, prefix = 0, str(place)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "open":
            path, _, flags = values
            changes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            path, changes = values[WRITES[event]] if event in WRITES else None, event in WRITES
        if changes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(prefix):
            count += 1
            told(count)

    sys.addaudithook(hook)


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own that has all modules loaded; how it ended, as ``os.waitpid`` says."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def lasting(out: Path) -> dict[str, str]:
    """Every entry below a folder, and drafts beside it, but for the files of times."""
    found = tree_hash(out, *out.parent.glob(f".{out.name}*"))
    return {path.removeprefix(str(out.parent)): told for path, told in found.items() if Path(path).name not in TIMES}


def numbers_of_writes(name: str, inputs: Path, out: Path) -> int:
    """How many writes an uninterrupted run has."""
    tally = out.parent / "tally"
    prepare(name, inputs, out)

    def work() -> None:
        watch_writes(out.parent / out.name, lambda count: _note(tally, count))
        run_job(name, inputs, out)

    if in_child(work) != 0:
        raise SystemExit(f"{name} fails by itself")
    return int(tally.read_text())


def _note(tally: Path, count: int) -> None:
    tally.write_text(str(count))


def try_command(name: str, inputs: Path, base: Path, num_kills: int) -> list[str]:
    """What went wrong after each of some kills, spread over the writes of a command."""
    whole, out = base / "whole" / "out", base / "killed" / "out"
    whole.parent.mkdir(parents=True)
    total = numbers_of_writes(name, inputs, whole)
    expected, faults = lasting(whole), []
    moments = sorted({1 + round(step * (total - 1) / max(num_kills - 1, 1)) for step in range(num_kills)})
    for moment in moments:
        shutil.rmtree(out.parent, ignore_errors=True)
        out.parent.mkdir()
        prepare(name, inputs, out)

        def killed(moment: int = moment) -> None:
            watch_writes(out, lambda count: os.kill(os.getpid(), signal.SIGKILL) if count == moment else None)
            run_job(name, inputs, out)

        if in_child(killed) != signal.SIGKILL:
            faults.append(f"write {moment}: it was not killed")
        elif in_child(lambda: _finish(name, inputs, out)) != 0:
            faults.append(f"write {moment} of {total}: the same command fails")
        elif changed := sorted({path for path, _ in expected.items() ^ lasting(out).items()}):
            faults.append(f"write {moment} of {total}: {', '.join(changed[:4])} differ")
    print(f"{name}: {total} writes, killed {len(moments)} times, {len(faults)} faults", flush=True)
    return [f"{name}, {fault}" for fault in faults]


def _finish(name: str, inputs: Path, out: Path) -> None:
    run_job(name, inputs, out, again=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="commands, separated by commas")
    parser.add_argument("--kills", type=int, default=6, help="of each command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        inputs, faults = make_inputs(Path(place) / "inputs"), []
        names = options.only.split(",") if options.only else list(small_jobs(inputs, inputs))
        for name in names:
            if name not in SILENT:
                faults += try_command(name, inputs, Path(place) / name.replace(" ", "-"), options.kills)
                shutil.rmtree(Path(place) / name.replace(" ", "-"))
    print("\n".join(faults) or "every byte the same")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
