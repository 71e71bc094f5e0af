"""Find out what each module costs and lay the run out within its budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from edge_trgl import assembly, process
from edge_trgl import costs as costing
from edge_trgl.assembly import Layout
from edge_trgl.chain import by_weight
from edge_trgl.config import RunConfig
from edge_trgl.costs import ModuleCost
from edge_trgl.data import DatasetInfo, open_dataset
from edge_trgl.jobs import work as work  # its imports are part of the memory that is measured
from edge_trgl.run import Run
from edge_trgl.runtime import memory
from edge_trgl.runtime.device import open_device
from edge_trgl.runtime.planner import Demand, ModuleRow, Plan, make_plan

WORKSPACE = 0.02
"""What kernels allocate inside a step, as a share of its tensors: measured on x86 with oneDNN."""

FIRST_STEP_MB = 10.0
"""What the first real steps load beyond the warm-up: kernels of other shapes, generated code; measured on x86."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def run(run: Run, budget_mb: float) -> dict[str, Any]:
    """Plan the run for `budget_mb`; stores the plan and the layout with it and returns both."""
    config, info = run.config(), open_dataset(run.data)
    process.set_up(config.train.threads)
    process.warm_up(config.train.device)
    memory.trim()
    fixed_mb = (
        memory.usage().rss + FIRST_STEP_MB + process.others_mb() + open_device(config.train.device).memory_mb()
    )
    environment = process.environment()
    torch.set_num_threads(1)  # batches of two or three gain nothing from more
    plan, layout, costs = _plan(config, info, fixed_mb, budget_mb)
    document = {
        "plan": plan.document(),
        "layout": asdict(layout),
        "costs": _table(costs, plan, config.train.batch_size),
    }
    state = run.state()
    for name, value in document.items():
        state.set_meta(name, value)
    state.set_meta("environment", environment)
    state.close()
    return document


def _plan(
    config: RunConfig, info: DatasetInfo, fixed_mb: float, budget_mb: float
) -> tuple[Plan, Layout, list[Any]]:
    chain = assembly.make_chain(config, info)
    step = assembly.step_config(config)
    shape = assembly.job_shape(config, len(chain), info.splits["train"].num_images)
    batch_size = min(config.train.batch_size, shape.num_samples)
    if config.model.partition == "weight" and config.model.modules:
        weights = costing.block_weights(chain, step, batch_size)
        chain = chain.regroup(by_weight(weights, config.model.modules))
    assembly.program(config, len(chain), 1)  # refuses a list of epochs that does not suit the modules
    costs = costing.chain_costs(chain, step)
    copies = config.train.views if config.data.augment else 1
    demand = Demand(
        rows=_rows(costs, batch_size),
        batch_size=batch_size,
        batches_per_epoch=shape.batches_per_epoch,
        num_samples=shape.num_samples,
        fixed_mb=fixed_mb,
        workspace=WORKSPACE,
        streams=config.train.regime in ("parallel", "end-to-end") or not config.train.cache,
        cached_samples=shape.num_samples * copies,
        micro_rows=tuple((size, _rows(costs, size)) for size in _micro_batches(config, batch_size)),
        chunk=_chunk(config.budget.chunk, shape.batches_per_epoch),
        resident=None if config.budget.resident == "auto" else int(config.budget.resident),
        prefetch=config.budget.prefetch,
    )
    layout = Layout(
        starts=chain.starts,
        shapes=tuple(cost.output_shape for cost in costs),
        dtypes=tuple(cost.output_dtype for cost in costs),
        names=tuple(cost.name for cost in costs),
        num_params=tuple(cost.num_params for cost in costs),
        built=chain.built,
    )
    return make_plan(demand, budget_mb), layout, costs


def _table(costs: Sequence[ModuleCost], plan: Plan, batch_size: int) -> list[dict[str, Any]]:
    """What `edge-trgl plan` shows of each module, in MiB."""
    size = min(plan.micro_batch or batch_size, batch_size)
    return [
        {
            "module": cost.module,
            "name": cost.name,
            "params": cost.num_params,
            "weights_mb": cost.weight_bytes / memory.MIB,
            "momentum_mb": cost.momentum_bytes / memory.MIB,
            "step_mb": (cost.recomputed_step if plan.recompute else cost.step).peak(size) / memory.MIB,
            "peak_mb": peak,
        }
        for cost, peak in zip(costs, plan.peaks_mb, strict=True)
    ]


def _micro_batches(config: RunConfig, batch_size: int) -> Iterator[int]:
    """The sizes that may be tried, if lossy ones are allowed: halves, quarters, ..."""
    size = batch_size // 2
    while "micro-batch" in config.budget.allow and size >= 1:
        yield size
        size //= 2


def _rows(costs: Sequence[ModuleCost], batch_size: int) -> tuple[ModuleRow, ...]:
    inputs = ["float32", *(cost.output_dtype for cost in costs)]
    return tuple(
        ModuleRow(
            state=cost.state_bytes,
            step=cost.step.peak(batch_size),
            recomputed_step=cost.recomputed_step.peak(batch_size),
            forward=cost.forward.peak(batch_size),
            reads=_record_bytes(cost.input_shape, dtype),
            writes=_record_bytes(cost.output_shape, cost.output_dtype) if cost is not costs[-1] else 0,
        )
        for cost, dtype in zip(costs, inputs, strict=False)
    )


def _record_bytes(shape: tuple[int, ...], dtype: str) -> int:
    size = _ITEM_BYTES[dtype]
    for side in shape:
        size *= side
    return size


def _chunk(text: str, batches_per_epoch: int) -> int | None:
    if text == "auto":
        return None
    return batches_per_epoch if text == "epoch" else int(text)
