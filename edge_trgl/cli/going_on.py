"""After pretraining: the command that trains a classifier on the pretrained blocks."""

from __future__ import annotations

from edge_trgl.config.flags import FLAGS, Flag
from edge_trgl.config.sections import RunConfig
from edge_trgl.run.facts import Reconstruction
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import command
from edge_trgl.runtime.records import Document, read_record

LABELLED = "LABELLED"
"""Stands for the data of the command where those of pretraining have no labels."""

KEPT = (
    "data",
    "model",
    "train.seed",
    "train.device",
    "train.precision",
    "train.threads",
    "budget.mb",
    "budget.disk_mb",
)
"""Sections and settings that the next command takes over."""

OWN = ("data.source", "data.limit", "data.cache_mb", "model.blocks", "model.gain", "model.pretrained")
"""Settings of these that are of pretraining alone, or are written anew."""


def going_on(summary: Document, run: Run) -> list[str]:
    """Return lines about the blocks of a pretrained run, and what to do with them."""
    config = run.config()
    frozen = read_record(Reconstruction, summary["reconstruction"]).num_modules
    labelled = config.data.source if len(summary["data"]["classes"]) > 1 else LABELLED
    words = [
        "--data",
        labelled,
        *_words(config),
        "--pretrained",
        str(run.blocks_file),
        *(("--freeze", str(frozen)) if frozen else ()),
    ]
    return [f"blocks {run.blocks_file}", f"to go on: {command('train', *words)}"]


def _words(config: RunConfig) -> list[str]:
    """The options that give the settings in which a run differs from the defaults."""
    given, usual = config.document(), RunConfig().document()
    flags = {flag.key: flag for flag in FLAGS}
    words: list[str] = []
    for section, values in given.items():
        for name, value in values.items():
            key = f"{section}.{name}"
            kept = (section in KEPT or key in KEPT) and key not in OWN
            if kept and value != usual[section].get(name):
                words += _option(flags[key], value) if key in flags else ["--set", f"{key}={_plain(value)}"]
    return words


def _option(flag: Flag, value: object) -> list[str]:
    if flag.switched is not None:
        return [flag.option]
    if flag.paired:
        return [flag.option.split("/")[not value]]
    return [flag.option, _plain(value)]


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
