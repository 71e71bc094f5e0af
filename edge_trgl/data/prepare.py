"""Decodes a data set once into record files, which training reads without a decoder in memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.data.dataset import DATASET_FILE, SPLITS, SURVEY_FILE, DatasetInfo, SplitInfo, encode
from edge_trgl.data.reading_progress import ReadingProgress
from edge_trgl.data.sources import IMAGE_FOLDERS, load
from edge_trgl.data.splits import draw_splits
from edge_trgl.data.statistics import channel_statistics
from edge_trgl.data.summary import summarise
from edge_trgl.runtime.errors import InputError, UsageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.checksum import checksum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from edge_trgl.config.data import AskedResize
    from edge_trgl.data.sources import Source
    from edge_trgl.data.splits import ChooseOn, Selection

LARGE_PIXELS = 512 * 512
"""Training on larger images may not fit the budget: it is planned before they are decoded."""


def prepare(
    spec: str,
    folder: Path,
    *,
    seed: int,
    validation: float = 0.1,
    image_size: int | None = None,
    resize: AskedResize | None = None,
    strict: bool = False,
    limit: int | None = None,
    choose_on: ChooseOn = "validation",
    labels: bool = True,
    survey_large: bool = False,
) -> DatasetInfo:
    """Write the record files of a data set and, last of all, the `dataset.json` that makes them valid.

    The files of train, val and test are `NAME.images` (records [H, W, C] or [L, C] without a header),
    `NAME.labels` (int64, little-endian) and `NAME.checksums` (uint64, little-endian, one for each record).

    Args:
        spec: `sample`, a directory or a `FILE.npz`; see `edge_trgl.data.sources.load`.
        folder: is created if it is missing (its parent must exist); an earlier data set in it is replaced.
        seed: the seed of the splits that are drawn.
        validation: fraction of the training images to hold out if the set has no validation split; 0 for none.
        image_size: side in pixels that image files are resized to; None to choose one where their sizes differ.
        resize: how image files of other proportions become squares; None to choose.
        strict: whether a damaged image file is refused; else it is left out. One whose pixels turn out to be
            damaged is left out of the split that it was drawn for, and the others stay where they are.
        limit: number of training images to keep, balanced over the classes, before validation is held out.
        choose_on: where validation images come from (see `edge_trgl.data.splits.draw_splits`).
        labels: whether labels are needed; see `edge_trgl.data.sources.load`.
        survey_large: if images are large and no `image_size` is given, decode nothing and write `survey.json`,
            which describes the set as far as it is known without its pixels.

    Raises:
        InputError: the set cannot be read.
        StorageError: the disk is full, or writing fails.
        UsageError: an option is out of range.
    """
    _check_validation(validation)
    source = load(spec, image_size=image_size, resize=resize, strict=strict, labels=labels)
    selections = draw_splits(source, seed=seed, validation=validation, limit=limit, choose_on=choose_on)
    statistics = channel_statistics(source.dtype, source.shape[-1])
    files.make_folder(folder)
    if survey_large and image_size is None and _is_large(source):
        info = _survey(spec, source, selections)
        files.write_durable(folder / SURVEY_FILE, [encode(info)])
        return info
    files.remove(folder / DATASET_FILE)
    files.sync_folder(folder)
    fingerprint = hashlib.sha256()
    total = sum(len(selections[name].samples) for name in SPLITS)
    progress = ReadingProgress(source.samples, total)
    splits, read = {}, {}
    for name in SPLITS:
        observe = progress.counting(statistics.add if name == "train" else _ignore)
        splits[name] = _write_split(folder, name, selections[name], observe, fingerprint.update)
        read[name] = selections[name].readable()
        if name == "train":
            _check_classes(source, selections[name], read[name])
    info = DatasetInfo(
        shape=source.shape,
        dtype=source.dtype,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        splits=splits,
        mean=statistics.mean(),
        std=statistics.std(),
        summary=summarise(spec, source, read, decoded=True),
        fingerprint=fingerprint.hexdigest(),
    )
    files.write_durable(folder / DATASET_FILE, [encode(info)])
    return info


def _is_large(source: Source) -> bool:
    return source.format == IMAGE_FOLDERS and source.shape[0] * source.shape[1] > LARGE_PIXELS


def _survey(spec: str, source: Source, selections: Mapping[str, Selection]) -> DatasetInfo:
    """Describe a set without reading its pixels: statistics and checksums are left empty."""
    return DatasetInfo(
        shape=source.shape,
        dtype=source.dtype,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        splits={name: _counted(selections[name]) for name in SPLITS},
        mean=(),
        std=(),
        summary=summarise(spec, source, selections, decoded=False),
        fingerprint="",
    )


def _check_classes(source: Source, drawn: Selection, read: Selection) -> None:
    """Refuse a class whose training images have all turned out to be damaged."""
    lost = np.setdiff1d(drawn.labels, read.labels)
    if len(lost):
        raise InputError(
            f"the training images of the class {source.class_names[lost[0]]} cannot be read: all are damaged",
            hint="Get them again, or take the class out of the folder.",
        )


def _counted(selection: Selection) -> SplitInfo:
    return SplitInfo(num_images=len(selection.samples), images_bytes=0, labels_checksum="", records_checksum="")


def _check_validation(validation: float) -> None:
    if not 0 <= validation < 1:
        raise UsageError(
            f"data.validation is {validation}; it must be at least 0 and less than 1",
            hint="Give the fraction of the training set to hold out, for example 0.1.",
        )


def _write_split(
    folder: Path,
    name: str,
    selection: Selection,
    observe: Callable[[NDArray[Any]], None],
    fingerprint: Callable[[bytes], None],
) -> SplitInfo:
    """Write the files of a split; `observe` is given every image, `fingerprint` the checksums and the labels."""
    every_checksum = np.empty(len(selection.samples), "<u8")
    images = files.write_durable(folder / f"{name}.images", _records(selection, every_checksum, observe))
    read = selection.readable()
    checksums = every_checksum[: len(read.samples)]
    contents = {"checksums": checksums.tobytes(), "labels": read.labels.astype("<i8").tobytes()}
    written = {}
    for kind, content in contents.items():
        written[kind] = files.write_durable(folder / f"{name}.{kind}", [content])
        fingerprint(content)
    return SplitInfo(
        num_images=len(read.samples),
        images_bytes=images.num_bytes,
        labels_checksum=written["labels"].checksum,
        records_checksum=written["checksums"].checksum,
    )


def _records(
    selection: Selection, checksums: NDArray[np.uint64], observe: Callable[[NDArray[Any]], None]
) -> Iterator[memoryview]:
    """Yield the bytes of all images that can be read, batch by batch, and fill in their `checksums` on the way."""
    first = 0
    for images in selection.split.batches(selection.samples):
        checksums[first : first + len(images)] = [checksum_of(image) for image in images]
        first += len(images)
        observe(images)
        yield images.data.cast("B")
    num_read = len(selection.readable().samples)
    assert first == num_read, "the source returned another number of images than was asked for"


def _ignore(images: NDArray[Any]) -> None:
    pass
