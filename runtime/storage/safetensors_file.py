"""Reading and writing safetensors files, with the checksum that the format lacks.

Layout: the length of the header in 8 bytes, little-endian; the header, JSON padded with spaces to a multiple of
8 bytes; the data. No tensor is copied as a whole: at most `SLICE_BYTES` are staged at a time.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from edge_trgl.runtime.errors import StorageError
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.storage.checksum import Checksum
from edge_trgl.runtime.storage.files import FileRecord
from edge_trgl.runtime.units import MIB

SLICE_BYTES = 8 * MIB
MAX_HEADER_BYTES = 100 * MIB
_PREFIX_BYTES = 8

Header = dict[str, object]
"""The JSON of a header: an entry for each tensor."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """The place of a tensor: bytes `start` to `stop` of the whole file, in row-major order."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def write(
    path: Path, tensors: Mapping[str, Tensor], *, durable: bool, metadata: Mapping[str, str] = {}
) -> FileRecord:
    """Write named tensors, in the given order, as one safetensors file under a temporary name, and rename it.

    Args:
        path: the file; an older one is replaced completely or not at all.
        tensors: any shape, strides and device; dtypes F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL.
        durable: wait until the file survives a power cut; otherwise call `make_durable` later.
        metadata: text stored in the header under `__metadata__`.

    Raises:
        StorageError: the disk is full or fails; an older file is still there.
    """
    header = _header(tensors, metadata)
    return files.replace_file(path, _chunks(header, tensors), durable=durable)


def make_durable(path: Path) -> None:
    """Make a file that was written without `durable` survive a power cut.

    Raises:
        StorageError: the disk did not take it.
    """
    with files.opened(path, os.O_RDONLY) as fd:
        files.sync(fd)
    files.sync_folder(path.parent)


def read_into(path: Path, tensors: Mapping[str, Tensor], expected: FileRecord) -> None:
    """Fill `tensors` in place from a file whose length, names, dtypes, shapes and checksum must all match.

    The checksum is known only at the end: after an error the values of the tensors are undefined.

    Raises:
        StorageError: names the file and the first thing that differs.
    """
    _read_into(path, tensors, expected, whole=True)


def read_some_into(path: Path, tensors: Mapping[str, Tensor], expected: FileRecord) -> None:
    """Fill some of the tensors of a file as `read_into` does; the checksum still covers all bytes.

    Raises:
        StorageError: names the file and the first thing that differs.
    """
    _read_into(path, tensors, expected, whole=False)


def _read_into(path: Path, tensors: Mapping[str, Tensor], expected: FileRecord, *, whole: bool) -> None:
    with files.opened(path, os.O_RDONLY) as fd:
        num_bytes = files.size(fd)
        if num_bytes != expected.num_bytes:
            _damaged(path, f"it has {num_bytes} bytes where {expected.num_bytes} were written")
        header, infos = _read_header(fd, path)
        _check_same(path, infos if whole else {name: infos[name] for name in infos.keys() & tensors}, tensors)
        staging = _staging()
        checksum = Checksum(header)
        for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
            if name in tensors:
                _fill(fd, tensors[name].detach(), staging, info.start, checksum)
            else:
                _skim(fd, info, staging, checksum)
    if checksum.hexdigest() != expected.checksum:
        _damaged(path, f"its checksum is {checksum.hexdigest()} where {expected.checksum} was written")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a file and their places, without reading them.

    Raises:
        StorageError: this is not a safetensors file, or its header contradicts itself or the length of the file.
    """
    with files.opened(path, os.O_RDONLY) as fd:
        return _read_header(fd, path)[1]


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text under `__metadata__` in the header of a file.

    Raises:
        StorageError: as for `read_header`.
    """
    with files.opened(path, os.O_RDONLY) as fd:
        header, _ = _read_header(fd, path)
    metadata: dict[str, str] = json.loads(header[_PREFIX_BYTES:]).get("__metadata__", {})
    return metadata


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous CPU tensor as one-dimensional bytes, without a copy."""
    # A contiguous tensor of one element or none may have any stride, but a view as bytes needs 1.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    entries: Header = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_PREFIX_BYTES, "little") + text


def _chunks(header: bytes, tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    staging = _staging()
    yield header
    for tensor in tensors.values():
        for part in _parts(tensor.detach()):
            source = part if _in_order(part) else _staged(part, staging).copy_(part)
            yield from _slices(bytes_of(source))


def _fill(fd: int, tensor: Tensor, staging: Tensor, offset: int, checksum: Checksum) -> None:
    for part in _parts(tensor):
        target = part if _in_order(part) else _staged(part, staging)
        for view in _slices(bytes_of(target)):
            files.read_into(fd, view, offset)
            checksum.update(view)
            offset += len(view)
        if target is not part:
            part.copy_(target)


def _skim(fd: int, info: TensorInfo, staging: Tensor, checksum: Checksum) -> None:
    """Update the checksum with a tensor that is not wanted."""
    for start in range(info.start, info.stop, SLICE_BYTES):
        view = bytes_of(staging)[: info.stop - start]
        files.read_into(fd, view, start)
        checksum.update(view)


def _staging() -> Tensor:
    # Not from malloc: glibc would extend its heap for each aligned block of this size, although the last one is
    # free.
    memory = mmap.mmap(-1, SLICE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _staged(part: Tensor, staging: Tensor) -> Tensor:
    """View the staging memory as a contiguous tensor like `part`."""
    return staging[: part.nbytes].view(part.dtype).view(part.shape)


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Cut a tensor, in row-major order, into parts that are small or need no staging."""
    if _in_order(tensor) or tensor.nbytes <= SLICE_BYTES:
        yield tensor
        return
    num_rows = SLICE_BYTES // tensor[0].nbytes
    for part in torch.split(tensor, max(num_rows, 1)):
        yield from _parts(part if num_rows else part[0])


def _in_order(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.is_contiguous()


def _slices(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + SLICE_BYTES] for start in range(0, len(view), SLICE_BYTES))


def _read_header(fd: int, path: Path) -> tuple[bytes, dict[str, TensorInfo]]:
    """Return the raw bytes before the data, and what they say."""
    num_bytes = files.size(fd)
    if num_bytes < _PREFIX_BYTES:
        _damaged(path, f"it has only {num_bytes} bytes")
    prefix = bytearray(_PREFIX_BYTES)
    files.read_into(fd, prefix, 0)
    length = int.from_bytes(prefix, "little")
    # Check before allocating: a damaged length must not cost memory.
    if length > min(num_bytes - _PREFIX_BYTES, MAX_HEADER_BYTES):
        _damaged(path, f"its header claims {length} bytes, the file has {num_bytes}")
    text = bytearray(length)
    files.read_into(fd, text, _PREFIX_BYTES)
    data_start = _PREFIX_BYTES + length
    infos = _infos(path, _parse(path, text), data_start, num_bytes)
    _check_tiling(path, infos, data_start, num_bytes)
    return bytes(prefix + text), infos


def _parse(path: Path, text: bytearray) -> Header:
    try:
        entries = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        _damaged(path, f"its header cannot be read ({type(error).__name__})")
    if not isinstance(entries, dict):
        _damaged(path, "its header is not an object")
    metadata = entries.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())):
        _damaged(path, "its metadata is not text")
    return entries


def _unique(pairs: list[tuple[str, object]]) -> Header:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _infos(path: Path, entries: Header, data_start: int, num_bytes: int) -> dict[str, TensorInfo]:
    infos = {}
    for name, entry in entries.items():
        info = _info(entry, data_start, num_bytes - data_start)
        if info is None:
            _damaged(path, f"its entry {name!r} contradicts itself or the file's length")
        infos[name] = info
    return infos


def _info(entry: object, data_start: int, data_bytes: int) -> TensorInfo | None:
    """Return a header entry in its checked form, or None if anything about it is wrong."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return None
    name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(name, str) and name in _DTYPES and _are_sizes(shape) and _are_sizes(offsets)):
        return None
    if len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_bytes:
        return None
    dtype = _DTYPES[name]
    if _num_bytes(shape, dtype.itemsize, data_bytes) != offsets[1] - offsets[0]:
        return None
    start, stop = (data_start + offset for offset in offsets)
    return TensorInfo(dtype=dtype, shape=tuple(shape), start=start, stop=stop)


def _are_sizes(values: object) -> bool:
    # `type` and not `isinstance`: JSON's true and false are no sizes.
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _num_bytes(shape: list[int], itemsize: int, limit: int) -> int:
    """Return the size in bytes, or any number above `limit`: a header of huge sizes must not cost time."""
    if 0 in shape:
        return 0
    num_bytes = itemsize
    for length in shape:
        num_bytes *= length
        if num_bytes > limit:
            break
    return num_bytes


def _check_tiling(path: Path, infos: dict[str, TensorInfo], data_start: int, num_bytes: int) -> None:
    position = data_start
    for start, stop in sorted((info.start, info.stop) for info in infos.values()):
        if start != position:
            _damaged(path, f"its tensors overlap or leave a gap at byte {min(start, position)}")
        position = stop
    if position != num_bytes:
        _damaged(path, f"its tensors end at byte {position}, the file at {num_bytes}")


def _check_same(path: Path, infos: dict[str, TensorInfo], tensors: Mapping[str, Tensor]) -> None:
    for name in sorted(infos.keys() ^ tensors.keys()):
        _damaged(path, f"{name!r} is {'missing' if name in tensors else 'not expected'}")
    for name, tensor in tensors.items():
        info = infos[name]
        if (info.dtype, info.shape) != (tensor.dtype, tuple(tensor.shape)):
            _damaged(
                path,
                f"{name!r} is {_DTYPE_NAMES[info.dtype]} {list(info.shape)}, "
                f"expected {_DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}",
            )


def _damaged(path: Path, what: str) -> NoReturn:
    raise StorageError(
        f"{path} is damaged or not the file that was written: {what}",
        hint="restore the file from a copy, or start the run again; if it happens twice, check the disk",
    )
