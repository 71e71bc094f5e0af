"""`edge-trgl bench`: measure an exported file here. What it needs is imported when it is called."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_trgl.cli.running_files import OPTIMIZE, PROVIDER, THREADS, end_at_once_when_told
from edge_trgl.cli.verb import Verb, option
from edge_trgl.runtime.records import document_of


@click.command(cls=Verb)
@click.argument("model", type=Path)
@option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    group="Measurement",
    help="samples per run",
    default_text="the file's, or 1",
)
@option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    group="Measurement",
    help="how long to measure",
    default_text="5",
)
@option(
    "--runs",
    type=click.IntRange(min=1),
    metavar="N",
    group="Measurement",
    help="number of runs to measure, in place of --seconds",
)
@PROVIDER
@THREADS
@OPTIMIZE
@option("--json", "as_json", is_flag=True, group="Output", help="print the measurements as one JSON document")
def bench(
    model: Path,
    batch: int | None,
    seconds: float | None,
    runs: int | None,
    provider: str,
    threads: int | None,
    optimize: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Measure a model file here: latency, throughput, memory, and what really computes.

    MODEL is model.onnx or the folder of a run.
    """
    end_at_once_when_told()
    if seconds is not None and runs is not None:
        raise click.UsageError("--seconds and --runs exclude each other")
    from edge_trgl.deploy import bench as benchmark
    from edge_trgl.deploy import places

    measured = benchmark.bench(
        places.model_file(model),
        provider=provider,
        batch=batch,
        runs=runs,
        seconds=seconds or 5.0,
        threads=threads,
        optimize=optimize,
    )
    click.echo(json.dumps(document_of(measured)) if as_json else benchmark.describe(measured))
