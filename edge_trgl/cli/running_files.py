"""What `predict` and `bench` share: they run an exported file in their own process."""

from __future__ import annotations

import signal

import click

from edge_trgl.cli.verb import option

PROVIDER = option(
    "--provider",
    type=click.Choice(["auto", "tensorrt", "cuda", "cpu"]),
    default="auto",
    metavar="NAME",
    group="Model",
    help="what computes: tensorrt, cuda, cpu, or auto for the first that works",
    default_text="auto",
)
THREADS = option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    group="Model",
    help="CPU threads",
    default_text="one per processor",
)
OPTIMIZE = option(
    "--optimize",
    is_flag=True,
    group="Model",
    help="make the graph faster on a CPU; loading it takes several times the memory of the weights",
)


def end_at_once_when_told() -> None:
    """Let SIGTERM end the process: unlike a run, these verbs have nothing to resume."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
