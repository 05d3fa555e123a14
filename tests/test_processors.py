"""Threads fit the processors that may be used, whatever the host has, and sleep while they wait."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest

from vlbias.processors import usable_memory, usable_processors

AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def groups(tmp_path, membership, files):
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        place = tmp_path / "fs" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return {"membership": tmp_path / "cgroup", "cgroups": tmp_path / "fs"}


@pytest.mark.parametrize(
    ("membership", "files", "most"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/job\n", {"job/cpu.max": "100000 100000\n"}, 1),
        ("0::/job\n", {"job/cpu.max": "50000 100000\n"}, 1),
        ("0::/job/step\n", {"job/cpu.max": "100000 100000\n", "job/step/cpu.max": "max 100000\n"}, 1),
        ("4:memory:/a\n1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 1),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "0\n"}, None),
        ("nonsense", {"cpu.max": "1 1"}, None),
    ],
)
def test_a_quota_bounds_the_processors(tmp_path, membership, files, most):
    assert usable_processors(**groups(tmp_path, membership, files)) == (AFFINITY if most is None else most)


@pytest.mark.parametrize(
    ("membership", "files", "megabytes"),
    [
        ("0::/\n", {}, 8000),
        ("0::/\n", {"memory.max": "max\n"}, 8000),
        ("0::/job\n", {"job/memory.max": "2048000000\n"}, 2000),
        ("0::/job/step\n", {"job/memory.max": "2048000000\n", "job/step/memory.max": "max\n"}, 2000),
        ("0::/job\n", {"job/memory.max": "9999999999999\n"}, 8000),
        ("4:memory:/a\n1:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "1024000000\n"}, 1000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, 8000),
        ("nonsense", {"memory.max": "1"}, 8000),
    ],
)
def test_a_limit_bounds_the_memory(tmp_path, membership, files, megabytes):
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    found = usable_memory(**groups(tmp_path, membership, files), meminfo=tmp_path / "meminfo")
    assert found == megabytes * 1024_000
    assert usable_memory(membership=tmp_path / "none", cgroups=tmp_path, meminfo=tmp_path / "none") == float("inf")


def test_no_control_groups(tmp_path):
    assert usable_processors(membership=tmp_path / "none", cgroups=tmp_path) == AFFINITY


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.parametrize("starts", ["CliRunner().invoke(app, ['doctor'])", "Worker({})"])
def test_what_was_freed_is_used_again(starts):
    """What one step of a training frees serves the next one: no pages that the kernel has to clear first."""
    code = f"""
import resource
import torch
from typer.testing import CliRunner
from vlbias.cli import app
from vlbias.engine.worker import Worker
{starts}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    blocks = [torch.ones(2**20) for _ in range(12)]
step()
before = faults()
for _ in range(20):
    step()
print(faults() - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(result.stdout) < 12 * 2**22 / resource.getpagesize()  # of 20 steps less than one step's blocks


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is set through Linux")
@pytest.mark.parametrize(
    ("words", "given", "expected"),
    [
        (["doctor"], {}, "PASSIVE 1 1"),
        (["doctor"], {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE 1 1"),
        # the name of the repository is checked while options are read
        (
            ["balance", "no/faces", "no/out", "--target", "a", "--protected", "b", "--push-to-hub", "me/it"],
            {},
            "PASSIVE 1 1",
        ),
        (["balance", "--verify", "no/out"], {}, "PASSIVE 1 1"),
    ],
)
def test_commands_share_the_processors_before_torch_is_loaded(words, given, expected):
    code = f"""
import os, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
policies = []
def note(event, args):
    if event == "import" and args[0] == "torch":
        policies.append(os.environ.get("OMP_WAIT_POLICY"))
sys.addaudithook(note)
from typer.testing import CliRunner
from vlbias.cli import app
assert CliRunner().invoke(app, {words!r}).exit_code in (0, 1, 2)
import torch
print(policies[0], os.environ["OMP_NUM_THREADS"], torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | given
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.strip() == expected
