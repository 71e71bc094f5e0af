"""Reads the pickles that CIFAR is published in, without trusting them and without loading the images.

A pickle may name any function and have it called. This reader knows only the names that a plain numpy array needs,
and replaces each by a stand-in that records its arguments: nothing that the file names is run.
"""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from edge_trgl.data.sources.streams import GET_AGAIN, as_input_error
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SPAN_BYTES = 1 << 18
_MALFORMED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True, kw_only=True)
class ArrayLocation:
    """Where the bytes of a uint8 array are inside a pickle.

    Args:
        shape: as the file gives it; not checked.
        num_bytes: bytes of the array.
        start: the position in the file of the first byte.
        content: the bytes themselves, if they are few (`start` is then not used); else empty.
    """

    shape: tuple[int, ...]
    num_bytes: int
    start: int = 0
    content: bytes = b""


def load_pickle(path: Path) -> Any:
    """Load a pickled dictionary of lists, numbers, byte strings and arrays; each array is an `ArrayLocation`.

    Raises:
        InputError: the file is damaged, or holds anything but plain uint8 arrays.
    """
    with as_input_error(path), path.open("rb") as stream:
        unpickler = _Unpickler(_Stream(stream, path.stat().st_size), encoding="bytes")
        try:
            return _resolved(unpickler.load())
        except _MALFORMED as error:
            raise InputError(f"{path} is not a CIFAR pickle: {error}", hint=GET_AGAIN) from error


class _Span(bytes):
    """Stands in for a long byte string of the file: empty, but with the position of the bytes."""

    start: int
    num_bytes: int


class _Stream:
    """A file whose long reads skip the bytes and return a `_Span`."""

    def __init__(self, stream: BinaryIO, num_bytes: int) -> None:
        self._stream = stream
        self._num_bytes = num_bytes

    def read(self, num_bytes: int) -> bytes:
        start = self._stream.tell()
        if num_bytes > self._num_bytes - start:
            raise EOFError("it is cut short")
        if num_bytes < SPAN_BYTES:
            return self._stream.read(num_bytes)
        span = _Span()
        span.start, span.num_bytes = start, num_bytes
        self._stream.seek(num_bytes, io.SEEK_CUR)
        return span

    def readline(self) -> bytes:
        return self._stream.readline(SPAN_BYTES)


class _Type:
    """Stands in for numpy.dtype; `u1` is the only one that is accepted."""

    def __init__(self, code: bytes | str, align: int = 0, copy: int = 1) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which mean nothing for single bytes."""


class _Array:
    """Stands in for the array that numpy's `_reconstruct` would make."""

    location: ArrayLocation

    def __init__(self, kind: object, shape: object, code: object) -> None:
        pass

    def __setstate__(self, state: tuple[object, tuple[int, ...], _Type, bool, bytes]) -> None:
        _, shape, dtype, column_major, content = state
        if not isinstance(dtype, _Type) or column_major or not isinstance(content, bytes):
            raise pickle.UnpicklingError("its array is not plain unsigned bytes, row by row")
        if isinstance(content, _Span):
            self.location = ArrayLocation(shape=tuple(shape), num_bytes=content.num_bytes, start=content.start)
        else:
            self.location = ArrayLocation(shape=tuple(shape), num_bytes=len(content), content=content)


# numpy.ndarray is named in these files but never called, so a string stands in for it.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): "numpy.ndarray",
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


# The Unpickler written in C accepts only bytes from `read`; the one written in Python passes a _Span through.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _resolved(value: Any) -> Any:
    if not isinstance(value, dict):
        raise pickle.UnpicklingError("it does not hold a dictionary")
    return {name: item.location if isinstance(item, _Array) else item for name, item in value.items()}
