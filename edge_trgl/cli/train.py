"""`edge-trgl train`: train a network from a configuration, and what it says when it is done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge_trgl.api import begin
from edge_trgl.cli.configured import ConfiguredVerb, configured, read_configuration
from edge_trgl.cli.documents import part_of
from edge_trgl.cli.evaluate import rebuilt_text, test_text
from edge_trgl.cli.export import export_text
from edge_trgl.cli.going_on import going_on
from edge_trgl.cli.orders import Order, Train
from edge_trgl.cli.progress import Terminal, duration
from edge_trgl.cli.verb import option
from edge_trgl.config.sections import RunConfig
from edge_trgl.run.export_record import ExportRecord
from edge_trgl.run.facts import Reconstruction
from edge_trgl.run.folder import Run, newest_unfinished, numbered
from edge_trgl.run.wording import samples_in, validation_samples
from edge_trgl.runtime.errors import command
from edge_trgl.runtime.records import Document, read_record

EXPORT = option("--export", "then_export", is_flag=True, group="Output", help="export to ONNX after training")
AS_JSON = option("--json", "as_json", is_flag=True, group="Output", help="print the summary as one JSON document")


RUN = option(
    "--run",
    "run_folder",
    type=Path,
    metavar="FOLDER",
    group="Output",
    help="folder of the run",
    default_text="a new numbered one under runs/",
)
DRY_RUN = option("--dry-run", is_flag=True, group="Output", help="print the resolved configuration and stop")


@click.command(cls=ConfiguredVerb)
@configured
@RUN
@EXPORT
@DRY_RUN
@AS_JSON
def train(run_folder: Path | None, then_export: bool, dry_run: bool, as_json: bool, **given: Any) -> Order | None:  # noqa: FBT001
    """Train a network; every option has a default."""
    return begun(read_configuration(given), run_folder, then_export=then_export, dry_run=dry_run, as_json=as_json)


def begun(
    config: RunConfig, run_folder: Path | None, *, then_export: bool, dry_run: bool, as_json: bool
) -> Order | None:
    """Begin or open a run, and return the order to train it; with `dry_run`, only print the configuration.

    Args:
        config: of the run.
        run_folder: None for a new numbered one.
        then_export: whether to export after training.
        dry_run: whether to train nothing.
        as_json: whether to print the summary as JSON.
    """
    import tomli_w

    if dry_run:
        click.echo(tomli_w.dumps(config.document()), nl=False)
        return None
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
    return Train(run=str(training.folder), then_export=then_export, discard=is_numbered, as_json=as_json)


def result_text(summary: Document, folder: Path, exported: Document | None, *, as_json: bool) -> str:
    """Lay out the summary of a run, and its export if there is one."""
    if as_json:
        return json.dumps(summary)
    text = _summary_text(summary, Run(folder))
    if exported is None:
        return text
    return f"{text}\n{export_text(read_record(ExportRecord, exported), samples_in(summary))}"


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """What summary.json says of the memory, in MiB."""

    peak_mb: float
    budget_mb: float
    planned_peak_mb: float
    fixed_mb: float


@dataclass(frozen=True, kw_only=True)
class StorageUse:
    """What summary.json says of the storage, in MiB.

    `major_faults`: see `Work`. `wear`: a share of its endurance, None if unknown.
    """

    read_mb: float
    written_mb: float
    planned_written_mb: float
    major_faults: int
    wear: float | None


def _summary_text(summary: Document, run: Run) -> str:
    memory = part_of(summary["memory"], MemoryUse)
    lines = [
        f"peak {memory.peak_mb:.0f} MiB of {memory.budget_mb:.0f} MiB"
        f" (planned {memory.planned_peak_mb:.0f}, fixed {memory.fixed_mb:.0f})",
        *_reached_text(summary),
        f"{summary['images_per_s']:.0f} {samples_in(summary)}/s, {duration(summary['time_s'])}",
        _storage_text(part_of(summary["storage"], StorageUse)),
        f"report {run.report_file}",
        *(going_on(summary, run) if "reconstruction" in summary else ()),
    ]
    return "\n".join(lines)


def _reached_text(summary: Document) -> list[str]:
    samples = samples_in(summary)
    if "reconstruction" not in summary:
        return [test_text(summary["accuracy"], samples), str(summary["accuracy"]["gain"])]
    chosen_on = validation_samples(summary["accuracy"]["chosen_on"], samples)
    return [rebuilt_text(read_record(Reconstruction, summary["reconstruction"]), chosen_on, samples)]


def _storage_text(use: StorageUse) -> str:
    text = f"read {use.read_mb:.0f} MiB, wrote {use.written_mb:.0f} MiB (planned {use.planned_written_mb:.0f})"
    if use.wear is not None:
        text += f", {use.wear:.2%} of the storage's endurance"
    if use.major_faults:
        times = "once" if use.major_faults == 1 else f"{use.major_faults} times"
        text += f"; waited {times} for a page that memory had no room to keep"
    return text
