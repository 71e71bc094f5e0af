"""The command `edge-trgl`: the list of its verbs, and how errors end it. Nothing heavy is imported here."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from edge_trgl import __version__
from edge_trgl.cli.bench import bench
from edge_trgl.cli.evaluate import evaluate
from edge_trgl.cli.export import export
from edge_trgl.cli.plan import plan
from edge_trgl.cli.predict import predict
from edge_trgl.cli.probe import probe
from edge_trgl.cli.report import report
from edge_trgl.cli.resume import resume
from edge_trgl.cli.train import train
from edge_trgl.runtime.errors import EdgeTrglError, StoppedError, missing_package
from edge_trgl.runtime.processes.supervisor import ChildCrashedError


def main() -> None:
    """Run the verb that the command line names; a user's mistake is told in a sentence and an exit code."""
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
        # The child has printed its traceback.
        click.echo(f"edge-trgl: {error}; this is a bug, please report it with the lines above", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(error: EdgeTrglError) -> NoReturn:
    """Print an error, one mistake a line, and exit with its code."""
    for line in error.message.splitlines():
        click.echo(f"edge-trgl: {line}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    sys.exit(error.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    # A running child gets the signal itself; this is for the moments between two jobs.
    raise StoppedError("stopped between two jobs", hint="edge-trgl resume RUN continues from here.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Train networks one module at a time, under one memory budget, to an ONNX file."""


for verb in (train, resume, plan, evaluate, export, report, probe, predict, bench):
    cli.add_command(verb)
