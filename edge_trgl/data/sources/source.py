"""What every format is turned into: splits that stream their images a small batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

BATCH_BYTES = MIB
MAX_IMAGE_BYTES = 1 << 26
FOLDERS = "image folders"
"""The layout whose images are files, of any size."""


class Split(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N], from 0 to the number of classes - 1."""

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """The images of `samples` (ascending), in order.

        Yields:
            Contiguous [B, *shape] arrays of about a megabyte, or of one image where an image is larger.

        Raises:
            InputError: a file turns out to be damaged or cut short.
        """


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of labelled images, or of windows: stretches of a time series. "Image" stands for both here.

    Args:
        layout: the format's name, for messages.
        shape: (H, W, C) of every image, (L, C) of every window.
        dtype: "uint8" or "float32".
        class_names: one name a label.
        splits: "train" and, where the set has them, "val" and "test".
    """

    layout: str
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]


@dataclass(frozen=True, kw_only=True)
class StreamedSplit:
    """A split whose images lie one after the other and are read from the first to the last.

    Args:
        labels: int64 [N].
        blocks: starts a pass; yields all N images as [B, *shape] arrays.
    """

    labels: NDArray[np.int64]
    blocks: Callable[[], Iterator[NDArray[Any]]]

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """See `Split.batches`; the rest of the stream is read too, so damage anywhere is found."""
        first = 0
        for block in self.blocks():
            start, stop = np.searchsorted(samples, (first, first + len(block)))
            if start < stop:
                yield np.ascontiguousarray(block[samples[start:stop] - first])
            first += len(block)


def batch_size(record_bytes: int) -> int:
    """Images in an array of about BATCH_BYTES, at least one."""
    return max(1, BATCH_BYTES // record_bytes)


def check_image_bytes(where: object, record_bytes: int) -> None:
    """Refuse the size of image that only a damaged header gives.

    Raises:
        InputError: an image of no byte, or of more than 64 MiB.
    """
    if not 0 < record_bytes <= MAX_IMAGE_BYTES:
        raise InputError(
            f"{where} says that an image has {record_bytes} bytes; 1 to {MAX_IMAGE_BYTES} are possible",
            hint="The file is damaged or of another format; get it again.",
        )


def numbered_classes(num_classes: int) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1", …"""
    return tuple(str(label) for label in range(num_classes))


def check_range(where: object, labels: NDArray[np.int64], num_classes: int) -> None:
    """Check the labels of a set whose number of classes is known.

    Raises:
        InputError: a label is not from 0 to num_classes - 1.
    """
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise InputError(
            f"{where} holds the label {outside[0]}; labels run from 0 to {num_classes - 1}",
            hint="The file is damaged or belongs to another set.",
        )


def renumber(
    where: object, labels: Mapping[str, NDArray[np.int64]]
) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """Number the classes found in training from 0 without gaps; a class is named by its own label.

    Args:
        where: the set, for messages.
        labels: for each split, int64 [N] as found.

    Returns:
        The class names, and the labels as positions among them.

    Raises:
        InputError: a label is negative, or a split has a class that training lacks.
    """
    classes = np.unique(labels["train"])
    numbered = {}
    for name, found in labels.items():
        unknown = found[(found < 0) | ~np.isin(found, classes)]
        if len(unknown):
            raise InputError(
                f"{where}: the {name} split holds the label {unknown[0]}, which is "
                f"{'negative' if unknown[0] < 0 else 'not a class of the training split'}",
                hint="Leave such images out, or give training images of every class.",
            )
        numbered[name] = np.searchsorted(classes, found).astype(np.int64)
    return tuple(str(label) for label in classes.tolist()), numbered
