"""Calls a function in a forked child: what it imports and allocates is gone when it returns.

The parent process lives beside every job and shares the budget with it, so what it needs for a moment (the command
line's library, psutil, the layout of a result) is better loaded in a process of its own, for that moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from edge_trgl.runtime.errors import EdgeTrglError, error_document, read_error

T = TypeVar("T")

TASKS = Path("/proc/self/task")
"""Holds a folder for each thread of this process."""


class ApartError(Exception):
    """The child ended without a result; its traceback is on standard error."""


def apart(function: Callable[[], T]) -> T:
    """Return what `function` returns, from a child forked from this process.

    The result crosses a pipe as JSON, so a tuple becomes a list. Where other threads run, a child might wait for
    ever for a lock that one of them held: the function is then called in this process.

    Args:
        function: what to call; it sees this process as it is now, and cannot change it.

    Raises:
        EdgeTrglError: the function's own.
        ApartError: the function failed in another way, or its process was killed.
    """
    if sum(1 for _ in TASKS.iterdir()) > 1:
        return function()
    # Otherwise the child would write a second time what waits in the buffers.
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(function, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            text = stream.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.waitpid(child, 0)
    return _result(text)


def _result(text: bytes) -> T:  # type: ignore[type-var]  # what the function in the child returned
    if not text:
        raise ApartError("a process of the command ended without a result")
    document = json.loads(text)
    if "error" in document:
        raise read_error(document["error"])
    value: T = document["value"]
    return value


def _answer(function: Callable[[], object], descriptor: int) -> NoReturn:
    """Call the function, write its result or its error, and exit without the parent's cleanup."""
    try:
        # Signals are the parent's to handle; it ends this process.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        try:
            document: dict[str, object] = {"value": function()}
        except EdgeTrglError as error:
            document = {"error": error_document(error)}
        sys.stdout.flush()
        sys.stderr.flush()
        with os.fdopen(descriptor, "w") as stream:
            json.dump(document, stream)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        import traceback  # here, for its memory

        traceback.print_exc()
    finally:
        os._exit(0)
