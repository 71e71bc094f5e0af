"""`edge-trgl clean`: remove what no run needs, and how that reads."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_trgl.cli.progress import size
from edge_trgl.cli.verb import Verb, option
from edge_trgl.pipeline import cleaning
from edge_trgl.pipeline.cleaning import Cleaned, Removed
from edge_trgl.run.folder import RUNS
from edge_trgl.runtime.records import document_of


@click.command(cls=Verb)
@click.argument("runs", type=Path, default=RUNS)
@option("--all", "everything", is_flag=True, help="remove measured steps, too; the next plan measures them again")
@option("--dry-run", is_flag=True, help="remove nothing, only say what would be")
@option("--json", "as_json", is_flag=True, help="print what was removed as one JSON document")
def clean(runs: Path, everything: bool, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Remove what no run in the folder RUNS needs: prepared data kept for other runs, leftovers of killed ones."""
    cleaned = cleaning.clean(runs, dry_run=dry_run, measurements=everything)
    if as_json:
        click.echo(json.dumps({**document_of(cleaned), "freed_mb": cleaned.freed_mb, "dry_run": dry_run}))
        return
    click.echo(cleaned_text(cleaned, dry_run=dry_run))


def cleaned_text(cleaned: Cleaned, *, dry_run: bool) -> str:
    """Lay out what was removed, or would be, a line for each kind."""
    kinds = (
        (cleaned.prepared, "prepared data set", "prepared data sets"),
        (cleaned.plans, "plan that was killed", "plans that were killed"),
        (cleaned.leftovers, "file of an interrupted run", "files of interrupted runs"),
        (cleaned.measurements, "measurement", "measurements"),
    )
    lines = [
        f"{removed.count} {one if removed.count == 1 else many}: {_freed(removed)}"
        for removed, one, many in kinds
        if removed is not None and removed.count
    ]
    if not lines:
        return "nothing to remove"
    return "\n".join([*lines, f"{'would free' if dry_run else 'freed'} {size(cleaned.freed_mb)}"])


def _freed(removed: Removed) -> str:
    # Removing a second name of files frees nothing, and takes nothing from the run that has the other.
    return size(removed.freed_mb) if removed.freed_mb else "nothing, as runs use the same files"
