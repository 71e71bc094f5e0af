"""Write an int8 or fp16 version of model.onnx, and publish it if it is accurate enough. Runs without torch.

The models run in onnxruntime, module by module, with the boundaries between modules on disk: on training images,
without augmentation, to find the ranges of activations, and on validation images to compare the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edge_trgl.config.export_request import TARGETS, Form, is_symmetric, output_names
from edge_trgl.data import RecordReader, open_dataset
from edge_trgl.export.arrays import Array
from edge_trgl.export.compare.comparison import Tally
from edge_trgl.export.compare.module_by_module import ModuleByModule, SampledImages, batches_of
from edge_trgl.export.compare.verdicts import NEAR, largest_loss, verdict, why_far, why_lossy
from edge_trgl.export.fp16 import to_half_precision
from edge_trgl.export.int8.activation_ranges import histograms, steps_of
from edge_trgl.export.int8.histogram import Histogram
from edge_trgl.export.int8.quantise import quantised, watched
from edge_trgl.export.int8.ranges import METHODS, Method
from edge_trgl.export.onnx_file import onnx_file, stream_reader
from edge_trgl.export.onnx_file.made_weights import MadeWeights
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.run.export_record import ExportRecord, MethodScore, QuantisedFile, SmallerFile, Verdict
from edge_trgl.run.exported_files import read_export
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import guard
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.records import document_of
from edge_trgl.runtime.storage import files
from edge_trgl.runtime.units import MIB

CALIBRATED_IMAGES = 512
JUDGED_IMAGES = 1024
"""The largest number of validation images compared; a percentage point of accuracy is about ten of them."""

BATCH_BYTES = 8 * MIB
"""The largest size of a batch of any boundary."""


def write_smaller(run: Run, *, form: Form, others_mb: float, limits: Limits) -> SmallerFile:
    """Write model.int8.onnx or model.fp16.onnx beside the model.onnx of the last export.

    Args:
        run: an exported run.
        form: `int8` or `fp16`.
        others_mb: peak memory of the parent process, MiB.
        limits: for this process and its parent.

    Returns:
        The file's record for export.json; a `QuantisedFile` for int8.

    Raises:
        ExportRejectedError: the file loses too much accuracy; it is kept as `.rejected`.
        StorageError: a file is damaged, or the disk is full.
    """
    guard.set_guard(limits, others_mb)
    files.make_folder(run.scratch)
    exported = read_export(run)
    assert exported is not None, "the run was not exported"
    smaller = _Smaller(run, exported)
    try:
        return smaller.int8() if form == "int8" else smaller.fp16()
    finally:
        smaller.close()


class _Smaller:
    """The exported model of a run, and the logits that its smaller forms are compared with.

    Modules are counted from 1.
    """

    def __init__(self, run: Run, exported: ExportRecord) -> None:
        self._run = run
        self._target = exported.target
        self._written = stream_reader.read(run.onnx_file)
        self._exits = output_names([comparison.depth for comparison in exported.exits])
        self._depth = max(self._exits)
        self._weights = run.scratch / "smaller"
        config = run.config().train
        self._threads = config.threads or 0
        self._batch = exported.batch
        size = exported.batch or min(_batch_size(self._written), config.batch_size)
        self._calibration = _Samples(run, "train", CALIBRATED_IMAGES, size)
        self._judged = _Samples(run, "val", JUDGED_IMAGES, size)
        self._expected = self._logits(self._written)

    def close(self) -> None:
        """Remove the file of new weights and close the image readers."""
        files.remove(self._weights)
        self._calibration.reader.close()
        self._judged.reader.close()

    def fp16(self) -> SmallerFile:
        """Write the model in half precision."""
        written, verdicts = self._write("fp16", to_half_precision(self._written, MadeWeights(self._weights)))
        record = self._record(written, verdicts)
        _publish(written, record, why_far(written.model.name, verdicts))
        return record

    def int8(self) -> QuantisedFile:
        """Write the model quantised, with the first calibration method that is about as accurate as the best."""
        symmetric = is_symmetric(self._target)
        seen = histograms(
            self._running(self._written),
            self._calibration.batches,
            self._calibration.images,
            list(self._exits.values()),
            watched(self._written, self._depth, symmetric=symmetric),
        )
        # All methods use the same weights file in turn: repeating the chosen one costs less than keeping them all.
        verdicts = {method: self._verdicts(self._quantised(seen, method)) for method in METHODS}
        losses = {method: largest_loss(exits) for method, exits in verdicts.items()}
        # The tolerance covers rounding: a loss exactly `NEAR` above the smallest one must still qualify.
        chosen = next(method for method in METHODS if losses[method] <= min(losses.values()) + NEAR + 1e-9)
        written, final = self._write("int8", self._quantised(seen, chosen))
        record = QuantisedFile(
            **vars(self._record(written, final)),
            form="symmetric, for TensorRT" if symmetric else "uint8 activations, int8 weights",
            num_calibrated=self._calibration.count,
            method=chosen,
            methods={str(method): _score(exits, losses[method]) for method, exits in verdicts.items()},
        )
        _publish(written, record, why_lossy(written.model.name, final))
        return record

    def _quantised(self, seen: Mapping[str, Histogram], method: Method) -> StreamedModel:
        symmetric = is_symmetric(self._target)
        steps = steps_of(seen, method, symmetric=symmetric)
        return quantised(self._written, self._depth, steps, MadeWeights(self._weights), symmetric=symmetric)

    def _write(self, form: Form, model: StreamedModel) -> tuple[ModelFiles, list[Verdict]]:
        """Write the file without publishing it, read it back, and compare its logits with the float32 model's."""
        model.model.metadata_props.add(key="precision", value=form)
        weights = list(model.weights.values())
        written = onnx_file.write(model.model, weights, self._run.smaller_file(form))
        return written, self._verdicts(onnx_file.check(written, TARGETS[self._target]))

    def _record(self, written: ModelFiles, verdicts: Sequence[Verdict]) -> SmallerFile:
        described = tuple(onnx_file.described(path) for path in written.unpublished)
        return SmallerFile(
            file=str(written.model),
            files=described,
            num_bytes=sum(file.num_bytes for file in described),
            accuracy_fp32=verdicts[-1].accuracy_fp32,
            accuracy=verdicts[-1].accuracy,
            top1_agreement=min(verdict.top1_agreement for verdict in verdicts),
            max_relative_diff=max(verdict.max_relative_diff for verdict in verdicts),
            exits=tuple(verdicts),
        )

    def _verdicts(self, model: StreamedModel) -> list[Verdict]:
        """The verdict on every exit, the deepest last."""
        logits = self._logits(model)
        labels = self._judged.images.labels(range(self._judged.count))
        verdicts = []
        for depth, name in self._exits.items():
            tally = Tally()
            tally.add(self._expected[name], logits[name], labels)
            verdicts.append(verdict(depth, tally))
        return verdicts

    def _logits(self, model: StreamedModel) -> dict[str, Array]:
        """The logits of every exit for the validation images, float32 [N, num_classes]."""
        exits = list(self._exits.values())
        parts: dict[str, list[Array]] = {name: [] for name in exits}

        def keep(name: str, _: range, values: Array) -> None:
            parts[name].append(values)

        self._running(model).run(self._judged.batches, self._judged.images, exits, keep)
        return {name: np.concatenate(values) for name, values in parts.items()}

    def _running(self, model: StreamedModel) -> ModuleByModule:
        numbers = range(1, self._depth + 1)
        return ModuleByModule(model, numbers, scratch=self._run.scratch, batch=self._batch, threads=self._threads)


def _score(verdicts: Sequence[Verdict], loss: float) -> MethodScore:
    agreement = min(verdict.top1_agreement for verdict in verdicts)
    return MethodScore(accuracy=verdicts[-1].accuracy, top1_agreement=agreement, loss=loss)


def _publish(written: ModelFiles, record: SmallerFile, refusal: str | None) -> None:
    """Publish a file, or reject it if there is a reason `refusal`."""
    if refusal is not None:
        onnx_file.refuse(written, {"reason": refusal, **document_of(record)}, hint="model.onnx is as it was")
    onnx_file.publish(written)


class _Samples:
    """At most `limit` images of a split, in batches of `size`."""

    def __init__(self, run: Run, split: str, limit: int, size: int) -> None:
        self.reader = RecordReader(run.data, split, open_dataset(run.data))
        self.count = min(len(self.reader), limit)
        self.images = SampledImages(self.reader, self.count)
        self.batches = batches_of(self.count, size)


def _batch_size(written: StreamedModel) -> int:
    graph = written.model.graph
    shapes = [
        [side.dim_value for side in value.type.tensor_type.shape.dim[1:]]
        for value in (*graph.input, *graph.value_info)
    ]
    largest: int = max(4 * math.prod(shape) for shape in shapes)
    return max(BATCH_BYTES // largest, 1)
