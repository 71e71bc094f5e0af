"""`edge-trgl resume`: continue a run from its last commit."""

from __future__ import annotations

from pathlib import Path

import click

from edge_trgl.cli.orders import Order, Train
from edge_trgl.cli.train import AS_JSON, EXPORT
from edge_trgl.cli.verb import Verb, option
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory.limits import Limits


@click.command(cls=Verb)
@click.argument("run", type=Path)
@option(
    "--budget-mb",
    type=float,
    metavar="MIB",
    group="Budget",
    help="continue with this budget",
    default_text="the run's",
)
@option(
    "--disk-mb",
    type=float,
    metavar="MIB",
    group="Budget",
    help="continue with this disk limit",
    default_text="the run's",
)
@EXPORT
@AS_JSON
def resume(
    run: Path,
    budget_mb: float | None,
    disk_mb: float | None,
    then_export: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> Order:
    """Continue a run from its last commit."""
    Run.open(run)
    limits = Limits(budget_mb=budget_mb, disk_mb=disk_mb)
    return Train(run=str(run), limits=limits, then_export=then_export, as_json=as_json)
