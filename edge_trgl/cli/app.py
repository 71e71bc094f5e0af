"""The command `edge-trgl`: the process that stays while a run is planned, trained and exported.

It shares the run's budget with every job, so it holds as little as it can. The command line is read in a process
apart, which ends with what the user wants done (an order), and so are results laid out. Verbs that start no run's
jobs do all their work in this process.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from functools import partial
from types import FrameType
from typing import NoReturn

from edge_trgl.cli.outcome import outcome_of
from edge_trgl.runtime.errors import RESUME, StoppedError
from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.records import Document

ORDERING = ("train", "pretrain", "resume", "plan", "evaluate", "export", "report")
"""The verbs whose command line becomes an order."""


def main() -> NoReturn:
    """Run the verb that the command line names; a user's mistake is told in a sentence and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(outcome_of(partial(_run, sys.argv[1:])))


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in ORDERING:
        return _read(arguments)[0]
    code, order = apart(partial(_read, arguments))
    if order is None:
        return code
    from edge_trgl.cli import orders  # here, for the memory of verbs that give none

    return orders.order_of(order).carry_out()


def _read(arguments: Sequence[str]) -> tuple[int, Document | None]:
    """Read the command line, and carry out what is no order; return the exit code, and the order if it is one."""
    from edge_trgl.cli import command

    order = None

    def read() -> int:
        nonlocal order
        code, order = command.read(arguments)
        return code

    return outcome_of(read), order


def _stop(number: int, frame: FrameType | None) -> None:
    # A running child gets the signal itself; this is for the moments between two jobs.
    raise StoppedError("stopped between two jobs", hint=f"To go on from here: {RESUME}")
