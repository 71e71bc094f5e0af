"""Image files in class folders, with or without train/, val/ and test/ above them; or without labels in one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_trgl.data.reading_progress import ReadingProgress
from edge_trgl.data.sources.folder_layout import class_names, detect, is_flat, split_folders, subfolders, walk
from edge_trgl.data.sources.image_file import UnreadableImageError, decode, read_header
from edge_trgl.data.sources.image_size import choose_fitting, sizes_of
from edge_trgl.data.sources.source import IMAGE_FOLDERS, Source, batch_size, check_image_bytes
from edge_trgl.run.data_summary import UNLABELLED, UnreadableFile
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from edge_trgl.config.data import AskedResize
    from edge_trgl.data.sources.image_size import Fitting

__all__ = ["FILE_NAMES", "FolderSplit", "detect", "has_image", "load", "walk"]

FILE_NAMES = "train/CLASS/… with val/CLASS/… and test/CLASS/… beside it, or CLASS/… (image files)"


@dataclass(frozen=True, kw_only=True)
class FolderSplit:
    """Image files of one split, each opened when it is read.

    Args:
        folder: of the whole set.
        labels: int64 [N].
        paths: N files.
        fitting: the size that every image becomes, and how.
        channels: 1 for grey, 3 for RGB.
        strict: whether an image that cannot be decoded is refused; else it is left out.
        unreadable: those that were left out so far, by their position.
    """

    folder: Path
    labels: NDArray[np.int64]
    paths: tuple[str, ...]
    fitting: Fitting
    channels: int
    strict: bool
    unreadable: dict[int, UnreadableFile] = field(default_factory=dict)

    def batches(self, samples: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """Decode some of the images; see `Split.batches`."""
        step = batch_size(self.channels * int(np.prod(self.fitting.size)))
        for first in range(0, len(samples), step):
            decoded = [self._image(sample) for sample in samples[first : first + step].tolist()]
            images = [image for image in decoded if image is not None]
            if images:
                yield np.stack(images)

    def _image(self, sample: int) -> NDArray[np.uint8] | None:
        path, fitting = self.paths[sample], self.fitting
        try:
            return decode(path, size=fitting.size, channels=self.channels, resize=fitting.resize)
        except UnreadableImageError as error:
            if self.strict:
                raise
            self.unreadable[sample] = _unreadable(self.folder, path, error)
            return None


class _Survey:
    """The headers of the files of a set; those of no use are noted and left out."""

    def __init__(self, folder: Path, *, strict: bool) -> None:
        self._folder = folder
        self._strict = strict
        self.sizes: list[tuple[int, int]] = []
        self.all_grey = True
        self.no_images: Counter[str] = Counter()
        self.unreadable: list[UnreadableFile] = []
        self._progress = ReadingProgress("files")

    def readable(self, path: str) -> bool:
        """Read a header; return whether the file is an image that can be read, as far as the header tells."""
        self._progress.add(1)
        try:
            header = read_header(path)
        except UnreadableImageError as error:
            if not error.is_image:
                self.no_images[Path(path).suffix.lower()] += 1
                return False
            if self._strict:
                raise
            self.unreadable.append(_unreadable(self._folder, path, error))
            return False
        self.sizes.append((header.height, header.width))
        self.all_grey = self.all_grey and header.grey
        return True

    def all_files(self, folder: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Return the images of one split whatever folders they are in, all with the label 0, int64 [N].

        Raises:
            InputError: there are none.
        """
        paths = tuple(path for path in walk(folder) if self.readable(path))
        if not paths:
            raise InputError(f"{folder} {self._why_empty(folder)}", hint="Put images in it or remove it.")
        return paths, np.zeros(len(paths), np.int64)

    def files(self, folder: Path, names: tuple[str, ...]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        """Return the images of one split, and the label of each, int64 [N].

        Raises:
            InputError: a class folder holds no image, or is not among `names`, the classes of the training images.
        """
        paths: list[str] = []
        labels: list[int] = []
        for child in subfolders(folder):
            if child.name not in names:
                raise InputError(
                    f"{child} is a class that the training images do not have",
                    hint=f"The classes are: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}",
                )
            class_paths = [path for path in walk(child) if self.readable(path)]
            if not class_paths:
                raise InputError(
                    f"the class folder {child} {self._why_empty(child)}", hint="Put images in it or remove it."
                )
            paths += class_paths
            labels += [names.index(child.name)] * len(class_paths)
        return tuple(paths), np.array(labels, np.int64)

    def _why_empty(self, child: Path) -> str:
        below = child.relative_to(self._folder)
        unreadable = [file for file in self.unreadable if below in Path(file.file).parents]
        if not unreadable:
            return "holds no images" if next(walk(child), None) else "is empty"
        first = unreadable[0]
        return f"holds no image that can be read; {Path(first.file).name}: {first.reason}"


def has_image(folder: Path) -> bool:
    """Return whether a folder without sub-folders holds an image, damaged or not."""
    return is_flat(folder) and any(map(_is_image, walk(folder)))


def _is_image(path: str) -> bool:
    try:
        read_header(path)
    except UnreadableImageError as error:
        return error.is_image
    return True


def load(
    folder: Path, *, image_size: int | None = None, resize: AskedResize | None = None, strict: bool = False
) -> Source:
    """List the files and read every header.

    Args:
        folder: holds class folders, or split folders that hold class folders; or images alone, which get the one
            class `UNLABELLED`.
        image_size: side in pixels of the square that every image becomes; None to choose one where sizes differ.
        resize: how images of other proportions become a square; None to choose.
        strict: whether a damaged image is refused; else it is left out.

    Raises:
        InputError: the folders are not splits and classes, a class has no image, or, if `strict`, an image cannot
            be read.
    """
    folders, notices = split_folders(folder)
    survey = _Survey(folder, strict=strict)
    if is_flat(folders["train"]):
        names: tuple[str, ...] = (UNLABELLED,)
        files = {split: survey.all_files(path) for split, path in folders.items()}
    else:
        names = class_names(folders["train"])
        files = {split: survey.files(path, names) for split, path in folders.items()}
    sizes, channels = np.array(survey.sizes, np.int64).reshape(-1, 2), 1 if survey.all_grey else 3
    fitting = choose_fitting(sizes, image_size=image_size, resize=resize, channels=channels)
    shape = (*fitting.size, channels)
    check_image_bytes(folder, int(np.prod(shape)))
    return Source(
        format=IMAGE_FOLDERS,
        shape=shape,
        dtype="uint8",
        class_names=names,
        splits={
            split: FolderSplit(
                folder=folder, labels=labels, paths=paths, fitting=fitting, channels=channels, strict=strict
            )
            for split, (paths, labels) in files.items()
        },
        notices=notices,
        sizes=sizes_of(sizes),
        resize=fitting.resize,
        size_from=fitting.size_from,
        no_images=survey.no_images,
        unreadable=tuple(survey.unreadable),
    )


def _unreadable(folder: Path, path: str, error: UnreadableImageError) -> UnreadableFile:
    return UnreadableFile(file=str(Path(path).relative_to(folder)), reason=error.reason)
