"""The verbs `predict` and `bench`, which run an exported file. What they need is loaded when they are called."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from edge_trgl.deploy.prediction import Classifier

PROVIDER = click.option(
    "--provider",
    type=click.Choice(["auto", "tensorrt", "cuda", "cpu"]),
    default="auto",
    help="what computes; auto is the first of these that works here [auto]",
)
THREADS = click.option("--threads", type=click.IntRange(min=1), help="CPU threads [one a processor]")
OPTIMIZE = click.option(
    "--optimize", is_flag=True, help="a faster graph on the CPU; holds the weights several times while it loads"
)


@click.command()
@click.argument("model", type=Path)
@click.argument("files", nargs=-1, required=True, type=Path)
@click.option("--top", type=click.IntRange(min=1), default=1, help="classes to name for each file [1]")
@click.option(
    "--exit", "exit_number", type=int, help="the classifier that answers, where there are several [last]"
)
@click.option(
    "--exits",
    type=click.FloatRange(0, 1),
    help="leave the network early: at the first exit as sure as this, 0 to 1 (needs model.exits)",
)
@PROVIDER
@THREADS
@OPTIMIZE
@click.option("--json", "as_json", is_flag=True, help="a JSON document a line, with `error` where a file is bad")
@click.option("--csv", "as_csv", is_flag=True, help="comma-separated values, with a column `error`")
def predict(
    model: Path,
    files: tuple[Path, ...],
    top: int,
    exit_number: int | None,
    exits: float | None,
    provider: str,
    threads: int | None,
    optimize: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    as_csv: bool,  # noqa: FBT001
) -> None:
    """Classify image files, folders of them, or the windows of .npz files, one line each.

    MODEL is model.onnx, the folder of a run, or a folder model.exits. Images of another size are cut and
    resized as they are for training. From a .npz file the array x is taken, or else x_test.

    A file that cannot be read gets a line of its own on standard error, and the others are classified all
    the same; the exit code is then 4, and 0 where every file was read.
    """
    _end_at_once_when_told()
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from edge_trgl.deploy import Cascade, Predictor, places

    early = exits is not None or places.is_exits_folder(model)
    if early and exit_number is not None:
        raise click.UsageError("--exit names one classifier of model.onnx; model.exits chooses among them")
    classifier: Classifier
    if early:
        folder = places.exits_folder(model)
        classifier = Cascade(folder, provider, threshold=exits, threads=threads, optimize=optimize)
    else:
        file = places.model_file(model)
        classifier = Predictor(file, provider, exit_number=exit_number, threads=threads, optimize=optimize)
    click.echo(f"provider {classifier.provider}", err=True)
    _show(classifier, files, top, "json" if as_json else "csv" if as_csv else "text")


def _show(classifier: Classifier, files: Iterable[Path], top: int, form: str) -> None:
    """Print every answer as it comes.

    Raises:
        InputError: at the end, where a file could not be read.
    """
    from edge_trgl.deploy import answers
    from edge_trgl.deploy.answering import answer_all

    written = {"json": answers.as_json, "csv": answers.as_csv, "text": answers.as_text}[form]
    if form == "csv":
        click.echo(answers.csv_header(top))
    num_answers, num_bad, num_early, shares = 0, 0, 0, 0.0
    for answer in answer_all(classifier, files, top):
        num_answers += 1
        num_bad += answer.error is not None
        if answer.compute_share is not None:
            num_early += 1
            shares += answer.compute_share
        if answer.error is not None and form != "json":
            click.echo(answers.as_text(answer), err=True)
        if answer.error is None or form != "text":
            click.echo(written(answer))
    if num_early:
        click.echo(f"{shares / num_early:.1%} of the network's FLOPs on average", err=True)
    if num_bad:
        raise InputError(f"{num_bad} of {num_answers} could not be classified")


@click.command()
@click.argument("model", type=Path)
@click.option("--batch", type=click.IntRange(min=1), help="samples a run [the file's, or 1]")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="how long to measure [5]")
@click.option("--runs", type=click.IntRange(min=1), help="how many runs to measure, in place of --seconds")
@PROVIDER
@THREADS
@OPTIMIZE
@click.option("--json", "as_json", is_flag=True, help="print the measurements as one JSON document")
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
    _end_at_once_when_told()
    if seconds is not None and runs is not None:
        raise click.UsageError("--seconds and --runs exclude each other")
    from edge_trgl.deploy import bench as benchmark
    from edge_trgl.deploy import places

    document = benchmark.bench(
        places.model_file(model),
        provider=provider,
        batch=batch,
        runs=runs,
        seconds=seconds or 5.0,
        threads=threads,
        optimize=optimize,
    )
    click.echo(json.dumps(document) if as_json else benchmark.describe(document))


def _end_at_once_when_told() -> None:
    # The verbs of a run stop at a safe point and can be resumed; here there is nothing to go on with.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
