"""Check that training continues with less memory, and finishes, after the device refuses an allocation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch

from edge_trgl.config import sources
from edge_trgl.jobs.requests import TRAIN, Job
from edge_trgl.pipeline import pipeline
from edge_trgl.pipeline.job_runner import JobRunner
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.records import to_json
from tools.cuda.checks import Result, Setting
from tools.cuda.runs import sections

Q = TypeVar("Q")
R = TypeVar("R")

TIGHT = ("-m", "tools.cuda.tight")


class Refused(JobRunner):
    """Starts jobs; the first training process is refused what its first step asks for."""

    planned_mb: ClassVar[list[float]] = []

    def start(self, job: Job[Q, R], request: Q, cgroup: Path | None) -> Outcome:
        """As in the product, but for the first training process."""
        if job is not TRAIN or self.planned_mb:
            return super().start(job, request, cgroup)
        self.planned_mb.append(self._facts.planned.plan.peak_mb)
        return run_child(
            [*TIGHT, job.name, str(self._run.folder), json.dumps(to_json(request))],
            on_message=self._listener,
            threads=self._config.train.threads,
            allocator=self._facts.counted.allocator,
        )


def refusal(setting: Setting) -> Result:
    """A run whose plan has all modules in memory, refused once by the allocator itself."""
    run = _new_run(setting)
    Refused.planned_mb.clear()
    with patch.object(pipeline, "JobRunner", Refused):
        Pipeline(run, _unheard).train()
    facts = run.facts()
    found = {
        "starts": facts.starts,
        "events": [{"kind": event.kind, "text": event.text} for event in facts.events()],
        "planned_mb": [*Refused.planned_mb, facts.planned.plan.peak_mb],
        "scores": to_json(facts.result.scores) if facts.is_trained else None,
    }
    facts.close()
    return judge_refusal(found)


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
        Pipeline(run, _unheard).train()
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
