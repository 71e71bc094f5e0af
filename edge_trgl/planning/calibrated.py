"""The tuned constants of planning, which were measured or chosen once.

Each gives its unit and what is known of its origin. `[x86]`: measured on an x86-64 machine with torch's CPU build
(oneDNN). `[-]`: measured, but the machine was not recorded. `[chosen]`: not measured. No commands were recorded;
to check the constants that decide a plan, compare planned with measured peaks by the budget proof in `tools`. The
planner's own constants are in `edge_trgl.runtime.planner.calibrated`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_trgl.runtime.memory.allocator_settings import Allocator
from edge_trgl.runtime.units import MIB

if TYPE_CHECKING:  # choosing a plan loads no torch
    from edge_trgl.method.recompute import Recompute

# ---- what a step takes beside its tensors

WORKSPACE: dict[Allocator, float] = {"heap": 0.25, "huge": 0.02, "default": 0.25}
"""Share of a step's tensors that kernels and the heap take on top of them, by allocator.

On a heap it includes fragmentation: glibc needs more for an aligned tensor than the gap that one of the same size
has left. Whole nets took 0.02 to 0.03 with huge pages and 0.1 to 0.24 on a heap. [x86]"""

HEAP_MARGIN: dict[Allocator, float] = {"heap": 0.03, "huge": 0.0, "default": 0.03}
"""Share by which later steps may exceed the highest measured one, by allocator.

K-M nets that were trained end to end in memory took up to 0.04 more than the highest of four measured steps: K-M
20-1 642 MiB of 629 planned, K-M 50-1 458 of 449. [-]"""

FRAGMENTED_TENSORS = 4
"""Number of largest tensors that may find no gap in a fragmented heap at the same time.

Peaks of K-M 20-1 with batches of 128 differed by up to 12 MiB from step to step. [-]"""

FRAGMENTED_SHARE = 0.02
"""Share of the budget that those tensors may take; if they exceed it, freed memory is returned to the system.

At its smallest budget K-M 20-1 then planned 335 MiB instead of 352, and trained 1.25 times as slowly. [-]"""

LEVELS: dict[Recompute, float] = {"none": 0.0, "norms": 0.1, "blocks": 1.0}
"""Levels of recomputation, fastest first, each with the share of a forward pass that it adds to a step. [x86]"""

# ---- how long a step takes, to choose between heads

OPERATION_S = 1.4e-5
BYTE_S = 2.6e-10
MULTIPLICATION_S = 3.0e-11
"""Seconds of an operation, whatever it does, of a byte of a new tensor, and of a multiplication in convolutions
and products of matrices.

Fitted to the CPU time of steps of eight kinds of heads on ten sizes of maps, in batches of 32 on one thread: 69 of
the 80 are met within a factor of 1.5. An average over maps that no ReLU precedes takes up to three times as long,
because its gradient has another layout. [x86]"""

# ---- what processes take beside the modules

FIRST_STEP_MB = 7.0
"""MiB that the first real steps load beyond the warm-up: kernels for other shapes, generated code. [x86]"""

PARENT_MB = 14.0
"""MiB that the parent process, which starts the jobs, grows to in the course of a run.

13.4 to 13.6 were seen in runs of every verb, Python 3.11; 13.9 where no compiled modules could be kept. [x86]"""

ENGINE_BYTES = 7 * MIB
"""Bytes that training holds beside modules and data, and measuring does not.

Files, database, threads, and mapped pages of libraries (the kernel also maps neighbouring pages that its cache
happens to hold): 2 to 6 MiB. With 4 MiB ResNet-110 passed a budget of 554 MiB by 2. [x86]"""

SAMPLE_BYTES = 60
"""Bytes per training sample: label, checksum, stored order and its inverse, the orders of this epoch and the last,
and the temporaries from which these are made. [-]"""

RECORD_BYTES = 40
"""Bytes per record of a live boundary. [-]"""

JOB_MARGIN_MB = 3.0
"""MiB by which the peak of a job before training may differ between identical runs; up to 2 were seen. [-]"""

EXPORTER_MB = 13.0
"""MiB that exporting loads and training does not; 13 were seen: a K-M 10-1 of width 16, `train --export`. [x86]"""

# ---- how counting and measuring go about it

WHOLE_FACTOR = 2
"""End to end, a net is counted whole only if the budget has room for this many times its weights and momentum,
and for a step of a few samples with all activations kept; counting takes as much. [chosen]"""

REAL_MB = 40.0
"""MiB that counting one module may take before it goes on without values.

Counting without values takes twice as much whatever the module (torch's own Python), and is slower for small ones.
[x86]"""

HOPE = 1.25
"""An estimate of up to this many times the budget is measured before large images are refused. [chosen]"""

PEAK_STEPS = 4
"""Number of measured steps whose highest peak counts: on a heap, one to three tensors find no gap, by chance.
[chosen]"""

TIMED_STEPS = 2
"""Number of timed steps, of which the fastest counts. [chosen]"""

STORAGE_MBS = 200.0
"""10^6 bytes a second that are assumed of a disk that has neither a profile nor a measurement. [chosen]"""
