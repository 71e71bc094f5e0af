"""Steps that take a known amount of memory, measured by `planning.measure`; prints what was found."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from edge_trgl.planning import calibrated, measure
from edge_trgl.runtime.memory import allocator, counters
from edge_trgl.runtime.memory.device import Cpu
from edge_trgl.runtime.units import MIB


class Work:
    """Each sample of a step takes a MiB, and the step `at` a place `more`; knows the sizes of its steps."""

    parts = 1
    opening_mb = 0.0

    def __init__(self, *, more=0, at=0):
        self.sizes, self.more, self.at = [], more, at

    def step(self, size):
        self.sizes.append(size)
        size += self.more if self.sizes.count(size) == self.at else 0
        bytearray(size * MIB)[::4096] = bytes(size * MIB // 4096)

    def own_mb(self):
        return 0.0


class Gpu(Cpu):
    """Beside 300 MiB of context, a step takes two MiB here for each that it takes in the process."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def rest_mb(self):
        return 300.0

    def peak_mb(self):
        return 300.0 + 2 * self.work.sizes[-1]


def measured(work, room_mb, device=None):
    """`work` on batches of 64, where so much more than the process has may be taken."""
    allocator.trim()  # as before a step measured
    before_mb = counters.usage().rss
    found = measure._measured(work, 64, before_mb + room_mb, device or Cpu())
    return {"measurement": asdict(found), "sizes": work.sizes, "before_mb": before_mb}


if __name__ == "__main__":
    on_device, too_large = Work(), Work()
    found = {
        "no room": measured(Work(), 40),
        "room": measured(Work(), 200),
        "second": measured(Work(more=16, at=2), 200),
        "device": measured(on_device, 600, Gpu(on_device)),
        "no room on the device": measured(too_large, 450, Gpu(too_large)),
        "last": measured(Work(more=16, at=1 + calibrated.PEAK_STEPS), 200),
    }
    json.dump(found, sys.stdout)
