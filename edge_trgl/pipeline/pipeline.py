"""From a configuration to a trained run: one child process after another, this parent staying small."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from edge_trgl.config.export_request import FORMS, Form, leaving_of
from edge_trgl.pipeline.smaller_files import add_smaller
from edge_trgl.run.folder import Run
from edge_trgl.run.summary import summarise
from edge_trgl.runtime.errors import DiskFullError, OverBudgetError, UsageError
from edge_trgl.runtime.memory import counters, high_water
from edge_trgl.runtime.memory.allocator import Allocator
from edge_trgl.runtime.memory.cgroup import CgroupUnavailableError, memory_cgroup
from edge_trgl.runtime.planner.demand import REFUSED
from edge_trgl.runtime.processes.supervisor import Message, Outcome, run_child
from edge_trgl.runtime.storage import disk_space, files
from edge_trgl.runtime.storage.state import RunState

ATTEMPTS = 3
"""Times that training may run out of memory, or of space on the disk, without a commit in between."""

AUTO = 0.8
"""The budget `auto`, of what is available."""

Listener = Callable[[Message], None]


class Pipeline:
    """The jobs of one run, in order, each in a process of its own.

    `listener` is told what happens: messages of kind `phase`, `progress`, `warning`.
    """

    def __init__(self, run: Run, listener: Listener) -> None:
        self.run = run
        self.listener = listener
        self.config = run.config()

    def train(self, budget_mb: float | None = None, disk_mb: float | None = None) -> dict[str, Any]:
        """Do whatever of the run is not done yet; returns its summary.

        `budget_mb`, `disk_mb`: other limits than the configured ones, for a resumed run.

        Raises:
            EdgeTrglError: with the exit code of its kind; what was committed stays.
        """
        state = self.run.state()
        if disk_mb is not None:
            state.set_meta("disk_mb", disk_mb)
        budget_mb = self.plan(state, budget_mb)
        self._foresee_export(state, budget_mb)
        if state.meta("layout")["built"] and not state.modules():
            self._job(state, "convert")
        self._work(state, budget_mb)
        summary = summarise(self.config, state)
        files.write_durable(self.run.summary_file, [json.dumps(summary, indent=2).encode() + b"\n"])
        self._job(state, "report")
        state.close()
        return summary

    def plan_only(self) -> dict[str, Any]:
        """Prepare and plan; the document that `edge-trgl plan` shows."""
        state = self.run.state()
        budget_mb = self.plan(state, None)
        names = ("plan", "layout", "table", "traffic", "alternatives", "missed", "export_mb")
        limits = {"budget_mb": budget_mb, "disk_limit_mb": self._disk_mb(state)}
        document = {**limits, **{name: state.meta(name) for name in names}}
        document["phases"] = [asdict(phase) for phase in state.phases()]
        state.close()
        return document

    def report(self, against: Sequence[str] = ()) -> None:
        """Write the report of what there is so far, compared with the runs in other folders.

        Raises:
            UsageError: there is no plan yet, or one of the others is not trained to its end.
        """
        state = self.run.state()
        self._job(state, "report", against=list(against))
        state.close()

    def plan(self, state: RunState, budget_mb: float | None) -> float:
        """Make the plan of the run, unless it has one that fits, and prepare its data; returns the budget in MiB.

        Raises:
            DoesNotFitError: nothing that is allowed fits; a run that has begun must keep its form and chunk.
        """
        budget_mb = self._budget(state, budget_mb)
        if not (self.run.data / "dataset.json").is_file():
            self._prepare(state, budget_mb)
        self._count(state, budget_mb)
        disk_mb = self._disk_mb(state, warn=True)
        if self._needs_plan(state, budget_mb, disk_mb):
            # What another budget had no room for is tried again under this one.
            measured = state.meta("measured", {})
            state.set_meta("measured", {key: one for key, one in measured.items() if not one["refused"]})
            while (asked := self._job(state, "plan", budget_mb=budget_mb, disk_mb=disk_mb).result)["wanted"]:
                self._probe(state, asked["wanted"], asked["room_mb"])
        if budget_mb is None:
            # What probing took for plans that were not taken counts as well.
            highest = max(state.meta("plan")["peak_mb"], *(phase.peak_mb for phase in state.phases()))
            budget_mb = float(math.ceil(highest))
        state.set_meta("budget_mb", budget_mb)
        return budget_mb

    def _prepare(self, state: RunState, budget_mb: float | None) -> None:
        """Decode the images; where they are large, once it is counted that they fit the budget as they are."""
        found = self._job(state, "prepare", survey_large=True).result
        if found["decoded"]:
            return
        height, width, _ = found["shape"]
        text = (
            f"the images are large, {width}x{height} pixels, and are taken as they are; "
            "--image-size N (for example 224) trains on smaller ones, in less memory and time"
        )
        self.listener({"kind": "warning", "text": text})
        self._count(state, budget_mb)
        self._job(state, "prepare")

    def _count(self, state: RunState, budget_mb: float | None) -> None:
        """Find out what the modules cost, once."""
        if self.config.model.imported and state.meta("net") is None:
            self._job(state, "cut")
        if state.meta("demand") is None:
            self._job(state, "costs", budget_mb=budget_mb)

    def _foresee_export(self, state: RunState, budget_mb: float) -> None:
        """Warn, before the long part, of a budget in which the trained network may not be exported."""
        export_mb = math.ceil(state.meta("export_mb"))
        if export_mb > budget_mb and state.meta("result") is None:
            text = (
                f"exporting the trained network may take {export_mb} MiB, more than the budget; "
                f"edge-trgl resume {self.run.folder} --budget-mb {export_mb} --export does it then"
            )
            self.listener({"kind": "warning", "text": text})

    def _needs_plan(self, state: RunState, budget_mb: float | None, disk_mb: float) -> bool:
        """Whether there is none, or what is left to do has no room in one of the limits."""
        plan = state.meta("plan")
        if plan is None:
            return True
        over = plan["disk_mb"] > disk_mb or (budget_mb is not None and plan["peak_mb"] > budget_mb)
        return over and not self.config.budget.force and state.meta("result") is None

    def _probe(self, state: RunState, wanted: list[dict[str, Any]], room_mb: float) -> None:
        try:
            self._job(state, "probe", wanted=wanted, budget_mb=room_mb)
        except OverBudgetError:
            # Killed in the middle of one: it is the first that has no result.
            measured = state.meta("measured", {})
            key = next(one["key"] for one in wanted if one["key"] not in measured)
            state.set_meta("measured", {**measured, key: asdict(REFUSED)})

    def _work(self, state: RunState, budget_mb: float) -> None:
        """Train and evaluate; where memory or the disk was refused, from the last commit with less of that.

        Raises:
            OverBudgetError, DiskFullError: so many times in a row without a commit in between.
        """
        stuck = 0
        while state.meta("result") is None:
            position = state.position()
            try:
                self._count_start(state)
                with self._cgroup(state, budget_mb) as cgroup:
                    self._job(state, "train", cgroup=cgroup, budget_mb=budget_mb)
            except (OverBudgetError, DiskFullError) as error:
                stuck = stuck + 1 if state.position() == position else 1
                try:
                    self._answer(state, budget_mb, error, stuck)
                except DiskFullError as full:  # there may be no room to note it, either
                    full.hint = self._space_hint(state)
                    raise

    def _answer(
        self, state: RunState, budget_mb: float, error: OverBudgetError | DiskFullError, stuck: int
    ) -> None:
        """Plan with less of what was refused, unless that was so the last of `ATTEMPTS` times."""
        if isinstance(error, DiskFullError):
            # What is not committed is lost anyway, and the database needs some room as well.
            self.run.remove_uncommitted(state)
        if stuck == ATTEMPTS:
            state.add_event("stop", f"{error.message}; {ATTEMPTS} times without progress")
            raise error
        self._step_down(state, budget_mb, error)

    def _space_hint(self, state: RunState) -> str:
        missing_mb = math.ceil(state.meta("plan")["disk_mb"] - self._disk_mb(state))
        where = f"the disk that holds {self.run.folder}"
        free = (
            f"free {missing_mb} MiB on {where}"
            if missing_mb > 0
            else f"free space, or raise the quota, on {where}"
        )
        return f"What was committed is kept: {free}, then go on with edge-trgl resume {self.run.folder}."

    def _step_down(self, state: RunState, budget_mb: float, error: OverBudgetError | DiskFullError) -> None:
        refused = "disk" if isinstance(error, DiskFullError) else "memory"
        disk_mb = self._disk_mb(state)
        planned = self._job(state, "plan", budget_mb=budget_mb, disk_mb=disk_mb, refused=refused)
        changed = planned.result["changed"]
        text = f"{error.message}; {changed or 'the plan stays, for there is none that takes less'}"
        state.add_event("restart", text)
        self.listener({"kind": "warning", "text": f"{text}; going on from the last commit"})

    @contextmanager
    def _cgroup(self, state: RunState, budget_mb: float) -> Iterator[Path | None]:
        """A memory cgroup of the budget for the worker, where that is asked for and the system lets it."""
        if not self.config.budget.cgroup:
            yield None
            return
        try:
            # The run's own name: what a killed parent left behind is found and replaced by the next start.
            name = f"edge-trgl-{zlib.crc32(str(self.run.folder.resolve()).encode()):08x}"
            with memory_cgroup(budget_mb, name) as cgroup:
                try:
                    yield cgroup.path
                finally:
                    state.set_meta(
                        "cgroup_peak_mb", max(cgroup.peak_mb() or 0.0, state.meta("cgroup_peak_mb", 0.0))
                    )
        except CgroupUnavailableError as error:
            text = f"no memory cgroup: {error}; the budget is kept by the process's own limit"
            state.add_event("cgroup", text)
            self.listener({"kind": "warning", "text": text})
            yield None

    def verb(self, name: str, **options: Any) -> Any:
        """Run one job on a finished run; returns its result.

        Raises:
            UsageError: the run is not trained to its end.
        """
        with self._trained() as state:
            return self._job(state, name, **options).result

    def export(
        self,
        depth: str = "chosen",
        target: str | None = None,
        batch: str = "dynamic",
        exits: str | None = None,
        stages: str | None = None,
        forms: Sequence[Form] = (),
    ) -> dict[str, Any]:
        """Write model.onnx, and with `exits` model.exits, and check them; what stands in export.json.

        The options are those of `jobs.export` and, as `leaving`, of `jobs.calibrate`; `forms` are those of the
        smaller files beside model.onnx.

        Raises:
            UsageError: the run is not trained to its end, or has no such depth or stage.
            DoesNotFitError: the budget has no room for it.
            OverBudgetError: it took more than was foreseen.
            ExportRejectedError: it does not give what the network gives; an older export is still there.
        """
        if exits is not None:
            leaving_of(exits)
        elif stages is not None:
            raise UsageError("--stages goes with --exits", hint="--exits 0.9 writes the network in stages.")
        options = {"depth": depth, "target": target, "batch": batch, "stages": stages}
        with self._trained() as state, self._cleared():
            budget_mb = state.meta("budget_mb")
            try:
                document = self._exported(state, budget_mb, exits, {**options, "in_stages": exits is not None})
                try:
                    if forms:
                        return add_smaller(self.run, document, forms, budget_mb, partial(self._job, state))
                    return document
                finally:
                    if forms or exits is not None:
                        self._job(state, "report")  # it shows what leaving early spares, and the smaller files
            except OverBudgetError as error:
                hint = f"edge-trgl resume {self.run.folder} --budget-mb N --export tries again with more."
                raise OverBudgetError(
                    f"exporting took more than the budget of {budget_mb:.0f} MiB: {error.message}", hint=hint
                ) from error

    def _exported(
        self, state: RunState, budget_mb: float, exits: str | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        written = self._job(state, "export", budget_mb=budget_mb, **options)
        others_mb = high_water.peak_mb()
        limits: dict[str, Any] = {"others_mb": others_mb, "budget_mb": budget_mb}
        peak_mb, calibrated = written.peak_mb, None
        if exits is not None:
            outcome = self._job(state, "calibrate", written=written.result, leaving=exits, **limits)
            peak_mb, calibrated = max(peak_mb, outcome.peak_mb), outcome.result
        document: dict[str, Any] = self._job(
            state,
            "check",
            written=written.result,
            export_mb=peak_mb + others_mb,
            calibrated=calibrated,
            **limits,
        ).result
        return document

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Remove what an export that did not come to its end has written."""
        try:
            yield
        finally:
            folder = self.run.exits_folder
            models = (self.run.onnx_file, *map(self.run.smaller_file, FORMS))
            written = [path for model in models for path in self.run.folder.glob(f"{model.name}*.new")]
            for path in (*written, *folder.glob("*.new")):
                files.remove(path)
            with suppress(OSError):  # it is not there, or not empty
                folder.rmdir()

    @contextmanager
    def _trained(self) -> Iterator[RunState]:
        state = self.run.state()
        try:
            if state.meta("result") is None:
                raise UsageError(
                    f"{self.run.folder} is not trained to its end",
                    hint=f"Run edge-trgl resume {self.run.folder} first.",
                )
            yield state
        finally:
            state.close()

    def _job(self, state: RunState, name: str, *, cgroup: Path | None = None, **options: Any) -> Outcome:
        self.listener({"kind": "phase", "name": name})
        outcome = run_child(
            ["-m", "edge_trgl.jobs", name, str(self.run.folder), json.dumps(options)],
            on_message=self.listener,
            threads=self.config.train.threads,
            allocator=state.meta("allocator") or self._first_allocator(),
            cgroup=cgroup,
        )
        # The training process resets its high-water mark between visits and adds its maxima up itself.
        child_mb = max(outcome.result["peak_mb"], outcome.peak_mb) if name == "train" else outcome.peak_mb
        peak_mb = child_mb + high_water.peak_mb()
        state.set_meta("highest_child_mb", max(child_mb, state.meta("highest_child_mb", 0.0)))
        state.record_phase(name, peak_mb, outcome.seconds)
        budget_mb = state.meta("budget_mb")
        if budget_mb is not None and peak_mb > budget_mb:
            text = f"the job {name} took {peak_mb:.0f} MiB, more than the budget of {budget_mb:.0f} MiB"
            state.add_event("budget", text)
            self.listener({"kind": "warning", "text": text})
        return outcome

    def _first_allocator(self) -> Allocator:
        """Of the jobs before it is known how large tensors are."""
        return "default" if "allocator" in self.config.budget.without else "heap"

    def _budget(self, state: RunState, asked_mb: float | None) -> float | None:
        """The budget in MiB; None where the plan is to find the least."""
        available = counters.available_mb()
        wanted = asked_mb or state.meta("budget_mb") or self.config.budget.mb
        if wanted == "min":
            return None
        if wanted == "auto":
            return float(int(AUTO * available))
        if wanted > available:
            text = f"the budget of {wanted:.0f} MiB is more than is available; lowered to {available:.0f} MiB"
            self.listener({"kind": "warning", "text": text})
            state.add_event("budget", text)
            wanted = available
        return float(wanted)

    def _disk_mb(self, state: RunState, *, warn: bool = False) -> float:
        """MiB that the run's folder may take now: as many as it was given, where its disk has them."""
        there = disk_space.limit_mb(self.run.folder)
        wanted: float | None = state.meta("disk_mb") or self.config.budget.disk_mb
        if wanted is None or wanted <= there:
            return wanted or there
        if warn:
            text = f"the disk has no room for a run of {wanted:.0f} MiB; lowered to {there:.0f} MiB"
            self.listener({"kind": "warning", "text": text})
            state.add_event("disk", text)
        return there

    def _count_start(self, state: RunState) -> None:
        starts = state.meta("starts", 0) + 1
        state.set_meta("starts", starts)
        if starts > 1:
            state.add_event("resume", f"start number {starts}, from position {state.position()}")
