"""Run a command, in a memory cgroup if there is one, and watch it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from edge_trgl.runtime.memory import cgroup
from tools.common import kernel
from tools.common.processes import SAMPLE_SECONDS, CommandError, Marks

PROBE_MB = 64.0


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A command that ended: its exit code, what it said, the most MiB that its processes held together, and the
    cgroup's own count of bytes and kills, None outside of one."""

    command: tuple[str, ...]
    code: int
    output: str
    errors: str
    seconds: float
    peak_mb: float
    cgroup_mb: float | None
    kills: int | None

    def document(self) -> Any:
        """The JSON that it printed.

        Raises:
            CommandError: it failed.
        """
        if self.code != 0:
            said = self.errors[-2000:]
            raise CommandError(f"{' '.join(self.command)}\nended with code {self.code}\n{said}")
        return json.loads(self.output)


Hook = Callable[[Sequence[int], cgroup.Cgroup | None], None]
"""Told, at every sample, the processes alive and the cgroup they are in."""


def no_hook(alive: Sequence[int], group: cgroup.Cgroup | None) -> None:
    """Does nothing."""


def watch(
    command: Sequence[str], *, environment: Mapping[str, str], limit_mb: float | None, hook: Hook = no_hook
) -> Watched:
    """Run a command to its end, in a memory cgroup of `limit_mb` MiB if one is given."""
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        _group(limit_mb) as group,
    ):
        began = time.monotonic()
        enter = partial(cgroup.enter, group.path) if group else None
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, preexec_fn=enter)
        marks = Marks(child.pid)
        try:
            while child.poll() is None:
                hook(marks.sample(), group)
                time.sleep(SAMPLE_SECONDS)
        finally:
            child.terminate()  # where we are interrupted: it then leaves nothing behind
            child.wait()
        return Watched(
            command=tuple(command),
            code=child.returncode,
            output=_text(output),
            errors=_text(errors),
            seconds=time.monotonic() - began,
            peak_mb=marks.peak_mb,
            cgroup_mb=kernel.cgroup_peak_mb(group.path) if group else None,
            kills=kernel.cgroup_kills(group.path) if group else None,
        )


def why_no_cgroup() -> str | None:
    """Why this process cannot put others into a memory cgroup; None if it can."""
    try:
        with _group(PROBE_MB):
            return None
    except cgroup.CgroupUnavailableError as error:
        return str(error)


@contextmanager
def _group(limit_mb: float | None) -> Iterator[cgroup.Cgroup | None]:
    if limit_mb is None:
        yield None
        return
    with cgroup.memory_cgroup(limit_mb, f"edge-trgl-proof-{os.getpid()}") as group:
        yield group


def _text(file: TextIO) -> str:
    file.seek(0)
    return file.read()
