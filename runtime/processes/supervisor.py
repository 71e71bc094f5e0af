"""Runs child processes for a parent without torch: starts one, listens to its messages, passes signals on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from edge_trgl.runtime.errors import RESUME, OverBudgetError, StoppedError, UsageError, read_error
from edge_trgl.runtime.memory import high_water
from edge_trgl.runtime.memory.allocator_settings import Allocator, allocator_environment
from edge_trgl.runtime.memory.without import WITHOUT
from edge_trgl.runtime.processes.messages import DESCRIPTOR

CGROUP = "EDGE_TRGL_CGROUP"
"""The environment variable that names the cgroup a child enters."""

SPINS = "20000"
"""Times that a thread of libgomp spins for work before it sleeps: about a quarter of a millisecond. The default of
300,000 is most of a scheduler time slice, during which no other process has the core. Measured with two threads on
2 x86 CPUs: beside a busy process 55 images/s, 26 with the default; alone 100 with either, 52 to 89 with 1,000."""

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A child's result, its peak resident memory in MiB (up to its end), and its duration."""

    result: Any
    peak_mb: float
    seconds: float


class ChildCrashedError(Exception):
    """A child crashed because of a bug in this package; its traceback is on standard error."""


class Child:
    """A child process: the part of `subprocess.Popen` that is needed here, for 0.5 MiB less in the parent."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the child has ended and was waited for."""
        if self.returncode is None:
            with suppress(ProcessLookupError):  # a signal may come just when it was waited for
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> None:
        """Wait until the child has ended."""
        self.wait_with_peak()

    def wait_with_peak(self) -> float:
        """Wait until the child has ended; return its high-water mark in MiB, 0 if it was waited for before."""
        if self.returncode is not None:
            return 0.0
        _, status, taken = os.wait4(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return taken.ru_maxrss / 1024


def run_child(
    arguments: Sequence[str],
    *,
    on_message: Callable[[Message], None],
    threads: int | None = None,
    allocator: Allocator = "heap",
    without: Iterable[str] = (),
    cgroup: Path | None = None,
) -> Outcome:
    """Run `python ARGUMENTS` to its end.

    A first SIGINT or SIGTERM is passed on as SIGTERM, and a training child then stops at its next safe point; a
    second one as SIGKILL, which stops it immediately.

    Args:
        arguments: of the Python interpreter.
        on_message: called with each message of the child.
        threads: number of threads that libraries use; None leaves that to them.
        allocator: how the child treats freed memory; its settings must be in the environment before it starts.
        without: the savings that the child does without, of those of `file_pages` and `light_torch`.
        cgroup: the cgroup that the child enters before it loads anything.

    Raises:
        EdgeTrglError: the child's own error; OverBudgetError if the kernel killed it; UsageError if a library
            needs another processor.
        ChildCrashedError: the child failed in a way that the user cannot fix.
    """
    start, own_mb = time.monotonic(), high_water.peak_mb()
    settings = library_settings(threads, allocator) | {WITHOUT: ",".join(without)}
    if cgroup is not None:
        settings[CGROUP] = str(cgroup)
    with _signals() as signals:
        child, messages = _started(arguments, settings)
        try:
            with messages:
                signals.go_to(child)
                last = _listen(messages, on_message)
                ended_mb = child.wait_with_peak()
        finally:
            # If the listener raised, nobody reads the child's messages any more.
            child.kill()
            child.wait()
    code = child.returncode
    assert code is not None
    if code != 0 or signals.received or "result" not in last:
        raise _failure(code, last, signals.received)
    peak_mb = last["result"]["peak_mb"]
    if ended_mb > own_mb:  # else it may be the parent's mark, which a child inherits until it executes Python
        peak_mb = max(peak_mb, ended_mb)
    return Outcome(result=last["result"]["value"], peak_mb=peak_mb, seconds=time.monotonic() - start)


def _started(arguments: Sequence[str], settings: Mapping[str, str]) -> tuple[Child, TextIO]:
    """Start the child with `settings` added to the environment; return it and the stream of its messages."""
    reading, writing = os.pipe()
    try:
        passed = writing + 1  # a copy: the child inherits what it is given by number, and nothing else
        child = Child(
            os.posix_spawn(
                sys.executable,
                [sys.executable, *arguments],
                {**os.environ, **settings, DESCRIPTOR: str(passed)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, writing, passed),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    # Standard output is for results, so what users' code prints goes to standard error.
                    (os.POSIX_SPAWN_DUP2, 2, 1),
                ],
                setsid=True,  # a terminal's Ctrl-C reaches the parent alone
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
            )
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return child, os.fdopen(reading, encoding="utf-8")


def _listen(messages: Iterable[str], on_message: Callable[[Message], None]) -> Mapping[str, Message]:
    """Pass every message on; return the last one of each kind."""
    last = {}
    for line in messages:
        if not line.endswith("\n"):
            break  # the child was killed while it wrote this line
        message: Message = json.loads(line)
        last[message["kind"]] = message
        on_message(message)
    return last


def library_settings(threads: int | None, allocator: Allocator) -> dict[str, str]:
    """Return the environment variables that libraries read at start; `threads` None leaves that to them."""
    # NumPy's OpenBLAS would otherwise reserve buffers for threads that are never used.
    settings = {"OPENBLAS_NUM_THREADS": "1", **allocator_environment(allocator)}
    if threads:
        settings |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        settings["GOMP_SPINCOUNT"] = SPINS
    return settings


def _failure(code: int, last: Mapping[str, Message], signals: list[int]) -> Exception:
    error = last.get("error")
    if signals and (error is None or error["exit_code"] == StoppedError.exit_code):
        text = error["message"] if error else "stopped at once"
        stopped = StoppedError(text, hint=f"To go on from the last commit: {RESUME}")
        if signal.SIGINT in signals:
            stopped.exit_code = 128 + signal.SIGINT
        return stopped
    if error is not None:
        return read_error(error)
    if code == -signal.SIGKILL:
        return OverBudgetError(
            "the training process was killed from outside, most likely by the kernel because memory ran out",
            hint=f"Stop other programs, then go on from the last commit: {RESUME}",
        )
    if code == -signal.SIGILL:
        return _illegal_instruction()
    return ChildCrashedError(f"a child process ended with code {code}")


def _illegal_instruction() -> UsageError:
    import platform

    from edge_trgl.runtime.processes import processor  # here, for its memory: hardly any run needs it

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
    """Passes SIGINT and SIGTERM on to a child: the first as SIGTERM, later ones as SIGKILL."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._child: Child | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; one that arrives before there is a child is kept for it."""
        self.received.append(number)
        if self._child is not None:
            self._pass_on(self._child)

    def go_to(self, child: Child) -> None:
        """Pass signals on to `child` from now on, and the ones received before."""
        self._child = child
        if self.received:
            self._pass_on(child)

    def _pass_on(self, child: Child) -> None:
        child.send_signal(signal.SIGTERM if len(self.received) == 1 else signal.SIGKILL)


@contextmanager
def _signals() -> Iterator[_Signals]:
    """Handle SIGINT and SIGTERM while there is a child; in other threads than the main one, do nothing."""
    signals, before = _Signals(), {}
    with suppress(ValueError):  # another thread than the main one
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
