"""The command `edge-trgl`: the list of its verbs, and how errors end it. Nothing heavy is imported here."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from types import FrameType
from typing import NoReturn

import click

from edge_trgl import __version__
from edge_trgl.runtime.errors import RESUME, EdgeTrglError, StoppedError, missing_package
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
    error.name_run(None)
    for line in error.message.splitlines():
        click.echo(f"edge-trgl: {line}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    sys.exit(error.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    # A running child gets the signal itself; this is for the moments between two jobs.
    raise StoppedError("stopped between two jobs", hint=f"To go on from here: {RESUME}")


VERBS = ("train", "resume", "plan", "evaluate", "export", "report", "data", "probe", "predict", "bench", "clean")
"""Each is a command in the module of its name."""


def verb_named(name: str) -> click.Command:
    """Return one of `VERBS`."""
    verb: click.Command = getattr(import_module(f"edge_trgl.cli.{name}"), name)
    return verb


class Verbs(click.Group):
    """The verbs, each imported when it is asked for: what a run does not use takes no memory of its budget."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the verb `cmd_name`; None if there is none."""
        return verb_named(cmd_name) if cmd_name in VERBS else None


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def cli() -> None:
    """Train networks one module at a time, under one memory budget, to an ONNX file."""
