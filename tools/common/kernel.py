"""Kernel counters that psutil does not read: high-water marks of processes, charges and kills of cgroups.

Nothing here is shared with the product, whose own counters are what the proof doubts.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC, MIB = Path("/proc"), 2**20


def peak_mb(pid: int | str = "self") -> float | None:
    """The most MiB that a process had resident since it began or reset its mark; None of one that has ended."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def own_peak_mb() -> float:
    """The most MiB that this process had resident since it began or since `reset_peak`."""
    found = peak_mb()
    assert found is not None
    return found


def reset_peak() -> None:
    """Let this process's mark begin anew at its present size; where that is forbidden, it stays."""
    with suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")


def cgroup_peak_mb(group: Path) -> float | None:
    """MiB that a memory cgroup (version 2 or 1) was charged at most; None where the kernel does not keep it.

    Args:
        group: its folder.
    """
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        if (group / name).is_file():
            return int((group / name).read_text()) / MIB
    return None


def cgroup_kills(group: Path) -> int:
    """Processes of a memory cgroup (version 2 or 1) that the kernel killed; 0 where it does not count them."""
    name = "memory.events" if (group / "memory.events").is_file() else "memory.oom_control"
    counts = dict(line.split() for line in (group / name).read_text().splitlines())
    return int(counts.get("oom_kill", 0))
