"""RunFacts: typed access to a run's database. No other file names a key of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.run.data_summary import DataSummary
from edge_trgl.run.wording import samples_word
from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.demand import Demand, Measurement
from edge_trgl.runtime.planner.plan import Alternative, Plan, Traffic
from edge_trgl.runtime.records import Document, from_json, to_json
from edge_trgl.runtime.storage.state import RunState

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the modules cost.

    Attributes:
        demand: the planner's input.
        layouts: the chain's layout in each form of the demand.
        environment: what exact results depend on besides the configuration.
        allocator: how the run's processes treat freed memory.
        fragmentation_bytes: size of a tensor that may not fit the freed blocks.
        engine_mb: MiB of what this package loads and holds in training, beside the modules.
    """

    demand: Demand
    layouts: tuple[ChainLayout, ...]
    environment: Mapping[str, str | int]
    allocator: Allocator
    fragmentation_bytes: int
    engine_mb: float


@dataclass(frozen=True, kw_only=True)
class ModuleNeeds:
    """What one module takes in a step, part by part, and the peak of the run's processes in its visits.

    Sizes are in MiB. `head` is None without one; `step_s` (seconds) is None where no step was measured.
    """

    module: int
    name: str
    head: str | None
    params: int
    weights_mb: float
    gradients_mb: float
    momentum_mb: float
    activations_mb: float
    workspace_mb: float
    buffers_mb: float
    peak_mb: float
    step_s: float | None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """The plan and what it means.

    Attributes:
        plan: the plan.
        layout: the chain's layout under it.
        table: the needs of each module.
        traffic: what training reads from and writes to the disk.
        alternatives: other ways to keep cached boundaries.
        missed: the peak in MiB without each saving, by its name.
        export_mb: the most that exporting takes, in MiB.
    """

    plan: Plan
    layout: ChainLayout
    table: tuple[ModuleNeeds, ...]
    traffic: Traffic
    alternatives: tuple[Alternative, ...]
    missed: Mapping[str, float]
    export_mb: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """Totals of training so far, over all starts; an image counts as one when every module has trained on it.

    `major_faults`: the times that training waited for a page from a disk, beside what it read itself.
    """

    seconds: float = 0.0
    steps: int = 0
    images: float = 0.0
    read_mb: float = 0.0
    written_mb: float = 0.0
    major_faults: int = 0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a commit stores besides the position and the files.

    Attributes:
        work: totals of training so far.
        module_peaks: peak MiB of the run's processes in the visits of each module.
        chunk: batches in a chunk when the position was counted; None before the first commit.
    """

    work: Work = Work()
    module_peaks: Mapping[int, float] = field(default_factory=dict)
    chunk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What an autoencoder reached.

    Attributes:
        validation, test: mean squared errors on normalised samples; None where there are no such samples. The unit
            is the variance of the training samples: 1 is as good as their mean.
        num_modules: number of leading modules of the whole network that its blocks fill, the last one not counted.
    """

    validation: float | None
    test: float | None
    num_modules: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies (fractions) of a trained run; depths are in modules, from 1. An autoencoder has none.

    Attributes:
        first_depth: the first depth with a head; in end-to-end training the last depth.
        per_depth: validation accuracy at each depth from `first_depth` on.
        chosen_depth: the depth with the best validation accuracy, the smallest of equals.
        chosen: test accuracy at the chosen depth; None without a test set.
        last: test accuracy at the last depth; None without a test set.
        test_per_depth: test accuracy at each depth; nothing is chosen by it.
        chosen_on: the images used for validation; `half-test` is every other test image.
        reconstruction: the errors of an autoencoder; None for a classifier.
    """

    first_depth: int
    per_depth: tuple[float, ...]
    chosen_depth: int
    chosen: float | None
    last: float | None
    test_per_depth: tuple[float, ...]
    chosen_on: str
    reconstruction: Reconstruction | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of training.

    Attributes:
        scores: accuracies.
        weights_sha256: SHA-256 (hex) of the weights that were scored.
        work: totals of training.
        peak_mb: peak of the training process and its device, in MiB.
        method: how memory was counted.
    """

    scores: Scores
    weights_sha256: str
    work: Work
    peak_mb: float
    method: str


@dataclass(frozen=True, kw_only=True)
class TauScore:
    """What a value of tau gave in a short training: accuracy on validation samples, a fraction; None: no term."""

    tau: float | None
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class PretrainedFile:
    """The file or run that first weights were read from, and the SHA-256 (hex) of the files read."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PretrainedFit:
    """How the tensors of a pretrained file fit the blocks of the network.

    Attributes:
        file: the file or run, as the user named it.
        fitting: number of tensors of the blocks that the file has, with their names and shapes.
        wanted: number of tensors of the blocks.
        missing: names of those that the file lacks.
        different: sentences about those that have other shapes in the file.
        unused: names in the file that are in no block and not in the classifier.
    """

    file: str
    fitting: int
    wanted: int
    missing: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """A line for the plan, which names the first of those that do not fit."""
        parts = [f"{self.fitting} of the {self.wanted} tensors of the network are in {self.file}"]
        for what, names in (
            ("it lacks", self.missing),
            ("of another shape:", self.different),
            ("not used:", self.unused),
        ):
            if names:
                more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                parts.append(f"{what} {', '.join(names[:NAMES_SHOWN])}{more}")
        return "; ".join(parts)


NAMES_SHOWN = 3
"""The most names of tensors that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What pixels are normalised with instead of the statistics of the training images.

    Attributes:
        name: where the numbers come from, in words.
        mean, std: one number for each channel, on the scale of 0 to 1 for bytes, else in the data's own units.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def text(self) -> str:
        """A line for the plan."""
        mean, std = (", ".join(f"{number:.4g}" for number in numbers) for numbers in (self.mean, self.std))
        return f"pixels are normalised as {self.name}: mean {mean}; std {std}"


_MISSING: Any = object()


class Fact(Generic[T]):
    """A descriptor that keeps a fact of a run in its database, as JSON under the attribute's name.

    Reading a fact that is not set and has no default raises LookupError.

    Args:
        kind: its type.
        default: its value before it is set.
    """

    def __init__(self, kind: Any, default: T = _MISSING) -> None:
        self._kind, self._default = kind, default

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = name

    @overload
    def __get__(self, facts: None, owner: type) -> Fact[T]: ...

    @overload
    def __get__(self, facts: RunFacts, owner: type) -> T: ...

    def __get__(self, facts: RunFacts | None, owner: type) -> Fact[T] | T:
        if facts is None:
            return self
        value = facts.meta(self._key, _MISSING)
        if value is not _MISSING:
            fact: T = from_json(self._kind, value)
            return fact
        if self._default is _MISSING:
            raise LookupError(f"{facts.path}: this run has no {self._key} yet")
        return self._default

    def __set__(self, facts: RunFacts, value: T) -> None:
        facts.set_meta(self._key, to_json(value))

    def is_set(self, facts: RunFacts) -> bool:
        """Return whether the fact is set."""
        return facts.meta(self._key, _MISSING) is not _MISSING

    def entry(self, value: T) -> Document:
        """Return the database entry of `value`, for `RunState.commit` to write with a commit."""
        return {self._key: to_json(value)}


class RunFacts(RunState):
    """The database of a run, created if there is none. Setting a fact writes it.

    Attributes:
        fingerprint: of the prepared data; empty before they are prepared.
        limits: the limits the run was planned for; before planning, only a disk limit that resume was given.
        data_summary: what was found in the data; None before they were read.
        net: the model that was cut; {} if the model was a chain already.
        counted: what the modules cost.
        measured: measurements of steps, by `work_key`.
        planned: the plan.
        pretrained: the file that first weights came from.
        pretrained_fit: how that file fits the network; None before it was opened, and without one.
        library_normalisation: what the library of the model normalises with; None if that is not known.
        normalisation: what pixels are normalised with; None for the statistics of the training images.
        tau_scores: of the values of tau that were tried, in the order of `tau_scan`.
        whole_torch: whether a job failed with a torch of which parts were left out.
        starts: number of times training was started.
        progress: what the last commit stores besides the position and the files.
        result: the result of training.
        cgroup_peak_mb: peak MiB as the kernel charged it to the run's cgroup; None without one.
        highest_child_mb: the highest peak of any child process, in MiB.
    """

    fingerprint = Fact[str](str, "")
    limits = Fact[Limits](Limits, Limits())
    data_summary = Fact[DataSummary | None](DataSummary | None, None)
    net = Fact[Document](dict)
    counted = Fact[Counted](Counted)
    measured = Fact[Mapping[str, Measurement]](Mapping[str, Measurement], {})
    planned = Fact[Planned](Planned)
    pretrained = Fact[PretrainedFile](PretrainedFile)
    pretrained_fit = Fact[PretrainedFit | None](PretrainedFit | None, None)
    library_normalisation = Fact[Normalisation | None](Normalisation | None, None)
    normalisation = Fact[Normalisation | None](Normalisation | None, None)
    tau_scores = Fact[tuple[TauScore, ...]](tuple[TauScore, ...], ())
    whole_torch = Fact[bool](bool, default=False)
    starts = Fact[int](int, 0)
    progress = Fact[Progress](Progress, Progress())
    result = Fact[Result](Result)
    cgroup_peak_mb = Fact[float | None](float | None, None)
    highest_child_mb = Fact[float](float, 0.0)

    @property
    def samples_word(self) -> str:
        """What the run's samples are called: images or windows."""
        summary = self.data_summary
        return "images" if summary is None else samples_word(summary.shape)

    @property
    def is_cut(self) -> bool:
        """Whether the model's blocks are known."""
        return RunFacts.net.is_set(self)

    @property
    def is_counted(self) -> bool:
        """Whether the cost of the modules is known."""
        return RunFacts.counted.is_set(self)

    @property
    def is_planned(self) -> bool:
        """Whether there is a plan."""
        return RunFacts.planned.is_set(self)

    @property
    def is_trained(self) -> bool:
        """Whether training and evaluation are finished."""
        return RunFacts.result.is_set(self)
