"""The product's row of the regime benchmark: the training job, of which the loop over visits is measured."""

from __future__ import annotations

from typing import Any

from edge_trgl.data import open_dataset
from edge_trgl.engine import from_config, process_setup, trainer, training
from edge_trgl.engine.commits import Ledger
from edge_trgl.engine.open_run import OpenRun
from edge_trgl.engine.schedule import Schedule
from edge_trgl.engine.trainer import AfterVisit, EngineContext
from edge_trgl.engine.visits import JobSize, Visit
from edge_trgl.learning.local_module import LocalModule
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.records import to_json
from tools.common.section import Section, Turns


def measure(run: Run, turns: Turns | None) -> dict[str, Any]:
    """The training job as `edge-trgl train` runs it, its weights drawn before the clock starts."""
    facts = run.facts()
    limits, planned = facts.limits, facts.planned
    facts.close()
    figures: dict[str, Any] = {}

    def walk(
        opened: OpenRun,
        schedule: Schedule,
        job: JobSize,
        context: EngineContext,
        ledger: Ledger,
        after: AfterVisit,
    ) -> None:
        process_setup.warm_up(opened.config.train.device)
        allocator.keep_tensors_on_heap()
        section = Section()
        for module in range(len(planned.layout.starts)):
            context.modules.open(module)
        if turns:
            after = _in_turns(after, turns, len(planned.layout.starts) - 1, run)
            turns.wait()
        section.start()  # the weights are drawn: what follows is as long in every epoch
        trainer.walk(schedule.visits(job), context, after, start=ledger.start)
        context.meter.read()
        figures.update(section.end(context.meter.highest))

    vars(training)["walk_and_look"] = walk  # the one step of the job that is measured, without looks
    result = training.run(run, limits)
    scored = {"accuracy": result.scores.last, "peak_mb": result.peak_mb}
    return {**figures, **scored, "budget_mb": limits.budget_mb, "plan": to_json(planned.plan)}


def _in_turns(after: AfterVisit, turns: Turns, last_module: int, run: Run) -> AfterVisit:
    """`after`, and the end of a turn where an epoch ends."""
    num_images = open_dataset(run.data).splits["train"].num_images
    batches = from_config.job_size(run.config(), last_module + 1, num_images).batches_per_epoch

    def after_and_wait(position: int, visit: Visit, local: LocalModule) -> None:
        after(position, visit, local)
        if visit.module == last_module and visit.span.stop == batches:
            turns.done()

    return after_and_wait
