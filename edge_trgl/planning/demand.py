"""The demand of a run: what each module costs in every form, and all else that its plan depends on, in numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from edge_trgl.config.sections import RunConfig
from edge_trgl.data import DatasetInfo, is_prepared, open_survey
from edge_trgl.engine import from_config, process_setup
from edge_trgl.engine import training as training  # its imports are part of the memory that is measured
from edge_trgl.engine.looks import epochs_looked_after
from edge_trgl.planning import calibrated, large_images
from edge_trgl.planning.forms import Heap, LaidOutForm, every_form
from edge_trgl.planning.without_values import Choice
from edge_trgl.run.facts import Counted
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator, counters, file_pages
from edge_trgl.runtime.memory.device import open_device
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.demand import Demand, Form
from edge_trgl.runtime.processes import light_torch
from edge_trgl.runtime.units import MIB

FLOAT_BYTES = 4
"""Bytes of one number of an image that a loss compares with (float32)."""


def store_demand(run: Run, limits: Limits) -> None:
    """Count what the run costs and store it: the demand, the layout of each form, and the environment.

    `limits`: an open budget means the smallest that works. Unless the number of resident modules is given, a net
    that is trained end to end is counted whole only if the budget has room for it.

    Raises:
        DoesNotFitError: the images are large and not decoded yet, or were resized, and do not fit at that size.
        UsageError: a setting does not suit the network or the data.
        InputError: a block cannot read what the one before it returns.
    """
    config, info, budget_mb = run.config(), open_survey(run.data), limits.budget_mb
    process_setup.set_up(config.train.threads)
    device = open_device(config.train.device)
    # Freed memory goes back to the system here: what one module leaves would lie between the tensors of the next.
    process_setup.warm_up(device.name)
    allocator.trim()
    others_mb = max(process_setup.others_mb(), calibrated.PARENT_MB)
    usage, loaded_mb = counters.usage(), light_torch.anonymous_mb()
    own_mb = 0.0 if loaded_mb is None else usage.anonymous - loaded_mb
    fixed_mb = usage.rss + calibrated.FIRST_STEP_MB + others_mb + device.memory_mb()
    file_pages.give_back()  # not before: steps touch as many pages as the warm-up
    environment = process_setup.environment(config.train.device)
    torch.set_num_threads(1)  # batches of two or three gain nothing from more
    facts = run.facts()
    net, choice = from_config.stored_net(facts), Choice()

    def counted(info: DatasetInfo) -> tuple[list[LaidOutForm], Heap, Demand]:
        forms, heap = every_form(config, info, net, environment, fixed_mb, budget_mb, choice)
        return forms, heap, _demand(config, info, [laid_out.form for laid_out in forms], heap, fixed_mb, others_mb)

    forms, heap, demand = counted(info)
    could_be_smaller = not is_prepared(run.data) or info.summary.size_from != "files"
    if budget_mb is not None and could_be_smaller and not config.budget.force:
        shortest, channels = min(info.shape[:2]), info.shape[2]
        large_images.check_fit(
            demand, budget_mb, lambda side: counted(replace(info, shape=(side, side, channels)))[2], shortest
        )
    read_mbs, write_mbs = _disk_speed(config, run)
    demand = replace(demand, converted=forms[0].layout.built, read_mbs=read_mbs, write_mbs=write_mbs)
    facts.counted = Counted(
        demand=demand,
        layouts=tuple(laid_out.layout for laid_out in forms),
        environment=environment,
        allocator=heap.allocator,
        fragmentation_bytes=heap.fragmentation,
        engine_mb=own_mb + demand.held_bytes / MIB,
    )
    facts.close()


def _demand(
    config: RunConfig,
    info: DatasetInfo,
    forms: Sequence[Form],
    heap: Heap,
    fixed_mb: float,
    others_mb: float,
) -> Demand:
    most = max(len(form.rows) for form in forms)
    shape = from_config.job_size(config, most, info.splits["train"].num_images)
    training = from_config.training_schedule(config, most, 1)
    copies = config.train.views if config.data.augment else 1
    frozen, kept = config.train.freeze, config.train.freeze > 0 and config.caches
    batch_size = min(config.train.batch_size, shape.num_samples)
    board, wanted = config.board, config.budget
    looks = len(epochs_looked_after(config.train, epochs=training.epochs[0], num_modules=most))
    grows_deeper = config.train.grow and config.train.regime != "parallel"
    num_looked_at = info.splits["val"].num_images if looks or grows_deeper else 0
    return Demand(
        forms=tuple(forms),
        levels={str(level): share for level, share in calibrated.LEVELS.items()},
        batch_size=batch_size,
        batches_per_epoch=shape.batches_per_epoch,
        num_samples=shape.num_samples,
        fixed_mb=fixed_mb,
        others_mb=others_mb,
        workspace=calibrated.WORKSPACE[heap.allocator],
        held_bytes=_held_bytes(
            num_samples=shape.num_samples,
            num_records=_num_live_boundaries(config, forms) * shape.num_samples * copies
            + (2 * num_looked_at if grows_deeper else 0),
            image_bytes=batch_size * math.prod(info.shape) * FLOAT_BYTES if training.wants_image else 0,
        ),
        epochs=tuple(training.epochs_of(module) for module in range(most)),
        laps=config.train.laps,
        one_by_one=config.train.regime in ("sequential", "multi-lap") and not config.caches,
        frozen=frozen,
        kept=kept,
        copies=copies,
        recalibrates=config.train.recalibrate,
        image_bytes=info.record_bytes,
        pictured=tuple(sorted(training.wants_image)),
        num_scored=max(split.num_images for name, split in info.splits.items() if name != "train"),
        num_looked_at=num_looked_at,
        looks=None if grows_deeper else looks,
        checkpoint_s=config.train.checkpoint_minutes * 60,
        endurance_tb=board.endurance_tb,
        chunk=1 if config.model.shared_head else _chunk(wanted.chunk, shape.batches_per_epoch),
        resident=most if config.model.shared_head else _resident(wanted.resident),
        prefetch=wanted.prefetch,
        allowed=wanted.allow,
        without=wanted.without,
    )


def _num_live_boundaries(config: RunConfig, forms: Sequence[Form]) -> int:
    """Number of boundaries of all samples that are alive at once.

    Two while modules are trained on cached boundaries: the one read and the one written. One more with frozen
    modules, whose output stays over all laps.
    """
    kept = config.train.freeze > 0 and config.caches
    cached = 2 if kept or any(form.order == "cache" for form in forms) else 0
    return cached + (kept and config.train.laps > 1)


def _held_bytes(*, num_samples: int, num_records: int, image_bytes: int) -> int:
    """Bytes that training holds beside its modules; `image_bytes`: a batch of images that a loss compares with."""
    samples, records = calibrated.SAMPLE_BYTES * num_samples, calibrated.RECORD_BYTES * num_records
    return calibrated.ENGINE_BYTES + samples + records + image_bytes


def _disk_speed(config: RunConfig, run: Run) -> tuple[float, float]:
    """Read and write speed (10^6 bytes a second): from the profile, else measured once a disk, else assumed."""
    board = config.board
    told = (board.storage_read_mbs, board.storage_write_mbs)
    found = measurements_cache.disk_speed(run.folder) if None in told and config.budget.probe else None
    assumed = calibrated.STORAGE_MBS
    measured = (found.read_mbs, found.write_mbs) if found else (assumed, assumed)
    return told[0] or measured[0], told[1] or measured[1]


def _chunk(text: str, batches_per_epoch: int) -> int | None:
    if text == "auto":
        return None
    return batches_per_epoch if text == "epoch" else int(text)


def _resident(text: str) -> int | None:
    return None if text == "auto" else int(text)
