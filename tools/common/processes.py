"""Processes seen from outside: the tree under one, what each is doing, and the most memory they held together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_trgl.runtime.memory import high_water

PROC = Path("/proc")
GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What reading /proc raises about a process that has just ended."""

SAMPLE_SECONDS = 0.01


class CommandError(Exception):
    """A command failed; the text is the end of what it said."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A command that came to its end: what it printed, and the most MiB that its processes held together."""

    output: str
    peak_mb: float


def edge_trgl(*arguments: str) -> list[str]:
    """The command line of `edge-trgl ARGUMENTS` under this interpreter."""
    return [sys.executable, "-m", "edge_trgl", *arguments]


def output_of(command: Sequence[str]) -> str:
    """Run a command to its end; returns its standard output.

    Raises:
        CommandError: it ended with another code than 0.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)}\nended with code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


class Marks:
    """The high-water marks of the processes under one, added up while they live.

    A process may reset its own mark, so the highest value seen of each counts; `peak_mb` is the largest sum of
    these over the processes alive at one moment.
    """

    def __init__(self, root: int) -> None:
        self.peak_mb = 0.0
        self._root = root
        self._highest: dict[int, float] = {}

    def sample(self) -> list[int]:
        """Read all marks; returns the processes alive, parents first."""
        alive = tree(self._root)
        for pid in alive:
            with suppress(*GONE):
                mark = high_water.peak_mb(PROC / str(pid))
                self._highest[pid] = max(self._highest.get(pid, 0.0), mark)
        together = set(alive) & set(tree(self._root))  # one of a later moment may have come when one had gone
        self.peak_mb = max(self.peak_mb, sum(self._highest.get(pid, 0.0) for pid in together))
        return alive


def watch(command: Sequence[str]) -> Watched:
    """Run a command to its end, reading the high-water mark of every process of its tree all the while.

    Raises:
        CommandError: it ended with another code than 0.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=output, stderr=errors)
        marks = Marks(child.pid)
        while child.poll() is None:
            marks.sample()
            time.sleep(SAMPLE_SECONDS)
        output.seek(0)
        errors.seek(0)
        if child.returncode != 0:
            raise CommandError(f"{' '.join(command)}\nended with code {child.returncode}\n{errors.read()[-2000:]}")
        return Watched(output=output.read(), peak_mb=marks.peak_mb)


def tree(root: int) -> list[int]:
    """`root` and its living descendants, parents first."""
    found = [root]
    for pid in found:
        with suppress(*GONE):
            for task in (PROC / str(pid) / "task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def job_of(pid: int) -> str | None:
    """The job that a process of edge-trgl does (`prepare`, `plan`, `train`, ...), None for any other process."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except GONE:
        return None
    return words[words.index("edge_trgl.jobs") + 1] if "edge_trgl.jobs" in words else None


def wait_until_gone(pids: Sequence[int]) -> None:
    """Return once none of `pids` runs any more; those that nobody has reaped count as gone."""
    while any(_runs(pid) for pid in pids):
        time.sleep(SAMPLE_SECONDS)


def _runs(pid: int) -> bool:
    with suppress(*GONE):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False
