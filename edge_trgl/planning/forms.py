"""Every form in which a run may be computed, with its modules in bytes: exact ones first, then lossy ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo
from edge_trgl.engine import from_config
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.networks.chain import Chain, split_by_weight
from edge_trgl.planning import calibrated, count
from edge_trgl.planning.calibrated import LEVELS
from edge_trgl.planning.count import ModuleCost
from edge_trgl.planning.live_bytes import LARGER
from edge_trgl.planning.without_values import Choice
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.planner.candidates import NARROW
from edge_trgl.runtime.planner.demand import FORWARD, Form, ModuleRow, Order
from edge_trgl.runtime.storage.boundary_spec import record_bytes
from edge_trgl.runtime.units import MIB

if TYPE_CHECKING:
    from edge_trgl.networks.cutting.net import Net


@dataclass(frozen=True)
class LaidOutForm:
    """A form, and the layout of the chain that it computes."""

    form: Form
    layout: ChainLayout


@dataclass(frozen=True)
class Heap:
    """What happens to freed memory, and the bytes of a tensor that may find no gap in it (fragmentation)."""

    allocator: Allocator
    fragmentation: int


def every_form(
    config: RunConfig,
    info: DatasetInfo,
    net: Net | None,
    environment: Mapping[str, str | int],
    fixed_mb: float,
    budget_mb: float | None,
    choice: Choice,
) -> tuple[list[LaidOutForm], Heap]:
    """Count every form of the run, exact ones first, and choose how its memory is allocated.

    `net`: the model that was cut for the run, if any. `environment`: what the cost of a step depends on beside the
    configuration. `fixed_mb`: the process before its first module, in MiB. `budget_mb`: MiB, None for the
    smallest. `choice`: the tensors to count on.

    Raises:
        UsageError: a setting does not suit the network or the data.
        InputError: a block cannot read what the one before it returns.
    """
    step = from_config.step_config(config)
    size = min(config.train.batch_size, info.splits["train"].num_images)
    chain = _chain(config, info, net, step, size, choice)
    from_config.training_schedule(config, len(chain), 1)  # refuses a list of epochs that does not suit the modules
    from_config.check_data(config, info)
    costs = count.chain_costs(chain, step, choice)
    if config.model.shared_head:
        _check_one_head_reads_all(costs[config.train.freeze :])
    _check_size(size, costs)
    heap = _heap(config, costs, size, max(budget_mb or 0.0, fixed_mb))
    where = f"{config.train.device} {heap.allocator} {sorted(environment.items())}"
    text = f"{step} {where} {sorted(config.budget.without)}"
    if config.train.regime != "end-to-end":
        order: Order = "stream" if config.train.regime == "parallel" or not config.caches else "cache"
        variants = list(_variants(order, chain, costs, size, text))
        if config.loss.compares_samples:
            variants = [variant for variant in variants if "micro-batch" not in variant.form.lossy]
        return variants, heap
    forms: list[LaidOutForm] = []
    room_mb = 0.0 if budget_mb is None else budget_mb - fixed_mb
    if len(chain) == 1 or (config.budget.resident == "auto" and _whole_mb(costs) < room_mb):
        whole = chain.regroup((0,))
        forms += _variants("stream", whole, count.chain_costs(whole, step, choice), size, text)
    if len(chain) > 1:
        forms += _variants("rounds", chain, costs, size, text)
    return forms, heap


def _whole_mb(costs: Sequence[ModuleCost]) -> float:
    """MiB in which a net that is trained end to end may be built whole, and be counted."""
    factor = calibrated.WHOLE_FACTOR
    return sum(factor * cost.state_bytes + cost.steps["none"].peak(LARGER) for cost in costs) / MIB


def _heap(config: RunConfig, costs: Sequence[ModuleCost], size: int, budget_mb: float) -> Heap:
    """Choose the allocator by the largest tensor of each module: with large tensors, a heap's gaps add up.

    Near the budget memory is worth more than the time that a heap saves.
    """
    if "allocator" in config.budget.without:
        return Heap("default", 0)
    largest = sorted(max(step.largest(size) for step in cost.steps.values()) for cost in costs)
    usual, most = largest[len(largest) // 2], largest[-1]
    small = usual < allocator.SMALL_BYTES and most < 2 * allocator.SMALL_BYTES
    fragmented = calibrated.FRAGMENTED_TENSORS * most
    small = small and fragmented <= calibrated.FRAGMENTED_SHARE * budget_mb * MIB
    return Heap("heap", most) if small else Heap("huge", 0)


def _chain(
    config: RunConfig, info: DatasetInfo, net: Net | None, step: StepConfig, size: int, choice: Choice
) -> Chain:
    """The chain in the modules, and with the heads, that the configuration asks for."""
    chain = from_config.make_chain(config, info, net, paged=True)
    if config.model.partition == "weight" and config.model.modules:
        weights = count.block_weights(chain, step, size, _allowed_heads(config, chain), choice)
        chain = from_config.with_heads(config, chain.regroup(split_by_weight(weights, config.model.modules)))
    chain = replace(chain, frozen=config.train.freeze)
    wanted = config.model.heads()
    if wanted is None or not wanted.auto:
        return chain
    costs = count.fastest_costs(chain, step, size, wanted.names, choice)
    return replace(chain, head=tuple(cost.head for cost in costs))


def _accepts(costs: Sequence[ModuleCost], sizes: Set[int]) -> bool:
    """Whether every module can do a step on batches of all `sizes`."""
    return 1 not in sizes or all(cost.takes_one for cost in costs)


def _check_size(size: int, costs: Sequence[ModuleCost]) -> None:
    if not _accepts(costs, {size}):
        wrong = next(cost for cost in costs if not cost.takes_one)
        raise UsageError(
            f"a batch of one sample: a batch norm of module {wrong.module} sees a single position of it",
            hint="Give --batch-size 2 or more, or larger samples.",
        )


def _check_one_head_reads_all(costs: Sequence[ModuleCost]) -> None:
    first = costs[0]
    for cost in costs[1:]:
        if (cost.head, cost.output_shape) != (first.head, first.output_shape):
            outputs = (f"module {one.module} gives {list(one.output_shape)} ({one.head})" for one in (first, cost))
            raise UsageError(
                f"--shared-head: {', '.join(outputs)}; one head cannot read both",
                hint="Choose one --head, and a net without downsampling: km-20-1, or --set model.downsample=[].",
            )


def _allowed_heads(config: RunConfig, chain: Chain) -> Sequence[str]:
    """The names of the heads that a module may get."""
    wanted, own = config.model.heads(), chain.head
    if wanted is not None:
        return wanted.names
    return (own,) if isinstance(own, str) else tuple(name for name in own if name is not None)


def _variants(
    order: Order, chain: Chain, costs: Sequence[ModuleCost], size: int, text: str
) -> Iterator[LaidOutForm]:
    """The exact form of an order, then the lossy ones: half batches, quarters ...; narrow boundaries."""
    layout = _layout(chain, costs)
    yield LaidOutForm(Form(order=order, rows=_rows(costs, size, layout, layout, text), size=size), layout)
    if order == "rounds":
        return
    halves = (size >> times for times in range(1, size.bit_length()))
    for part in (part for part in halves if _accepts(costs, {part, size % part})):
        whole = _rows(costs, part, layout, layout, f"{text} in parts")
        rows = tuple(_in_parts(row, cost.learning_bytes) for row, cost in zip(whole, costs, strict=True))
        yield LaidOutForm(Form(order=order, rows=rows, size=part, lossy=("micro-batch",)), layout)
    if len(costs) > 1:
        for name, dtype in NARROW.items():
            narrow = replace(layout, dtypes=(dtype,) * len(costs))
            rows = _rows(costs, size, narrow, layout, text)
            yield LaidOutForm(Form(order=order, rows=rows, size=size, lossy=(name,)), narrow)


def _in_parts(row: ModuleRow, gradients: int) -> ModuleRow:
    """Add the `gradients` (bytes) of one part of a batch, which stay alive while the next part is computed."""
    works = {name: work + (0 if name == FORWARD else gradients) for name, work in row.works.items()}
    return replace(row, gradients=gradients, works=works)


def _layout(chain: Chain, costs: Sequence[ModuleCost]) -> ChainLayout:
    return ChainLayout(
        starts=chain.starts,
        heads=tuple(cost.head for cost in costs),
        shapes=tuple(cost.output_shape for cost in costs),
        dtypes=tuple(cost.output_dtype for cost in costs),
        names=tuple(cost.name for cost in costs),
        num_params=tuple(cost.num_params for cost in costs),
        built=chain.built,
    )


def _rows(
    costs: Sequence[ModuleCost], size: int, stored: ChainLayout, computed: ChainLayout, text: str
) -> tuple[ModuleRow, ...]:
    """The modules in bytes; `stored` has the dtypes of stored boundaries, `computed` those of outputs."""
    inputs, outputs = ["float32", *stored.dtypes], stored.dtypes
    wide = ["float32", *computed.dtypes]
    return tuple(
        ModuleRow(
            kind=_kind(cost, text),
            weights=cost.weight_bytes,
            momentum=cost.momentum_bytes,
            opening=cost.opening_bytes,
            gradients=cost.gradient_bytes,
            works={FORWARD: cost.forward.peak(size)} | {level: cost.steps[level].peak(size) for level in LEVELS},
            reads=record_bytes(cost.input_shape, dtype),
            writes=record_bytes(cost.output_shape, outputs[cost.module]) if cost is not costs[-1] else 0,
            widened=0 if dtype == exact else record_bytes(cost.input_shape, "float32"),
        )
        for cost, dtype, exact in zip(costs, inputs, wide, strict=False)
    )


def _kind(cost: ModuleCost, text: str) -> str:
    """A key that modules share if they cost the same: equal parts, and steps that allocate the same bytes."""
    content = replace(cost, module=0)
    return hashlib.sha256(f"{content} {text}".encode()).hexdigest()[:16]
