"""A training process from start to end: walk the schedule from the last commit, then evaluate."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType

from edge_trgl.engine import evaluation, from_config, process_setup
from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.engine.commits import Ledger
from edge_trgl.engine.learning_rate import LearningRate
from edge_trgl.engine.looks import walk_and_look
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.engine.pretrained_blocks import write_blocks
from edge_trgl.engine.rebuild import can_rebuild, rebuilding
from edge_trgl.engine.schedule import Schedule, moved_position
from edge_trgl.engine.shared_head import SharedHead
from edge_trgl.engine.trainer import AfterVisit, EngineContext, walk
from edge_trgl.engine.visits import JobSize, Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run import transport_share
from edge_trgl.run.facts import Result, RunFacts
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import DamagedBoundaryError
from edge_trgl.runtime.memory import file_pages, guard
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes import messages
from edge_trgl.runtime.storage import disk_space
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord

StopRequested = Callable[[], bool]


def run(run: Run, limits: Limits) -> Result:
    """Train what is left to train within `limits`, then evaluate.

    SIGTERM stops training at the next safe point, after a commit.

    Raises:
        OverBudgetError: the process exceeded its budget.
        StoppedError: a signal stopped it.
    """
    stop_requested = _sigterm_flag()
    opened = open_run(run)
    _warn_if_elsewhere(opened)
    others_mb = process_setup.others_mb()
    process_setup.begin(opened.device, limits, others_mb)
    return train(opened, limits=limits, others_mb=others_mb, stop_requested=stop_requested)


def train(
    opened: OpenRun, *, limits: Limits, others_mb: float, stop_requested: StopRequested = lambda: False
) -> Result:
    """Walk the schedule from the last commit, evaluate, and store the result.

    Args:
        opened: the run.
        limits: its budget.
        others_mb: MiB of the budget that other processes take.
        stop_requested: called between visits; True stops training after a commit.
    """
    context, ledger = _walked(opened, limits, others_mb, stop_requested)
    ledger.commit()
    _warn_if_inert(opened.facts)
    context.activations.close()
    done = ledger.work()
    messages.send("phase", name="evaluate")
    file_pages.give_back()  # evaluation runs less code than training
    scores = evaluation.evaluate(opened, context.modules, context.meter, context.headroom, ledger.check)
    with context.meter.phase():
        weights_sha256 = evaluation.weights_sha256(context.modules, opened.depth)
        if not opened.config.loss.reads_labels:
            write_blocks(opened, context.modules)
    guard.check(ledger.peak_mb(), limits, "the checksum of the weights")
    result = Result(
        scores=scores,
        weights_sha256=weights_sha256,
        work=done,
        peak_mb=context.meter.highest + opened.device.memory_mb(),
        method=opened.device.method,
    )
    opened.facts.result = result
    opened.facts.close()
    return result


def _walked(
    opened: OpenRun, limits: Limits, others_mb: float, stop_requested: StopRequested
) -> tuple[EngineContext, Ledger]:
    """Walk to the end; if a boundary turns out to be damaged, rewrite it and walk again from the last commit.

    Raises:
        DamagedBoundaryError: a boundary that cannot be rewritten, or one that is damaged a second time.
    """
    given_up: dict[str, DamagedBoundaryError] = {}
    while True:
        context, ledger = _engine(opened, limits, others_mb, stop_requested)
        lost = context.activations.restore(_placed(opened), given_up)
        try:
            _rebuild(opened, context, ledger, lost)
            _walk(opened, context, ledger)
            return context, ledger
        except DamagedBoundaryError as error:
            if error.boundary in given_up or not can_rebuild(error.boundary):
                raise
            given_up[error.boundary] = error
            context.activations.close()
            context.feed.close()
            del context, ledger  # their modules have moved on since the last commit


def _rebuild(
    opened: OpenRun,
    context: EngineContext,
    ledger: Ledger,
    lost: Sequence[tuple[BoundaryRecord, DamagedBoundaryError]],
) -> None:
    """Rewrite the boundaries that the last commit names but that are missing or damaged."""
    for record, error in lost:
        if not can_rebuild(record.spec.name):
            raise error
        text = f"{error.message}; it is written again"
        messages.send("warning", text=text)
        opened.facts.add_event("boundary", text)
    if not lost:
        return
    counts = {record.spec.name: record.counts for record, _ in lost}

    def after(position: int, visit: Visit, local: LocalModule) -> None:
        local.take_totals()  # resets them: these passes do not count as training
        ledger.check(visit)

    once = _training(opened).frozen > 0
    walk(rebuilding(_job(opened), counts, context.activations.names, once=once), context, after)
    ledger.commit()


def _walk(opened: OpenRun, context: EngineContext, ledger: Ledger) -> None:
    training, job = _training(opened), _job(opened)
    after: AfterVisit = ledger.after
    if opened.config.model.shared_head:
        trained, statistics = range(opened.config.train.freeze, len(opened)), opened.config.model.shared_statistics
        head = SharedHead(context.modules, trained, job.batches_per_epoch, statistics=statistics)
        after = head.before(after)
        if ledger.start == 0:
            head.spread()
    walk_and_look(opened, training, job, context, ledger, after)


def _engine(
    opened: OpenRun, limits: Limits, others_mb: float, stop_requested: StopRequested
) -> tuple[EngineContext, Ledger]:
    config, job, training = opened.config, _job(opened), _training(opened)
    rate = LearningRate(config, job, training)
    context = EngineContext(
        modules=opened.modules(),
        activations=ActivationStore(
            opened.run.boundaries,
            job.num_samples,
            job.batch_size,
            reuse="reuse" not in config.budget.without,
            ahead=opened.plan.layout.prefetch,
        ),
        feed=opened.feed("train"),
        meter=Meter(),
        learning_rate=rate,
        spec_of=opened.factory.spec_of,
        seed=config.train.seed,
        prefetch=opened.plan.layout.prefetch,
        work_mb=opened.work_mb(),
        headroom=opened.headroom(limits, others_mb),
    )
    policy = CommitPolicy(
        checkpoint_s=config.train.checkpoint_minutes * 60,
        limits=limits,
        others_mb=others_mb,
        planned_mb=opened.plan.peaks_mb,
        num_heads=sum(map(opened.factory.chain.has_head, range(len(opened)))),
        classifies=config.loss.reads_labels,
        trim="trim" not in config.budget.without,
        total_steps=sum(training.epochs_of(k) for k in range(len(opened))) * job.batches_per_epoch,
        room_mb=lambda: opened.plan.disk_mb - disk_space.taken_mb(opened.run.folder),
        chunk=opened.plan.layout.chunk,
        stop_requested=stop_requested,
        learning_rate=rate,
    )
    ledger = Ledger(
        facts=opened.facts,
        modules=context.modules,
        activations=context.activations,
        meter=context.meter,
        device=opened.device,
        policy=policy,
        start=_start(opened),
    )
    return context, ledger


def _start(opened: OpenRun) -> int:
    """Return the position of the last commit, counted in visits of the plan's present chunk length."""
    position, chunk = opened.facts.position(), opened.plan.layout.chunk
    before = opened.facts.progress.chunk
    if position == 0 or before is None or before == chunk:
        return position
    old, job = from_config.training_schedule(opened.config, len(opened), before), _job(opened)
    return moved_position(position, old.visits(job), _training(opened).visits(job))


def _placed(opened: OpenRun) -> list[BoundaryRecord]:
    """Return the committed boundaries, placed in memory or on disk as the present plan says."""
    in_memory = opened.plan.layout.placement == "memory"
    return [
        replace(record, spec=replace(record.spec, in_memory=in_memory)) for record in opened.facts.boundaries()
    ]


def _job(opened: OpenRun) -> JobSize:
    return from_config.job_size(opened.config, len(opened), opened.info.splits["train"].num_images)


def _training(opened: OpenRun) -> Schedule:
    return from_config.training_schedule(opened.config, len(opened), opened.plan.layout.chunk)


def _warn_if_inert(facts: RunFacts) -> None:
    """Warn if the transport term had no effect."""
    text = transport_share.warning(transport_share.influences(facts.metrics("train")))
    if text is not None:
        messages.send("warning", text=text)
        facts.add_event("transport", text)


def _warn_if_elsewhere(opened: OpenRun) -> None:
    """Warn if the run continues in an environment in which its exact results may differ."""
    began, here = opened.facts.counted.environment, process_setup.environment(opened.config.train.device)
    changed = [f"{name} {was} -> {here.get(name)}" for name, was in began.items() if was != here.get(name)]
    if changed:
        text = f"this run is no longer bit-exact, because it goes on with another {', '.join(changed)}"
        messages.send("warning", text=text)
        opened.facts.add_event("environment", text)


def _sigterm_flag() -> StopRequested:
    """Handle SIGTERM from now on; return a function that says whether it has arrived."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, note)
    return lambda: bool(received)
