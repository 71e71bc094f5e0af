"""Watch a process tree from outside: its processes, their jobs, and their peak memory in total."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from tools.common import kernel

SAMPLE_SECONDS = 0.01
LOOK_SECONDS = 0.05
"""How often new processes are looked for: that takes milliseconds, a look at a mark far less."""


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
        self._known: list[int] = []
        self._look_at = 0.0
        self._highest: dict[int, float] = {}

    def look(self) -> None:
        """Find the processes anew; `sample` does so from time to time."""
        self._known = tree(self._root)
        self._look_at = time.monotonic() + LOOK_SECONDS

    def sample(self) -> list[int]:
        """Read all marks; returns the processes alive, parents first."""
        if time.monotonic() >= self._look_at:
            self.look()
        for pid in self._known:
            mark = kernel.peak_mb(pid)
            if mark is not None:
                self._highest[pid] = max(self._highest.get(pid, 0.0), mark)
        # Only those that are still there held memory together: another may have gone before one of them came.
        self._known = [pid for pid in self._known if runs(pid)]
        self.peak_mb = max(self.peak_mb, sum(self._highest.get(pid, 0.0) for pid in self._known))
        return list(self._known)


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
    try:
        return [root, *(child.pid for child in psutil.Process(root).children(recursive=True))]
    except psutil.NoSuchProcess:
        return [root]


def job_of(pid: int) -> str | None:
    """The job that a process of edge-trgl does (`prepare`, `plan`, `train`, ...), None for any other process."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return None
    return words[words.index("edge_trgl.jobs") + 1] if "edge_trgl.jobs" in words else None


def wait_until_gone(pids: Sequence[int]) -> None:
    """Return once none of `pids` runs any more; those that nobody has reaped count as gone."""
    while any(map(runs, pids)):
        time.sleep(SAMPLE_SECONDS)


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False
