"""A `.npz` archive with x_train, y_train and, where there are any, x_val, y_val, x_test, y_test."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from edge_trgl.data.sources.reading import all_records, reading
from edge_trgl.data.sources.source import Source, StreamedSplit, check_image_bytes, renumber
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_SPLITS = ("train", "val", "test")
_CHANNELS = (1, 3)
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True, kw_only=True)
class _Member:
    """One array of the archive, known by its header."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.name} in {self.path}"


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """How the images of one member are stored: [N, H, W, C], or [N, C, H, W] where channels_first."""

    shape: tuple[int, int, int]
    channels_first: bool


def load(path: Path) -> Source:
    """Read the labels and the headers of the images.

    Raises:
        InputError: an array is missing, damaged, of another dtype, or its axes cannot be told apart.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    splits = [split for split in _SPLITS if split == "train" or f"x_{split}.npy" in names]
    images = {split: _member(path, f"x_{split}") for split in splits}
    layouts = {split: _layout(member) for split, member in images.items()}
    _check_equal(path, images, layouts)
    class_names, labels = renumber(path, {split: _labels(path, split) for split in splits})
    _check_counts(images, labels)
    return Source(
        layout="npz archive",
        shape=layouts["train"].shape,
        dtype=images["train"].dtype.name,
        class_names=class_names,
        splits={
            split: StreamedSplit(labels=labels[split], blocks=partial(_blocks, images[split], layouts[split]))
            for split in splits
        },
    )


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[BinaryIO, _Member]]:
    """A member's stream, past its header."""
    with reading(path), zipfile.ZipFile(path) as archive:
        try:
            stream = cast("BinaryIO", archive.open(f"{name}.npy"))
        except KeyError as error:
            raise InputError(
                f"{path} has no array {name}", hint="Save x_train, y_train, x_test and y_test."
            ) from error
        except RuntimeError as error:
            raise InputError(f"{path} cannot be read: {error}", hint="Save it with numpy.savez.") from error
        with stream:
            yield stream, _header(path, name, stream)


def _header(path: Path, name: str, stream: BinaryIO) -> _Member:
    try:
        read = _HEADER_READERS[npy.read_magic(stream)]
        shape, column_major, dtype = read(stream)
    except (ValueError, KeyError) as error:
        raise InputError(f"{name} in {path} is not a plain array: {error}", hint="Save it again.") from error
    if column_major and len(shape) > 1:
        raise InputError(
            f"{name} in {path} is stored column by column", hint="Save numpy.ascontiguousarray of it."
        )
    return _Member(path=path, name=name, shape=shape, dtype=dtype)


def _member(path: Path, name: str) -> _Member:
    with _opened(path, name) as (_, member):
        pass
    if member.dtype.name not in ("uint8", "float32"):
        raise InputError(
            f"{member} is of {member.dtype}; images are uint8 or float32", hint="Convert it with .astype."
        )
    return member


def _layout(member: _Member) -> _Layout:
    match member.shape:
        case (_, height, width):
            layout = _Layout(shape=(height, width, 1), channels_first=False)
        case (_, height, width, channels) if channels in _CHANNELS and height not in _CHANNELS:
            layout = _Layout(shape=(height, width, channels), channels_first=False)
        case (_, channels, height, width) if channels in _CHANNELS and width not in _CHANNELS:
            layout = _Layout(shape=(height, width, channels), channels_first=True)
        case _:
            raise InputError(
                f"{member} has the shape {member.shape}: which axis holds 1 or 3 channels cannot be told",
                hint="Save it as [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels.",
            )
    check_image_bytes(member, int(np.prod(layout.shape)) * member.dtype.itemsize)
    return layout


def _check_equal(path: Path, images: dict[str, _Member], layouts: dict[str, _Layout]) -> None:
    kinds = {(layouts[split].shape, member.dtype.name) for split, member in images.items()}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: the splits differ in the size or dtype of their images",
            hint="Save all of them alike.",
        )


def _labels(path: Path, split: str) -> NDArray[np.int64]:
    """int64 [N] from integers [N] or [N, 1]."""
    with _opened(path, f"y_{split}") as (stream, member):
        num_labels = member.shape[0] if member.shape else 0
        if member.dtype.kind not in "iu" or int(np.prod(member.shape[1:])) != 1 or not member.shape:
            raise InputError(
                f"{member} is {member.dtype} of shape {member.shape}; labels are integers [N]",
                hint="Save one class number an image.",
            )
        parts = list(all_records(path, stream, num_labels, member.dtype.itemsize))
    empty = np.empty((0, member.dtype.itemsize), np.uint8)
    return np.concatenate([empty, *parts]).view(member.dtype)[:, 0].astype(np.int64)


def _check_counts(images: dict[str, _Member], labels: dict[str, NDArray[np.int64]]) -> None:
    for split, member in images.items():
        if member.shape[0] != len(labels[split]):
            raise InputError(
                f"{member} holds {member.shape[0]} images, but y_{split} has {len(labels[split])} labels",
                hint="Give one label an image.",
            )


def _blocks(member: _Member, layout: _Layout) -> Iterator[NDArray[Any]]:
    native = member.dtype.newbyteorder("=")
    num_images, *axes = member.shape
    record_bytes = int(np.prod(axes)) * member.dtype.itemsize
    with _opened(member.path, member.name) as (stream, _):
        for block in all_records(member.path, stream, num_images, record_bytes):
            images = block.view(member.dtype).astype(native, copy=False)
            _check_finite(member, images)
            if layout.channels_first:
                channels, height, width = axes
                yield images.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
            else:
                yield images.reshape(-1, *layout.shape)


def _check_finite(member: _Member, images: NDArray[Any]) -> None:
    if not np.isfinite(images).all():
        raise InputError(f"{member} holds a value that is not finite", hint="Replace NaN and infinity.")
