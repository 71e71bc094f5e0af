"""Networks and rows of the regime benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_trgl.runtime.planner.plan import Placement

NUM_HELD = 64
"""Validation images, and test images where accuracy is not asked for."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net with its images.

    `side`: pixels of resized images, None for the sample as it is; `batches`: of an epoch; `tight_mb`: the budget
    of the rows with one module in memory; `scored`: train long enough for an accuracy to mean something.
    """

    title: str
    model: Mapping[str, Any]
    num_modules: int
    batches: int
    tight_mb: float
    side: int | None = None
    epochs: int = 2
    batch_size: int = 64
    num_test: int = NUM_HELD
    scored: bool = False


NETS = {
    "resnet110": Net(
        title="ResNet-110, a block a module, 96x96",
        model={"name": "resnet110", "modules": 54},
        num_modules=54,
        batches=1,
        tight_mb=490,
        side=96,
    ),
    "km64": Net(
        title="K-M 10-1, width 64",
        model={"name": "km-10-1", "width": 64},
        num_modules=10,
        batches=32,
        tight_mb=340,
        epochs=2,
        num_test=1000,
        scored=True,
    ),
    "km256": Net(
        title="K-M 10-1, width 256",
        model={"name": "km-10-1", "width": 256},
        num_modules=10,
        batches=3,
        tight_mb=560,
    ),
}

TINY = Net(
    title="K-M 3-1, width 16 (only to try the tool)",
    model={"name": "km-3-1", "width": 16},
    num_modules=3,
    batches=4,
    tight_mb=340,
    batch_size=16,
    scored=True,
)

GROWTH = Net(
    title="K-M K-1, width 128, one module in memory",
    model={"width": 128, "downsample": []},
    num_modules=10,
    batches=3,
    tight_mb=420,
    epochs=1,
)
GROWTH_MODULES = (10, 20, 50)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A loop and the sections [train] and [budget] of its run.

    `tight`: within the net's small budget. `transport`: with the transport term, if the regime has it.
    `placement`: where boundaries are, whatever the plan says. `group`: of block devices that the process is put
    into.
    """

    title: str
    loop: str
    train: Mapping[str, Any]
    budget: Mapping[str, Any]
    tight: bool = False
    transport: bool = True
    placement: Placement | None = None
    group: Path | None = None

    @property
    def bare(self) -> bool:
        """Whether it is PyTorch alone."""
        return self.loop != "product"


ROWS = {
    "end-to-end": Row(title="end-to-end (bare)", loop="end-to-end", train={"regime": "end-to-end"}, budget={}),
    "checkpointing": Row(
        title="end-to-end, checkpointing (bare)", loop="checkpointed", train={"regime": "end-to-end"}, budget={}
    ),
    "parallel": Row(title="parallel, all in memory", loop="product", train={}, budget={"chunk": "1"}),
    "one-module": Row(
        title="parallel, one in memory", loop="product", train={}, budget={"resident": "1"}, tight=True
    ),
    "multi-lap": Row(
        title="multi-lap, 2 laps", loop="product", train={"regime": "multi-lap", "laps": 2}, budget={}, tight=True
    ),
    "sequential": Row(title="sequential", loop="product", train={"regime": "sequential"}, budget={}, tight=True),
}
GREEDY = Row(title="bare greedy loop", loop="greedy", train={}, budget={})
