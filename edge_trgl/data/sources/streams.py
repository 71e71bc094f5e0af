"""A user's files as streams of fixed-size records; whatever fails is reported in one sentence."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from edge_trgl.data.sources.source import batch_size
from edge_trgl.runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

GET_AGAIN = "Download or copy the file again."


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Raise an InputError that names `path` in place of the errors of opening, reading and unpacking it."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing", hint="The set needs this file too.") from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read: {reason}", hint=GET_AGAIN) from error


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacking it if its name ends in `.gz`.

    Raises:
        InputError: the file is missing or cannot be read, then or later.
    """
    with as_input_error(path):
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                yield cast("BinaryIO", stream)
        else:
            with path.open("rb") as stream:
                yield stream


def read_records(path: Path, stream: BinaryIO, num_records: int, record_bytes: int) -> Iterator[NDArray[np.uint8]]:
    """Read the next records of a stream.

    Args:
        path: the file, for messages.
        stream: stands at the first record.
        num_records: how many to read.
        record_bytes: bytes of one record.

    Yields:
        uint8 [B, record_bytes] arrays of about a megabyte.

    Raises:
        InputError: the stream holds fewer than `num_records` records.
    """
    step = batch_size(record_bytes)
    for first in range(0, num_records, step):
        count = min(step, num_records - first)
        content = stream.read(count * record_bytes)
        if len(content) < count * record_bytes:
            raise InputError(
                f"{path} is cut short: it ends in record {first + len(content) // record_bytes} of {num_records}",
                hint=GET_AGAIN,
            )
        yield np.frombuffer(content, np.uint8).reshape(count, record_bytes)


def read_all_records(
    path: Path, stream: BinaryIO, num_records: int, record_bytes: int
) -> Iterator[NDArray[np.uint8]]:
    """Read the records of a stream as `read_records` does, and check that nothing follows them.

    Raises:
        InputError: the stream holds fewer or more than `num_records` records.
    """
    yield from read_records(path, stream, num_records, record_bytes)
    if stream.read(1):
        raise InputError(f"{path} goes on after its {num_records} records", hint=GET_AGAIN)


def count_records(path: Path, record_bytes: int) -> int:
    """Return how many records of `record_bytes` bytes a file without a header holds.

    Raises:
        InputError: the file is missing, is empty, or does not end with a whole record.
    """
    with as_input_error(path):
        num_bytes = path.stat().st_size
    if num_bytes == 0 or num_bytes % record_bytes:
        raise InputError(
            f"{path} has {num_bytes} bytes, which is not a whole number of {record_bytes}-byte records",
            hint=GET_AGAIN,
        )
    return num_bytes // record_bytes


def read_names(path: Path, num_classes: int) -> tuple[str, ...] | None:
    """Read a file with one class name a line; return None if there is no such file.

    Raises:
        InputError: the file cannot be read, or does not hold `num_classes` names.
    """
    if not path.is_file():
        return None
    with as_input_error(path):
        content = path.read_bytes()
    names = tuple(line.strip() for line in content.decode(errors="replace").splitlines() if line.strip())
    if len(names) != num_classes:
        raise InputError(f"{path} holds {len(names)} names for {num_classes} classes", hint=GET_AGAIN)
    return names
