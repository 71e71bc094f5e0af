"""What a run trains on, as plain data: classes, sizes, files that were left out, and what the images become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.data import DataConfig, Resize
from edge_trgl.runtime.records import Document, document_of


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to training images at random: pixels of padding before a crop, 0 for none, and mirroring."""

    crop_padding: int
    flip: bool


UNLABELLED = "unlabelled"
"""The class of images that have no labels."""

SizeFrom = Literal["files", "option", "choice"]
"""Where the size of the images comes from: their files, the option --image-size, or a choice made for the user."""


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The number of images of one class in each split."""

    name: str
    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the images before they are resized: (height, width), or (length,) of windows.

    Args:
        smallest, largest: by their number of pixels.
        median: of each side by itself.
        distinct: number of different sizes.
    """

    smallest: tuple[int, ...]
    median: tuple[int, ...]
    largest: tuple[int, ...]
    distinct: int


@dataclass(frozen=True, kw_only=True)
class UnreadableFile:
    """An image that cannot be read: its file, below the folder of the data, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What was found in a data set, and what it becomes. "Images" stands for windows too.

    Args:
        source: what the user gave, a folder or a file.
        format: the name of the format.
        shape: (H, W, C) of every image, or (L, C) of every window, as it is stored.
        dtype: "uint8" or "float32".
        sizes: of the images before they were resized.
        resize: how an image of another size becomes `shape`.
        size_from: where `shape` comes from.
        classes: in the order of the labels.
        no_images: number of files that are no images, by the ending of their names; they are left out.
        unreadable: images that are left out because they are damaged or of a format that cannot be read.
        notices: sentences about what was done to the data.
        decoded: whether every image was decoded; if not, more of them may turn out to be unreadable.
    """

    source: str
    format: str
    shape: tuple[int, ...]
    dtype: str
    sizes: Sizes
    resize: Resize
    size_from: SizeFrom
    classes: tuple[ClassCount, ...]
    no_images: Mapping[str, int]
    unreadable: tuple[UnreadableFile, ...]
    notices: tuple[str, ...]
    decoded: bool

    @property
    def has_labels(self) -> bool:
        """Whether there are classes to tell apart."""
        return len(self.classes) > 1

    @property
    def images(self) -> dict[str, int]:
        """The number of images in each split."""
        return {
            "train": sum(count.train for count in self.classes),
            "val": sum(count.val for count in self.classes),
            "test": sum(count.test for count in self.classes),
        }

    @property
    def imbalance(self) -> float:
        """The number of training images of the largest class, divided by that of the smallest."""
        counts = [count.train for count in self.classes if count.train]
        return max(counts) / min(counts) if counts else 1.0

    def document(self, augmentation: Augmentation) -> Document:
        """Return it as a JSON object, with what follows from it and what is done to the images in training."""
        return {
            **document_of(self),
            "images": self.images,
            "channels": self.shape[-1],
            "imbalance": round(self.imbalance, 3),
            "augmentation": document_of(augmentation),
        }


def augmentation_of(config: DataConfig, shape: tuple[int, ...]) -> Augmentation:
    """Return what a configuration does to images [H, W, C]; windows [L, C] are never augmented."""
    if not config.augment or len(shape) != 3:
        return Augmentation(crop_padding=0, flip=False)
    padding = min(shape[:2]) // 16 if config.crop_padding is None else config.crop_padding
    return Augmentation(crop_padding=padding, flip=config.flip)
