"""Run an exported model on samples, module by module, with the boundaries between modules on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_trgl.data import RecordReader, spread
from edge_trgl.deploy.network import repeat_last
from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.boundary_files import read_samples, write_samples
from edge_trgl.export.compare.session import Session
from edge_trgl.export.graph.names import INPUT
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.storage import files

Take = Callable[[str, range, Array], None]
"""Receives the name of an exit or of an inner tensor, the sample numbers, and their values, float32 [N, ...]."""


def batches_of(count: int, size: int) -> list[range]:
    """Split the sample numbers 0 to `count - 1` into batches of `size`; the last may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Images:
    """Images of a split, from number `first` on, in the form in which a user passes them to a model."""

    def __init__(self, reader: RecordReader, first: int = 0) -> None:
        self._reader, self._first = reader, first

    def pixels(self, samples: range) -> Array:
        """Read images or windows, not normalised: float32 [N, C, H, W] or [N, C, L]."""
        records = self._reader.read(self._numbers(samples))
        return np.ascontiguousarray(np.moveaxis(records, -1, 1), np.float32)

    def labels(self, samples: range) -> Array:
        """The labels, int64 [N]."""
        labels: Array = self._reader.labels[self._numbers(samples)]
        return labels

    def _numbers(self, samples: range) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.asarray(samples, np.int64) + self._first


class SampledImages(Images):
    """`count` images, evenly spaced over a split."""

    def __init__(self, reader: RecordReader, count: int) -> None:
        super().__init__(reader)
        self._chosen = spread(count, len(reader))

    def _numbers(self, samples: range) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._chosen[samples.start : samples.stop]


class ModuleByModule:
    """A span of modules of an exported model.

    The first module reads its input from a file in `scratch` named after the boundary, unless it takes the images.
    If the last module passes on a boundary, `run` leaves it in `scratch` in the same way.

    Args:
        model: an exported model.
        numbers: the modules to run, consecutive, counted from 1.
        scratch: folder for the boundaries.
        batch: the fixed batch size of the model; None if it takes any.
        threads: CPU threads; 0 leaves the choice to onnxruntime.

    Attributes:
        shapes: the shape of one sample of each input, output and boundary, by name.
    """

    def __init__(
        self, model: StreamedModel, numbers: range, *, scratch: Path, batch: int | None, threads: int
    ) -> None:
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
        receive: Take,
        inside: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        """Run the samples through the modules, one module at a time.

        Args:
            batches: sample numbers, a batch at a time.
            images: the samples.
            exits: names of outputs that are passed to `receive`.
            receive: called for each batch of each named tensor.
            inside: names of further float32 tensors to pass to `receive`, by module.

        Raises:
            StorageError: a file is damaged, or the disk is full.
        """
        for number in self._numbers:
            watched = (inside or {}).get(number, ())
            session = Session(self._model, number, self._threads, watched)
            for samples in batches:
                entering = self._entering(session.entry, samples, images)
                if session.entry in watched:
                    receive(session.entry, samples, entering)
                for name, padded in session(self._filled(entering)).items():
                    values = padded[: len(samples)]
                    if name in exits or name in watched:
                        receive(name, samples, values)
                    if name in self.shapes and name not in exits:
                        write_samples(self._scratch / name, samples.start, values)
            if session.entry != INPUT:
                files.remove(self._scratch / session.entry)
            del session
            allocator.trim()

    def _entering(self, name: str, samples: range, images: Images) -> Array:
        if name == INPUT:
            return images.pixels(samples)
        return read_samples(self._scratch / name, samples, self.shapes[name])

    def _filled(self, x: Array) -> Array:
        """Pad a short batch to the model's fixed batch size."""
        return x if self._batch is None or self._batch == len(x) else repeat_last(x, self._batch)
