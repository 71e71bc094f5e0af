"""Measures steps that take a known amount of memory with `planning.measure`; prints the results."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from edge_trgl.planning import calibrated, measure
from edge_trgl.runtime.memory import allocator, counters
from edge_trgl.runtime.memory.device import Cpu
from edge_trgl.runtime.units import MIB


class Work:
    """Takes 1 MiB for each sample of a step, and `more` MiB more in step number `at` of one size."""

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
    """A device with a context of 300 MiB, on which each sample of a step takes 2 MiB."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def rest_mb(self):
        return 300.0

    def peak_mb(self):
        return 300.0 + 2 * self.work.sizes[-1]


def measured(work, room_mb, device=None):
    """Measure `work` on batches of 64, with `room_mb` MiB more than the process holds now."""
    allocator.trim()  # as the planner does before it measures
    before_mb = counters.usage().rss
    measurement = measure._measured(work, 64, before_mb + room_mb, device or Cpu())
    return {"measurement": asdict(measurement), "sizes": work.sizes, "before_mb": before_mb}


if __name__ == "__main__":
    on_device, too_large = Work(), Work()
    results = {
        "no room": measured(Work(), 40),
        "room": measured(Work(), 200),
        "second": measured(Work(more=16, at=2), 200),
        "device": measured(on_device, 600, Gpu(on_device)),
        "no room on the device": measured(too_large, 450, Gpu(too_large)),
        "last": measured(Work(more=16, at=1 + calibrated.PEAK_STEPS), 200),
    }
    json.dump(results, sys.stdout)
