"""Find out what each module costs, in numbers that the planner works with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, is_prepared, open_survey
from edge_trgl.engine import from_config, process_setup
from edge_trgl.engine import training as training  # its imports are part of the memory that is measured
from edge_trgl.learning.local_module import StepConfig
from edge_trgl.method.recompute import Recompute
from edge_trgl.networks.chain import Chain, by_weight
from edge_trgl.networks.cutting import Net
from edge_trgl.planning import count as costing
from edge_trgl.planning import large_images
from edge_trgl.planning.count import ModuleCost
from edge_trgl.planning.live_bytes import LARGER
from edge_trgl.planning.without_values import Choice
from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import allocator, counters
from edge_trgl.runtime.memory.allocator import Allocator
from edge_trgl.runtime.memory.device import open_device
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.candidates import NARROW
from edge_trgl.runtime.planner.demand import FORWARD, Demand, Form, ModuleRow, Order
from edge_trgl.runtime.storage.boundary_spec import record_bytes
from edge_trgl.runtime.units import MIB

WORKSPACE: dict[Allocator, float] = {"held": 0.25, "huge": 0.02, "own": 0.25}
"""What a step takes beside its tensors, as a share of them: what kernels allocate, and on a heap the places that
stay free (glibc wants more for an aligned tensor than the place where one of its size has been). Of whole nets it
was 0.02 to 0.03 on huge pages, 0.1 to 0.24 on a heap: measured on x86 with oneDNN."""

FIRST_STEP_MB = 7.0
"""What the first real steps load beyond the warm-up: kernels of other shapes, generated code; measured on x86."""

PARENT_MB = 22.0
"""What the process that starts the jobs grows to in the course of a run: measured on x86."""

ENGINE_BYTES = 7 << 20
"""What training holds beside modules and data, and a probe does not: files, database, threads, and what it maps of
its libraries (beside what was asked for, what the page cache happens to hold): 2 to 6 MiB on x86."""

PLACELESS = 4
"""So many of the largest tensors found no place on a heap, one step or another."""

PLACELESS_SHARE = 0.02
"""Of the budget, which they may take; where that is less, the heap is not kept."""

SAMPLE_BYTES, RECORD_BYTES = 60, 40
"""Held for every training sample (label, checksum, the order it is kept in and its inverse, the order of an epoch
and of the one before, and what both are made of) and for every record of a live boundary."""

FLOAT_BYTES = 4
"""Of a number of an image that a loss compares with."""

STORAGE_MBS = 200.0
"""Of a disk that no profile tells of and nobody measured, in 10^6 bytes a second."""

LEVELS: dict[Recompute, float] = {"none": 0.0, "norms": 0.1, "blocks": 1.0}
"""Of recomputation, the fastest first, and what each adds to a step: a share of its forward, measured on x86."""

WHOLE = 2
"""End-to-end, a net is only built whole where there is room for so many times its weights and momentum, and for a
step of a few samples with everything kept: counting it takes as much."""


@dataclass(frozen=True)
class _Shaped:
    """A form with the layout that belongs to it."""

    form: Form
    layout: ChainLayout


@dataclass(frozen=True)
class _Heap:
    """What is to become of freed memory, and bytes of a tensor that may find no place among it."""

    allocator: Allocator
    placeless: int


def run(run: Run, budget_mb: float | None) -> None:
    """Store the run's demand, the layout of each of its forms, and the environment.

    `budget_mb`: a net is built whole only where that has room for it, and nobody said how many modules to keep in
    memory; None, for the least, has not.

    Raises:
        DoesNotFitError: the images are large, are not decoded yet, and do not fit as they are.
    """
    config, info = run.config(), open_survey(run.data)
    process_setup.set_up(config.train.threads)
    device = open_device(config.train.device)
    # Freed memory is not held here: what one module leaves would lie between the tensors of the next.
    process_setup.warm_up(device.name)
    allocator.trim()
    others_mb = max(process_setup.others_mb(), PARENT_MB)
    fixed_mb = counters.usage().rss + FIRST_STEP_MB + others_mb + device.memory_mb()
    environment = process_setup.environment(config.train.device)
    torch.set_num_threads(1)  # batches of two or three gain nothing from more
    state = run.state()
    net, choice = from_config.stored_net(state), Choice()

    def counted(info: DatasetInfo) -> tuple[list[_Shaped], _Heap, Demand]:
        shaped, heap = _forms(config, info, net, environment, fixed_mb, budget_mb, choice)
        return shaped, heap, _demand(config, info, [one.form for one in shaped], heap, fixed_mb, others_mb)

    shaped, heap, demand = counted(info)
    if budget_mb is not None and not is_prepared(run.data) and not config.budget.force:
        shortest, channels = min(info.shape[:2]), info.shape[2]
        large_images.check_fit(
            demand, budget_mb, lambda side: counted(replace(info, shape=(side, side, channels)))[2], shortest
        )
    read_mbs, write_mbs = _disk_speed(config, run)
    demand = replace(demand, converted=shaped[0].layout.built, read_mbs=read_mbs, write_mbs=write_mbs)
    state.set_meta("layouts", [asdict(one.layout) for one in shaped])
    state.set_meta("environment", environment)
    state.set_meta("allocator", heap.allocator)
    state.set_meta("placeless_bytes", heap.placeless)
    state.set_meta("demand", demand.document())  # last: it says that all is there
    state.close()


def _forms(
    config: RunConfig,
    info: DatasetInfo,
    net: Net | None,
    environment: Mapping[str, Any],
    fixed_mb: float,
    budget_mb: float | None,
    choice: Choice,
) -> tuple[list[_Shaped], _Heap]:
    """Every way to compute the job, exact ones first; how its memory is allocated."""
    step = from_config.step_config(config)
    size = min(config.train.batch_size, info.splits["train"].num_images)
    chain = _chain(config, info, net, step, size, choice)
    from_config.program(config, len(chain), 1)  # refuses a list of epochs that does not suit the modules
    from_config.check_data(config, info)
    costs = costing.chain_costs(chain, step, choice)
    if config.model.shared_head:
        _check_one_head_reads_all(costs[config.train.freeze :])
    _check_size(size, costs)
    heap = _heap(config, costs, size, max(budget_mb or 0.0, fixed_mb))
    text = f"{step} {config.train.device} {heap.allocator} {sorted(environment.items())}"
    if config.train.regime != "end-to-end":
        order: Order = "stream" if config.train.regime == "parallel" or not config.train.cache else "cache"
        variants = list(_variants(order, chain, costs, size, text))
        if config.loss.compares_samples:
            variants = [one for one in variants if "micro-batch" not in one.form.lossy]
        return variants, heap
    found: list[_Shaped] = []
    whole_bytes = sum(WHOLE * cost.state_bytes + cost.steps["none"].peak(LARGER) for cost in costs)
    room_mb = 0.0 if budget_mb is None else budget_mb - fixed_mb
    pages = config.budget.resident != "auto"
    if len(chain) == 1 or (whole_bytes / MIB < room_mb and not pages):
        whole = chain.regroup((0,))
        found += _variants("stream", whole, costing.chain_costs(whole, step, choice), size, text)
    if len(chain) > 1:
        found += _variants("rounds", chain, costs, size, text)
    return found, heap


def _heap(config: RunConfig, costs: Sequence[ModuleCost], size: int, budget_mb: float) -> _Heap:
    """By the largest tensor of each module: beside large ones, what a heap keeps for the next step adds up.

    Near the budget memory is worth more than the time that a heap saves.
    """
    if "allocator" in config.budget.without:
        return _Heap("own", 0)
    largest = sorted(max(step.largest(size) for step in cost.steps.values()) for cost in costs)
    usual, most = largest[len(largest) // 2], largest[-1]
    small = usual < allocator.SMALL_BYTES and most < 2 * allocator.SMALL_BYTES
    small = small and PLACELESS * most <= PLACELESS_SHARE * budget_mb * MIB
    return _Heap("held", most) if small else _Heap("huge", 0)


def _chain(
    config: RunConfig, info: DatasetInfo, net: Net | None, step: StepConfig, size: int, choice: Choice
) -> Chain:
    """The chain in the modules, and with the heads, that are asked for."""
    chain = from_config.make_chain(config, info, net, paged=True)
    if config.model.partition == "weight" and config.model.modules:
        weights = costing.block_weights(chain, step, size, _allowed(config, chain), choice)
        chain = from_config.with_heads(config, chain.regroup(by_weight(weights, config.model.modules)))
    chain = replace(chain, frozen=config.train.freeze)
    wanted = config.model.heads()
    if wanted is None or not wanted.auto:
        return chain
    costs = costing.cheapest_costs(chain, step, size, wanted.names, choice)
    return replace(chain, head=tuple(cost.head for cost in costs))


def _takes(costs: Sequence[ModuleCost], sizes: Set[int]) -> bool:
    """Whether every module can do a step on so many samples."""
    return 1 not in sizes or all(cost.takes_one for cost in costs)


def _check_size(size: int, costs: Sequence[ModuleCost]) -> None:
    if not _takes(costs, {size}):
        wrong = next(cost for cost in costs if not cost.takes_one)
        raise UsageError(
            f"a batch of one image: a batch norm of module {wrong.module} sees a single position of it",
            hint="Give --batch-size 2 or more, or larger images.",
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


def _allowed(config: RunConfig, chain: Chain) -> Sequence[str]:
    """The heads that a module may get."""
    wanted, own = config.model.heads(), chain.head
    if wanted is not None:
        return wanted.names
    return (own,) if isinstance(own, str) else tuple(name for name in own if name is not None)


def _variants(order: Order, chain: Chain, costs: Sequence[ModuleCost], size: int, text: str) -> Iterator[_Shaped]:
    """The exact form of an order, and those that may be allowed: half batches, quarters; narrow boundaries."""
    layout = _layout(chain, costs)
    yield _Shaped(Form(order=order, rows=_rows(costs, size, layout, layout, text), size=size), layout)
    if order == "rounds":
        return
    halves = (size >> times for times in range(1, size.bit_length()))
    for part in (part for part in halves if _takes(costs, {part, size % part})):
        whole = _rows(costs, part, layout, layout, f"{text} in parts")
        rows = tuple(_in_parts(row, cost.learning_bytes) for row, cost in zip(whole, costs, strict=True))
        yield _Shaped(Form(order=order, rows=rows, size=part, lossy=("micro-batch",)), layout)
    if len(costs) > 1:
        for name, dtype in NARROW.items():
            narrow = replace(layout, dtypes=(dtype,) * len(costs))
            rows = _rows(costs, size, narrow, layout, text)
            yield _Shaped(Form(order=order, rows=rows, size=size, lossy=(name,)), narrow)


def _in_parts(row: ModuleRow, gradients: int) -> ModuleRow:
    """The `gradients` of one part of a batch are there, all of them, while the next one is computed."""
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
    """`stored` and `computed`: with the dtypes of boundaries, and with those that modules hand on."""
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
    """A name for all modules that cost the same: made of the same parts, in steps that allocate the same."""
    content = replace(cost, module=0)
    return hashlib.sha256(f"{content} {text}".encode()).hexdigest()[:16]


def _demand(
    config: RunConfig,
    info: DatasetInfo,
    forms: Sequence[Form],
    heap: _Heap,
    fixed_mb: float,
    others_mb: float,
) -> Demand:
    most = max(len(form.rows) for form in forms)
    shape = from_config.job_shape(config, most, info.splits["train"].num_images)
    training = from_config.program(config, most, 1)
    copies = config.train.views if config.data.augment else 1
    frozen, kept = config.train.freeze, config.train.freeze > 0 and config.train.cache
    # Of all samples: the one read and the one written; and one that stays over all laps.
    cached = 2 if kept or any(form.order == "cache" for form in forms) else 0
    records = (cached + (kept and config.train.laps > 1)) * shape.num_samples * copies
    batch_size = min(config.train.batch_size, shape.num_samples)
    pictures = batch_size * math.prod(info.shape) * FLOAT_BYTES if training.pictured else 0
    board, wanted = config.board, config.budget
    return Demand(
        forms=tuple(forms),
        levels={str(level): share for level, share in LEVELS.items()},
        batch_size=batch_size,
        batches_per_epoch=shape.batches_per_epoch,
        num_samples=shape.num_samples,
        fixed_mb=fixed_mb,
        others_mb=others_mb,
        workspace=WORKSPACE[heap.allocator],
        held_bytes=ENGINE_BYTES + SAMPLE_BYTES * shape.num_samples + RECORD_BYTES * records + pictures,
        epochs=tuple(training.epochs_of(module) for module in range(most)),
        laps=config.train.laps,
        one_by_one=config.train.regime in ("sequential", "multi-lap") and not config.train.cache,
        frozen=frozen,
        kept=kept,
        copies=copies,
        image_bytes=info.record_bytes,
        pictured=tuple(sorted(training.pictured)),
        num_scored=max(split.num_images for name, split in info.splits.items() if name != "train"),
        checkpoint_s=config.train.checkpoint_minutes * 60,
        endurance_tb=board.endurance_tb,
        chunk=1 if config.model.shared_head else _chunk(wanted.chunk, shape.batches_per_epoch),
        resident=most if config.model.shared_head else _resident(wanted.resident),
        prefetch=wanted.prefetch,
        allowed=wanted.allow,
        without=wanted.without,
    )


def _disk_speed(config: RunConfig, run: Run) -> tuple[float, float]:
    """10^6 bytes a second, read and written: by the profile, else measured when a first run is on that disk."""
    board = config.board
    told = (board.storage_read_mbs, board.storage_write_mbs)
    found = measurements_cache.disk_speed(run.folder) if None in told and config.budget.probe else None
    measured = (found.read_mbs, found.write_mbs) if found else (STORAGE_MBS, STORAGE_MBS)
    return told[0] or measured[0], told[1] or measured[1]


def _chunk(text: str, batches_per_epoch: int) -> int | None:
    if text == "auto":
        return None
    return batches_per_epoch if text == "epoch" else int(text)


def _resident(text: str) -> int | None:
    return None if text == "auto" else int(text)
