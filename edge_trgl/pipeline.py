"""From a configuration to a trained run: one child process after another, this parent staying small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_trgl import config as configuration
from edge_trgl.config import RunConfig
from edge_trgl.run import Run
from edge_trgl.runtime import files, memory
from edge_trgl.runtime.errors import DoesNotFitError, UsageError
from edge_trgl.runtime.state import RunState
from edge_trgl.runtime.supervisor import Message, Outcome, run_child

Listener = Callable[[Message], None]


class Pipeline:
    """The jobs of one run, in order, each in a process of its own.

    `listener` is told what happens: messages of kind `phase`, `progress`, `warning`.
    """

    def __init__(self, run: Run, listener: Listener) -> None:
        self.run = run
        self.listener = listener
        self.config = run.config()

    def train(self, budget_mb: float | None = None) -> dict[str, Any]:
        """Do whatever of the run is not done yet; returns its summary.

        `budget_mb`: another budget than the configured one, for a resumed run.

        Raises:
            EdgeTrglError: with the exit code of its kind; what was committed stays.
        """
        state = self.run.state()
        budget_mb = self._budget(state, budget_mb)
        if not (self.run.data / "dataset.json").is_file():
            self._job(state, "prepare")
        self.plan(state, budget_mb)
        if state.meta("layout")["built"] and not state.modules():
            self._job(state, "convert")
        if state.meta("result") is None:
            self._count_start(state)
            self._job(state, "work", budget_mb=budget_mb)
        summary = summarise(self.config, state)
        files.write_durable(self.run.summary_file, [json.dumps(summary, indent=2).encode() + b"\n"])
        self._job(state, "report")
        state.close()
        return summary

    def plan_only(self) -> dict[str, Any]:
        """Prepare and plan; the document that `edge-trgl plan` shows."""
        state = self.run.state()
        budget_mb = self._budget(state, None)
        self._job(state, "prepare")
        document = {"budget_mb": budget_mb, **self.plan(state, budget_mb)}
        state.close()
        return document

    def report(self) -> None:
        """Write the report of what there is so far."""
        state = self.run.state()
        self._job(state, "report")
        state.close()

    def plan(self, state: RunState, budget_mb: float) -> dict[str, Any]:
        """The plan and what it rests on; made once, because positions in the schedule depend on it."""
        if state.meta("plan") is None:
            self._job(state, "plan", budget_mb=budget_mb)
        plan: dict[str, Any] = state.meta("plan")
        if plan["peak_mb"] > budget_mb:
            raise DoesNotFitError(
                f"the run was planned for {plan['peak_mb']:.0f} MiB, more than the {budget_mb:.0f} MiB given now",
                hint="Give the budget that it was begun with, or begin a new run.",
            )
        return {"plan": plan, "layout": state.meta("layout"), "costs": state.meta("costs")}

    def verb(self, name: str, **options: Any) -> Any:
        """Run one job on a finished run; returns its result.

        Raises:
            UsageError: the run is not trained to its end.
        """
        state = self.run.state()
        try:
            if state.meta("result") is None:
                raise UsageError(
                    f"{self.run.folder} is not trained to its end",
                    hint=f"Run edge-trgl resume {self.run.folder} first.",
                )
            return self._job(state, name, **options).result
        finally:
            state.close()

    def _job(self, state: RunState, name: str, **options: Any) -> Outcome:
        self.listener({"kind": "phase", "name": name})
        outcome = run_child(
            ["-m", "edge_trgl.jobs", name, str(self.run.folder), json.dumps(options)],
            on_message=self.listener,
            threads=self.config.train.threads,
        )
        # The training process resets its high-water mark between visits and adds its maxima up itself.
        child_mb = outcome.result["peak_mb"] if name == "work" else outcome.peak_mb
        state.record_phase(name, child_mb + memory.usage().peak, outcome.seconds)
        return outcome

    def _budget(self, state: RunState, asked_mb: float | None) -> float:
        wanted = asked_mb or state.meta("budget_mb") or self.config.budget.mb
        available = memory.available_mb()
        if wanted > available:
            text = f"the budget of {wanted:.0f} MiB is more than is available; lowered to {available:.0f} MiB"
            self.listener({"kind": "warning", "text": text})
            state.add_event("budget", text)
            wanted = available
        state.set_meta("budget_mb", wanted)
        return float(wanted)

    def _count_start(self, state: RunState) -> None:
        starts = state.meta("starts", 0) + 1
        state.set_meta("starts", starts)
        if starts > 1:
            state.add_event("resume", f"start number {starts}, from position {state.position()}")


def begin_or_continue(run_folder: Path, config: RunConfig) -> Run:
    """The run in `run_folder`: a new one, or the one that is there if its configuration is the same.

    Raises:
        UsageError: the configuration differs, with the differences.
    """
    if not (run_folder / "run.toml").is_file():
        return Run.create(run_folder, config)
    run = Run.open(run_folder)
    found = configuration.differences(run.config().document(), config.document())
    if found:
        raise UsageError(
            f"{run_folder} was begun with another configuration: {'; '.join(found)}",
            hint=f"edge-trgl resume {run_folder} goes on as it was begun; another --run begins anew.",
        )
    return run


def summarise(config: RunConfig, state: RunState) -> dict[str, Any]:
    """The content of summary.json (schema in the README)."""
    result, plan, layout = state.meta("result"), state.meta("plan"), state.meta("layout")
    scores, work = result["scores"], result["work"]
    peaks = [phase.peak_mb for phase in state.phases()] + list(state.meta("module_peaks", {}).values())
    return {
        "schema": 1,
        "regime": config.train.regime,
        "modules": len(layout["starts"]),
        "params": sum(layout["num_params"]),
        "accuracy": {name: scores[name] for name in ("last", "chosen", "chosen_depth", "per_depth")},
        "memory": {
            "budget_mb": round(state.meta("budget_mb"), 1),
            "peak_mb": round(max(peaks), 1),
            "planned_peak_mb": round(plan["peak_mb"], 1),
            "fixed_mb": round(plan["fixed_mb"], 1),
            "method": result["method"],
        },
        "storage": {"read_mb": round(work["read_mb"], 1), "written_mb": round(work["written_mb"], 1)},
        "time_s": round(work["seconds"], 1),
        "images_per_s": round(work["images"] / max(work["seconds"], 1e-9), 1),
        "restarts": state.meta("starts", 1) - 1,
        "lossy": plan["lossy"],
        "weights_sha256": result["weights_sha256"],
    }
