"""Records of an export: what its jobs pass to one another, and the content of export.json.

Accuracies, agreements and shares are fractions; sizes end in `_bytes` or `_mb` (MiB), times in `_ms`. Modules are
counted from 1, as depths are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_trgl.config.export_request import Form, TargetName


@dataclass(frozen=True, kw_only=True)
class WrittenStage:
    """An early-exit stage in model.exits that is not published yet.

    Attributes:
        file: the name of its file.
        data: the name of the file of its weights; None where they are inside `file`.
        modules: its first and its last module.
    """

    file: str
    data: str | None
    modules: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class WrittenModels:
    """The models of one export, written but not yet compared with the network.

    Attributes:
        exits: the depths whose logits are outputs of model.onnx.
        target: the runtime that it was written for.
        batch: samples that it takes at a time; None for any number.
        data: the name of the file of its weights; None where they are inside model.onnx.
        num_images: validation images that were passed through the network, to compare with.
        at_a_time: images in a batch of these.
        stages: the early-exit stages; empty where the export is one model.
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
    """A published file: its name, size in bytes and SHA-256 (hex)."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How far a file's logits are from those of the network, over the same images.

    Attributes:
        num_images: number of images compared.
        max_abs_diff: the largest difference of a logit.
        median_abs_diff: the median over images of an image's largest difference.
        top1_agreement: fraction of the images with the same predicted class.
    """

    num_images: int
    max_abs_diff: float
    median_abs_diff: float
    top1_agreement: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Differences):
    """One exit of a file compared with the same exit of the network.

    Attributes:
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
    """What early exits cost and save over a set of images.

    Attributes:
        accuracy: of the answers at the exits taken.
        compute_share: mean share of the FLOPs of all stages that an image takes.
        exits: number of images that leave by each exit.
    """

    accuracy: float
    compute_share: float
    exits: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class CommonThreshold(Balance):
    """The balance of one confidence `threshold` shared by all exits except the last."""

    threshold: float


@dataclass(frozen=True, kw_only=True)
class SearchedThresholds(Balance):
    """The balance of searched `thresholds`, one for each exit except the last.

    They were searched to lose at most `points` percentage points of accuracy.
    """

    points: float
    thresholds: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class EarlyExitScores(Balance):
    """The balance of the exported thresholds on `num_images` images, and the accuracy of every exit by itself."""

    num_images: int
    per_exit: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ValidationScores(EarlyExitScores):
    """The scores on the images that thresholds are chosen on, with the curves that the report draws.

    Attributes:
        common: one threshold for all exits.
        searched: thresholds for each exit.
    """

    common: tuple[CommonThreshold, ...]
    searched: tuple[SearchedThresholds, ...]


@dataclass(frozen=True, kw_only=True)
class ChosenThresholds:
    """The thresholds at which samples leave a network early, and what that costs and saves.

    Attributes:
        asked: the value of `--exits`: a probability, or `auto:` and percentage points.
        chosen_on: the images that thresholds were chosen on (`data.choose_on`).
        thresholds: of every stage except the last.
        flops: of one sample through each stage, classifier included.
        model_flops: of one sample through model.onnx.
        validation: scores on the images that thresholds were chosen on.
        test: scores on the test images; None where there are none.
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
    """A published stage.

    Attributes:
        files: the model, and its weights where they are in a file of their own.
        modules: its first and its last module.
        flops: of one sample through it, classifier included.
        threshold: the confidence at which samples leave after it; None in the last stage.
    """

    files: tuple[FileRecord, ...]
    modules: tuple[int, int]
    flops: int
    threshold: float | None


@dataclass(frozen=True, kw_only=True)
class EarlyExitRecord(Differences):
    """The network as early-exit stages in `folder`; other fields as in `ChosenThresholds`."""

    folder: str
    stages: tuple[StageRecord, ...]
    asked: str
    chosen_on: str
    model_flops: int
    validation: ValidationScores
    test: EarlyExitScores | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One exit of a smaller file compared with the same exit of model.onnx, over the same images.

    Attributes:
        depth: of the exit.
        num_images: number of images compared.
        accuracy_fp32: of model.onnx.
        accuracy: of the smaller file.
        top1_agreement: fraction of the images with the same predicted class.
        max_relative_diff: the largest difference of a logit, divided by the largest logit where that is above 1.
    """

    depth: int
    num_images: int
    accuracy_fp32: float
    accuracy: float
    top1_agreement: float
    max_relative_diff: float

    @property
    def loss(self) -> float:
        """The accuracy lost, a fraction; negative where the smaller file does better."""
        return self.accuracy_fp32 - self.accuracy


@dataclass(frozen=True, kw_only=True)
class SmallerFile:
    """A published model.fp16.onnx: both accuracies at its deepest exit, and the worst differences of all exits."""

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
    """The result of a calibration method: accuracy at the deepest exit, agreement and loss of the worst exit."""

    accuracy: float
    top1_agreement: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class QuantisedFile(SmallerFile):
    """A published model.int8.onnx.

    Attributes:
        form: the types of its integers, in words.
        num_calibrated: training images from which the ranges of activations were measured.
        method: the calibration method that was chosen.
        methods: the result of each method, by name.
    """

    form: str
    num_calibrated: int
    method: str
    methods: Mapping[str, MethodScore]


@dataclass(frozen=True, kw_only=True)
class RefusedFile:
    """A smaller file that was not accurate enough; `rejected` is the reason, a sentence."""

    rejected: str


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Latencies of the exported files, run in turn on the CPU.

    Attributes:
        measured: what was measured, in words.
        onnxruntime: its version.
        machine: the machine's architecture.
        threads: number of threads.
        batch: samples in a run.
        runs: number of runs of each file.
        p50_ms: the median latency by file name.
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
    """The content of export.json; the inherited differences are the worst of all exits.

    Attributes:
        file: the name of model.onnx.
        files: model.onnx, and its weights where they are in a file of their own.
        num_bytes: of `files` together.
        target: the runtime that it was written for.
        opset: the ONNX opset.
        ir: the version of the ONNX format.
        batch: samples that it takes at a time; None for any number.
        depth: of the deepest exit.
        exits: the comparison of every exit.
        early_exit: the stages; None where the network was not exported in stages.
        budget_mb: the budget of the export's processes, parent included.
        peak_mb: the most that they took.
        smaller: the smaller files beside model.onnx, by form.
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
