"""How many processors this program may use, and threads that wait without keeping one busy.

Nothing here imports PyTorch: its threads are set up by the environment that it finds when it is loaded.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["keep_freed_memory", "share_processors", "usable_memory", "usable_processors"]

_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
#: Options of glibc's ``mallopt`` and their values, in bytes: blocks up to the second are taken from what was freed, of
#: which the first is kept.
_MALLOC_OPTIONS = {-1: 64 * 2**20, -3: 32 * 2**20}


def usable_processors(*, membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS) -> int:
    """Processors that this process may keep busy: its affinity, bounded by the quota of its container.

    Args:
        membership: names the process's control groups, as Linux's ``/proc/self/cgroup`` does.
        cgroups: the root of the control groups, version 1 or 2.

    Returns:
        At least 1; a quota of 1.5 processors counts as 2.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_processors(group) for group in _groups("cpu", membership, cgroups))
    return max(1, math.ceil(min(affinity, *quotas, math.inf)))


def usable_memory(
    *, membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS, meminfo: Path = Path("/proc/meminfo")
) -> float:
    """Bytes that this process and those that it starts may still use; infinite where nothing says.

    It is what the machine has free, bounded by the limit of the container.

    Args:
        membership, cgroups: as for :func:`usable_processors`.
        meminfo: what Linux tells of its memory.
    """
    free = re.search(r"^MemAvailable:\s*(\d+) kB$", _text(meminfo), re.MULTILINE)
    limits = (_bytes(group) for group in _groups("memory", membership, cgroups))
    return min(1024.0 * int(free[1]) if free else math.inf, *limits, math.inf)


def share_processors() -> None:
    """Have the threads of PyTorch sleep while they wait, and be no more than the processors that may be used.

    By default they spin. Beside any other work, a thread whose sibling is not running then burns the time that the
    sibling needs. What the user's environment says already is left as it is; call this before PyTorch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_processors()))


def keep_freed_memory() -> None:
    """Have this process keep up to 64 MB of the memory that it freed for what it allocates next.

    By default glibc gives every large block back, and the kernel clears each of its pages again when the next one is
    asked for: up to 12 % of the time of training a small network. What the user's environment says already is left as
    it is; other C libraries are left alone.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC_OPTIONS.items():
            mallopt(option, value)


def _groups(controller: str, membership: Path, cgroups: Path) -> list[Path]:
    """Folders of the control groups of the process and of their parents, as far as they have a controller."""
    places: list[Path] = []
    for line in _text(membership).splitlines():
        text = line.partition(":")[2]
        controllers, named, own = text.partition(":")
        if named and (controllers == "" or controller in controllers.split(",")):
            root = cgroups / controllers  # version 1 has a folder for each set of controllers, version 2 one for all
            folder = root / own.lstrip("/")
            places += [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return places


def _processors(group: Path) -> float:
    """Processors that a control group allows; infinite without a limit."""
    text = _text(group / "cpu.max") or " ".join(
        _text(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    )
    match = re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text)  # "max" and -1 are no limit
    return int(match[1]) / int(match[2]) if match and int(match[1]) and int(match[2]) else math.inf


def _bytes(group: Path) -> float:
    """Memory that a control group allows; infinite without a limit."""
    text = (_text(group / "memory.max") or _text(group / "memory.limit_in_bytes")).strip()
    return int(text) if text.isdecimal() else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
