"""`edge-trgl export`: write a trained run as ONNX files, and how these compare with the network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edge_trgl.api import Training
from edge_trgl.cli.evaluate import validation_images
from edge_trgl.cli.progress import Terminal
from edge_trgl.cli.verb import Verb, option
from edge_trgl.config.export_request import TARGETS
from edge_trgl.run.exported_files import Row, rows
from edge_trgl.run.folder import Run
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
def export(run: Path, as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Write model.onnx at the chosen depth, or at every depth, and check it against the network."""
    document = Training(run, Terminal()).export(**options)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(export_text(document))
    if options["int8"] or options["fp16"]:
        click.echo(table(rows(Run(run), document)))


def export_text(document: Mapping[str, Any]) -> str:
    """Say what was exported and how it was checked."""
    depths = [exit_["depth"] for exit_ in document["exits"]]
    depth = f"depths {depths[0]} to {depths[-1]}" if len(depths) > 1 else f"depth {depths[0]}"
    text = (
        f"{document['file']}  {depth}, {document['num_bytes'] / MIB:.1f} MiB, opset {document['opset']}; "
        f"over {document['num_images']} images logits differ by at most {document['max_abs_diff']:.1e}, "
        f"{document['top1_agreement']:.1%} of the predictions agree; peak {document['peak_mb']:.0f} MiB"
    )
    return f"{text}\n{early_exit_text(early)}" if (early := document["early_exit"]) else text


def early_exit_text(early: Mapping[str, Any]) -> str:
    """Say what the stages of a network spare; `early` is `early_exit` of export.json."""
    return "\n".join(
        [
            _stages_text(early),
            _scores_text(validation_images(early["chosen_on"]), early["validation"]),
            _scores_text("test", early["test"]),
        ]
    )


def _stages_text(early: Mapping[str, Any]) -> str:
    stages = early["stages"]
    thresholds = ", ".join(f"{stage['threshold']:.4g}" for stage in stages[:-1])
    share = sum(stage["flops"] for stage in stages) / early["model_flops"]
    return (
        f"{early['folder']}  {len(stages)} stages, left from a probability of {thresholds} on; together they take "
        f"{share:.2f} times the FLOPs of model.onnx; over {early['num_images']} images logits differ by "
        f"at most {early['max_abs_diff']:.1e}"
    )


def _scores_text(images: str, scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return f"  {images}: there are no such images, so nothing is known beyond those above"
    return (
        f"  {images}: accuracy {scores['accuracy']:.2%} (last exit {scores['per_exit'][-1]:.2%}) at "
        f"{scores['compute_share']:.1%} of the FLOPs of all stages, over {scores['num_images']} images"
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
