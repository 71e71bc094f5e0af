"""Run a written model on samples, module by module, with the boundaries between modules on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_trgl.data import RecordReader, spread
from edge_trgl.deploy.network import repeat_last
from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.boundary_files import put, take
from edge_trgl.export.compare.session import Session
from edge_trgl.export.graph.names import INPUT
from edge_trgl.export.onnx_file.stream_reader import Written
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.storage import files

Take = Callable[[str, range, Array], None]
"""Takes the name of an exit or of a tensor inside, the samples, and their logits or values [N, ...]."""


def batches_of(count: int, size: int) -> list[range]:
    """The numbers of `count` samples, `size` at a time."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Images:
    """Images of a split as a user gives them to a model, from number `first` on."""

    def __init__(self, reader: RecordReader, first: int = 0) -> None:
        self._reader, self._first = reader, first

    def pixels(self, samples: range) -> Array:
        """float32 [N, C, H, W] or [N, C, L]."""
        records = self._reader.read(self._numbers(samples))
        return np.ascontiguousarray(np.moveaxis(records, -1, 1), np.float32)

    def labels(self, samples: range) -> Array:
        """int64 [N]."""
        labels: Array = self._reader.labels[self._numbers(samples)]
        return labels

    def _numbers(self, samples: range) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.asarray(samples, np.int64) + self._first


class Spread(Images):
    """`count` images from all over a split."""

    def __init__(self, reader: RecordReader, count: int) -> None:
        super().__init__(reader)
        self._chosen = spread(count, len(reader))

    def _numbers(self, samples: range) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._chosen[samples.start : samples.stop]


class ModuleByModule:
    """Modules `numbers` of a written model.

    The boundary that enters the first of them, unless that is the images, and the one that leaves the last, if it
    is given, are in `scratch` under their names.

    Args:
        batch: the samples that the model takes at a time; None for any number.
        threads: CPU threads; 0 leaves the choice to onnxruntime.
    """

    def __init__(self, model: Written, numbers: range, *, scratch: Path, batch: int | None, threads: int) -> None:
        self._model, self._numbers = model, numbers
        self._scratch, self._batch, self._threads = scratch, batch, threads
        graph = model.model.graph
        self.shapes = {
            value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim[1:])
            for value in (*graph.input, *graph.output, *graph.value_info)
        }

    def run(
        self,
        batches: Sequence[range],
        images: Images,
        exits: Sequence[str],
        take_found: Take,
        inside: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Run the samples through the modules; outputs named in `exits` go to `take_found`.

        So do the float32 tensors that `inside` names for each module.

        Raises:
            StorageError: a file is damaged, or the disk is full.
        """
        for number in self._numbers:
            watched = (inside or {}).get(number, ())
            session = Session(self._model, number, self._threads, watched)
            for samples in batches:
                entering = self._entering(session.entry, samples, images)
                if session.entry in watched:
                    take_found(session.entry, samples, entering)
                for name, values in session(self._filled(entering)).items():
                    found = values[: len(samples)]
                    if name in exits or name in watched:
                        take_found(name, samples, found)
                    if name in self.shapes and name not in exits:
                        put(self._scratch / name, samples.start, found)
            if session.entry != INPUT:
                files.remove(self._scratch / session.entry)
            del session
            allocator.trim()

    def _entering(self, name: str, samples: range, images: Images) -> Array:
        if name == INPUT:
            return images.pixels(samples)
        return take(self._scratch / name, samples, self.shapes[name])

    def _filled(self, x: Array) -> Array:
        """Fill a short batch up to the fixed size that the model takes."""
        return x if self._batch is None or self._batch == len(x) else repeat_last(x, self._batch)
