"""Kill a run of `vlbias balance` again and again, divide it into shards, and compare every byte with one whole run.

    python benchmarks/kill_and_shard.py [--edits 24] [--chunk-size 4] [--kills 5] [--editor synthfaces-64]

The command line is run as users run it, in processes of its own. All files of the output are compared, and those of its
`.state` too, but for `.state/tmp`, where killed runs leave what they had begun (a finished run without shards empties
it). Exit status 1 if a byte differs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def tree(out: Path) -> dict[str, str]:
    """Every file of an output folder: path => hash."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[:2] != (".state", "tmp")
    }


def chunks_done(out: Path) -> int:
    return len(list((out / ".state" / "chunks").glob("*/result.json")))


class Job:
    """One `vlbias balance` command, for several output folders."""

    def __init__(self, arguments: argparse.Namespace):
        self.words = [sys.executable, "-c", "from vlbias.cli import main; main()", "balance"]
        self.words += [f"synthfaces:{arguments.faces}", "OUT", "--target", "smile", "--protected", "skin"]
        self.words += ["--editor", arguments.editor, "--source", arguments.source, "--seed", str(arguments.seed)]
        self.words += ["--limit", str(arguments.edits), "--chunk-size", str(arguments.chunk_size)]
        # Bytes are promised for one machine and one number of threads.
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        self.environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "PYTHONPATH": path}

    def start(self, out: Path, shard: str | None = None) -> subprocess.Popen[bytes]:
        words = [str(out) if word == "OUT" else word for word in self.words]
        words += [] if shard is None else ["--shard", shard]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, cwd=out.parent, env=self.environment, stdout=quiet, stderr=subprocess.PIPE)

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        _, errors = process.communicate()
        if process.returncode != 0:
            sys.exit(f"the run failed with status {process.returncode}:\n{errors.decode()[-2000:]}")


def kill_and_resume(job: Job, out: Path, moments: list[tuple[int, float]]) -> int:
    """Kill the run at each moment, (chunks done, seconds after that); resume it to the end.

    Returns:
        How often it was killed while it worked.
    """
    kills = 0
    for chunks, wait_s in moments:
        process = job.start(out)
        while process.poll() is None and not ((out / ".state" / "job.json").exists() and chunks_done(out) >= chunks):
            time.sleep(0.02)
        try:
            process.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        killed = process.returncode == -signal.SIGKILL
        kills += killed
        state = "killed" if killed else f"ended by itself with status {process.returncode}"
        print(f"  {state} {wait_s:.2f} s after chunk {chunks}, {chunks_done(out)} chunks done", flush=True)
    job.finish(job.start(out))
    return kills


def compare(name: str, expected: dict[str, str], out: Path) -> bool:
    found = tree(out)
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    changed = sorted(path for path in set(found) & set(expected) if found[path] != expected[path])
    same = not (missing or extra or changed)
    print(f"{name}: {'the same bytes' if same else 'DIFFERENT'} ({len(found)} files)", flush=True)
    for word, paths in (("missing", missing), ("extra", extra), ("changed", changed)):
        for path in paths[:8]:
            print(f"  {word}: {path}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/kill_and_shard"), help="scratch folder; emptied")
    parser.add_argument("--editor", default="synthfaces-64")
    parser.add_argument("--source", choices=["real", "prior"], default="real")
    parser.add_argument("--faces", type=int, default=100, help="size of the dataset of drawn faces")
    parser.add_argument("--edits", type=int, default=24)
    parser.add_argument("--chunk-size", type=int, default=4)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--seed", type=int, default=0, help="of the job and of the moments")
    arguments = parser.parse_args()
    base = arguments.out.resolve()
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    job = Job(arguments)

    start = time.perf_counter()
    job.finish(job.start(base / "whole"))
    expected = tree(base / "whole")
    num_chunks = chunks_done(base / "whole")
    took = time.perf_counter() - start
    print(f"one whole run: {num_chunks} chunks, {len(expected)} files, {took:.0f} s", flush=True)

    # anywhere from the first file of the state to the last chunk, and up to a chunk's own time after that
    draw = random.Random(arguments.seed)
    chunk_s = 0.5 * took / max(num_chunks, 1)
    moments = sorted((draw.randrange(num_chunks), draw.uniform(0, chunk_s)) for _ in range(arguments.kills))
    kills = kill_and_resume(job, base / "killed", moments)
    verdicts = [compare(f"killed {kills} times and resumed", expected, base / "killed")]
    if kills < arguments.kills:
        print(f"only {kills} of {arguments.kills} kills met a run at work; try another --seed or more edits")
        verdicts.append(False)
    for shards in arguments.shards:
        out = base / f"shards-{shards}"
        # side by side, as on several machines that share a disk
        processes = [job.start(out, f"{index}/{shards}") for index in range(1, shards + 1)]
        for process in processes:
            job.finish(process)
        verdicts.append(compare(f"{shards} shard{'s' if shards > 1 else ''}", expected, out))
    print("verdict:", "every byte the same" if all(verdicts) else "FAILED", flush=True)
    sys.exit(not all(verdicts))


if __name__ == "__main__":
    main()
