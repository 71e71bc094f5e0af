"""`python -m edge_trgl.jobs NAME RUN REQUEST`: run one job, send its result and its peak; REQUEST is JSON."""

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
from edge_trgl.runtime.errors import RESUME, EdgeTrglError, OverBudgetError, error_document, missing_package
from edge_trgl.runtime.memory import cgroup, high_water
from edge_trgl.runtime.memory.limits import Limits, larger_mb
from edge_trgl.runtime.processes import light_torch, messages
from edge_trgl.runtime.processes.supervisor import CGROUP
from edge_trgl.runtime.records import read_record, to_json

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run the job that the command line names; return the exit code."""
    name, folder, request = sys.argv[1:]
    _die_with_parent()
    if CGROUP in os.environ:
        # Before anything heavy is loaded: pages are charged to the cgroup in which they are first touched.
        cgroup.enter(Path(os.environ[CGROUP]))
    job = JOBS[name]
    if job.torch != "none":
        light_torch.install(_loaded_whole, whole=job.torch == "whole")
    asked = read_record(job.request, json.loads(request))
    try:
        entry = importlib.import_module(f"edge_trgl.jobs.{job.name}")
        value = entry.run(Run(Path(folder)), asked)
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
            hint=f"To go on from the last commit with more: {RESUME}{_more(asked)}",
        )
        return _tell(over_budget)
    messages.send("result", value=to_json(value), peak_mb=high_water.peak_mb() + _device_mb())
    return 0


def _loaded_whole(wanted: str) -> None:
    text = f"{wanted} is used: torch was loaded whole, about 50 MiB more"
    messages.send("event", text=text)


def _more(request: object) -> str:
    """The option that gives the next start more than this job was given, if it was given a budget."""
    limits = getattr(request, "limits", None)
    if not isinstance(limits, Limits) or limits.budget_mb is None:
        return ""
    return f" --budget-mb {larger_mb(limits.budget_mb)}"


def _device_mb() -> float:
    # Not imported here: most jobs open no device, and this module loads torch.
    device = sys.modules.get("edge_trgl.runtime.memory.device")
    return device.all_opened_mb() if device is not None else 0.0


def _tell(error: EdgeTrglError) -> int:
    messages.send("error", **error_document(error))
    return error.exit_code


def _die_with_parent() -> None:
    # Who kills the parent wants the run to stop; a child that went on alone would hold memory unnoticed.
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _leave(job: Callable[[], int]) -> None:
    """Run `job` and exit without cleanup: unloading libraries, CUDA's above all, would be the process's peak."""
    code = 1
    try:
        code = job()
    except BaseException:  # noqa: BLE001 - as the interpreter does, but without unloading afterwards
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _leave(main)
