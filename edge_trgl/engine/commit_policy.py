"""What decides when training commits, and what it may take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_trgl.engine.visits import Visit
from edge_trgl.runtime.memory.limits import Limits


@dataclass(frozen=True, kw_only=True)
class CommitPolicy:
    """When to commit, and what the run may take.

    Attributes:
        checkpoint_s: seconds between two commits.
        others_mb: peak of the processes beside this one.
        planned_mb: planned peak of a visit of each module.
        num_heads: number of modules with a loss of their own.
        classifies: whether their heads are classifiers, and so have an accuracy.
        trim: give freed heap back to the system when a module has left memory.
        total_steps: steps of all modules together.
        room_mb: what the plan leaves the run on the disk at the moment.
        chunk: batches in a chunk; the positions of visits depend on it.
        stop_requested: whether a signal has asked for a stop.
        learning_rate: the rate of a batch of a visit.
    """

    checkpoint_s: float
    limits: Limits
    others_mb: float
    planned_mb: Sequence[float]
    num_heads: int
    classifies: bool
    trim: bool
    total_steps: int
    room_mb: Callable[[], float]
    chunk: int
    stop_requested: Callable[[], bool]
    learning_rate: Callable[[Visit, int], float]
