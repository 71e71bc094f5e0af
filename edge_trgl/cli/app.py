"""The command `edge-trgl`. One verb, one function; nothing heavy is imported here."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from edge_trgl import __version__
from edge_trgl.api import Training, begin, plan_of
from edge_trgl.cli import deploy_verbs
from edge_trgl.cli.exits_text import early_exit_text
from edge_trgl.cli.exported_files import table
from edge_trgl.cli.plan_text import plan_text
from edge_trgl.cli.progress import Terminal, duration
from edge_trgl.config.export_request import TARGETS
from edge_trgl.config.flags import FLAGS, Flag, configuration
from edge_trgl.config.sections import RunConfig
from edge_trgl.config.sources import parse_setting
from edge_trgl.run.exported_files import rows
from edge_trgl.run.folder import Run, newest_unfinished, numbered
from edge_trgl.runtime.errors import EdgeTrglError, StoppedError, missing_package
from edge_trgl.runtime.processes.supervisor import ChildCrashedError
from edge_trgl.runtime.units import MIB

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """The program: runs a verb; a user's mistake is one sentence and an exit code."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except EdgeTrglError as error:
        _refuse(error)
    except ModuleNotFoundError as error:
        refusal = missing_package(error, "this command")
        if refusal is None:
            raise
        _refuse(refusal)
    except ChildCrashedError as error:
        # Its traceback has been printed by the child.
        click.echo(f"edge-trgl: {error}; this is a bug, please report it with the lines above", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(error: EdgeTrglError) -> NoReturn:
    click.echo(f"edge-trgl: {error.message}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    sys.exit(error.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    # While a child runs, it gets the signal; this is for the moments between two.
    raise StoppedError("stopped between two jobs", hint="edge-trgl resume RUN goes on from here.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Train networks one module at a time, under one memory budget, to an ONNX file."""


def _configured(command: Command) -> Command:
    """Add every option of a configuration to a command; `_configuration` reads them."""
    for flag in reversed(FLAGS):
        # A switch that was not given is None, as any other flag.
        given: dict[str, Any] = (
            {"is_flag": True, "default": None} if flag.value is not None else {"type": _type(flag)}
        )
        command = click.option(flag.option, flag.name, help=flag.help, **given)(command)
    command = click.option("--recipe", type=str, help="hyperparameters by name: table14, or table14,end-to-end")(
        command
    )
    command = click.option("--profile", type=str, help="a board's defaults: a name or a .toml file")(command)
    command = click.option("--config", "config_file", type=Path, help="a .toml file with sections as in run.toml")(
        command
    )
    return click.option("--set", "settings", multiple=True, help="section.key=value, for all that has no flag")(
        command
    )


def _type(flag: Flag) -> Any:
    return click.Choice(list(flag.choices)) if flag.choices else flag.kind


def _configuration(given: dict[str, Any]) -> RunConfig:
    sources = {name: given.pop(name) for name in ("profile", "recipe", "config_file")}
    values = [parse_setting(text) for text in given.pop("settings")]
    return configuration(given, **sources, values=values)


@cli.command()
@_configured
@click.option("--run", "run_folder", type=Path, help="folder of the run [a new numbered one under runs/]")
@click.option("--export", "then_export", is_flag=True, help="export to ONNX when trained")
@click.option("--dry-run", is_flag=True, help="print the resolved configuration and do nothing")
@click.option("--json", "as_json", is_flag=True, help="print the summary as one JSON document")
def train(run_folder: Path | None, then_export: bool, dry_run: bool, as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Train a network; every option has a default."""
    import tomli_w

    config = _configuration(given)
    if dry_run:
        click.echo(tomli_w.dumps(config.document()), nl=False)
        return
    terminal = Terminal()
    if run_folder is None:
        unfinished = newest_unfinished()
        if unfinished:
            terminal.line(
                f"{unfinished.folder} is unfinished; edge-trgl resume {unfinished.folder} goes on with it"
            )
        run_folder = numbered()
    _train(begin(run_folder, config, terminal), terminal, {}, then_export=then_export, as_json=as_json)


@cli.command()
@click.argument("run", type=Path)
@click.option("--budget-mb", type=float, help="go on with another budget")
@click.option("--disk-mb", type=float, help="go on with another limit on the disk")
@click.option("--export", "then_export", is_flag=True, help="export to ONNX when trained")
@click.option("--json", "as_json", is_flag=True, help="print the summary as one JSON document")
def resume(
    run: Path,
    budget_mb: float | None,
    disk_mb: float | None,
    then_export: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Go on with a run from its last commit."""
    terminal, limits = Terminal(), {"budget_mb": budget_mb, "disk_mb": disk_mb}
    _train(Training(run, terminal), terminal, limits, then_export=then_export, as_json=as_json)


def _train(
    training: Training, terminal: Terminal, limits: dict[str, float | None], *, then_export: bool, as_json: bool
) -> None:
    terminal.line(f"run {training.folder}")
    summary = training.resume(**limits)
    exported = training.export() if then_export else None
    if as_json:
        click.echo(json.dumps(summary))
        return
    click.echo(_summary_text(summary, training.folder))
    if exported:
        click.echo(_export_text(exported))


@cli.command()
@_configured
@click.option("--json", "as_json", is_flag=True, help="print the plan as one JSON document")
def plan(as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Say whether a run fits its budget and what each module takes; train nothing."""
    document = plan_of(_configuration(given), Terminal())
    click.echo(json.dumps(document) if as_json else plan_text(document))


@cli.command()
@click.argument("run", type=Path)
@click.option("--json", "as_json", is_flag=True, help="print the scores as one JSON document")
def evaluate(run: Path, as_json: bool) -> None:  # noqa: FBT001
    """Score a trained run at every depth."""
    scores = Training(run, Terminal()).evaluate()
    if as_json:
        click.echo(json.dumps(scores))
        return
    images = "half of the test images" if scores["chosen_on"] == "half-test" else "validation"
    for depth, accuracy in enumerate(scores["per_depth"], scores["first_depth"]):
        mark = "  chosen" if depth == scores["chosen_depth"] else ""
        click.echo(f"depth {depth:3d}  {images} {accuracy:.2%}{mark}")
    click.echo(_test_text(scores))


@cli.command()
@click.argument("run", type=Path)
@click.option("--depth", default="chosen", help="chosen, last, a number of modules, or all: every exit [chosen]")
@click.option("--target", type=click.Choice(list(TARGETS)), help="what will run it [the profile's, or generic]")
@click.option("--batch", default="dynamic", help="samples it takes at a time: dynamic or a number [dynamic]")
@click.option("--exits", help="stages to leave early by, too: a probability, or auto:POINTS of accuracy to lose")
@click.option("--stages", help="the depths where those end, such as 3,6,10 [every one with a classifier]")
@click.option("--int8", is_flag=True, help="model.int8.onnx as well, quantised")
@click.option("--fp16", is_flag=True, help="model.fp16.onnx as well, half the size")
@click.option("--json", "as_json", is_flag=True, help="print export.json")
def export(run: Path, as_json: bool, **options: Any) -> None:  # noqa: FBT001
    """Write model.onnx of the chosen depth, or of every one, and check it against the network."""
    document = Training(run, Terminal()).export(**options)
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(_export_text(document))
    if options["int8"] or options["fp16"]:
        click.echo(table(rows(Run(run), document)))


@cli.command()
@click.argument("run", type=Path)
@click.option("--against", type=Path, multiple=True, help="another trained run to compare with; up to four times")
@click.option("--json", "as_json", is_flag=True, help="print the path as one JSON document")
def report(run: Path, against: tuple[Path, ...], as_json: bool) -> None:  # noqa: FBT001
    """Write report.html of a run, finished or not."""
    path = str(Training(run, Terminal()).report(against))
    click.echo(json.dumps({"report": path}) if as_json else path)


@cli.command()
@click.option("--disk", type=Path, help="a folder on the disk to measure [runs, or the current folder]")
@click.option("--save", "target", help="make a profile of it: a name for --profile, or a path ending in .toml")
@click.option("--json", "as_json", is_flag=True, help="print the measurements as one JSON document")
def probe(disk: Path | None, target: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Measure this machine: its memory, disk, speed, number types and counters."""
    from edge_trgl.pipeline import board_probe  # 2 MiB that every other verb would pay for

    file = None if target is None else board_probe.profile_file(target)
    terminal = Terminal()
    document = board_probe.probe(disk, terminal.line)
    if file is not None:
        board_probe.save(document, file)
        terminal.line(f"saved as {file}; --profile {target} uses it")
    click.echo(json.dumps(document) if as_json else board_probe.describe(document))


cli.add_command(deploy_verbs.predict)
cli.add_command(deploy_verbs.bench)


def _summary_text(summary: dict[str, Any], folder: Path) -> str:
    memory, accuracy = summary["memory"], summary["accuracy"]
    lines = [
        f"peak {memory['peak_mb']:.0f} MiB of {memory['budget_mb']:.0f} MiB"
        f" (planned {memory['planned_peak_mb']:.0f}, fixed {memory['fixed_mb']:.0f})",
        _test_text(accuracy),
        f"{summary['images_per_s']:.0f} images/s, {duration(summary['time_s'])}",
        _storage_text(summary["storage"]),
        f"report {Run(folder).report_file}",
    ]
    return "\n".join(lines)


def _storage_text(storage: dict[str, Any]) -> str:
    text = (
        f"read {storage['read_mb']:.0f} MiB, wrote {storage['written_mb']:.0f} MiB"
        f" (planned {storage['planned_written_mb']:.0f})"
    )
    return text if storage["wear"] is None else f"{text}, {storage['wear']:.2%} of what the storage endures"


def _test_text(scores: dict[str, Any]) -> str:
    if scores["chosen"] is None:
        return f"chosen depth {scores['chosen_depth']}; there is no test set"
    chosen = f"test accuracy {scores['chosen']:.2%} at the chosen depth {scores['chosen_depth']}"
    text = f"{chosen}, {scores['last']:.2%} at the last"
    if scores["chosen_on"] != "half-test":
        return text
    return f"{text}\nscored as the paper's authors did: the depth was chosen on half of the test images"


def _export_text(document: dict[str, Any]) -> str:
    depths = [one["depth"] for one in document["exits"]]
    depth = f"depths {depths[0]} to {depths[-1]}" if len(depths) > 1 else f"depth {depths[0]}"
    text = (
        f"{document['file']}  {depth}, {document['num_bytes'] / MIB:.1f} MiB, opset {document['opset']}; "
        f"over {document['num_images']} images logits differ by {document['max_abs_diff']:.1e} at most, "
        f"{document['top1_agreement']:.1%} of the predictions agree; peak {document['peak_mb']:.0f} MiB"
    )
    return f"{text}\n{early_exit_text(early)}" if (early := document["early_exit"]) else text
