"""How an error ends the command: in a sentence and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from edge_trgl.runtime.errors import EdgeTrglError, missing_package
from edge_trgl.runtime.processes.apart import ApartError
from edge_trgl.runtime.processes.supervisor import ChildCrashedError


def outcome_of(function: Callable[[], int]) -> int:
    """Call a function and return its exit code; a user's mistake is told in a sentence and has its own code."""
    try:
        return function()
    except KeyboardInterrupt:
        return 130
    except EdgeTrglError as error:
        return _refuse(error)
    except ModuleNotFoundError as error:
        refusal = missing_package(error, "this command")
        if refusal is None:
            raise
        return _refuse(refusal)
    except (ApartError, ChildCrashedError) as error:
        # The child has printed its traceback.
        _say(f"edge-trgl: {error}; this is a bug, please report it with the lines above")
        return 1
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _refuse(error: EdgeTrglError) -> int:
    """Print an error, one mistake a line; return its code."""
    error.name_run(None)
    for line in error.message.splitlines():
        _say(f"edge-trgl: {line}")
    if error.hint:
        _say(f"  {error.hint}")
    return error.exit_code


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
