"""The jobs of a run, in their order, with their requests and results.

A job runs in its own process, `python -m edge_trgl.jobs NAME RUN REQUEST`, and its entry is the module
`edge_trgl.jobs.NAME`. Requests and results are JSON between the processes, and these classes in each of them.
`limits` are those of the job's process and its parent together, and `others_mb` is the parent's peak in MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from edge_trgl.config.data import DataConfig
from edge_trgl.config.export_request import Form
from edge_trgl.run.data_summary import DataSummary
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
from edge_trgl.runtime.planner.plan import PlanStep, Wanted
from edge_trgl.runtime.processes.machine_speed import MachineSpeed
from edge_trgl.runtime.records import Document, document_of

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True)
class Job(Generic[Q, R]):
    """A job: its name, the type of its request, and the type of its result, as `from_json` takes it.

    `result` is None where the job stores its result in the database. `torch`: what of torch
    the job loads, light without the parts that no training step calls; see `light_torch`.
    """

    name: str
    request: type[Q]
    result: Any = None
    torch: Literal["none", "light", "whole"] = "none"


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """The request of a job that needs nothing but the run."""


@dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """The request of `prepare`.

    Attributes:
        survey_large: whether large images that keep their size are surveyed, not decoded.
        cache: the folder that keeps prepared data for other runs; None for no such folder.
        anew: whether to decode again, because what was prepared is damaged.
    """

    survey_large: bool = False
    cache: str | None = None
    anew: bool = False


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """The result of `prepare`.

    Attributes:
        decoded: whether the images are decoded into records.
        summary: what was found in the data.
        fingerprint: of the records; empty before they are decoded.
        reused: whether the data had been prepared before, for another run.
        damage: what was wrong with the data prepared before; empty if nothing was, or there were none.
    """

    decoded: bool
    summary: DataSummary
    fingerprint: str
    reused: bool
    damage: str


@dataclass(frozen=True, kw_only=True)
class SurveyRequest:
    """The request of `survey`, which needs no run: what to read, and the seed of the splits that are drawn."""

    data: DataConfig
    seed: int


@dataclass(frozen=True, kw_only=True)
class CountRequest:
    """The request of `count`; a budget of None asks for the smallest that works."""

    limits: Limits


@dataclass(frozen=True, kw_only=True)
class MatchRequest:
    """The request of `match`; a budget of None is any."""

    limits: Limits


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """The request of `plan`; a budget of None asks for the smallest that works.

    `refused` is what ran out when training followed the last plan; None otherwise.
    """

    limits: Limits
    refused: Literal["memory", "disk"] | None = None


@dataclass(frozen=True, kw_only=True)
class ProbeRequest:
    """The request of `probe`: the steps to measure."""

    wanted: tuple[Wanted, ...]
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The request of `train`."""

    limits: Limits


@dataclass(frozen=True, kw_only=True)
class ScanRequest:
    """The request of `scan`: the number of a value of tau to try."""

    limits: Limits
    number: int


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """The result of `evaluate`: the scores, and the SHA-256 (hex) of the weights that were scored."""

    scores: Scores
    weights_sha256: str


def evaluation_document(result: EvaluateResult) -> Document:
    """Return the JSON object that `edge-trgl evaluate --json` prints."""
    return {**document_of(result.scores), "weights_sha256": result.weights_sha256}


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The request of `export`; `depth`, `target`, `batch` and `stages` are as on the command line.

    `in_stages` asks for early-exit stages besides model.onnx.
    """

    limits: Limits
    depth: str
    target: str | None
    batch: str
    in_stages: bool
    stages: str | None


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """The request of `calibrate`: `written` is the result of `export`, `leaving` the value of `--exits`."""

    limits: Limits
    others_mb: float
    written: WrittenModels
    leaving: str


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """The request of `check`: `written` and `chosen` are the results of `export` and `calibrate`.

    `export_mb` is the peak of these two jobs, parent included, in MiB.
    """

    limits: Limits
    others_mb: float
    export_mb: float
    written: WrittenModels
    chosen: ChosenThresholds | None


@dataclass(frozen=True, kw_only=True)
class SmallerRequest:
    """The request of `smaller`: the form of the file to write."""

    limits: Limits
    others_mb: float
    form: Form


@dataclass(frozen=True, kw_only=True)
class LatencyRequest:
    """The request of `latency`: the names of the files in the run's folder to measure."""

    limits: Limits
    others_mb: float
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """The request of `report`: the folders of other trained runs to compare with."""

    against: tuple[str, ...] = ()


PREPARE = Job[PrepareRequest, PrepareResult]("prepare", PrepareRequest, PrepareResult)
SURVEY = Job[SurveyRequest, DataSummary]("survey", SurveyRequest, DataSummary)
CUT = Job[Nothing, None]("cut", Nothing, torch="whole")
COUNT = Job[CountRequest, None]("count", CountRequest, torch="light")
MATCH = Job[MatchRequest, None]("match", MatchRequest, torch="light")
PLAN = Job[PlanRequest, PlanStep]("plan", PlanRequest, PlanStep)
PROBE = Job[ProbeRequest, None]("probe", ProbeRequest, torch="light")
CONVERT = Job[Nothing, None]("convert", Nothing, torch="light")
SCAN = Job[ScanRequest, Result]("scan", ScanRequest, Result, torch="light")
TRAIN = Job[TrainRequest, Result]("train", TrainRequest, Result, torch="light")
EVALUATE = Job[Nothing, EvaluateResult]("evaluate", Nothing, EvaluateResult, torch="light")
EXPORT = Job[ExportRequest, WrittenModels]("export", ExportRequest, WrittenModels, torch="light")
CALIBRATE = Job[CalibrateRequest, ChosenThresholds]("calibrate", CalibrateRequest, ChosenThresholds)
CHECK = Job[CheckRequest, ExportRecord]("check", CheckRequest, ExportRecord)
SMALLER = Job[SmallerRequest, SmallerFile]("smaller", SmallerRequest, SmallerFile | QuantisedFile)
LATENCY = Job[LatencyRequest, Latencies]("latency", LatencyRequest, Latencies)
REPORT = Job[ReportRequest, None]("report", ReportRequest)
MACHINE = Job[Nothing, MachineSpeed]("machine", Nothing, MachineSpeed, torch="light")

JOBS: Mapping[str, Job[Any, Any]] = {
    job.name: job
    for job in (
        PREPARE,
        SURVEY,
        CUT,
        COUNT,
        MATCH,
        PLAN,
        PROBE,
        CONVERT,
        SCAN,
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
