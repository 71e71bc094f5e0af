"""Measure the exported files of a run in turn, in a process that has nothing else to do. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_trgl.deploy import bench
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError, OverBudgetError
from edge_trgl.runtime.memory import guard

RUNS = 200
SECONDS = 10.0


def run(run: Run, *, names: Sequence[str], others_mb: float, budget_mb: float) -> dict[str, Any]:
    """What `bench.side_by_side` says.

    Args:
        run: exported.
        names: of files in its folder.
        others_mb: MiB at most of the parent.
        budget_mb: for both.

    Raises:
        InputError: a file cannot be computed.
        OverBudgetError: the budget has no room for all of them at once.
    """
    guard.set_guard(budget_mb - others_mb)
    try:
        return bench.side_by_side([run.folder / name for name in names], runs=RUNS, seconds=SECONDS)
    except InputError as error:
        # Of a file that cannot be loaded, whatever the reason.
        if error.__cause__ is not None and guard.refused(error.__cause__):
            raise OverBudgetError("the budget leaves no room to measure the files beside one another") from error
        raise
