"""Read image files and archives of windows as samples; an unreadable file is reported and the rest still read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_trgl.config.data import Resize
from edge_trgl.data.sources import npz
from edge_trgl.runtime.errors import InputError

ARCHIVE = ".npz"
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
DESCRIPTION = ".toml"
"""In a folder, files of this kind say what the columns of the CSV files are."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image or window.

    Args:
        file: the file that it comes from.
        index: its index in the file, from 0; None if the file is a single image.
        values: float32 [C, H, W] or [C, L].
    """

    file: str
    index: int | None
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A file that cannot be read, or not to its end, and the reason."""

    file: str
    reason: str


def read_samples(
    paths: Iterable[Path], shape: tuple[int, ...], *, pixels: bool = True, resize: Resize = "crop"
) -> Iterator[Sample | Unreadable]:
    """Read the samples of image files, `.npz` archives, CSV files and folders of them, one at a time.

    Args:
        paths: files and folders; hidden files in folders are skipped.
        shape: shape of a sample, (C, H, W) or (C, L). Images of another size are resized as `resize` says;
            arrays must have this shape.
        pixels: whether the network takes pixel values from 0 to 255. If not, image files are unreadable, because
            they are not in the units of the training data.
        resize: as in training.
    """
    images = _Images(shape=shape, pixels=pixels, resize=resize)
    for path in paths:
        yield from _folder(path, images) if path.is_dir() else _file(str(path), images)


@dataclass(frozen=True, kw_only=True)
class _Images:
    """What image files become; see `read_samples`."""

    shape: tuple[int, ...]
    pixels: bool
    resize: Resize


def _folder(path: Path, images: _Images) -> Iterator[Sample | Unreadable]:
    # Imported here because it loads Pillow, 10 MiB that networks for windows do not need.
    from edge_trgl.data.sources.folder_layout import walk

    is_empty = True
    for file in walk(path):
        if file.endswith(DESCRIPTION):
            continue
        is_empty = False
        yield from _file(file, images)
    if is_empty:
        yield Unreadable(file=str(path), reason=f"{path} holds no files")


def _file(file: str, images: _Images) -> Iterator[Sample | Unreadable]:
    if file.lower().endswith(TABLES):
        return _windows(file, images.shape, _table)
    return _windows(file, images.shape, _archive) if file.endswith(ARCHIVE) else _image(file, images)


def _image(file: str, images: _Images) -> Iterator[Sample | Unreadable]:
    try:
        yield Sample(file=file, index=None, values=_decoded(file, images))
    except InputError as error:
        yield Unreadable(file=file, reason=error.message)


def _decoded(file: str, images: _Images) -> NDArray[np.float32]:
    from edge_trgl.data.sources.image_file import decode

    _require_content(file)
    shape = images.shape
    if len(shape) != 3 or shape[0] not in (1, 3):
        wanted = " × ".join(map(str, shape))
        raise InputError(f"{file} is not an input for this network, which takes arrays of {wanted}")
    if not images.pixels:
        raise InputError(f"{file} has pixels; this network takes values in the units of its training data (.npz)")
    try:
        image = decode(file, size=(shape[1], shape[2]), channels=shape[0], resize=images.resize)
    except MemoryError as error:
        raise InputError(f"the image {file} is too large: {str(error) or 'not enough memory'}") from error
    return _channels_first(image)


_Blocks = Iterator[NDArray[Any]]
"""Samples of a file, [B, H, W, C] or [B, L, C] at a time."""


def _windows(
    file: str, shape: tuple[int, ...], opened: Callable[[Path, tuple[int, ...]], _Blocks]
) -> Iterator[Sample | Unreadable]:
    """Read the samples of a file that holds several."""
    try:
        _require_content(file)
        index = 0
        for block in opened(Path(file), shape):
            for values in block:
                yield Sample(file=file, index=index, values=_channels_first(values))
                index += 1
        if index == 0:
            raise InputError(f"{file} holds no samples")
    except InputError as error:
        yield Unreadable(file=file, reason=error.message)


def _archive(file: Path, shape: tuple[int, ...]) -> _Blocks:
    sample_shape, blocks = npz.load_samples(file)
    if (sample_shape[-1], *sample_shape[:-1]) != shape:
        raise InputError(
            f"{file} holds samples of {' × '.join(map(str, sample_shape))}, channels last; "
            f"the network takes {' × '.join(map(str, (*shape[1:], shape[0])))}"
        )
    return blocks


def _table(file: Path, shape: tuple[int, ...]) -> _Blocks:
    # Imported here because few read CSV files, and every import takes memory.
    from edge_trgl.data.sources import readings

    if len(shape) != 2:
        raise InputError(f"{file} holds readings; this network takes images")
    channels, length = shape
    names, blocks = readings.load_samples(file, length)
    if len(names) != channels:
        raise InputError(
            f"{file} has {len(names)} channels ({', '.join(names)}); the network takes {channels}, "
            "which a .toml file beside it may name as in training"
        )
    return blocks


def _require_content(file: str) -> None:
    path = Path(file)
    if not path.is_file():  # reading a pipe, for example, might never end
        raise InputError(f"{file} is not a file" if path.exists() else f"there is no file {file}")
    if path.stat().st_size == 0:
        raise InputError(f"{file} is empty")


def _channels_first(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.moveaxis(values, -1, 0).astype(np.float32)
