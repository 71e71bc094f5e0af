"""Plans a configuration without keeping a run: in a temporary folder beside the runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from edge_trgl.config.sections import RunConfig
from edge_trgl.pipeline.job_runner import Listener
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.run.folder import PLANNING, RUNS, Run, abandoned_plans


def plan_of(config: RunConfig, listener: Listener) -> PlannedRun:
    """Plan a configuration that passed `preflight`.

    Raises:
        DoesNotFitError: no allowed plan fits the limits.
    """
    with _temporary_run(config) as run:
        return Pipeline(run, listener).plan()


@contextlib.contextmanager
def _temporary_run(config: RunConfig) -> Iterator[Run]:
    import shutil  # here, for its memory: it loads four compressors

    # Beside the runs, as the system's temporary folder is in memory on many boards.
    folder = RUNS / f"{PLANNING}{os.getpid()}"
    existed = RUNS.exists()
    for abandoned in abandoned_plans():
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        run = Run.create(folder, config)
        with run.locked():
            yield run
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):  # prepared data are kept in it
                RUNS.rmdir()
