"""Visits, the unit of all training and evaluation: one module, in memory, on a short stretch of batches.

They are plain data. `regimes` yields visits, `trainer` carries them out, `commits` decides when to commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edge_trgl.learning.step_kinds import StepKind

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """The tensor that enters a module, or its gradient: `records` samples, each in `copies` augmented versions.

    A boundary without a name is the images themselves, freshly augmented for each span. If its `records` is set,
    it is the versions that the frozen passes of a lap read, one for each copy; with `once`, of the first lap.
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
        epoch: determines the order, the augmentation and the learning rate; of a boundary with V copies, copy
            epoch mod V is read or written.
        shuffled: whether samples are shuffled; else they come in stored order, and the last batch may be short.
        augmented: whether images are augmented.
        lap: of multi-lap training, from 0.
        source: the module whose cached boundary the samples are read from; they are shuffled only locally, so that
            reading stays sequential. 0 means the images, shuffled freely.
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
        kind: the kind of step.
        module: its number, from 0.
        span: the batches.
        reads: the module's input. A backward visit also reads the gradient of the output; a visit whose loss
            compares with the images also reads the images that the input came from.
        writes: the input of the next module, or the gradient of this one's input.
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
        """Training batches in an epoch: a short last one is dropped, unless it is kept or the only one."""
        return self.batches_per_pass if self.keeps_short else max(self.num_samples // self.batch_size, 1)

    @property
    def batches_per_pass(self) -> int:
        """Number of batches that cover every sample; the last may be short."""
        return -(-self.num_samples // self.batch_size)
