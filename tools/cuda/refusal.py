"""Memory that the device refuses: training goes on with less, and comes to its end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_trgl.config import sources
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.storage.state import RunState
from tools.cuda.checks import Result, Setting
from tools.cuda.runs import sections

TIGHT = ("-m", "tools.cuda.tight")


class Refused(Pipeline):
    """A pipeline whose first training process is refused what its first step asks for."""

    planned_mb = 0.0
    _was_refused = False

    def _job(self, state: RunState, name: str, *, cgroup: Path | None = None, **options: Any) -> Outcome:
        if name != "train" or self._was_refused:
            return super()._job(state, name, cgroup=cgroup, **options)
        self._was_refused = True
        self.planned_mb = state.meta("plan")["peak_mb"]
        return run_child(
            [*TIGHT, name, str(self.run.folder), json.dumps(options)],
            on_message=self.listener,
            threads=self.config.train.threads,
            allocator=state.meta("allocator"),
        )


def refusal(setting: Setting) -> Result:
    """A run whose plan has all modules in memory, refused once by the allocator itself."""
    pipeline = Refused(_new_run(setting), _unheard)
    pipeline.train()
    state = pipeline.run.state()
    events = [{"kind": event.kind, "text": event.text} for event in state.events()]
    found = {
        "starts": state.meta("starts"),
        "events": events,
        "planned_mb": [pipeline.planned_mb, state.meta("plan")["peak_mb"]],
        "scores": (state.meta("result") or {}).get("scores"),
    }
    state.close()
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
