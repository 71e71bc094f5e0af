"""A job in plain numbers, as the planner gets it, and what was measured of it. Sizes are in bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from edge_trgl.runtime.storage.blocks import USUAL_BLOCK_BYTES

Order = Literal["stream", "cache", "rounds"]
"""stream: a chunk of batches goes through all modules; each boundary is read once, in order. cache: a module is
trained for many epochs on a boundary of all samples. rounds: every batch goes up through all modules, whose
boundaries are kept, and its gradient comes down again."""

FORWARD = "forward"
"""The name of the work that trains nothing; the other works are named by their level of recomputation."""


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """One module, in bytes.

    `kind`: modules of one kind cost the same in every respect, on the same machine with the same libraries.
    `weights` and `momentum`: all that is paged. `opening`: peak while the module is made with its first weights,
    these included. `gradients`: the most that are alive at once, as part of a training work. `works`: peak of the
    tensors beyond what is paged and the input, for one (micro-)batch: `forward`, and one work for each level of
    recomputation. `reads` and `writes`: one sample of its input and output boundary. `widened`: one sample of its
    input once more, if it is stored in fewer bits than it is read.
    """

    kind: str
    weights: int
    momentum: int
    opening: int
    gradients: int
    works: Mapping[str, int]
    reads: int
    writes: int
    widened: int = 0

    @property
    def state(self) -> int:
        """All that is paged."""
        return self.weights + self.momentum


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to compute the job.

    `size`: samples in one forward pass. `lossy`: what is not exact about it, by the names under which it is
    allowed; empty for an exact form.
    """

    order: Order
    rows: tuple[ModuleRow, ...]
    size: int
    lossy: tuple[str, ...] = ()


SCORED_BATCHES = 32
"""The most batches of validation samples that go through the modules at once between two that are trained."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The job.

    `forms`: exact ones first. `levels`: levels of recomputation, the fastest first, with the share of a forward
    pass that each computes again. `fixed_mb`: estimate of the process before its first module, which includes
    `others_mb`, the processes beside it; `floor_mb`: peak of the jobs before training. `workspace`: estimate of
    what kernels take inside a work, as a share of it. `held_bytes`: what training holds beside its modules.
    `epochs`: of each module, over all `laps`; `one_by_one`: a stream that trains one module at a time, through
    those before it. `frozen`: number of leading modules that are never trained; `kept`: their output is cached for
    all of training. `copies`: of a cached boundary. `recalibrates`: one more pass follows training. `image_bytes`:
    one image as stored. `pictured`: the modules whose training reads the images beside their input. `num_scored`:
    samples of the largest set that is evaluated. `num_looked_at`: validation samples that go through modules
    between visits of training, 0 if none do: through all of them `looks` times, or where that is None, through the
    trained ones whenever one more is trained. `converted`: whether files of all modules exist before training.
    `stored_bytes`: on the disk before training, without these files; `block_bytes`: the unit in which files grow
    there. `read_mbs`, `write_mbs`: speed of the storage, 10^6 bytes a
    second; `endurance_tb`: 10^12 bytes that may be written to it, None if unknown. `chunk` and `resident`: as
    asked for, None to choose. `allowed`: names of lossy forms. `without`: savings that are switched off: `paging`,
    `disk`, `recompute`.
    """

    forms: tuple[Form, ...]
    levels: Mapping[str, float]
    batch_size: int
    batches_per_epoch: int
    num_samples: int
    fixed_mb: float
    others_mb: float
    workspace: float
    held_bytes: int
    epochs: tuple[int, ...]
    floor_mb: float = 0.0
    laps: int = 1
    one_by_one: bool = False
    frozen: int = 0
    kept: bool = False
    copies: int = 1
    recalibrates: bool = False
    image_bytes: int = 0
    pictured: tuple[int, ...] = ()
    num_scored: int = 0
    num_looked_at: int = 0
    looks: int | None = None
    converted: bool = False
    stored_bytes: int = 0
    block_bytes: int = USUAL_BLOCK_BYTES
    checkpoint_s: float = 300.0
    read_mbs: float = 200.0
    write_mbs: float = 200.0
    endurance_tb: float | None = None
    chunk: int | None = None
    resident: int | None = None
    prefetch: bool = True
    allowed: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def repeated(self, form: Form) -> tuple[ModuleRow, ...]:
        """The modules that training comes back to: all except those whose output is kept."""
        return form.rows[self.frozen :] if self.kept else form.rows

    def rounds(self, form: Form, chunk: int) -> int:
        """How often training goes through the modules, in chunks of `chunk` batches."""
        if form.order == "cache":
            return self.laps
        epochs = sum(self.epochs) if self.one_by_one else max(self.epochs)
        return epochs * math.ceil(self.batches_per_epoch / chunk)

    def reads_again(self, form: Form, chunk: int) -> bool:
        """Whether training comes back to a module; if not, each is made once, alone in memory."""
        return form.order == "rounds" or self.rounds(form, chunk) > 1

    def works_of(self, module: int, level: str) -> tuple[str, ...]:
        """The works of a module in training whose steps recompute at `level`."""
        return (FORWARD,) if module < self.frozen else (level, FORWARD)

    def scorings(self, form: Form, module: int) -> int:
        """How often the validation samples go through a module between two that are trained."""
        if self.looks is not None:
            return self.looks
        last = len(form.rows) - 1
        return max(last - max(module, self.frozen), 0) if self.num_looked_at else 0

    @property
    def growing_at_once(self) -> int:
        """Validation samples in a chunk that goes through the trained modules."""
        return min(SCORED_BATCHES * self.batch_size, self.num_looked_at)

    def at_batch_size(self, form: Form) -> Demand:
        """The same job with exact batches of the size that the micro-batches of `form` have."""
        batches = max(self.num_samples // form.size, 1)
        exact = replace(form, rows=tuple(map(_alone, form.rows)), lossy=())
        return replace(self, batch_size=form.size, batches_per_epoch=batches, forms=(exact,))


def _alone(row: ModuleRow) -> ModuleRow:
    """The row of a micro-batch, without the gradients of the ones before it."""
    works = {name: work - (0 if name == FORWARD else row.gradients) for name, work in row.works.items()}
    return replace(row, works=works)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One work of one kind of module, measured in a process of its own.

    `work_mb`: peak above what the process holds between steps; `opening_mb`: the same while the module was made;
    `fixed_mb`: what it holds between steps, without the module and its batch; `seconds`: one step. `refused`: it
    exceeded the budget under which it was tried.
    """

    work_mb: float
    opening_mb: float
    fixed_mb: float
    seconds: float
    refused: bool = False


REFUSED = Measurement(work_mb=0.0, opening_mb=0.0, fixed_mb=0.0, seconds=0.0, refused=True)

Measurements = Mapping[str, Measurement]
"""Measurements by `work_key`."""


def work_key(kind: str, work: str, size: int) -> str:
    """The key of a work of a kind of module on `size` samples."""
    return f"{kind}-{work}-{size}"
