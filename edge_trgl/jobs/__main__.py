"""`python -m edge_trgl.jobs NAME RUN REQUEST`: do one job, send its result and its peak; REQUEST is JSON."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from edge_trgl.jobs.requests import JOBS
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import ERRORS, EdgeTrglError, OverBudgetError, missing_package
from edge_trgl.runtime.memory import cgroup, high_water
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.processes.supervisor import CGROUP
from edge_trgl.runtime.records import read_record, to_json

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the job that the command line names; returns the exit code."""
    name, folder, request = sys.argv[1:]
    _die_with_parent()
    if CGROUP in os.environ:
        cgroup.enter(
            Path(os.environ[CGROUP])
        )  # before anything heavy: pages are charged where they are first touched
    job = JOBS[name]
    try:
        entry = importlib.import_module(f"edge_trgl.jobs.{job.name}")
        value = entry.run(Run(Path(folder)), read_record(job.request, json.loads(request)))
    except EdgeTrglError as error:
        return _tell(error)
    except ModuleNotFoundError as error:
        refusal = missing_package(error, f"the job {name}")
        if refusal is None:
            raise
        return _tell(refusal)
    except Exception as error:
        from edge_trgl.runtime.memory import guard

        if not guard.refused(error):
            raise
        over_budget = OverBudgetError(
            "an allocation was refused: the budget leaves no room for it",
            hint="edge-trgl resume RUN --budget-mb N goes on from the last commit with more.",
        )
        return _tell(over_budget)
    messages.send("result", value=to_json(value), peak_mb=high_water.peak_mb() + _device_mb())
    return 0


def _device_mb() -> float:
    # Most jobs open none, and its module would load torch.
    device = sys.modules.get("edge_trgl.runtime.memory.device")
    return device.all_opened_mb() if device is not None else 0.0


def _tell(error: EdgeTrglError) -> int:
    # Of a kind that only its own process tells apart, the kind that it belongs to.
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
    messages.send("error", name=name, message=error.message, hint=error.hint, exit_code=error.exit_code)
    return error.exit_code


def _die_with_parent() -> None:
    # Whoever kills the parent means the run: a trainer that went on alone would hold memory unseen.
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _leave(job: Callable[[], int]) -> None:
    """Do it and be gone: unloading libraries, CUDA's above all, would be the highest moment of the process."""
    code = 1
    try:
        code = job()
    except BaseException:  # noqa: BLE001 - the interpreter would do the same, and go on to unload
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _leave(main)
