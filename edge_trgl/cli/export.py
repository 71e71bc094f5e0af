"""`edge-trgl export`: write a trained run as ONNX files, and how these compare with the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edge_trgl.api import Training
from edge_trgl.cli.documents import part_of
from edge_trgl.cli.evaluate import validation_images
from edge_trgl.cli.progress import Terminal
from edge_trgl.cli.verb import Verb, option
from edge_trgl.config.export_request import TARGETS
from edge_trgl.run.exported_files import Row, rows
from edge_trgl.run.folder import Run
from edge_trgl.runtime.records import Document
from edge_trgl.runtime.units import MIB


@click.command(cls=Verb)
@click.argument("run", type=Path)
@option(
    "--depth",
    default="chosen",
    group="Model",
    help="chosen, last, a number of modules, or all for every exit",
    default_text="chosen",
)
@option(
    "--target",
    type=click.Choice(list(TARGETS)),
    metavar="NAME",
    group="Model",
    help=f"what will run it: {', '.join(TARGETS)}",
    default_text="the profile's, or generic",
)
@option(
    "--batch",
    default="dynamic",
    metavar="N",
    group="Model",
    help="samples at a time: a number, or dynamic for any",
    default_text="dynamic",
)
@option(
    "--exits",
    group="Model",
    metavar="WHEN",
    help="also export early-exit stages: a confidence threshold, or auto:MAX_LOSS_POINTS",
)
@option(
    "--stages",
    group="Model",
    metavar="DEPTHS",
    help="depths at which the stages end, such as 3,6,10",
    default_text="every one with a classifier",
)
@option("--int8", is_flag=True, group="Output", help="also write model.int8.onnx, quantised")
@option("--fp16", is_flag=True, group="Output", help="also write model.fp16.onnx, half the size")
@option("--json", "as_json", is_flag=True, group="Output", help="print export.json")
def export(
    run: Path,
    depth: str,
    target: str | None,
    batch: str,
    exits: str | None,
    stages: str | None,
    int8: bool,  # noqa: FBT001
    fp16: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Write model.onnx at the chosen depth, or at every depth, and check it against the network."""
    document = Training(run, Terminal()).export(
        depth=depth, target=target, batch=batch, exits=exits, stages=stages, int8=int8, fp16=fp16
    )
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(export_text(document))
    if int8 or fp16:
        click.echo(table(rows(Run(run), document)))


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What export.json says of model.onnx; `peak_mb` is the peak of the export in MiB."""

    file: str
    num_bytes: int
    opset: int
    num_images: int
    max_abs_diff: float
    top1_agreement: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What export.json says of model.exits as a whole; `model_flops` is that of model.onnx."""

    folder: str
    model_flops: int
    num_images: int
    max_abs_diff: float
    chosen_on: str


@dataclass(frozen=True, kw_only=True)
class StageScores:
    """Accuracies of the stages on some images, and the share of all their FLOPs that was computed."""

    accuracy: float
    per_exit: tuple[float, ...]
    compute_share: float
    num_images: int


def export_text(document: Document) -> str:
    """Say what was exported and how it was checked; `document` is export.json."""
    file = part_of(document, Exported)
    depths = [compared["depth"] for compared in document["exits"]]
    depth = f"depths {depths[0]} to {depths[-1]}" if len(depths) > 1 else f"depth {depths[0]}"
    text = (
        f"{file.file}  {depth}, {file.num_bytes / MIB:.1f} MiB, opset {file.opset}; "
        f"over {file.num_images} images logits differ by at most {file.max_abs_diff:.1e}, "
        f"{file.top1_agreement:.1%} of the predictions agree; peak {file.peak_mb:.0f} MiB"
    )
    return f"{text}\n{early_exit_text(early)}" if (early := document["early_exit"]) else text


def early_exit_text(early: Document) -> str:
    """Say what the stages of a network spare; `early` is `early_exit` of export.json."""
    stages = part_of(early, Stages)
    thresholds = ", ".join(f"{stage['threshold']:.4g}" for stage in early["stages"][:-1])
    share = sum(stage["flops"] for stage in early["stages"]) / stages.model_flops
    text = (
        f"{stages.folder}  {len(early['stages'])} stages, left from a probability of {thresholds} on; together "
        f"they take {share:.2f} times the FLOPs of model.onnx; over {stages.num_images} images logits differ by "
        f"at most {stages.max_abs_diff:.1e}"
    )
    validation = _scores_text(validation_images(stages.chosen_on), early["validation"])
    return "\n".join([text, validation, _scores_text("test", early["test"])])


def _scores_text(images: str, document: Document | None) -> str:
    if document is None:
        return f"  {images}: there are no such images, so nothing is known beyond those above"
    scores = part_of(document, StageScores)
    return (
        f"  {images}: accuracy {scores.accuracy:.2%} (last exit {scores.per_exit[-1]:.2%}) at "
        f"{scores.compute_share:.1%} of the FLOPs of all stages, over {scores.num_images} images"
    )


def table(files: Sequence[Row]) -> str:
    """Lay the exported files out side by side, one a line."""
    lines = [f"{'':18s} {'MiB':>8s} {'accuracy':>9s} {'agreement':>9s} {'p50 ms':>8s}"]
    for file in files:
        size = "" if file.num_bytes is None else f"{file.num_bytes / MIB:.2f}"
        shares = ["" if share is None else f"{share:.2%}" for share in (file.accuracy, file.top1_agreement)]
        latency = "" if file.latency_ms is None else f"{file.latency_ms:.2f}"
        lines.append(
            f"{file.name:18s} {size:>8s} {shares[0]:>9s} {shares[1]:>9s} {latency:>8s}  {file.note}".rstrip()
        )
    return "\n".join(lines)
