"""Collect a histogram of the values of each activation to be quantised, module by module."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.module_by_module import Images, ModuleByModule
from edge_trgl.export.int8.histogram import Histogram
from edge_trgl.export.int8.integers import Step, step_of
from edge_trgl.export.int8.ranges import Method, range_of
from edge_trgl.runtime.errors import ExportRejectedError


def histograms(
    running: ModuleByModule,
    batches: Sequence[range],
    images: Images,
    exits: Sequence[str],
    watched: Mapping[int, Sequence[str]],
) -> dict[str, Histogram]:
    """Run a model on samples and collect a histogram of every tensor in `watched`, by name.

    Memory: that of `ModuleByModule` plus 16 KiB per tensor; never the activations of more than one batch.

    Args:
        running: all modules of a float32 model.
        batches: sample numbers, a batch at a time.
        images: the samples.
        exits: names of the model's outputs.
        watched: names of the tensors, by the module in which they are read.

    Raises:
        ExportRejectedError: a tensor has values that are not finite.
        StorageError: a file is damaged, or the disk is full.
    """
    seen: dict[str, Histogram] = defaultdict(Histogram)
    wanted = {name for names in watched.values() for name in names}

    def count(name: str, _: range, values: Array) -> None:
        if name not in wanted:
            return
        try:
            seen[name].add(values)
        except ValueError as error:
            raise ExportRejectedError(
                f"the network cannot be quantised: {name} has {error} for images of the training set",
                hint="model.onnx is as it was",
            ) from error

    running.run(batches, images, exits, count, watched)
    return dict(seen)


def steps_of(seen: Mapping[str, Histogram], method: Method, *, symmetric: bool) -> dict[str, Step]:
    """Compute the scale and zero point of each tensor with `method`."""
    return {
        name: step_of(*range_of(histogram, method, symmetric=symmetric), symmetric=symmetric)
        for name, histogram in seen.items()
    }
