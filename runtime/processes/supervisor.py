"""A parent without torch: starts one child process after another, listens to it, passes signals on."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from edge_trgl.runtime.errors import ERRORS, OverBudgetError, StoppedError, UsageError
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator import Allocator, allocator_environment
from edge_trgl.runtime.processes import processor
from edge_trgl.runtime.processes.messages import DESCRIPTOR

CGROUP = "EDGE_TRGL_CGROUP"
"""Names the cgroup that a child enters."""

SPINS = "20000"
"""How often a thread of libgomp looks for work before it sleeps, about a quarter of a millisecond; its own 300,000
are most of a scheduler's time slice, in which nobody else has the core. Beside a busy process two threads trained
at 26 images/s, and at 55 with this; alone at 100 both ways, and with 1,000 at 52 to 89 (2 CPUs, x86)."""

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a child left behind: its result, its peak RSS in MiB, its end included, and its duration."""

    result: Any
    peak_mb: float
    seconds: float


class ChildCrashedError(Exception):
    """A child ended by a bug of ours; its traceback is on standard error."""


def run_child(
    arguments: Sequence[str],
    *,
    on_message: Callable[[Message], None],
    threads: int | None = None,
    allocator: Allocator = "heap",
    cgroup: Path | None = None,
) -> Outcome:
    """Run `python ARGUMENTS` to its end.

    `allocator`: what becomes of freed memory; its settings must stand before the child starts.
    `cgroup`: where the child puts itself before it loads anything. SIGINT and SIGTERM are passed on
    as SIGTERM, a second one as SIGKILL: a training child then stops at its next safe point, or at once.

    Raises:
        EdgeTrglError: what the child raised; OverBudgetError where the kernel killed it, UsageError where a
            library does not suit this processor.
        ChildCrashedError: it failed in a way that is not the user's to mend.
    """
    start, own_mb = time.monotonic(), high_water.peak_mb()
    with _signals() as signals:
        child, messages = _started(arguments, lambda writing: _environment(writing, threads, cgroup, allocator))
        try:
            with messages:
                signals.go_to(child)
                last = _listen(messages, on_message)
                ended_mb = _wait(child)
        finally:
            # Where the listener failed, nobody would hear what the child still says.
            child.kill()
            child.wait()
    if child.returncode != 0 or signals.came or "result" not in last:
        raise _failure(child.returncode, last, signals.came)
    peak_mb = last["result"]["peak_mb"]
    if ended_mb > own_mb:  # else it is what a child has from its parent, before it becomes another program
        peak_mb = max(peak_mb, ended_mb)
    return Outcome(result=last["result"]["value"], peak_mb=peak_mb, seconds=time.monotonic() - start)


def _wait(child: subprocess.Popen[bytes]) -> float:
    """Wait for the child's end; its high-water mark in MiB as the kernel kept it, 0 where that is gone."""
    try:
        _, status, taken = os.wait4(child.pid, 0)
    except ChildProcessError:  # a signal that was passed on has found it ended, and taken the mark
        child.wait()
        return 0.0
    child.returncode = os.waitstatus_to_exitcode(status)
    return taken.ru_maxrss / 1024


def _started(
    arguments: Sequence[str], environment: Callable[[int], Mapping[str, str]]
) -> tuple[subprocess.Popen[bytes], TextIO]:
    """The child, and what it says; `environment` is told the descriptor that it says it through."""
    reading, writing = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(writing),
            pass_fds=[writing],
            stdout=2,  # whatever users' code prints is not a result
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the parent alone
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return child, os.fdopen(reading, encoding="utf-8")


def _listen(messages: Iterable[str], on_message: Callable[[Message], None]) -> Mapping[str, Message]:
    """Hand every message on; returns the last one of each kind."""
    last = {}
    for line in messages:
        if not line.endswith("\n"):
            break  # a kill came in the middle of it
        message: Message = json.loads(line)
        last[message["kind"]] = message
        on_message(message)
    return last


def library_settings(threads: int | None, allocator: Allocator) -> dict[str, str]:
    """What libraries read in the environment when a process starts; `threads`: None leaves that to them."""
    # NumPy's OpenBLAS would otherwise reserve buffers for threads that nobody uses.
    settings = {"OPENBLAS_NUM_THREADS": "1", **allocator_environment(allocator)}
    if threads:
        settings |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        settings["GOMP_SPINCOUNT"] = SPINS
    return settings


def _environment(
    descriptor: int, threads: int | None, cgroup: Path | None, allocator: Allocator
) -> Mapping[str, str]:
    settings = library_settings(threads, allocator)
    if cgroup is not None:
        settings[CGROUP] = str(cgroup)
    return {**os.environ, **settings, DESCRIPTOR: str(descriptor)}


def _failure(code: int, last: Mapping[str, Message], signals: list[int]) -> Exception:
    error = last.get("error")
    if signals and (error is None or error["exit_code"] == StoppedError.exit_code):
        text = error["message"] if error else "stopped at once"
        stopped = StoppedError(text, hint="edge-trgl resume RUN goes on from the last commit.")
        if signal.SIGINT in signals:
            stopped.exit_code = 128 + signal.SIGINT
        return stopped
    if error is not None:
        return ERRORS[error["name"]](error["message"], hint=error["hint"])
    if code == -signal.SIGKILL:
        return OverBudgetError(
            "the training process was killed from outside, most likely by the kernel for want of memory",
            hint="edge-trgl resume RUN goes on from the last commit; stop other programs first.",
        )
    if code == -signal.SIGILL:
        return _illegal_instruction()
    return ChildCrashedError(f"a child process ended with code {code}")


def _illegal_instruction() -> UsageError:
    name = processor.processor()
    if platform.machine() == "aarch64" and not processor.has_large_atomics():
        return UsageError(
            f"the installed torch needs a newer processor than this one ({name}): from 2.10 on, torch uses atomic "
            "instructions of ARMv8.1, which Cortex-A53, A57 and A72 do not have",
            hint='Install the last one that does without: pip install "torch==2.9.1" "torchvision==0.24.1"',
        )
    return UsageError(
        f"a library uses an instruction that this processor ({name}) does not have",
        hint="Install builds of torch and onnxruntime that are made for it.",
    )


class _Signals:
    """SIGINT and SIGTERM on their way to a child: the first as SIGTERM, later ones as SIGKILL."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; one that comes before there is a child waits for it."""
        self.came.append(number)
        if self._child is not None:
            self._pass_on(self._child)

    def go_to(self, child: subprocess.Popen[bytes]) -> None:
        """From now on, `child` gets them, and what came before."""
        self._child = child
        if self.came:
            self._pass_on(child)

    def _pass_on(self, child: subprocess.Popen[bytes]) -> None:
        child.send_signal(signal.SIGTERM if len(self.came) == 1 else signal.SIGKILL)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Take SIGINT and SIGTERM over while there is a child, where this thread can: they come to the main one."""
    signals = _Signals()
    main = threading.current_thread() is threading.main_thread()
    handled = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = [signal.signal(number, signals.note) for number in handled]
    try:
        yield signals
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
