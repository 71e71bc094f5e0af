"""A tensor stored in a file, readable a slice at a time."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

SLICE_BYTES = 8 * MIB


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of a model, stored in a file, row-major and little-endian as in safetensors and ONNX.

    Args:
        name: in the model.
        dtype: NumPy's name of the dtype.
        shape: of the tensor.
        path: the file.
        start: byte of the file at which it begins.
        num_bytes: its size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    num_bytes: int

    @property
    def elem_type(self) -> int:
        """ONNX's number for the dtype."""
        return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))

    def slices(self) -> Iterator[memoryview]:
        """Iterate over the bytes in slices of `SLICE_BYTES`; a slice is valid until the next one is read."""
        buffer = memoryview(mmap.mmap(-1, min(SLICE_BYTES, max(self.num_bytes, 1))))
        with files.opened(self.path, os.O_RDONLY) as fd:
            for offset in range(0, self.num_bytes, SLICE_BYTES):
                view = buffer[: self.num_bytes - offset]
                files.read_into(fd, view, self.start + offset)
                yield view

    def read(self) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        """Read the whole tensor into a new array."""
        values = np.empty(self.shape, np.dtype(self.dtype).newbyteorder("<"))
        with files.opened(self.path, os.O_RDONLY) as fd:
            files.read_into(fd, values.reshape(-1).view(np.uint8).data, self.start)
        return values
