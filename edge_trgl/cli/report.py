"""`edge-trgl report`: one page about a run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_trgl.cli.orders import Order, Report
from edge_trgl.cli.verb import Verb, option
from edge_trgl.run.folder import Run


@click.command(cls=Verb)
@click.argument("run", type=Path)
@option(
    "--against",
    type=Path,
    multiple=True,
    metavar="RUN",
    help="another trained run to compare with; up to four times",
)
@option("--json", "as_json", is_flag=True, help="print the path as one JSON document")
def report(run: Path, against: tuple[Path, ...], as_json: bool) -> Order:  # noqa: FBT001
    """Write report.html of a run, finished or not."""
    Run.open(run)
    return Report(run=str(run), against=tuple(map(str, against)), as_json=as_json)


def result_text(folder: Path, *, as_json: bool) -> str:
    """Say where the report is."""
    path = str(Run(folder).report_file)
    return json.dumps({"report": path}) if as_json else path
