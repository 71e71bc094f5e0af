"""`edge-trgl data`: what is in a data set, without decoding it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_trgl.cli.data_text import data_text
from edge_trgl.cli.progress import columns
from edge_trgl.cli.verb import Verb, option
from edge_trgl.config.flags import configuration
from edge_trgl.run.data_summary import augmentation_of


@click.command(cls=Verb)
@click.argument("source")
@option("--image-size", metavar="N", help="resize photos to N x N pixels", default_text="chosen")
@option(
    "--resize",
    metavar="HOW",
    help="how photos become squares: crop, squash, pad or none",
    default_text="squash, or pad for long ones",
)
@option("--strict", is_flag=True, help="refuse damaged photos instead of leaving them out")
@option("--json", "as_json", is_flag=True, help="print everything as one JSON document")
def data(source: str, image_size: str | None, resize: str | None, strict: bool, as_json: bool) -> None:  # noqa: FBT001
    """Summarise a data set: classes, images, sizes, what is left out and what the images become.

    SOURCE is what --data of train takes. The headers of photos are read and not their pixels, so damage in these
    is found only when train or plan decodes them.
    """
    from edge_trgl.pipeline import data_survey  # what every other verb would pay for

    config = configuration({"data": source, "image_size": image_size, "resize": resize, "strict": strict})
    summary = data_survey.survey(config, Path.cwd())
    augmentation = augmentation_of(config.data, summary.shape)
    if as_json:
        click.echo(json.dumps(summary.document(augmentation)))
    else:
        click.echo(data_text(summary, augmentation, columns()))
