"""`edge-trgl train`: train a network from a configuration, and what it says when it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge_trgl.api import Training, begin
from edge_trgl.cli.configured import ConfiguredVerb, configured, read_configuration
from edge_trgl.cli.documents import part_of
from edge_trgl.cli.evaluate import test_text
from edge_trgl.cli.export import export_text
from edge_trgl.cli.progress import Terminal, duration
from edge_trgl.cli.verb import option
from edge_trgl.run.folder import Run, discard_unplanned, newest_unfinished, numbered
from edge_trgl.run.wording import samples_in
from edge_trgl.runtime.errors import InputError, UsageError, command
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import Document

EXPORT = option("--export", "then_export", is_flag=True, group="Output", help="export to ONNX after training")
AS_JSON = option("--json", "as_json", is_flag=True, group="Output", help="print the summary as one JSON document")


@click.command(cls=ConfiguredVerb)
@configured
@option(
    "--run",
    "run_folder",
    type=Path,
    metavar="FOLDER",
    group="Output",
    help="folder of the run",
    default_text="a new numbered one under runs/",
)
@EXPORT
@option("--dry-run", is_flag=True, group="Output", help="print the resolved configuration and stop")
@AS_JSON
def train(run_folder: Path | None, then_export: bool, dry_run: bool, as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Train a network; every option has a default."""
    import tomli_w

    config = read_configuration(given)
    if dry_run:
        click.echo(tomli_w.dumps(config.document()), nl=False)
        return
    terminal = Terminal()
    is_numbered = run_folder is None
    if run_folder is None:
        unfinished = newest_unfinished()
        if unfinished:
            terminal.line(
                f"{unfinished.folder} is unfinished; to continue it: {command('resume', unfinished.folder)}"
            )
        run_folder = numbered()
    training = begin(run_folder, config, terminal)
    try:
        finish(training, terminal, Limits(), then_export=then_export, as_json=as_json)
    except (UsageError, InputError):
        # What does not fit is kept: resume goes on with larger limits.
        if is_numbered:
            discard_unplanned(training.folder)
        raise


def finish(
    training: Training,
    terminal: Terminal,
    limits: Limits,
    *,
    then_export: bool,
    as_json: bool,
) -> None:
    """Train a run to its end, export it where that is asked for, and print the summary.

    `limits`: in place of those that the run was begun with.
    """
    terminal.line(f"run {training.folder}")
    summary = training.resume(limits)
    exported = training.export() if then_export else None
    if as_json:
        click.echo(json.dumps(summary))
        return
    click.echo(_summary_text(summary, training.folder))
    if exported:
        click.echo(export_text(exported, samples_in(summary)))


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """What summary.json says of the memory, in MiB."""

    peak_mb: float
    budget_mb: float
    planned_peak_mb: float
    fixed_mb: float


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """What summary.json says of the storage, in MiB; `wear` is a share of its endurance, None if unknown."""

    read_mb: float
    written_mb: float
    planned_written_mb: float
    wear: float | None


def _summary_text(summary: Document, folder: Path) -> str:
    memory = part_of(summary["memory"], MemoryUse)
    lines = [
        f"peak {memory.peak_mb:.0f} MiB of {memory.budget_mb:.0f} MiB"
        f" (planned {memory.planned_peak_mb:.0f}, fixed {memory.fixed_mb:.0f})",
        test_text(summary["accuracy"], samples_in(summary)),
        f"{summary['images_per_s']:.0f} {samples_in(summary)}/s, {duration(summary['time_s'])}",
        _storage_text(part_of(summary["storage"], StorageUse)),
        f"report {Run(folder).report_file}",
    ]
    return "\n".join(lines)


def _storage_text(use: StorageUse) -> str:
    text = f"read {use.read_mb:.0f} MiB, wrote {use.written_mb:.0f} MiB (planned {use.planned_written_mb:.0f})"
    return text if use.wear is None else f"{text}, {use.wear:.2%} of the storage's endurance"
