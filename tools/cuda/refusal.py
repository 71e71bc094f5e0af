"""Check that training continues with less memory, and finishes, after the device refuses an allocation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from edge_trgl.config import sources
from edge_trgl.jobs.requests import TRAIN
from edge_trgl.pipeline import turns
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.records import to_json
from tools.cuda.checks import Result, Setting
from tools.cuda.runs import sections

TIGHT = ("-m", "tools.cuda.tight")


def refusal(setting: Setting) -> Result:
    """A run whose plan has all modules in memory, refused once by the allocator itself."""
    run, planned_mb = _new_run(setting), list[float]()

    def run_once_refused(arguments: Sequence[str], **options: Any) -> Outcome:
        """As in the product, but the first training process is refused what its first step asks for."""
        _, _, job, *rest = arguments
        if job != TRAIN.name or planned_mb:
            return run_child(arguments, **options)
        planned_mb.append(_planned_mb(run))
        return run_child([*TIGHT, job, *rest], **options)

    with patch.object(turns, "run_child", run_once_refused):
        Pipeline(run.folder, _unheard).train()
    facts = run.facts()
    found = {
        "starts": facts.starts,
        "events": [{"kind": event.kind, "text": event.text} for event in facts.events()],
        "planned_mb": [*planned_mb, facts.planned.plan.peak_mb],
        "scores": to_json(facts.result.scores) if facts.is_trained else None,
    }
    facts.close()
    return judge_refusal(found)


def _planned_mb(run: Run) -> float:
    facts = run.facts()
    try:
        return facts.planned.plan.peak_mb
    finally:
        facts.close()


def judge_refusal(found: Mapping[str, Any]) -> Result:
    """One refusal, one lower plan, and a result."""
    steps = [event["text"] for event in found["events"] if event["kind"] == "restart"]
    before_mb, after_mb = found["planned_mb"]
    held = {
        "refused once": found["starts"] == 2 and len(steps) == 1,
        "by an allocation": all("refused" in text for text in steps),
        "a lower plan": after_mb < before_mb and all(" -> " in text for text in steps),
        "finished": found["scores"] is not None,
    }
    return Result(name="refusal", ok=all(held.values()), details={**found, "held": held})


def finished(setting: Setting) -> Run:
    """The run of `refusal`, or one like it, trained to its end."""
    folder = setting.scratch / "refusal"
    run = Run.open(folder) if (folder / "run.toml").is_file() else None
    if run is None or run.summary() is None:
        run = _new_run(replace(setting, scratch=setting.scratch / "again"))
        Pipeline(run.folder, _unheard).train()
    return run


def _new_run(setting: Setting) -> Run:
    size = 128 if setting.quick else 256
    heavy = {  # beside a step, the jobs before it must take little, or there is nothing below the plan
        "data": {"limit": 3 * size},
        "model": {"width": 64},
        "train": {"batch_size": size, "epochs": "1"},
        "budget": {"mb": 16_000.0, "probe": False},
    }
    folder = setting.scratch / "refusal"
    return Run.create(folder, sources.resolve(sections(setting, setting.device), heavy))


def _unheard(message: Message) -> None:
    pass
