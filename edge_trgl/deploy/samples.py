"""Files of images or windows as samples for a network; a file that cannot be read is a sentence, not the end."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_trgl.data.sources import npz
from edge_trgl.runtime.errors import InputError

ARCHIVE = ".npz"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image or window.

    Args:
        file: where it comes from.
        index: which one of the file, from 0; None where the file is one image.
        values: float32 [C, H, W] or [C, L].
    """

    file: str
    index: int | None
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file that gives no sample, or none after those that came before, and why."""

    file: str
    reason: str


def read_samples(
    paths: Iterable[Path], shape: tuple[int, ...], *, pixels: bool = True
) -> Iterator[Sample | Unreadable]:
    """The samples of image files, of `.npz` archives, and of the folders that hold them, one at a time.

    Args:
        paths: hidden files in folders are left out.
        shape: of a sample, (C, H, W) or (C, L). Images of another size are cut and resized as those of an image
            folder are before training; arrays must have it.
        pixels: without, what is read must be in the units of the training data, which image files are not.
    """
    for path in paths:
        yield from _folder(path, shape, pixels=pixels) if path.is_dir() else _file(str(path), shape, pixels=pixels)


def _folder(path: Path, shape: tuple[int, ...], *, pixels: bool) -> Iterator[Sample | Unreadable]:
    # With it comes Pillow, which a network for windows does without: 10 MiB.
    from edge_trgl.data.sources.image_folder import walk

    is_empty = True
    for file in walk(path):
        is_empty = False
        yield from _file(file, shape, pixels=pixels)
    if is_empty:
        yield Unreadable(file=str(path), reason=f"{path} holds no files")


def _file(file: str, shape: tuple[int, ...], *, pixels: bool) -> Iterator[Sample | Unreadable]:
    return _archive(file, shape) if file.endswith(ARCHIVE) else _image(file, shape, pixels=pixels)


def _image(file: str, shape: tuple[int, ...], *, pixels: bool) -> Iterator[Sample | Unreadable]:
    try:
        yield Sample(file=file, index=None, values=_decoded(file, shape, pixels=pixels))
    except InputError as error:
        yield Unreadable(file=file, reason=error.message)


def _decoded(file: str, shape: tuple[int, ...], *, pixels: bool) -> NDArray[np.float32]:
    from PIL import Image

    from edge_trgl.data.sources.image_file import decode

    _require_content(file)
    if len(shape) != 3 or shape[0] not in (1, 3):
        wanted = " × ".join(map(str, shape))
        raise InputError(f"{file} cannot be given to this network, which takes arrays of {wanted}")
    if not pixels:
        raise InputError(f"{file} has pixels; this network takes values in the units of its training data (.npz)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of metadata
            # From 89 megapixels on it warns, from twice as many it refuses; on a board the first is the end.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = decode(file, size=shape[1:], channels=shape[0])
    except (Image.DecompressionBombWarning, MemoryError) as error:
        raise InputError(f"{file} is too large an image: {str(error) or 'memory does not suffice'}") from error
    return _channels_first(image)


def _archive(file: str, shape: tuple[int, ...]) -> Iterator[Sample | Unreadable]:
    try:
        _require_content(file)
        found, blocks = npz.load_samples(Path(file))
        if (found[-1], *found[:-1]) != shape:
            raise InputError(
                f"{file} holds samples of {' × '.join(map(str, found))}, channels last; "
                f"the network takes {' × '.join(map(str, (*shape[1:], shape[0])))}"
            )
        index = 0
        for block in blocks:
            for values in block:
                yield Sample(file=file, index=index, values=_channels_first(values))
                index += 1
        if index == 0:
            raise InputError(f"{file} holds no samples")
    except InputError as error:
        yield Unreadable(file=file, reason=error.message)


def _require_content(file: str) -> None:
    path = Path(file)
    if not path.is_file():  # a pipe, for one, would be waited for
        raise InputError(f"{file} is not a file" if path.exists() else f"there is no file {file}")
    if path.stat().st_size == 0:
        raise InputError(f"{file} is empty")


def _channels_first(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.moveaxis(values, -1, 0).astype(np.float32)
