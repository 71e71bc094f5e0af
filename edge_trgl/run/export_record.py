"""What an export is: what its jobs tell one another, and what export.json says in the end.

Accuracies, agreements and shares are fractions; sizes end in `_bytes` or `_mb` (MiB), times in `_ms`. Modules are
counted from 1, as depths are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_trgl.config.export_request import Form, TargetName


@dataclass(frozen=True, kw_only=True)
class WrittenStage:
    """A stage in model.exits before it is published: its file, that of its weights, its first and last module.

    `data` is None where the weights are inside `file`.
    """

    file: str
    data: str | None
    modules: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class WrittenModels:
    """The models of one export, written but not yet compared with the network.

    Args:
        exits: the depths whose logits model.onnx gives.
        target: the runtime that it was written for.
        batch: samples that it takes at a time; None for any number.
        data: the name of the file of its weights; None where they are inside model.onnx.
        num_images: validation images that the network was shown.
        at_a_time: of these.
        stages: none where the export is one model.
    """

    exits: tuple[int, ...]
    target: TargetName
    batch: int | None
    data: str | None
    num_images: int
    at_a_time: int
    stages: tuple[WrittenStage, ...]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A published file."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How far logits of a file are from those of the network, over the same images.

    Args:
        num_images: how many were compared.
        max_abs_diff: the largest difference of a logit.
        median_abs_diff: the median over images of an image's largest difference.
        top1_agreement: the images with the same predicted class.
    """

    num_images: int
    max_abs_diff: float
    median_abs_diff: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Differences):
    """One exit of a file beside the same exit of the network.

    Args:
        depth: of the exit.
        accuracy: of the network.
        accuracy_onnx: of the file.
        ok: whether images were compared at all, and every difference is finite and within the tolerance.
    """

    depth: int
    accuracy: float
    accuracy_onnx: float
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Images that leave the network early: their accuracy, the mean share of the FLOPs of all stages that they
    take, and how many leave by each exit."""

    accuracy: float
    compute_share: float
    exits: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CommonThreshold(Balance):
    """The balance of one `threshold` shared by all exits except the last."""

    threshold: float


@dataclass(frozen=True, kw_only=True)
class SearchedThresholds(Balance):
    """The balance of thresholds, one for each exit but the last, that may lose `points` percentage points."""

    points: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyExitScores(Balance):
    """The exported thresholds on `num_images` images, beside the accuracy of every exit by itself."""

    num_images: int
    per_exit: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ValidationScores(EarlyExitScores):
    """The same on the images that thresholds are chosen on, with the curves that the report draws."""

    common: tuple[CommonThreshold, ...]
    searched: tuple[SearchedThresholds, ...]


@dataclass(frozen=True, kw_only=True)
class ChosenThresholds:
    """When samples leave a network early, and what that costs and saves.

    Args:
        asked: a probability, or `auto:` and percentage points, as `--exits` has it.
        chosen_on: which images stand for validation (`data.choose_on`).
        thresholds: of every stage but the last.
        flops: of one sample through each stage, classifier included.
        model_flops: of one sample through model.onnx.
        validation: on the images that the thresholds were chosen on.
        test: on the test images; None where there are none.
    """

    asked: str
    chosen_on: str
    thresholds: tuple[float, ...]
    flops: tuple[int, ...]
    model_flops: int
    validation: ValidationScores
    test: EarlyExitScores | None


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """A published stage; `modules`: its first and its last; `threshold`: None in the last stage."""

    files: tuple[FileRecord, ...]
    modules: tuple[int, int]
    flops: int
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class EarlyExitRecord(Differences):
    """The network in stages, in `folder`; the rest is as in `ChosenThresholds`."""

    folder: str
    stages: tuple[StageRecord, ...]
    asked: str
    chosen_on: str
    model_flops: int
    validation: ValidationScores
    test: EarlyExitScores | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One exit of a smaller file beside the same exit of model.onnx, over the same images.

    `max_relative_diff`: the largest difference of a logit as a share of the largest logit, where that is above 1.
    """

    depth: int
    num_images: int
    accuracy_fp32: float
    accuracy: float
    top1_agreement: float
    max_relative_diff: float

    @property
    def loss(self) -> float:
        """The accuracy that is lost; below 0 where the smaller file does better."""
        return self.accuracy_fp32 - self.accuracy


@dataclass(frozen=True, kw_only=True)
class SmallerFile:
    """A published model.fp16.onnx: both accuracies at its deepest exit, the worst differences over all exits."""

    file: str
    files: tuple[FileRecord, ...]
    num_bytes: int
    accuracy_fp32: float
    accuracy: float
    top1_agreement: float
    max_relative_diff: float
    exits: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class MethodScore:
    """What a method of calibration gave: accuracy at the deepest exit, the worst of all exits for the others."""

    accuracy: float
    top1_agreement: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class QuantisedFile(SmallerFile):
    """A published model.int8.onnx.

    Args:
        form: of its integers, in words.
        num_calibrated: training images that the ranges of activations were taken from.
        method: of calibration, the one that was taken.
        methods: what each gave, by name.
    """

    form: str
    num_calibrated: int
    method: str
    methods: Mapping[str, MethodScore]


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A smaller file that was not accurate enough: the reason, a sentence."""

    rejected: str


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """The exported files, run in turn on the CPU; `p50_ms`: the median of each, by file name.

    `measured`: what, in words. `runs`: of each file, on `batch` samples, in `threads` threads.
    """

    measured: str
    onnxruntime: str
    machine: str
    threads: int
    batch: int
    runs: int
    p50_ms: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ExportRecord(Differences):
    """What export.json says; the differences are the worst of all exits.

    Args:
        file: model.onnx.
        files: it, and its weights where they are in a file of their own.
        num_bytes: of `files` together.
        target, opset, ir: the runtime it was written for, the ONNX opset and the version of the format.
        batch: samples that it takes at a time; None for any number.
        depth: the deepest exit.
        exits: the others, too.
        early_exit: None where the network was not exported in stages.
        budget_mb, peak_mb: what the export's processes were allowed, and took at most, their parent included.
        smaller: the files beside model.onnx.
        latency: None where there are no smaller files, or the budget left no room to measure them.
    """

    file: str
    files: tuple[FileRecord, ...]
    num_bytes: int
    target: TargetName
    opset: int
    ir: int
    batch: int | None
    depth: int
    exits: tuple[Comparison, ...]
    early_exit: EarlyExitRecord | None
    budget_mb: float
    peak_mb: float
    smaller: Mapping[Form, SmallerFile | QuantisedFile | RefusedFile] = field(default_factory=dict)
    latency: Latencies | None = None
