"""A `.npz` archive with x_train, y_train and, where there are any, x_val, y_val, x_test, y_test.

A text `axes` says what the axes of x are, for all splits: N samples, C channels, H and W of images, L of windows
(time series, such as those of a wearable sensor). It may be left out where the shape tells.
"""

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
_AXES = ("NHW", "NHWC", "NCHW", "NL", "NLC", "NCL")
_LONGEST_TEXT = 64  # bytes
_SAY_AXES = (
    'Save axes="NHW", "NHWC" or "NCHW" of images, "NL", "NLC" or "NCL" of windows beside it, '
    'as in numpy.savez(file, x_train=x, y_train=y, axes="NCL").'
)
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
    """How one member is stored: one of _AXES, and the size of each."""

    axes: str
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample with its channels last: (H, W, C) or (L, C)."""
        sizes = dict(zip(self.axes, self.sizes, strict=True))
        return tuple(sizes.get(axis, 1) for axis in self._order[1:])

    def records(self, values: NDArray[Any]) -> NDArray[Any]:
        """[B, *shape] of samples as they are stored, [B, ...]."""
        samples: NDArray[Any] = values.reshape(-1, *self.sizes[1:])
        if "C" in self.axes:
            samples = samples.transpose([self.axes.index(axis) for axis in self._order])
        else:
            samples = samples[..., None]
        return samples

    @property
    def _order(self) -> str:
        return "NLC" if "L" in self.axes else "NHWC"


def load(path: Path) -> Source:
    """Read the labels and the headers of the images.

    Raises:
        InputError: an array is missing, damaged, of another dtype, or its axes cannot be told apart.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    splits = [split for split in _SPLITS if split == "train" or f"x_{split}.npy" in names]
    images = {split: _member(path, f"x_{split}") for split in splits}
    axes = _axes(path) if "axes.npy" in names else None
    layouts = {split: _layout(member, axes) for split, member in images.items()}
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


def load_samples(path: Path) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    """The samples of the array `x`, or else of `x_test`; labels are neither needed nor read.

    Returns:
        The shape of a sample, (H, W, C) or (L, C), and blocks of samples [B, *shape], uint8 or float32.

    Raises:
        InputError: as `load`; damage may show only when the blocks are read.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    member = _member(path, "x" if "x.npy" in names else "x_test")
    layout = _layout(member, _axes(path) if "axes.npy" in names else None)
    return layout.shape, _blocks(member, layout)


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
            f"{member} is of {member.dtype}; images and windows are uint8 or float32",
            hint="Convert it with .astype.",
        )
    return member


def _axes(path: Path) -> str:
    with _opened(path, "axes") as (stream, member):
        text = ""
        if member.shape == () and member.dtype.kind == "U" and 0 < member.dtype.itemsize <= _LONGEST_TEXT:
            (block,) = all_records(path, stream, 1, member.dtype.itemsize)
            text = str(block.view(member.dtype)[0, 0])
    if text not in _AXES:
        raise InputError(f"{member} is {text!r}, or no text; it must be one of {', '.join(_AXES)}", hint=_SAY_AXES)
    return text


def _layout(member: _Member, axes: str | None) -> _Layout:
    axes = _told_by_shape(member) if axes is None else axes
    if len(axes) != len(member.shape):
        raise InputError(f"{member} has the shape {member.shape}, but the axes {axes}", hint=_SAY_AXES)
    layout = _Layout(axes=axes, sizes=member.shape)
    check_image_bytes(member, int(np.prod(layout.shape)) * member.dtype.itemsize)
    return layout


def _told_by_shape(member: _Member) -> str:
    match member.shape:
        case (_, _):
            return "NL"
        case (_, height, width) if height == width or member.dtype == np.uint8:
            return "NHW"
        case (_, height, _, channels) if channels in _CHANNELS and height not in _CHANNELS:
            return "NHWC"
        case (_, channels, _, width) if channels in _CHANNELS and width not in _CHANNELS:
            return "NCHW"
    raise InputError(f"{member} has the shape {member.shape}: what its axes are cannot be told", hint=_SAY_AXES)


def _check_equal(path: Path, images: dict[str, _Member], layouts: dict[str, _Layout]) -> None:
    kinds = {(layouts[split].shape, member.dtype.name) for split, member in images.items()}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: the splits differ in the size or dtype of their images or windows",
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
    num_images = member.shape[0]
    record_bytes = int(np.prod(layout.shape)) * member.dtype.itemsize
    with _opened(member.path, member.name) as (stream, _):
        for block in all_records(member.path, stream, num_images, record_bytes):
            images = block.view(member.dtype).astype(native, copy=False)
            _check_finite(member, images)
            yield layout.records(images)


def _check_finite(member: _Member, images: NDArray[Any]) -> None:
    if not np.isfinite(images).all():
        raise InputError(f"{member} holds a value that is not finite", hint="Replace NaN and infinity.")
