"""Compare the product's count of GPU memory with torch's and the driver's."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Any

import psutil

from edge_trgl.config import sources
from edge_trgl.engine import process_setup, training
from edge_trgl.engine.open_run import OpenRun, open_run
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.planning import PlannedRun
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.device import THIS_MACHINE, Cuda, Machine, ThisMachine
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.processes.supervisor import Message
from edge_trgl.runtime.records import read_record
from edge_trgl.runtime.units import MIB
from tools.common import kernel
from tools.cuda.checks import Result, Setting
from tools.cuda.runs import PLENTY_MB, sections

UNDER, SLACK_MB = 0.05, 32.0
"""By so much of itself, or so many MiB, the driver's count may be above the product's."""

OVER = 0.25
"""And below it: a limit that was never reached costs room, not the promise."""

PLAN_OVER = 1.1
"""So many times the planned peak may be measured."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """MiB of the GPU at the end of training.

    `product`: what the product counts of what is held now; `driver`: what the driver holds, told `by` it.
    `highest`: the product's count of the highest moment; torch's allocator says `reserved_highest` of it.
    `budget`, `planned` and `measured`: of the whole process.
    """

    product: float
    driver: float
    by: str
    reserved: float
    reserved_highest: float
    highest: float
    budget: float
    planned: float
    measured: float


class Rehearsal(ThisMachine):
    """Stands for a GPU on a machine that has none: what this process allocates is its memory."""

    total = 1e6
    context = 300.0

    def has_cuda(self) -> bool:
        """It says so."""
        return True

    def is_integrated(self) -> bool:
        """As on most machines that have one."""
        return False

    def start(self) -> None:
        """Nothing to load."""

    def total_mb(self) -> float:
        """Enough for any process."""
        return self.total

    def free_mb(self) -> float:
        """What the context and the process leave."""
        return self.total - self.context - self.reserved_mb()

    def reserved_mb(self) -> float:
        """The private memory of this process."""
        memory = psutil.Process().memory_info()
        return float(memory.rss - memory.shared) / MIB

    def max_reserved_mb(self) -> float:
        """All of its memory, at most: no less than that."""
        return kernel.own_peak_mb()

    def release(self) -> None:
        """The heap."""
        allocator.trim()

    def set_fraction(self, fraction: float) -> None:
        """It has no allocator to limit."""


def memory_check(setting: Setting) -> Result:
    """Plan with measured steps, train in this process within the budget, and count in three ways."""
    name = {"model": {"name": "km-10-1", "width": 64}, "train": {"batch_size": 128}}
    layers = [sections(setting, setting.device), {} if setting.quick else name, {"budget": {"probe": True}}]
    run = Run.create(setting.scratch / "memory", sources.resolve(*layers))
    planned = read_record(PlannedRun, Pipeline(run.folder, _unheard).plan())
    opened, machine = _opened(run, setting.device)
    process_setup.begin(opened.device, Limits(budget_mb=PLENTY_MB), others_mb=0.0)
    result = training.train(opened, limits=planned.limits, others_mb=0.0)
    driver_mb, by = _driver_mb(machine)
    highest_mb, reserved_mb = opened.device.memory_mb(), machine.reserved_mb()
    counted = Counted(
        product=highest_mb - machine.max_reserved_mb() + reserved_mb,
        driver=driver_mb,
        by=by,
        reserved=reserved_mb,
        reserved_highest=machine.max_reserved_mb(),
        highest=highest_mb,
        budget=planned.limits.memory_mb,
        planned=planned.planned.plan.peak_mb,
        measured=result.peak_mb,
    )
    return judge_memory(counted, rehearsed=setting.device == "cpu")


def _opened(run: Run, device: str) -> tuple[OpenRun, Machine]:
    opened = open_run(run)
    if device != "cpu":
        return opened, THIS_MACHINE
    machine = Rehearsal()
    return replace(opened, device=_OnTheCpu(machine)), machine


class _OnTheCpu(Cuda):
    """Counts as a GPU's memory is counted, of a run that computes on the CPU."""

    name = "cpu"


def judge_memory(counted: Counted, *, rehearsed: bool = False) -> Result:
    """Never below the driver, which would break the promise, nor far above; the budget kept, the plan right."""
    counts = {
        "not below the driver": counted.driver - counted.product <= max(SLACK_MB, UNDER * counted.driver),
        "not far above the driver": counted.product - counted.driver <= max(SLACK_MB, OVER * counted.driver),
        "reserved is counted": counted.highest >= counted.reserved_highest >= counted.reserved > 0,
        "within the budget": counted.measured <= counted.budget,
    }
    if not rehearsed:  # a process's own memory stands for the GPU's there, and counts twice
        counts["as planned"] = counted.measured <= PLAN_OVER * counted.planned
    skipped = "the GPU was made up" if rehearsed else None
    details: dict[str, Any] = {"mb": vars(counted), "held": counts}
    return Result(name="memory", ok=all(counts.values()), details=details, skipped=skipped)


def _driver_mb(machine: Machine) -> tuple[float, str]:
    """MiB that the driver holds now, of this process where it can tell, else of all."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    if isinstance(machine, Rehearsal) or shutil.which(command[0]) is None:
        return machine.total_mb() - machine.free_mb(), "total less free"
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    own = own_row(listed, os.getpid())
    return (own, "nvidia-smi") if own is not None else (machine.total_mb() - machine.free_mb(), "total less free")


def own_row(listed: str, pid: int) -> float | None:
    """MiB of `pid` in nvidia-smi's rows `pid, MiB`; None where it has none that can be read."""
    for line in listed.splitlines():
        number, _, used = line.partition(",")
        if number.strip() == str(pid) and used.strip().isdecimal():
            return float(used)
    return None


def _unheard(message: Message) -> None:
    pass
