"""`edge-trgl predict`: classify images with an exported file. What it needs is imported when it is called."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_trgl.cli.running_files import OPTIMIZE, PROVIDER, THREADS, end_at_once_when_told
from edge_trgl.cli.verb import Verb, option
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from edge_trgl.deploy.prediction import Classifier


@click.command(cls=Verb)
@click.argument("model", type=Path)
@click.argument("files", nargs=-1, required=True, type=Path)
@option(
    "--exit",
    "exit_number",
    type=int,
    metavar="N",
    group="Model",
    help="which exit of model.onnx answers, where it has several",
    default_text="the last",
)
@option(
    "--exits",
    type=click.FloatRange(0, 1),
    metavar="P",
    group="Model",
    help="leave at the first exit whose probability is at least this, from 0 to 1 (needs model.exits)",
)
@PROVIDER
@THREADS
@OPTIMIZE
@option(
    "--top",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    group="Output",
    help="number of classes to name for each file",
    default_text="1",
)
@option(
    "--json",
    "as_json",
    is_flag=True,
    group="Output",
    help="print one JSON document a line, with `error` for an unreadable file",
)
@option(
    "--csv", "as_csv", is_flag=True, group="Output", help="print comma-separated values, with a column `error`"
)
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
    """Classify image files, folders of them, or the windows of .npz and .csv files, one line each.

    MODEL is model.onnx, the folder of a run, or a folder model.exits. Images of another size are resized, and .csv
    files cut into windows, as in training. Of a .npz file the array x is read, or else x_test.

    A file that cannot be read is reported on standard error, and the others are still classified; the exit code
    is then 4, and 0 if every file was read.
    """
    end_at_once_when_told()
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from edge_trgl.deploy import Cascade, Predictor, places

    early = exits is not None or places.is_exits_folder(model)
    if early and exit_number is not None:
        raise click.UsageError("--exit names one exit of model.onnx; model.exits chooses an exit for each sample")
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
    """Print every answer as soon as it is known.

    Raises:
        InputError: at the end, if a file could not be read.
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
