"""RunFacts: the database of a run with what it knows about itself, typed. No other file names a key of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from edge_trgl.run.chain_layout import ChainLayout
from edge_trgl.runtime.memory.allocator import Allocator
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner.alternatives import Alternative
from edge_trgl.runtime.planner.demand import Demand, Measurement
from edge_trgl.runtime.planner.plan import Plan
from edge_trgl.runtime.planner.traffic import Traffic
from edge_trgl.runtime.records import Document, from_json, to_json
from edge_trgl.runtime.storage.state import RunState

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What the modules cost: the planner's `demand`, and the chain's layout in each of its forms.

    `environment`: what the bits of the run depend on beside its configuration. `allocator`: what becomes of freed
    memory in its processes; `fragmentation_bytes`: of a
    tensor that may find no place among it.
    """

    demand: Demand
    layouts: tuple[ChainLayout, ...]
    environment: Mapping[str, str | int]
    allocator: Allocator
    fragmentation_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModuleNeeds:
    """What one module takes in a step, in MiB, part by part, and the peak of the run's processes in its visits.

    `head` is None without one; `step_s` (seconds) is None where no step was measured.
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

    `table`: of each module. `alternatives`: of cached boundaries. `missed`: the peak in MiB without each saving.
    `export_mb`: what exporting takes at most.
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
    """What training took so far, over all starts. An image counts once every module has trained on it."""

    seconds: float = 0.0
    steps: int = 0
    images: float = 0.0
    read_mb: float = 0.0
    written_mb: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a commit knows beside positions and files.

    `module_peaks`: MiB of the run's processes at most in visits of each module. `chunk`: the batches in a chunk
    that positions are counted by; None before the first commit.
    """

    work: Work = Work()
    module_peaks: Mapping[int, float] = field(default_factory=dict)
    chunk: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies (fractions) of a trained run.

    `per_depth`: on validation, from `first_depth` on (end-to-end only the last depth has a head).
    `chosen_depth`: in modules, from 1, the first best on validation. `chosen` and `last`: on the test set at the
    chosen and the last depth, None without one. `test_per_depth`: of all, which nothing is chosen by.
    `chosen_on`: what stood for validation; `half-test` is every other test image.
    """

    first_depth: int
    per_depth: tuple[float, ...]
    chosen_depth: int
    chosen: float | None
    last: float | None
    test_per_depth: tuple[float, ...]
    chosen_on: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """How training ended. `peak_mb`: of the training process and its device; `method`: how that is counted."""

    scores: Scores
    weights_sha256: str
    work: Work
    peak_mb: float
    method: str


@dataclass(frozen=True, kw_only=True)
class PretrainedFile:
    """The file that first weights were read from, and the sha256 of what was taken of it."""

    file: str
    sha256: str


_MISSING: Any = object()


class Fact(Generic[T]):
    """A fact of a run, kept as JSON under the attribute's name; reading one that is not there is a LookupError.

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
            found: T = from_json(self._kind, value)
            return found
        if self._default is _MISSING:
            raise LookupError(f"{facts.path}: this run has no {self._key} yet")
        return self._default

    def __set__(self, facts: RunFacts, value: T) -> None:
        facts.set_meta(self._key, to_json(value))

    def is_set(self, facts: RunFacts) -> bool:
        """Whether the run has it already."""
        return facts.meta(self._key, _MISSING) is not _MISSING

    def entry(self, value: T) -> Document:
        """What `RunState.commit` keeps of it with a commit."""
        return {self._key: to_json(value)}


class RunFacts(RunState):
    """The database of a run; made where there is none. Setting a fact writes it.

    `limits`: what the run may take, once it is planned; the disk's before that, where resume was given one.
    `net`: the model, where it had to be cut; {} where it was a chain already. `measured`: by `work_key`.
    `starts`: of training. `cgroup_peak_mb`: as the kernel charged it. `highest_child_mb`: of any child process.
    """

    limits = Fact[Limits](Limits, Limits())
    net = Fact[Document](dict)
    counted = Fact[Counted](Counted)
    measured = Fact[Mapping[str, Measurement]](Mapping[str, Measurement], {})
    planned = Fact[Planned](Planned)
    pretrained = Fact[PretrainedFile](PretrainedFile)
    starts = Fact[int](int, 0)
    progress = Fact[Progress](Progress, Progress())
    result = Fact[Result](Result)
    cgroup_peak_mb = Fact[float | None](float | None, None)
    highest_child_mb = Fact[float](float, 0.0)

    @property
    def is_cut(self) -> bool:
        """Whether it is known what blocks the model has."""
        return RunFacts.net.is_set(self)

    @property
    def is_counted(self) -> bool:
        """Whether it is known what the modules cost."""
        return RunFacts.counted.is_set(self)

    @property
    def is_planned(self) -> bool:
        """Whether there is a plan."""
        return RunFacts.planned.is_set(self)

    @property
    def is_trained(self) -> bool:
        """Whether training and evaluation have come to their end."""
        return RunFacts.result.is_set(self)
