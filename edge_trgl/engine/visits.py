"""Visits, the unit of all training and evaluation: one module, in memory, on a short stretch of batches.

Plain data. `regimes` yields visits, `trainer` carries them out, `commits` decides after which one to commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_trgl.learning.step_kinds import StepKind

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The tensor that enters a module, or its gradient: `records` samples, each in `copies` augmented versions.

    The boundary without a name is the images themselves. They are freshly augmented for each span; if `records` is
    set, they are the versions that the frozen passes of a lap read, one for each copy; with `once`, those of the
    first lap.
    """

    name: str
    module: int
    records: int = 0
    copies: int = 1
    once: bool = False


IMAGES = Boundary("", 0)


@dataclass(frozen=True, slots=True)
class Span:
    """Batches `start` to `stop` (exclusive) of one pass over a split.

    Attributes:
        epoch: keys the order, the augmentation and the learning rate; for a boundary of V copies it stands for
            copy epoch mod V.
        shuffled: without it, samples come in the order in which they are stored, and the last batch may be short.
        lap: of multi-lap training.
        source: the module whose cached boundary the samples are read from, which limits how far they are shuffled
            so that reading stays sequential; 0 is the images, shuffled freely.
    """

    split: Split
    epoch: int
    start: int
    stop: int
    shuffled: bool
    augmented: bool
    lap: int = 0
    source: int = 0


@dataclass(frozen=True, slots=True)
class Visit:
    """One module on one span.

    Attributes:
        reads: the module's input. A backward visit also reads the gradient of the output; a visit whose loss
            compares with the images also reads the images that the input came from.
        writes: what enters the next module, or the gradient of what entered this one.
        drops: names of the boundaries that no later visit reads.
    """

    kind: StepKind
    module: int
    span: Span
    reads: tuple[Boundary, ...]
    writes: tuple[Boundary, ...] = ()
    drops: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JobSize:
    """The size of a job in modules, samples and batches: what a regime needs to know of it.

    Attributes:
        augmented: samples are augmented, so that copies of a boundary differ.
        keeps_short: an epoch ends with its short batch, if it has one.
        stretch: the largest number of batches in one visit, so that a commit can fall between visits.
    """

    num_modules: int
    num_samples: int
    batch_size: int
    augmented: bool
    keeps_short: bool = False
    stretch: int = 16

    @property
    def batches_per_epoch(self) -> int:
        """Training batches an epoch: a short last one is dropped, unless it is kept or the only one."""
        return self.batches_per_pass if self.keeps_short else max(self.num_samples // self.batch_size, 1)

    @property
    def batches_per_pass(self) -> int:
        """Batches that cover every sample."""
        return -(-self.num_samples // self.batch_size)
