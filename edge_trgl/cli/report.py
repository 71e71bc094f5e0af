"""`edge-trgl report`: one page about a run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_trgl.api import Training
from edge_trgl.cli.progress import Terminal
from edge_trgl.cli.verb import Verb, option


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
def report(run: Path, against: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001
    """Write report.html of a run, finished or not."""
    path = str(Training(run, Terminal()).report(against))
    click.echo(json.dumps({"report": path}) if as_json else path)
