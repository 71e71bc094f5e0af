"""Decode the images once into records in the run's folder. No torch here."""

from __future__ import annotations

from edge_trgl.data.prepare import prepare
from edge_trgl.run import Run


def run(run: Run) -> dict[str, object]:
    """Prepare the run's data; returns what the parent tells about it."""
    config = run.config()
    info = prepare(
        config.data.source,
        run.data,
        seed=config.train.seed,
        validation=config.data.validation,
        image_size=config.data.image_size,
        limit=config.data.limit,
        choose_on=config.data.choose_on,
    )
    return {
        "shape": list(info.shape),
        "classes": info.num_classes,
        "images": {name: split.num_images for name, split in info.splits.items()},
    }
