"""`edge-trgl export`: write a trained run as ONNX files, and how these compare with the network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from edge_trgl.cli.orders import Export, Order
from edge_trgl.cli.verb import Verb, option
from edge_trgl.config.export_request import FORMS, TARGETS
from edge_trgl.pipeline.options import ExportOptions
from edge_trgl.run.export_record import EarlyExitRecord, EarlyExitScores, ExportRecord
from edge_trgl.run.exported_files import ExportedFile, export_document, exported_files
from edge_trgl.run.folder import Run
from edge_trgl.run.wording import samples_in, validation_samples
from edge_trgl.runtime.records import Document, read_record
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
) -> Order:
    """Write model.onnx at the chosen depth, or at every depth, and check it against the network."""
    Run.open(run)
    wanted = {"int8": int8, "fp16": fp16}
    options = ExportOptions(
        depth=depth,
        target=target,
        batch=batch,
        exits=exits,
        stages=stages,
        forms=tuple(form for form in FORMS if wanted[form]),
    )
    return Export(run=str(run), options=options, as_json=as_json)


def result_text(document: Document, folder: Path, *, with_table: bool, as_json: bool) -> str:
    """Lay out what was exported; `with_table`: with all files side by side."""
    run, record = Run(folder), read_record(ExportRecord, document)
    if as_json:
        return json.dumps(export_document(record))
    text = export_text(record, samples_in(run.summary()))
    return f"{text}\n{table(exported_files(run, record))}" if with_table else text


def export_text(record: ExportRecord, samples: str) -> str:
    """Say what was exported and how it was checked."""
    depths = [comparison.depth for comparison in record.exits]
    depth = f"depths {depths[0]} to {depths[-1]}" if len(depths) > 1 else f"depth {depths[0]}"
    text = (
        f"{record.file}  {depth}, {record.num_bytes / MIB:.1f} MiB, opset {record.opset}; "
        f"over {record.num_images} {samples} logits differ by at most {record.max_abs_diff:.1e}, "
        f"{record.top1_agreement:.1%} of the predictions agree; peak {record.peak_mb:.0f} MiB"
    )
    return text if record.early_exit is None else f"{text}\n{early_exit_text(record.early_exit, samples)}"


def early_exit_text(early: EarlyExitRecord, samples: str) -> str:
    """Say what the stages of a network save."""
    stages = early.stages
    thresholds = ", ".join(f"{stage.threshold:.4g}" for stage in stages if stage.threshold is not None)
    share = sum(stage.flops for stage in stages) / early.model_flops
    text = (
        f"{early.folder}  {len(stages)} stages, left from a probability of {thresholds} on; together "
        f"they take {share:.2f} times the FLOPs of model.onnx; over {early.num_images} {samples} logits differ by "
        f"at most {early.max_abs_diff:.1e}"
    )
    validation = _scores_text(validation_samples(early.chosen_on, samples), early.validation, samples)
    return "\n".join([text, validation, _scores_text("test", early.test, samples)])


def _scores_text(which: str, scores: EarlyExitScores | None, samples: str) -> str:
    if scores is None:
        return f"  {which}: there are no such {samples}, so nothing is known beyond those above"
    return (
        f"  {which}: accuracy {scores.accuracy:.2%} (last exit {scores.per_exit[-1]:.2%}) at "
        f"{scores.compute_share:.1%} of the FLOPs of all stages, over {scores.num_images} {samples}"
    )


def table(files: Sequence[ExportedFile]) -> str:
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
