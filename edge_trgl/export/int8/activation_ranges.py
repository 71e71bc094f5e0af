"""What values the tensors of a model take on samples: a histogram for each, module by module."""

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
    """Of every tensor that is watched, by name.

    Memory: as of `ModuleByModule`, and 16 KiB a tensor; never the activations of more than one batch.

    Args:
        running: all modules of a float32 model.
        batches, images: the samples.
        exits: the model's outputs.
        watched: the tensors, by the module that they are looked at in.

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
    """The scale and the zero point of each tensor by `method`."""
    return {
        name: step_of(*range_of(histogram, method, symmetric=symmetric), symmetric=symmetric)
        for name, histogram in seen.items()
    }
