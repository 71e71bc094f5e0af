"""The jobs of a run, in their order: what each is asked, and what it answers.

A job runs in a process of its own, `python -m edge_trgl.jobs NAME RUN REQUEST`; the module `edge_trgl.jobs.NAME`
is its entry. Between the processes requests and results are JSON; on both sides they are these classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from edge_trgl.config.export_request import Form
from edge_trgl.run.export_record import (
    ChosenThresholds,
    ExportRecord,
    Latencies,
    QuantisedFile,
    SmallerFile,
    WrittenModels,
)
from edge_trgl.run.facts import Result, Scores
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.planner import PlanStep, Wanted
from edge_trgl.runtime.processes.machine_speed import MachineSpeed

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Job(Generic[Q, R]):
    """A job by its name. `result`: its type, as `from_json` takes it; None where the answer is in the database."""

    name: str
    request: type[Q]
    result: Any = None


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The request of a job that is told nothing but the run."""


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """`survey_large`: large images that stay as large are only surveyed, not decoded."""

    survey_large: bool = False


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """`decoded`: whether the images are records now. `shape`: (height, width, channels). `images`: by split."""

    decoded: bool
    shape: tuple[int, ...]
    classes: int
    images: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """`limits`: an open budget is the least that works."""

    limits: Limits


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """`limits`: an open budget is the least that works. `refused`: what training by the last plan was refused."""

    limits: Limits
    refused: Literal["memory", "disk"] | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """`limits`: of the process that measures, and its parent."""

    wanted: tuple[Wanted, ...]
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """`limits`: of the whole run."""

    limits: Limits


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """The scores, and the sha256 of the weights that have them."""

    scores: Scores
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """`depth`, `target`, `batch`, `stages`: as the command line takes them. `in_stages`: in stages as well."""

    limits: Limits
    depth: str
    target: str | None
    batch: str
    in_stages: bool
    stages: str | None


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """`written`: the result of the job `export`. `leaving`: a probability, or auto:POINTS. `others_mb`: MiB at
    most of the parent."""

    limits: Limits
    others_mb: float
    written: WrittenModels
    leaving: str


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """`written` and `chosen`: the results of the jobs `export` and `calibrate`. `export_mb`: MiB at most of
    these and their parent, `others_mb`: of the parent now."""

    limits: Limits
    others_mb: float
    export_mb: float
    written: WrittenModels
    chosen: ChosenThresholds | None


@dataclass(frozen=True, kw_only=True)
class SmallerRequest:
    """`form`: of the file. `others_mb`: MiB at most of the parent."""

    limits: Limits
    others_mb: float
    form: Form


@dataclass(frozen=True, kw_only=True)
class LatencyRequest:
    """`names`: of files in the run's folder. `others_mb`: MiB at most of the parent."""

    limits: Limits
    others_mb: float
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """`against`: folders of other trained runs."""

    against: tuple[str, ...] = ()


PREPARE = Job[PrepareRequest, PrepareResult]("prepare", PrepareRequest, PrepareResult)
CUT = Job[Nothing, None]("cut", Nothing)
COUNT = Job[CountRequest, None]("count", CountRequest)
PLAN = Job[PlanRequest, PlanStep]("plan", PlanRequest, PlanStep)
PROBE = Job[ProbeRequest, None]("probe", ProbeRequest)
CONVERT = Job[Nothing, None]("convert", Nothing)
TRAIN = Job[TrainRequest, Result]("train", TrainRequest, Result)
EVALUATE = Job[Nothing, EvaluateResult]("evaluate", Nothing, EvaluateResult)
EXPORT = Job[ExportRequest, WrittenModels]("export", ExportRequest, WrittenModels)
CALIBRATE = Job[CalibrateRequest, ChosenThresholds]("calibrate", CalibrateRequest, ChosenThresholds)
CHECK = Job[CheckRequest, ExportRecord]("check", CheckRequest, ExportRecord)
SMALLER = Job[SmallerRequest, SmallerFile]("smaller", SmallerRequest, SmallerFile | QuantisedFile)
LATENCY = Job[LatencyRequest, Latencies]("latency", LatencyRequest, Latencies)
REPORT = Job[ReportRequest, None]("report", ReportRequest)
MACHINE = Job[Nothing, MachineSpeed]("machine", Nothing, MachineSpeed)

JOBS: Mapping[str, Job[Any, Any]] = {
    job.name: job
    for job in (
        PREPARE,
        CUT,
        COUNT,
        PLAN,
        PROBE,
        CONVERT,
        TRAIN,
        EVALUATE,
        EXPORT,
        CALIBRATE,
        CHECK,
        SMALLER,
        LATENCY,
        REPORT,
        MACHINE,
    )
}
