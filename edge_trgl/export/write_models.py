"""Write the ONNX model of a trained run, and the network's logits for some images, for `check_models` to compare.

If asked, it also writes the network in stages, each a model of its own. It works module by module: each is read
once, run on the images and traced; its weights are then copied from file to file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from onnx import ModelProto
from torch import Tensor

from edge_trgl.config.export_request import (
    COPIES,
    LOGITS,
    TARGETS,
    TargetName,
    batch_of,
    exits_of,
    output_names,
    stages_of,
)
from edge_trgl.data import spread
from edge_trgl.engine import process_setup
from edge_trgl.engine.batches import Feed
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.engine.visits import Span
from edge_trgl.export.compare.boundary_files import read_samples, write_samples
from edge_trgl.export.compare.module_by_module import batches_of
from edge_trgl.export.early_exit.exits_folder import free_paths, spans_of
from edge_trgl.export.graph.join import join
from edge_trgl.export.graph.names import boundary_name, entry_name, logits_name
from edge_trgl.export.graph.select_exits import select_exits
from edge_trgl.export.graph.stage import Normalisation, Stage, describe
from edge_trgl.export.graph.trace import Traced, trace
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.onnx_file import ModelFiles
from edge_trgl.export.onnx_file.weights import Weight
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.export_record import WrittenModels, WrittenStage
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import RESUME, DoesNotFitError
from edge_trgl.runtime.memory import allocator, counters, file_pages, guard
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage import files, safetensors_file
from edge_trgl.runtime.storage.boundary_spec import record_bytes
from edge_trgl.runtime.units import MIB

Part = tuple[Traced, list[Weight]]
"""The graph of a module, and the places of its weights in files."""

CHECKED_IMAGES = 256

BATCH_BYTES = 8 * MIB
"""The largest size of a batch of any boundary; it keeps activations small beside the weights of a module."""

LOADED_MB = 55.0
"""MiB that torch's exporter and kernels load on first use, with the pages of libraries that come back;
onnxruntime, for the check, takes less."""


def write_models(
    run: Run,
    *,
    depth: str,
    target: str | None,
    batch: str,
    limits: Limits,
    in_stages: bool = False,
    stages: str | None = None,
) -> WrittenModels:
    """Write the model under a temporary name, for `check_models` to compare and publish.

    Args:
        run: a run that is trained to its end.
        depth: `chosen`, `last`, `all` or a number.
        target: a key of `TARGETS`; None for that of the run's profile, or `generic`.
        batch: `dynamic`, or a fixed batch size.
        limits: for this process and its parent.
        in_stages: whether to write the network in stages too.
        stages: the depths at which the stages end; None for every depth that has a classifier.

    Raises:
        UsageError: `depth`, `batch` or `stages` is invalid.
        DoesNotFitError: the largest module does not fit the budget; the hint names one that would do.
        ExportRejectedError: the opset lacks an operation, or ONNX's checker rejects the graph.
        StorageError: a module's file is damaged, or the disk is full.
    """
    samples = batch_of(batch)
    opened = open_run(run, "cpu")
    scores = opened.facts.result.scores
    exits = exits_of(depth, chosen=scores.chosen_depth, first=scores.first_depth, last=opened.depth)
    chosen = cast(TargetName, target or opened.config.board.target or "generic")
    ends = stages_of(stages, first=scores.first_depth, depth=max(exits)) if in_stages else ()
    _keep_within(opened, (*exits, *ends), limits)
    exporting = _Exporting(opened, exits, ends, chosen, samples)
    parts = [exporting.module(number) for number in range(1, max(exits) + 1)]
    file_pages.give_back()  # writing runs other code than tracing
    written = exporting.write(parts)
    return WrittenModels(
        exits=tuple(exits),
        target=chosen,
        batch=samples,
        data=None if written.data is None else written.data.name,
        num_images=exporting.images.count,
        at_a_time=exporting.images.size,
        stages=exporting.write_stages(parts),
    )


def _keep_within(opened: OpenRun, exits: Sequence[int], limits: Limits) -> None:
    """Raise DoesNotFitError if the largest module cannot fit, else hold this process to the budget."""
    sizes = [_weights_mb(opened, module, exits) for module in range(max(exits))]
    heaviest = max(range(len(sizes)), key=sizes.__getitem__)
    others_mb = process_setup.others_mb()
    needed_mb = counters.usage().rss + LOADED_MB + COPIES * sizes[heaviest] + others_mb
    if needed_mb > limits.memory_mb:
        raise DoesNotFitError(
            f"exporting depth {max(exits)} takes about {needed_mb:.0f} MiB, {COPIES * sizes[heaviest]:.0f} MiB of "
            f"it for its largest module, number {heaviest + 1}; the budget is {limits.memory_mb:.0f} MiB",
            hint=f"{RESUME} --budget-mb {needed_mb + 1:.0f} --export",
        )
    guard.set_guard(limits, others_mb)


def _weights_mb(opened: OpenRun, module: int, exits: Sequence[int]) -> float:
    parts = ("trunk.", "head.") if module + 1 in exits else ("trunk.",)
    infos = safetensors_file.read_header(opened.file_of(module))
    return sum(info.stop - info.start for name, info in infos.items() if name.startswith(parts)) / MIB


@dataclass(frozen=True)
class _Images:
    """`count` validation images, evenly spaced over the set, in batches of `size`."""

    feed: Feed
    count: int
    size: int

    def batches(self) -> list[range]:
        """The sample numbers of each batch."""
        return batches_of(self.count, self.size)

    def normalised(self, samples: range) -> Tensor:
        """Read samples as the first module takes them in training: normalised, float32 [N, *input_shape]."""
        span = Span("val", 0, 0, 1, shuffled=False, augmented=False)
        chosen = spread(self.count, len(self.feed))
        return self.feed.images(span, 0, chosen[samples.start : samples.stop])


class _Exporting:
    """The export of one run. Modules are counted from 1, as depths are.

    Args:
        opened: the run.
        exits: depths whose logits are outputs of the model.
        ends: depths at which stages end; empty without stages.
        target: what the files are for.
        batch: fixed batch size; None for any.
    """

    def __init__(
        self,
        opened: OpenRun,
        exits: Sequence[int],
        ends: Sequence[int],
        target: TargetName,
        batch: int | None,
    ) -> None:
        self._opened = opened
        self._exits = exits
        self._ends = ends
        self._target = target
        self._batch = batch
        self._depth = max(exits)
        self._names = output_names(exits)
        info = opened.info
        self._normalisation = Normalisation(
            mean=tuple(info.mean), std=tuple(info.std), scale=info.scale, input_shape=tuple(info.input_shape)
        )
        self._shapes = (self._normalisation.input_shape, *opened.factory.layout.shapes)
        feed = opened.feed("val")
        self.images = _Images(feed, min(len(feed), CHECKED_IMAGES), batch or self._batch_size())
        files.make_folder(opened.run.scratch)

    def module(self, number: int) -> Part:
        """Run a module on the images, with its outputs kept on disk, and trace it."""
        is_exit, goes_on = number in (*self._exits, *self._ends), number < self._depth
        local = self._opened.deployed(number - 1, head=is_exit)
        self._show(local, number)
        stage = Stage(
            local.trunk,
            local.head if is_exit else None,
            goes_on=goes_on,
            normalisation=self._normalisation if number == 1 else None,
        )
        exits = ([boundary_name(number)] if goes_on else []) + ([logits_name(number)] if is_exit else [])
        traced = trace(stage, number, self._shapes[number - 1], exits, opset=TARGETS[self._target].opset)
        del local, stage
        allocator.trim()
        return traced, _weights(traced, self._opened.file_of(number - 1))

    @torch.no_grad()
    def _show(self, local: LocalModule, number: int) -> None:
        entering, leaving = (self._scratch(f"torch-{name}") for name in (number - 1, number))
        for samples in self.images.batches():
            if number == 1:
                x = self.images.normalised(samples)
            else:
                x = torch.from_numpy(read_samples(entering, samples, self._shapes[number - 1]))
            out = local.trunk(x)
            if number < self._depth:
                write_samples(leaving, samples.start, out.numpy())
            if number in (*self._exits, *self._ends):
                write_samples(self._scratch(logits_name(number)), samples.start, local.head(out).numpy())
        files.remove(entering)

    def write(self, parts: Sequence[Part]) -> ModelFiles:
        """Write the model of all modules and check its graph; it is not published yet."""
        return self._written(*self._whole(parts), self._opened.run.onnx_file)

    def write_stages(self, parts: Sequence[Part]) -> tuple[WrittenStage, ...]:
        """Write each stage as a model and check its graph; none is published yet."""
        if not self._ends:
            return ()
        folder = self._opened.run.exits_folder
        files.make_folder(folder)
        stages = []
        for (first, last), path in zip(spans_of(self._ends), free_paths(folder, len(self._ends)), strict=True):
            written = self._written(*self._stage(parts, first, last), path)
            data = None if written.data is None else written.data.name
            stages.append(WrittenStage(file=path.name, data=data, modules=(first, last)))
        return tuple(stages)

    def _whole(self, parts: Sequence[Part]) -> tuple[ModelProto, list[Weight]]:
        names = {logits_name(depth): name for depth, name in self._names.items()}
        return self._joined(parts, 1, names, {"depth": ",".join(map(str, self._exits))})

    def _stage(self, parts: Sequence[Part], first: int, last: int) -> tuple[ModelProto, list[Weight]]:
        names = {logits_name(last): LOGITS}
        if last < self._depth:
            names |= {boundary_name(last): boundary_name(last)}
        return self._joined(parts[first - 1 : last], first, names, {"modules": f"{first}-{last}"})

    def _joined(
        self, parts: Sequence[Part], first: int, outputs: Mapping[str, str], metadata: Mapping[str, str]
    ) -> tuple[ModelProto, list[Weight]]:
        """Join `parts`, modules from `first` on, into a model, and list its weights.

        `outputs` maps the names of the modules' outputs to their names in the model.
        """
        last = first + len(parts) - 1
        inner = {boundary_name(number): boundary_name(number) for number in range(first, last)}
        chosen = [select_exits(traced, {**inner, **outputs}) for traced, _ in parts]
        info = self._opened.info
        described = describe(self._normalisation, info.class_names, info.summary.resize)
        if first > 1:
            described = {
                "class_names": described["class_names"]
            }  # the rest describes images, which only the first takes
        model = join(
            chosen,
            input_shape=self._shapes[first - 1],
            outputs=list(outputs.values()),
            target=TARGETS[self._target],
            batch=self._batch,
            metadata={**described, **metadata, "target": self._target},
            entry=entry_name(first),
        )
        used = [
            weight
            for traced, (_, weights) in zip(chosen, parts, strict=True)
            for weight in weights
            if weight.name in traced.weights
        ]
        return model, used

    def _written(self, model: ModelProto, weights: Sequence[Weight], path: Path) -> ModelFiles:
        written = onnx_file.write(model, weights, path)
        onnx_file.check(written, TARGETS[self._target])
        return written

    def _scratch(self, name: str) -> Path:
        return self._opened.run.scratch / name

    def _batch_size(self) -> int:
        largest = max(record_bytes(shape, "float32") for shape in self._shapes[: self._depth + 1])
        return min(self._opened.config.train.batch_size, max(BATCH_BYTES // largest, 1))


def _weights(traced: Traced, path: Path) -> list[Weight]:
    infos = safetensors_file.read_header(path)
    return [
        Weight(
            name=name,
            dtype=str(infos[own].dtype).removeprefix("torch."),
            shape=infos[own].shape,
            path=path,
            start=infos[own].start,
            num_bytes=infos[own].stop - infos[own].start,
        )
        for name, own in traced.weights.items()
    ]
