"""Image files in class folders, with or without train/, val/ and test/ above them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.sources.image_file import decode, read_header
from edge_trgl.data.sources.source import IMAGE_FOLDERS, Source, batch_size, check_image_bytes
from edge_trgl.data.sources.streams import as_input_error
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FILE_NAMES = "train/CLASS/… with val/CLASS/… and test/CLASS/… beside it, or CLASS/… (image files)"
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class FolderSplit:
    """Image files of one split, each opened when it is read.

    Args:
        labels: int64 [N].
        paths: N files.
        shape: (H, W, C) that every image becomes.
        size: side in pixels to resize to; None if all images have the same size.
    """

    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    shape: tuple[int, int, int]
    size: int | None

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Decode some of the images; see `Split.batches`."""
        step = batch_size(int(np.prod(self.shape)))
        for first in range(0, len(samples), step):
            yield np.stack([self._image(sample) for sample in samples[first : first + step].tolist()])

    def _image(self, sample: int) -> NDArray[np.uint8]:
        size = None if self.size is None else self.shape[:2]
        return decode(self.paths[sample], size=size, channels=self.shape[2])


def detect(folder: Path) -> bool:
    """Return whether `folder` has one of the three split folders, or a sub-folder with a file in it."""
    has_split = any((folder / name).is_dir() for name in _SPLITS)
    return has_split or any(_has_file(child) for child in _subfolders(folder))


def load(folder: Path, *, image_size: int | None) -> Source:
    """List the files and read every header.

    Args:
        folder: holds class folders, or split folders that hold class folders.
        image_size: side in pixels of the square that every image becomes; may be None if all images have the
            same size.

    Raises:
        InputError: a class folder is empty or not among those of the training images, an image cannot be read,
            or sizes differ and no `image_size` is given.
    """
    folders = _split_folders(folder)
    class_names = tuple(child.name for child in _subfolders(folders["train"]))
    files = {split: _files(path, class_names) for split, path in folders.items()}
    shape = _shape([path for paths, _ in files.values() for path in paths], image_size)
    check_image_bytes(folder, int(np.prod(shape)))
    return Source(
        format=IMAGE_FOLDERS,
        shape=shape,
        dtype="uint8",
        class_names=class_names,
        splits={
            split: FolderSplit(labels=labels, paths=paths, shape=shape, size=image_size)
            for split, (paths, labels) in files.items()
        },
    )


def _split_folders(folder: Path) -> dict[str, Path]:
    folders = {name: folder / name for name in _SPLITS if (folder / name).is_dir()}
    if folders and "train" not in folders:
        raise InputError(
            f"{folder} has {' and '.join(folders)} but no train folder",
            hint="Put the training images in train/CLASS/…",
        )
    return folders or {"train": folder}


def _subfolders(folder: Path) -> list[Path]:
    with as_input_error(folder):
        return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def walk(folder: Path) -> Iterator[str]:
    """Yield the path of every file below a folder in alphabetical order, leaving out hidden ones."""
    for parent, children, names in os.walk(folder, followlinks=True):
        children[:] = sorted(child for child in children if not child.startswith("."))
        yield from (f"{parent}/{name}" for name in sorted(names) if not name.startswith("."))


def _has_file(folder: Path) -> bool:
    return next(walk(folder), None) is not None


def _files(folder: Path, class_names: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the files of one split, and the label of each, int64 [N]."""
    paths: list[str] = []
    labels: list[int] = []
    for child in _subfolders(folder):
        if child.name not in class_names:
            raise InputError(
                f"{child} is a class that the training images do not have",
                hint=f"The classes are: {', '.join(class_names[:10])}{' …' if len(class_names) > 10 else ''}",
            )
        class_paths = list(walk(child))
        if not class_paths:
            raise InputError(f"the class folder {child} is empty", hint="Put images in it or remove it.")
        paths += class_paths
        labels += [class_names.index(child.name)] * len(class_paths)
    return tuple(paths), np.array(labels, np.int64)


def _shape(paths: list[str], image_size: int | None) -> tuple[int, int, int]:
    """Return (H, W, C) of all images; reads every header, so that a broken file is noticed at once."""
    first, all_grey = None, True
    for path in paths:
        header = read_header(path)
        size = (header.height, header.width)
        first = first or size
        all_grey = all_grey and header.grey
        if image_size is None and size != first:
            raise InputError(
                f"{path} has {size[1]}×{size[0]} pixels and {paths[0]} has {first[1]}×{first[0]}",
                hint="Pass --image-size N to turn every image into N×N pixels.",
            )
    height, width = (image_size, image_size) if image_size is not None else first or (0, 0)
    return height, width, 1 if all_grey else 3
