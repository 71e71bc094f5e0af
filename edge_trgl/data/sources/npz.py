"""A `.npz` archive with x_train, y_train and, where there are any, x_val, y_val, x_test, y_test.

A text `axes` names the axes of x, for all splits: N samples, C channels, H and W of images, L of windows (time
series, such as those of a wearable sensor). It may be left out where the shape is unambiguous.

Labels are whole numbers or text; `class_names`, text [classes], names those that are numbers. `g_train`, numbers
or text [N], says which training samples belong together (a person, a machine).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_trgl.data.sources.npz_array import ArrayHeader, array_names, open_array, read_text
from edge_trgl.data.sources.npz_labels import check_count, read_groups, read_labels
from edge_trgl.data.sources.source import Source, StreamedSplit, check_image_bytes
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


@dataclass(frozen=True, kw_only=True)
class _Samples:
    """The array of one split.

    Args:
        header: what its header says.
        order: how its samples are stored.
    """

    header: ArrayHeader
    order: _StoredOrder

    @property
    def dtype(self) -> str:
        """What its values become: bytes stay bytes, all other numbers are float32."""
        return "uint8" if self.header.dtype == np.uint8 else "float32"

    def read(self) -> Iterator[NDArray[Any]]:
        """Yield all samples, [B, *shape] of `dtype`.

        Raises:
            InputError: the array is cut short, or holds a value that is not finite.
        """
        header = self.header
        record_bytes = int(np.prod(self.order.shape)) * header.dtype.itemsize
        with open_array(header.path, header.name) as (stream, _):
            for records in read_all_records(header.path, stream, header.shape[0], record_bytes):
                with np.errstate(over="ignore"):
                    values = records.view(header.dtype).astype(self.dtype, copy=False)
                _check_finite(header, values)
                yield self.order.channels_last(values)


def load(path: Path) -> Source:
    """Read the labels, and the headers of the images.

    Raises:
        InputError: an array is missing, damaged, or of a dtype that it cannot have, or its axes are ambiguous.
    """
    names = array_names(path)
    splits = [split for split in _SPLITS if split == "train" or f"x_{split}" in names]
    axes = _read_axes(path) if "axes" in names else None
    samples = {split: _samples(path, f"x_{split}", axes) for split in splits}
    _check_equal(path, samples)
    labels = read_labels(path, splits, has_names="class_names" in names)
    for split, array in samples.items():
        check_count(array.header, f"y_{split}", len(labels.of_split[split]))
    return Source(
        format="npz archive",
        shape=samples["train"].order.shape,
        dtype=samples["train"].dtype,
        class_names=labels.class_names,
        splits={
            split: StreamedSplit(labels=labels.of_split[split], read_all=array.read)
            for split, array in samples.items()
        },
        groups=read_groups(path, len(labels.of_split["train"])) if "g_train" in names else None,
        notices=(*_cast(samples), *labels.notices),
    )


def load_samples(path: Path) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    """Open the samples of the array `x`, or else of `x_test`; labels are neither needed nor read.

    Returns:
        The shape of a sample, (H, W, C) or (L, C), and an iterator over [B, *shape] arrays, uint8 or float32.

    Raises:
        InputError: as `load`; some damage is noticed only when the samples are read.
    """
    names = array_names(path)
    samples = _samples(path, "x" if "x" in names else "x_test", _read_axes(path) if "axes" in names else None)
    return samples.order.shape, samples.read()


def _samples(path: Path, name: str, axes: str | None) -> _Samples:
    with open_array(path, name) as (_, header):
        pass
    if header.dtype.kind not in "iuf":
        raise InputError(
            f"{header} is of {header.dtype}; images and windows are numbers", hint="Convert it with .astype."
        )
    order = _stored_order(header, axes)
    if "L" not in order.axes and header.dtype.kind != "f" and header.dtype != np.uint8:
        raise InputError(
            f"{header} is of {header.dtype}; images are uint8, from 0 to 255, or floating point",
            hint="Convert it: .astype(numpy.uint8) if its values are from 0 to 255, else .astype(numpy.float32).",
        )
    return _Samples(header=header, order=order)


def _cast(samples: dict[str, _Samples]) -> list[str]:
    """Say which arrays are not stored as they are read."""
    return [
        f"{array.header.name} is {array.header.dtype} and is read as float32"
        for array in samples.values()
        if array.header.dtype.name not in ("uint8", "float32")
    ]


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


def _check_equal(path: Path, samples: dict[str, _Samples]) -> None:
    kinds = {(array.order.shape, array.dtype) for array in samples.values()}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: the splits differ in the size or dtype of their images or windows",
            hint="Save all of them with the same shape and dtype.",
        )


def _check_finite(header: ArrayHeader, images: NDArray[Any]) -> None:
    if not np.isfinite(images).all():
        raise InputError(f"{header} holds a value that is not finite", hint="Replace NaN and infinity.")
