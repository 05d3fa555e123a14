"""Commands beside other work: how much slower than their fair share of the processors explains.

    python benchmarks/throttled.py [--busy 0 1 2] [--commands edit balance simulate]

Beside each command run 0, 1 and 2 processes a core that do nothing but count. With k of them on each of n cores, and a
command that keeps t threads busy while it is alone (processor time over time), the command's fair share makes it
max(1, (t + n k) / n) times slower, where t <= n. The bar is 1.5 times that. Threads that spin while they wait for one
another miss it by far. Run it on an idle machine: what else is running counts as one more competitor for the first
column as well. Exit status 1 above the bar.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vlbias.processors import usable_processors

REPOSITORY = Path(__file__).resolve().parents[1]
BAR = 1.5
COMMANDS = {
    "edit": "edit {faces} {out} --age 1 --seed 0",
    "balance": "balance synthfaces:120 {out} --target smile --protected skin --limit 8 --chunk-size 8",
    "simulate": "simulate synthfaces:300 {out} --target smile --protected skin --shares 0,0.5 --repeats 1 --steps 60",
}


@contextmanager
def busy(number: int) -> Iterator[None]:
    """So many processes that keep a core each."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(words: Sequence[str]) -> tuple[float, float]:
    """(seconds, processor seconds) of a command."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", "from vlbias.cli import main; main()"]
    done = subprocess.run([*program, *words], env=environment, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def fair(threads: float, cores: int, competitors: int) -> float:
    """How many times slower a command is that gets its share and no less.

    Example:
        >>> fair(2.0, 2, 2), fair(1.0, 2, 2), fair(1.0, 2, 0)
        (2.0, 1.5, 1.0)
    """
    return max(1.0, (min(threads, cores) + competitors) / cores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 1, 2], help="a core; the first is the base")
    parser.add_argument("--commands", nargs="*", choices=sorted(COMMANDS), default=list(COMMANDS))
    arguments = parser.parse_args()
    cores, base, worst = usable_processors(), Path(tempfile.mkdtemp(prefix="throttled-")), 0.0
    draw = "from vlbias import open_dataset; open_dataset('synthfaces:4').image('synth-0-000000').save('{}')"
    face = base / "face.png"
    subprocess.run([sys.executable, "-c", draw.format(face)], cwd=REPOSITORY, check=True)
    print(f"{cores} cores, {os.getloadavg()[0]:.1f} processes at work before the first")
    print(f"{'command':10}{'busy a core':>12}{'s':>8}{'threads':>9}{'slower':>8}{'fair':>7}{'over fair':>11}")
    for name in arguments.commands:
        alone, threads = 0.0, 0.0
        for each in arguments.busy:
            words = COMMANDS[name].format(faces=face, out=base / f"{name}-{each}").split()
            with busy(each * cores):
                seconds, work = measured(words)
            alone, threads = alone or seconds, threads or work / seconds
            share = fair(threads, cores, each * cores) / fair(threads, cores, arguments.busy[0] * cores)
            over = seconds / alone / share
            worst = max(worst, over)
            print(
                f"{name:10}{each:12}{seconds:8.1f}{work / seconds:9.2f}{seconds / alone:8.2f}{share:7.2f}{over:11.2f}",
                flush=True,
            )
    shutil.rmtree(base)
    sys.exit(worst > BAR)


if __name__ == "__main__":
    main()
