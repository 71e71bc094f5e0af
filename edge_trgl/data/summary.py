"""Summarises a data set: what its source found, and which images are for what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources import load
from edge_trgl.data.splits import draw_splits
from edge_trgl.run.data_summary import ClassCount, DataSummary, Sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_trgl.config.data import DataConfig
    from edge_trgl.data.sources import Source
    from edge_trgl.data.splits import Selection


def survey(config: DataConfig, *, seed: int) -> DataSummary:
    """Summarise the data that a configuration names without reading their pixels.

    Raises:
        InputError: the data cannot be read.
        UsageError: an option does not apply to them.
    """
    source = load(config.source, image_size=config.image_size, resize=config.resize, strict=config.strict)
    selections = draw_splits(
        source, seed=seed, validation=config.validation, limit=config.limit, choose_on=config.choose_on
    )
    return summarise(config.source, source, selections, decoded=False)


def summarise(spec: str, source: Source, selections: Mapping[str, Selection], *, decoded: bool) -> DataSummary:
    """Summarise a data set.

    Args:
        spec: what the user gave.
        source: the set; after decoding it knows the images that turned out to be unreadable.
        selections: the images of each split.
        decoded: whether every image was decoded.
    """
    late = [file for split in source.splits.values() for file in split.unreadable.values()]
    unreadable = {file.file: file for file in (*source.unreadable, *late)}
    size = source.shape[:-1]
    return DataSummary(
        source=spec,
        format=source.format,
        shape=source.shape,
        dtype=source.dtype,
        sizes=source.sizes or Sizes(smallest=size, median=size, largest=size, distinct=1),
        resize=source.resize,
        size_from=source.size_from,
        classes=_classes(source.class_names, selections),
        no_images=dict(sorted(source.no_images.items())),
        unreadable=tuple(unreadable[name] for name in sorted(unreadable)),
        notices=source.notices,
        decoded=decoded,
    )


def _classes(names: tuple[str, ...], selections: Mapping[str, Selection]) -> tuple[ClassCount, ...]:
    counts = {
        split: np.bincount(selection.labels, minlength=len(names)).tolist()
        for split, selection in selections.items()
    }
    return tuple(
        ClassCount(name=name, train=counts["train"][label], val=counts["val"][label], test=counts["test"][label])
        for label, name in enumerate(names)
    )
