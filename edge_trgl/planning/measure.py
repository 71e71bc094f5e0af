"""Measure the works that a plan depends on: real steps of real modules, in a process of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edge_trgl.data import open_dataset
from edge_trgl.engine import from_config, process_setup
from edge_trgl.engine import training as training  # its imports are part of the memory that is measured
from edge_trgl.engine.module_factory import ModuleFactory
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_kinds import StepKind
from edge_trgl.learning.steps import (
    Batch,
    StepOptions,
    discard,
    forward_kinds,
    sends_back,
    take_step,
    training_kind,
)
from edge_trgl.planning import calibrated
from edge_trgl.run.facts import RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator, counters, guard
from edge_trgl.runtime.memory.device import Device, open_device
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.demand import FORWARD, REFUSED, Measurement
from edge_trgl.runtime.planner.plan import Wanted
from edge_trgl.runtime.units import MIB


@dataclass(frozen=True)
class _Work:
    """One work of one module: steps of these `kinds`, with a batch for them.

    `parts`: a step takes this many micro-batches of the size that is asked for. Two stand for any number: the
    second one meets the gradients of the first.
    """

    local: LocalModule
    kinds: tuple[StepKind, ...]
    parts: int
    opening_mb: float
    batch: Batch
    sends_back: bool

    def step(self, size: int) -> None:
        """Do it on the first samples, as many as the parts have of `size` each."""
        if self.parts > 1:
            self.local.reconfigure(recompute=self.local.config.recompute, micro_batch=size)
        options = StepOptions(send_back=discard if self.sends_back else None)
        batch = self._first(self.parts * size)
        for kind in self.kinds:
            take_step(self.local, kind, batch, options)
        self.local.take_totals()

    def _first(self, num_samples: int) -> Batch:
        found = {name: values[:num_samples] for name, values in self._tensors().items()}
        return replace(self.batch, **found)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: values for name, values in vars(self.batch).items() if values is not None}

    def own_mb(self) -> float:
        """MiB of the module and its batch."""
        held = [*self.local.tensors().values(), *self._tensors().values()]
        return sum(tensor.nbytes for tensor in held) / MIB


def measure(run: Run, wanted: Sequence[Wanted], limits: Limits) -> None:
    """Measure each of `wanted` and store the result; a work that exceeds `limits` is stored as refused.

    After a refusal that lasts in this process (see `guard.lasts`) the rest is left to another process.
    """
    config, facts = run.config(), run.facts()
    process_setup.set_up(config.train.threads)
    device = open_device(config.train.device)
    # What training holds beside its modules must fit in the budget too.
    others_mb = process_setup.others_mb() + facts.counted.demand.held_bytes / MIB
    process_setup.begin(device, limits, others_mb)
    process_setup.warm_up(device.name)  # brings back the pages that every step touches: they are no module's
    room_mb = limits.room_mb(others_mb)
    share = 1 + calibrated.HEAP_MARGIN[facts.counted.allocator]
    found: dict[str, tuple[Measurement, float]] = {}
    lasting = False
    for one in wanted:
        try:
            measurement = _measured(_prepared(run, facts, one, device), one.size, room_mb, device)
            measurement = replace(measurement, work_mb=share * measurement.work_mb)
        except (MemoryError, OSError, RuntimeError) as error:
            if not guard.refused(error):
                raise
            measurement, lasting = REFUSED, guard.lasts(error)
        allocator.trim()  # outside the handler, whose traceback keeps the tensors alive
        guard.renew_guard()
        found[one.key] = measurement, counters.usage().file
        _keep(facts, {one.key: measurement})
        if lasting:
            break
    _keep(facts, _with_all_code(found))
    facts.close()


def _with_all_code(found: Mapping[str, tuple[Measurement, float]]) -> dict[str, Measurement]:
    """Add to each measurement the code (MiB) that later ones loaded, because a training process has it too."""
    file_mb = counters.usage().file
    return {
        key: replace(measurement, fixed_mb=measurement.fixed_mb + max(file_mb - then_mb, 0.0))
        for key, (measurement, then_mb) in found.items()
    }


def _keep(facts: RunFacts, found: Mapping[str, Measurement]) -> None:
    facts.measured = {**facts.measured, **found}
    for key, measurement in found.items():
        if not measurement.refused:
            measurements_cache.keep(key, measurement)


def _prepared(run: Run, facts: RunFacts, wanted: Wanted, device: Device) -> _Work:
    """The module of a work, with its first weights, and a batch of noise."""
    config = run.config()
    layout = facts.counted.layouts[wanted.form]
    with torch.device("meta"):
        chain = from_config.planned_chain(config, open_dataset(run.data), layout, from_config.stored_net(facts))
    level = "none" if wanted.work == FORWARD else wanted.work
    factory = ModuleFactory(
        chain=chain,
        layout=layout,
        in_memory=True,
        config=from_config.step_config(config, recompute=level),
        device=device.name,
        seed=config.train.seed,
    )
    module, num_samples, where = wanted.module, wanted.parts * wanted.size, device.name
    before_mb, meter = _rest_mb(device), Meter()
    with meter.phase():
        local = factory.initialise(module)
    shapes, dtypes = (chain.input_shape, *layout.shapes), ("float32", *layout.dtypes)
    entering, leaving = (_as_read(dtypes[place]) for place in (module, module + 1))
    above = () if local.has_head else shapes[module + 1]
    return _Work(
        local=local,
        kinds=forward_kinds(chain, module, local.config) if wanted.work == FORWARD else (training_kind(local),),
        parts=wanted.parts,
        opening_mb=meter.read() + device.peak_mb() - before_mb,
        batch=Batch(
            x=_noise(num_samples, shapes[module], where).to(entering),
            y=torch.zeros(num_samples, dtype=torch.int64, device=where),
            image=_noise(num_samples, chain.input_shape, where) if local.mix.wants_image else None,
            gradient=_noise(num_samples, above, where).to(leaving),
        ),
        sends_back=sends_back(chain, module),
    )


def _as_read(dtype: str) -> torch.dtype:
    """The dtype in which a stored boundary is computed with: float16 and int8 are for storage alone."""
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def _noise(size: int, shape: tuple[int, ...], device: str) -> Tensor:
    values = torch.rand(size, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def _measured(work: _Work, size: int, room_mb: float, device: Device) -> Measurement:
    """Measure steps on `size` samples, unless smaller steps foretell that they exceed `room_mb` (MiB)."""
    if _predicted_mb(work, size, device) > room_mb:
        return REFUSED
    work.step(size)
    rest_mb = _rest_mb(device)
    peak_mb, seconds = max(_peak_of(work, size, device) for _ in range(calibrated.PEAK_STEPS)), []
    for _ in range(calibrated.TIMED_STEPS):
        start = time.perf_counter()
        work.step(size)
        seconds.append(time.perf_counter() - start)
    return Measurement(
        work_mb=max(peak_mb - rest_mb, 0.0),
        opening_mb=work.opening_mb,
        fixed_mb=rest_mb - work.own_mb(),
        seconds=min(seconds) / work.parts,
    )


def _rest_mb(device: Device) -> float:
    """MiB of this process and its device between steps, with freed memory returned to the system."""
    allocator.trim()
    return counters.usage().rss + device.rest_mb()


def _predicted_mb(work: _Work, size: int, device: Device) -> float:
    """The peak (MiB) of a step on `size` samples, extrapolated from steps on a half and a quarter of them."""
    half, quarter = size // 2, size // 4
    if quarter < 2:
        return 0.0
    work.step(quarter)
    small, larger = _peak_of(work, quarter, device), _peak_of(work, half, device)
    return larger + (larger - small) * (size - half) / (half - quarter)


def _peak_of(work: _Work, size: int, device: Device) -> float:
    _rest_mb(device)  # whether a tensor fits a gap is chance, up to 4 MiB of it; the plan adds that itself
    meter = Meter()
    with meter.phase():
        work.step(size)
    return meter.read() + device.peak_mb()
