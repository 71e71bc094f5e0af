"""What every format becomes: splits that stream their images, about a megabyte at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_trgl.run.data_summary import SizeFrom, Sizes, UnreadableFile
from edge_trgl.runtime.errors import InputError
from edge_trgl.runtime.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from edge_trgl.config.data import Resize

BATCH_BYTES = MIB
MAX_IMAGE_BYTES = 1 << 26
IMAGE_FOLDERS = "image folders"
"""The format of sources whose images are files of their own, of any size."""


class Split(Protocol):
    """Labelled images of one split."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels from 0 to the number of classes - 1, int64 [N]."""

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Stream some of the images.

        Args:
            samples: int64, ascending positions from 0 to N - 1.

        Yields:
            The images in that order, without those that are `unreadable`, as contiguous [B, *shape] arrays of
            about a megabyte, or of one image where an image is larger.

        Raises:
            InputError: a file is damaged or cut short.
        """

    @property
    def unreadable(self) -> Mapping[int, UnreadableFile]:
        """The images, by their position, that turned out to be unreadable while they were streamed."""


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Which training samples belong together: what is held out of training is held out by whole groups.

    Args:
        of_sample: the group of each training sample (a person, a machine), int64 [N].
        without: how to have training and test samples of the same group all the same, for a message.
    """

    of_sample: NDArray[np.int64]
    without: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A set of labelled images, or of windows: stretches of a time series. "Image" stands for both here.

    Args:
        format: the name of the format.
        shape: (H, W, C) of every image, (L, C) of every window.
        dtype: "uint8" or "float32".
        class_names: one name for each label.
        splits: "train" and, where the set has them, "val" and "test".
        groups: which training samples belong together; None if none do.
        notices: sentences about what was done to the data, which the user should know.
        sizes: of the images before they are resized; None if all have `shape`.
        resize: how an image of another size becomes `shape`.
        size_from: where the size of `shape` comes from.
        no_images: number of files that are no images and are left out, by the ending of their names.
        unreadable: images that are left out because already their header cannot be read.
    """

    format: str
    shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    groups: Groups | None = None
    notices: tuple[str, ...] = ()
    sizes: Sizes | None = None
    resize: Resize = "crop"
    size_from: SizeFrom = "files"
    no_images: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[UnreadableFile, ...] = ()

    @property
    def samples(self) -> str:
        """What the samples are called: "images" or "windows"."""
        return "windows" if len(self.shape) == 2 else "images"


@dataclass(frozen=True, kw_only=True)
class StreamedSplit:
    """A split whose images are stored one after the other and are read from the first to the last.

    Args:
        labels: int64 [N].
        read_all: yields all N images in order, as [B, *shape] arrays; called once for each pass.
    """

    labels: NDArray[np.int64]
    read_all: Callable[[], Iterator[NDArray[Any]]]

    @property
    def unreadable(self) -> Mapping[int, UnreadableFile]:
        """None: damage in a file of many images is an error."""
        return {}

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Stream some of the images; see `Split.batches`.

        The stream is read to its end, so that damage anywhere is noticed.
        """
        first = 0
        for images in self.read_all():
            start, stop = np.searchsorted(samples, (first, first + len(images)))
            if start < stop:
                yield np.ascontiguousarray(images[samples[start:stop] - first])
            first += len(images)


def batch_size(record_bytes: int) -> int:
    """Return how many records make about a megabyte, at least one."""
    return max(1, BATCH_BYTES // record_bytes)


def check_image_bytes(where: object, record_bytes: int) -> None:
    """Refuse an image size that only a damaged header gives.

    Args:
        where: the file or array, for the message.
        record_bytes: bytes of one image.

    Raises:
        InputError: an image has no bytes, or more than 64 MiB.
    """
    if not 0 < record_bytes <= MAX_IMAGE_BYTES:
        raise InputError(
            f"{where} says that one sample has {record_bytes} bytes; 1 to {MAX_IMAGE_BYTES} are possible",
            hint="The file is damaged or of another format; get it again.",
        )


def numbered_classes(num_classes: int) -> tuple[str, ...]:
    """Return names for classes that have none: "0", "1", …"""
    return tuple(str(label) for label in range(num_classes))


def check_range(where: object, labels: NDArray[np.int64], num_classes: int) -> None:
    """Check the labels of a set whose number of classes is known.

    Args:
        where: the file, for the message.
        labels: int64 [N].
        num_classes: labels run from 0 to num_classes - 1.

    Raises:
        InputError: a label is out of range.
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
    """Number the classes of the training split from 0 without gaps.

    Args:
        where: the set, for messages.
        labels: the labels of each split as the set has them, int64 [N].

    Returns:
        The class names, which are the old labels; and the labels of each split by position among these names.

    Raises:
        InputError: a label is negative, or does not occur in the training split.
    """
    classes = np.unique(labels["train"])
    renumbered = {}
    for name, split_labels in labels.items():
        unknown = split_labels[(split_labels < 0) | ~np.isin(split_labels, classes)]
        if len(unknown):
            raise InputError(
                f"{where}: the {name} split holds the label {unknown[0]}, which is "
                f"{'negative' if unknown[0] < 0 else 'not a class of the training split'}",
                hint="Leave them out, or give training samples of every class.",
            )
        renumbered[name] = np.searchsorted(classes, split_labels).astype(np.int64)
    return tuple(str(label) for label in classes.tolist()), renumbered
