"""A `.npz` archive with x_train, y_train and, where there are any, x_val, y_val, x_test, y_test.

A text `axes` names the axes of x, for all splits: N samples, C channels, H and W of images, L of windows (time
series, such as those of a wearable sensor). It may be left out where the shape is unambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.data.sources.npz_array import ArrayHeader, array_names, open_array, read_text
from edge_trgl.data.sources.source import Source, StreamedSplit, check_image_bytes, renumber
from edge_trgl.data.sources.streams import read_all_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_SPLITS = ("train", "val", "test")
_CHANNELS = (1, 3)
_AXES = ("NHW", "NHWC", "NCHW", "NL", "NLC", "NCL")
_NAME_AXES = (
    'Save axes="NHW", "NHWC" or "NCHW" of images, "NL", "NLC" or "NCL" of windows beside it, '
    'as in numpy.savez(file, x_train=x, y_train=y, axes="NCL").'
)


@dataclass(frozen=True, kw_only=True)
class _StoredOrder:
    """How the samples of one array are stored.

    Args:
        axes: one of _AXES.
        sizes: the size of each axis.
    """

    axes: str
    sizes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample with its channels last: (H, W, C) or (L, C)."""
        sizes = dict(zip(self.axes, self.sizes, strict=True))
        return tuple(sizes.get(axis, 1) for axis in self._wanted[1:])

    def channels_last(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return samples as they are stored, [B, ...], as [B, *shape]."""
        samples: NDArray[Any] = values.reshape(-1, *self.sizes[1:])
        if "C" in self.axes:
            samples = samples.transpose([self.axes.index(axis) for axis in self._wanted])
        else:
            samples = samples[..., None]
        return samples

    @property
    def _wanted(self) -> str:
        return "NLC" if "L" in self.axes else "NHWC"


def load(path: Path) -> Source:
    """Read the labels, and the headers of the images.

    Raises:
        InputError: an array is missing, damaged, or of another dtype, or its axes are ambiguous.
    """
    names = array_names(path)
    splits = [split for split in _SPLITS if split == "train" or f"x_{split}" in names]
    images = {split: _image_header(path, f"x_{split}") for split in splits}
    axes = _read_axes(path) if "axes" in names else None
    orders = {split: _stored_order(header, axes) for split, header in images.items()}
    _check_equal(path, images, orders)
    class_names, labels = renumber(path, {split: _read_labels(path, split) for split in splits})
    _check_counts(images, labels)
    return Source(
        format="npz archive",
        shape=orders["train"].shape,
        dtype=images["train"].dtype.name,
        class_names=class_names,
        splits={
            split: StreamedSplit(
                labels=labels[split], read_all=partial(_read_images, images[split], orders[split])
            )
            for split in splits
        },
    )


def load_samples(path: Path) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    """Open the samples of the array `x`, or else of `x_test`; labels are neither needed nor read.

    Returns:
        The shape of a sample, (H, W, C) or (L, C), and an iterator over [B, *shape] arrays, uint8 or float32.

    Raises:
        InputError: as `load`; some damage is noticed only when the samples are read.
    """
    names = array_names(path)
    header = _image_header(path, "x" if "x" in names else "x_test")
    order = _stored_order(header, _read_axes(path) if "axes" in names else None)
    return order.shape, _read_images(header, order)


def _image_header(path: Path, name: str) -> ArrayHeader:
    with open_array(path, name) as (_, header):
        pass
    if header.dtype.name not in ("uint8", "float32"):
        raise InputError(
            f"{header} is of {header.dtype}; images and windows are uint8 or float32",
            hint="Convert it with .astype.",
        )
    return header


def _read_axes(path: Path) -> str:
    axes = read_text(path, "axes")
    if axes not in _AXES:
        raise InputError(
            f"axes in {path} is {axes!r}, or no text; it must be one of {', '.join(_AXES)}", hint=_NAME_AXES
        )
    return axes


def _stored_order(header: ArrayHeader, axes: str | None) -> _StoredOrder:
    axes = _axes_of_shape(header) if axes is None else axes
    if len(axes) != len(header.shape):
        raise InputError(f"{header} has the shape {header.shape}, but the axes {axes}", hint=_NAME_AXES)
    order = _StoredOrder(axes=axes, sizes=header.shape)
    check_image_bytes(header, int(np.prod(order.shape)) * header.dtype.itemsize)
    return order


def _axes_of_shape(header: ArrayHeader) -> str:
    """Guess the axes from the shape and the dtype, where only one guess makes sense."""
    match header.shape:
        case (_, _):
            return "NL"
        case (_, height, width) if height == width or header.dtype == np.uint8:
            return "NHW"
        case (_, height, _, channels) if channels in _CHANNELS and height not in _CHANNELS:
            return "NHWC"
        case (_, channels, _, width) if channels in _CHANNELS and width not in _CHANNELS:
            return "NCHW"
    raise InputError(f"{header} has the shape {header.shape}: its axes are ambiguous", hint=_NAME_AXES)


def _check_equal(path: Path, images: dict[str, ArrayHeader], orders: dict[str, _StoredOrder]) -> None:
    kinds = {(orders[split].shape, header.dtype.name) for split, header in images.items()}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: the splits differ in the size or dtype of their images or windows",
            hint="Save all of them with the same shape and dtype.",
        )


def _read_labels(path: Path, split: str) -> NDArray[np.int64]:
    """Read labels, which may be integers [N] or [N, 1], as int64 [N]."""
    with open_array(path, f"y_{split}") as (stream, header):
        num_labels = header.shape[0] if header.shape else 0
        if header.dtype.kind not in "iu" or int(np.prod(header.shape[1:])) != 1 or not header.shape:
            raise InputError(
                f"{header} is {header.dtype} of shape {header.shape}; labels are integers [N]",
                hint="Save one class number for each image.",
            )
        parts = list(read_all_records(path, stream, num_labels, header.dtype.itemsize))
    empty = np.empty((0, header.dtype.itemsize), np.uint8)
    return np.concatenate([empty, *parts]).view(header.dtype)[:, 0].astype(np.int64)


def _check_counts(images: dict[str, ArrayHeader], labels: dict[str, NDArray[np.int64]]) -> None:
    for split, header in images.items():
        if header.shape[0] != len(labels[split]):
            raise InputError(
                f"{header} holds {header.shape[0]} images, but y_{split} has {len(labels[split])} labels",
                hint="Save one label for each image.",
            )


def _read_images(header: ArrayHeader, order: _StoredOrder) -> Iterator[NDArray[Any]]:
    native = header.dtype.newbyteorder("=")
    num_images = header.shape[0]
    record_bytes = int(np.prod(order.shape)) * header.dtype.itemsize
    with open_array(header.path, header.name) as (stream, _):
        for records in read_all_records(header.path, stream, num_images, record_bytes):
            images = records.view(header.dtype).astype(native, copy=False)
            _check_finite(header, images)
            yield order.channels_last(images)


def _check_finite(header: ArrayHeader, images: NDArray[Any]) -> None:
    if not np.isfinite(images).all():
        raise InputError(f"{header} holds a value that is not finite", hint="Replace NaN and infinity.")
