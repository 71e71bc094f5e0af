"""The arrays of a `.npz` archive: their headers, and streams that stand at their values."""

from __future__ import annotations

import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from edge_trgl.data.sources.streams import as_input_error, read_all_records
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_TEXT = 64  # bytes
_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """What the header of one array says.

    Args:
        path: the archive.
        name: the array's name, without `.npy`.
        shape: its shape.
        dtype: its dtype.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.name} in {self.path}"


def array_names(path: Path) -> set[str]:
    """Return the names of the arrays in an archive.

    Raises:
        InputError: the archive is missing or cannot be read.
    """
    with as_input_error(path), zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


@contextmanager
def open_array(path: Path, name: str) -> Iterator[tuple[BinaryIO, ArrayHeader]]:
    """Open an array; yields its stream, which stands at the first value, and its header.

    Raises:
        InputError: there is no such array, it is damaged, holds objects, or is stored column by column.
    """
    with as_input_error(path), zipfile.ZipFile(path) as archive:
        try:
            stream = cast("BinaryIO", archive.open(f"{name}.npy"))
        except KeyError as error:
            raise InputError(
                f"{path} has no array {name}", hint="Save x_train, y_train, x_test and y_test."
            ) from error
        except RuntimeError as error:
            raise InputError(f"{path} cannot be read: {error}", hint="Save it with numpy.savez.") from error
        with stream:
            yield stream, _read_header(path, name, stream)


def _read_header(path: Path, name: str, stream: BinaryIO) -> ArrayHeader:
    try:
        read = _HEADER_READERS[npy.read_magic(stream)]
        shape, column_major, dtype = read(stream)
    except (ValueError, KeyError) as error:
        raise InputError(f"{name} in {path} is not a plain array: {error}", hint="Save it again.") from error
    if column_major and len(shape) > 1:
        raise InputError(
            f"{name} in {path} is stored column by column", hint="Save numpy.ascontiguousarray of it."
        )
    return ArrayHeader(path=path, name=name, shape=shape, dtype=dtype)


def read_text(path: Path, name: str) -> str:
    """Read an array that is one short text; return an empty text if it is anything else.

    Raises:
        InputError: as `open_array`.
    """
    with open_array(path, name) as (stream, header):
        if header.shape != () or header.dtype.kind != "U" or not 0 < header.dtype.itemsize <= _LONGEST_TEXT:
            return ""
        (record,) = read_all_records(path, stream, 1, header.dtype.itemsize)
        return str(record.view(header.dtype)[0, 0])
