"""The verbs of the command `edge-trgl`, and how its command line is read. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click

from edge_trgl import __version__
from edge_trgl.cli.orders import Order, document_of_order
from edge_trgl.runtime.records import Document

VERBS = (
    "train",
    "pretrain",
    "resume",
    "plan",
    "evaluate",
    "export",
    "report",
    "data",
    "probe",
    "predict",
    "bench",
    "clean",
)
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


def read(arguments: Sequence[str]) -> tuple[int, Document | None]:
    """Run the verb that `arguments` name; return the exit code, and the order if the verb gives one."""
    try:
        given = cli(list(arguments), standalone_mode=False)
    except click.exceptions.Abort:
        return 130, None
    except click.ClickException as error:
        error.show()
        return 2, None
    return 0, document_of_order(given) if isinstance(given, Order) else None
