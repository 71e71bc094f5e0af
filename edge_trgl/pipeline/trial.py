"""Plans a configuration without keeping a run: in a temporary folder beside the runs."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.turns import Listener
from edge_trgl.run.lock import locked
from edge_trgl.runtime.processes.apart import apart
from edge_trgl.runtime.records import Document


def plan_of(config: Document, listener: Listener) -> Document:
    """Plan a configuration that passed `preflight`, given as in run.toml; return a PlannedRun as JSON.

    Raises:
        DoesNotFitError: no allowed plan fits the limits.
    """
    process = os.getpid()
    existed = apart(partial(_made, process, config))
    try:
        folder = Path(apart(partial(_folder, process)))
        with locked(folder):
            return Pipeline(folder, listener).plan()
    finally:
        apart(partial(_remove, process, existed))


def _folder(process: int) -> str:
    from edge_trgl.run.folder import PLANNING, RUNS

    # Beside the runs, as the system's temporary folder is in memory on many boards.
    return str(RUNS / f"{PLANNING}{process}")


def _made(process: int, config: Document) -> bool:
    """Make the temporary run; return whether the folder of the runs was there."""
    import shutil

    from edge_trgl.config import sources
    from edge_trgl.run.folder import RUNS, Run, abandoned_plans

    existed = RUNS.exists()
    for abandoned in abandoned_plans():
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        Run.create(Path(_folder(process)), sources.resolve(config))
    except BaseException:
        _remove(process, existed)
        raise
    return existed


def _remove(process: int, existed: bool) -> None:  # noqa: FBT001
    import shutil

    from edge_trgl.run.folder import RUNS

    shutil.rmtree(_folder(process), ignore_errors=True)
    if not existed:
        with contextlib.suppress(OSError):  # prepared data are kept in it
            RUNS.rmdir()
