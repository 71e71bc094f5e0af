"""Keep new tensors, such as quantised weights, in a file until the model is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.export.onnx_file.weights import Weight
from edge_trgl.runtime.storage import files


class MadeWeights:
    """A file to which tensors are appended; none of them stays in memory.

    Args:
        path: an existing file is replaced.
    """

    def __init__(self, path: Path) -> None:
        files.remove(path)
        self._path = path
        self._end = 0

    def add(self, name: str, values: Array) -> Weight:
        """Append the tensor `values` and return its place in the file.

        Raises:
            StorageError: the disk is full or fails.
        """
        return self.add_parts(name, values.shape, values.dtype, [values])

    def add_parts(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: Iterable[Array]) -> Weight:
        """Append a tensor whose values come in parts, in row-major order, and return its place in the file.

        Raises:
            StorageError: the disk is full or fails.
        """
        start = self._end
        with files.opened(self._path, os.O_WRONLY | os.O_CREAT) as fd:
            for part in parts:
                data = np.ascontiguousarray(part, dtype.newbyteorder("<")).reshape(-1)
                files.write_all(fd, data.view(np.uint8).data, self._end)
                self._end += data.nbytes
        num_bytes = self._end - start
        return Weight(name=name, dtype=dtype.name, shape=shape, path=self._path, start=start, num_bytes=num_bytes)
