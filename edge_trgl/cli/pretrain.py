"""`edge-trgl pretrain`: train the first blocks of a network without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edge_trgl.cli.configured import ConfiguredVerb, configured_by, read_configuration
from edge_trgl.cli.orders import Order
from edge_trgl.cli.train import AS_JSON, DRY_RUN, RUN, begun
from edge_trgl.config.flags import FLAGS
from edge_trgl.config.sources import read_recipes

RECIPE = "pretrain"
"""The recipe that makes a training run an autoencoder. It wins over those that the user names, which then give the
network and the data."""

USELESS = (
    "modules",
    "head",
    "shared_head",
    "regime",
    "laps",
    "loss",
    "tau",
    "no_transport",
    "freeze",
    "grow",
    "views",
    "cache",
    "chunk",
    "resident",
)
"""Options that do nothing for a single module without a classifier."""


def _defaults() -> dict[str, object]:
    (recipe,) = read_recipes(RECIPE)
    sections: dict[str, Any] = dict(recipe)
    return {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}


@click.command(cls=ConfiguredVerb)
@configured_by(
    [replace(flag, common=flag.common or flag.name == "blocks") for flag in FLAGS if flag.name not in USELESS],
    _defaults(),
)
@RUN
@DRY_RUN
@AS_JSON
def pretrain(run_folder: Path | None, dry_run: bool, as_json: bool, **given: Any) -> Order | None:  # noqa: FBT001
    """Train the first blocks of a network as an autoencoder.

    The images need no labels. The blocks go to a file that train takes as --pretrained.
    """
    recipe = RECIPE if given["recipe"] is None else f"{given['recipe']},{RECIPE}"
    config = read_configuration({**given, "recipe": recipe})
    return begun(config, run_folder, then_export=False, dry_run=dry_run, as_json=as_json)
