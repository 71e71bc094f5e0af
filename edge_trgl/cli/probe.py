"""`edge-trgl probe`: measure this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_trgl.cli.progress import Terminal
from edge_trgl.cli.verb import Verb, option

if TYPE_CHECKING:
    from edge_trgl.pipeline.board_probe import BoardProbe

REFERENCE = "training one K-M module of width 64, 32x32, batch 32"


@click.command(cls=Verb)
@option(
    "--disk",
    type=Path,
    metavar="FOLDER",
    help="a folder on the disk to measure",
    default_text="runs, or the current folder",
)
@option("--save", "target", metavar="NAME", help="make a profile: a name for --profile, or a path ending in .toml")
@option("--json", "as_json", is_flag=True, help="print the measurements as one JSON document")
def probe(disk: Path | None, target: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Measure this machine: its memory, disk, speed, number types and counters."""
    from edge_trgl.pipeline import board_probe  # 2 MiB that every other verb would pay for

    file = None if target is None else board_probe.profile_file(target)
    terminal = Terminal()
    probed = board_probe.probe(disk, terminal.line)
    if file is not None:
        board_probe.save(probed, file)
        terminal.line(f"saved as {file}; --profile {target} uses it")
    click.echo(json.dumps(probed.document()) if as_json else _board_text(probed))


def _board_text(probed: BoardProbe) -> str:
    board = probed.board
    rows = {
        "machine": board.name,
        "memory": f"{board.usable_mb:.0f} MiB, {probed.available_mb:.0f} available now",
        "GPU": board.gpu,
        "disk": f"{board.storage}, under {probed.folder}",
        "  write": f"{board.storage_write_mbs:.0f} MB/s "
        f"({probed.storage_file_mb:.0f} MiB, {probed.storage_method})",
        "  read": f"{board.storage_read_mbs:.0f} MB/s",
        "  at random": f"{board.storage_random_iops:.0f} reads of 4 KiB a second",
        "speed": f"{board.images_per_s:.0f} images/s on {probed.device} ({REFERENCE})",
        "arithmetic": _arithmetic(probed.relative_speeds),
        "counters": ", ".join(board.counters),
    }
    lines = [f"{title:11s} {text}" for title, text in rows.items()]
    if board.storage.startswith(("tmpfs", "ramfs")):
        lines.append(f"{probed.folder} is in memory; --disk FOLDER measures the disk of another folder")
    return "\n".join(lines)


def _arithmetic(relative_speeds: Mapping[str, float | None]) -> str:
    narrow = [
        f"{name} not supported" if speed is None else f"{name} {speed:.2g} times as fast"
        for name, speed in relative_speeds.items()
        if name != "fp32"
    ]
    return ", ".join(["fp32", *narrow])
