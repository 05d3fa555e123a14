"""Open thousands of damaged and hostile files as users do: each must end in success or a clear error, soon and small.

    python benchmarks/fuzz.py [--inputs 2000] [--seed 0] [--kinds pictures tables ...] [--keep FOLDER]

Every kind has samples that the library wrote (`fuzz_kinds.py`), which are changed by their bytes and by their meaning
(`fuzz_changes.py`), and bombs made by hand. Input i of a kind depends on the seed, the kind and i alone. Files are
opened in processes of their own, which may take 1 GB more than they have after their imports, and 10 seconds of a
processor an input. A table says how the inputs ended; exit status 1 if one ended badly. `--keep` takes those inputs.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # others reserve a gigabyte that they do not use

import numpy as np
import open_clip
import timm
import torch._dynamo
from fuzz_changes import changed
from fuzz_kinds import KINDS, Kind

from vlbias.errors import VlbiasError

#: Loaded here once; every process that opens files would load them for seconds otherwise.
PRELOADED = (open_clip, timm, torch._dynamo)
SECONDS, MEGABYTES = 10.0, 1024
#: Who has done nothing for so long waits for something that will not come; a busy machine is slower than itself.
HANGING_SECONDS = 300.0
OUTCOMES = ("ok", "refused", "raw exception", "signal", "too slow", "too much memory")
GOOD = OUTCOMES[:2]


@dataclass(frozen=True)
class Ending:
    """How one input ended: an outcome, what was said, seconds, and megabytes above the base."""

    outcome: str
    detail: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


# -- one input --------------------------------------------------------------------------------------------------------


def make_input(kind: Kind, samples: Path, index: int, seed: int, place: Path) -> None:
    """Write input ``index`` of a kind: first its bombs, then samples with one file changed."""
    if index < len(kind.bombs):
        place.mkdir()
        kind.bombs[index](place)
        return
    rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), index])
    choices = sorted(samples.iterdir())
    shutil.copytree(choices[rng.integers(len(choices))], place)
    files = sorted(path for path in place.rglob("*") if path.is_file())
    path = files[rng.integers(len(files))]
    path.write_bytes(changed(path.name, path.read_bytes(), rng))
    kind.renew(place)


def _memory(field: str) -> float:
    """Megabytes of this process, by a field of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _lacked_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError) or re.search(r"memory|alloc", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_input(kind: Kind, place: Path, base: float) -> Ending:
    """Open one input in this process."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest memory is counted anew
    start, helped = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome, detail = "ok", ""
    try:
        kind.open(place)
    except VlbiasError as error:
        outcome, detail = "too much memory" if _lacked_memory(error.__cause__) else "refused", str(error)[:300]
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(f.filename).name}:{f.lineno}" for f in where if "vlbias" in f.filename or f is where[-1]]
        outcome = "too much memory" if _lacked_memory(error) else "raw exception"
        detail = f"{type(error).__name__}: {str(error)[:200]} [{' '.join(own)}]"
    seconds, megabytes = time.process_time() - start, _memory("VmHWM") - base
    # the processes that run graphs of strangers count like this one
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = max(seconds, children.ru_utime + children.ru_stime - helped.ru_utime - helped.ru_stime)
    megabytes = max(megabytes, children.ru_maxrss / 1024)
    if outcome in GOOD and (seconds > SECONDS or megabytes > MEGABYTES):
        outcome = "too slow" if seconds > SECONDS else "too much memory"
    return Ending(outcome, detail, seconds, megabytes)


# -- many inputs ------------------------------------------------------------------------------------------------------


def _be_silent() -> tuple[float, int]:
    """Say nothing more; the memory of this process now, in megabytes, and how many bytes it may address from now on."""
    warnings.simplefilter("ignore")
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _memory("VmRSS"), int((_memory("VmSize") + MEGABYTES) * 2**20)


def _work(name: str, samples: Path, scratch: Path, indices: range, seed: int, answers: Connection) -> None:
    kind = KINDS[name]
    place = scratch / "input"
    for index in indices:
        gc.collect()
        shutil.rmtree(place, ignore_errors=True)
        make_input(kind, samples, index, seed, place)
        answers.send(None)  # what follows may take no longer than it may
        if index == indices[0]:
            base, limit = _be_silent()
        # who makes an input is not bounded, only who opens it
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        ending = open_input(kind, place, base)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        answers.send(ending)


def _endings(name: str, samples: Path, scratch: Path, count: int, seed: int) -> Iterator[tuple[int, Ending]]:
    """Index and ending of every input; whoever dies or hangs is replaced."""
    context = multiprocessing.get_context("fork")
    index = 0
    while index < count:
        ours, theirs = context.Pipe(duplex=False)
        arguments = (name, samples, scratch, range(index, count), seed, theirs)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        while index < count:
            ending = _next_ending(ours, worker)
            yield index, ending
            index += 1
            if ending.outcome not in GOOD and ending.outcome != "raw exception":
                break  # what it holds is not given back
        worker.kill()
        worker.join()
        ours.close()


def _processor_seconds(worker: multiprocessing.process.BaseProcess) -> float:
    fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _next_ending(answers: Connection, worker: multiprocessing.process.BaseProcess) -> Ending:
    try:
        answers.recv()
        start, used = time.monotonic(), _processor_seconds(worker)
        while not answers.poll(1):
            seconds = _processor_seconds(worker) - used
            if seconds > SECONDS or time.monotonic() - start > HANGING_SECONDS:
                return Ending("too slow", seconds=seconds)
        return answers.recv()
    except EOFError:
        worker.join()
        code = worker.exitcode or 0
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        return Ending("signal", name)


def _make_samples(name: str, folder: Path) -> None:
    """In a process of its own: workers begin with nothing that making the samples has left."""
    warnings.simplefilter("ignore")
    folder.mkdir()
    KINDS[name].make(folder)


def run_kind(name: str, count: int, seed: int, keep: Path | None) -> list[Ending]:
    """All inputs of a kind."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        samples = Path(scratch) / "samples"
        maker = multiprocessing.get_context("fork").Process(target=_make_samples, args=(name, samples))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit(f"the samples of {name} cannot be made")
        endings = []
        for index, ending in _endings(name, samples, Path(scratch), count, seed):
            endings.append(ending)
            if len(endings) % 500 == 0:
                print(f"{name}: {len(endings):,} of {count:,}", file=sys.stderr, flush=True)
            if ending.outcome not in GOOD:
                print(f"{name} {index}: {ending.outcome}: {ending.detail}", flush=True)
                if keep is not None:
                    shutil.rmtree(keep / f"{name}-{index}", ignore_errors=True)
                    make_input(KINDS[name], samples, index, seed, keep / f"{name}-{index}")
        return endings


def shares(names: list[str], inputs: int) -> dict[str, int]:
    """How many inputs each kind gets, ``inputs`` together; all bombs are always among them."""
    total = sum(KINDS[name].share for name in names)
    counts = {name: max(inputs * KINDS[name].share // total, len(KINDS[name].bombs) + 1) for name in names}
    counts[names[0]] += max(inputs - sum(counts.values()), 0)
    return counts


def _print_table(endings: dict[str, list[Ending]]) -> None:
    heads = "".join(f"{name:>17}" for name in OUTCOMES)
    print(f"\n{'kind':<12}{'inputs':>8}{heads}{'slowest s':>11}{'most MB':>9}")
    everything = [ending for found in endings.values() for ending in found]
    for name, found in [*endings.items(), ("all", everything)]:
        counts = Counter(ending.outcome for ending in found)
        slowest, most = max(e.seconds for e in found), max(e.megabytes for e in found)
        cells = "".join(f"{counts[outcome]:>17,}" for outcome in OUTCOMES)
        print(f"{name:<12}{len(found):>8,}{cells}{slowest:>11.2f}{most:>9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="how many in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=sorted(KINDS), default=sorted(KINDS), metavar="KIND")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that ended badly")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    gc.freeze()  # what is here now is not looked through again before each input
    counts = shares(arguments.kinds, arguments.inputs)
    endings = {name: run_kind(name, count, arguments.seed, arguments.keep) for name, count in counts.items()}
    _print_table(endings)
    if any(ending.outcome not in GOOD for found in endings.values() for ending in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
