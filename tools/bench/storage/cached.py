"""Time a module that trains on its cached boundary in RAM, on this disk and on a slow disk."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.bench.nets import Net, Row
from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale, ratio, target

SLOW_MBS = 45.0
"""MB/s of the slowed disk: a good SD card."""

NET = Net(
    title="K-M 2-1, width 64, its second module on 3,840 cached samples",
    model={"name": "km-2-1", "width": 64},
    num_modules=2,
    batches=60,
    tight_mb=400,
)
TINY = replace(
    NET, title="K-M 2-1, width 8 (only to try the tool)", model={"name": "km-2-1", "width": 8}, batches=4
)
ROW = Row(title="cached", loop="product", train={"regime": "sequential", "freeze": 1}, budget={})

DISK, SPARED, SLOW = "disk / RAM", "disk / RAM, a core to spare", "slow disk / its limit"
CPU = "disk / RAM, CPU time with a core to spare"

BLKIO = Path("/sys/fs/cgroup/blkio")


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Seconds of an epoch in RAM, on disk and, where that can be made, on a slowed disk; each over that in RAM.

    With several threads once more with one less: then a core is left to the thread that reads, and none waits for
    another, so that the CPU time is that of the work.
    """
    net = TINY if scale.quick else NET
    figures: dict[str, Any] = {"net": net.title, "boundary_mb": _boundary_bytes(net) / 1e6}
    if scale.threads > 1:
        folder = scale.scratch / "spared"
        folder.mkdir()
        rounds = Bench(folder, scale.threads - 1).race(_arms(net, None), scale.rounds)
        figures[SPARED] = ratio([(disk.seconds, ram.seconds) for ram, disk in rounds])
        figures[CPU] = ratio([(disk.cpu_seconds, ram.cpu_seconds) for ram, disk in rounds])
    with _slowed(scale.scratch) as group:
        rounds = bench.race(_arms(net, group), scale.rounds)
    figures[DISK] = ratio([(disk.seconds, ram.seconds) for ram, disk, *_ in rounds])
    if group is None:
        return {**figures, "no_slow_disk": "no io cgroup can be made here"}
    least_s = max(statistics.median(ram.seconds for ram, *_ in rounds), _boundary_bytes(net) / (SLOW_MBS * 1e6))
    figures[SLOW] = ratio([(slow.seconds, least_s) for _, _, slow in rounds])
    return figures


def _arms(net: Net, slow: Path | None) -> list[tuple[Net, Row, bool]]:
    """The boundary in RAM, on disk, and on the disk of the cgroup `slow`."""
    disk = replace(ROW, placement="disk")
    rows = [replace(ROW, placement="memory"), disk, *([replace(disk, group=slow)] if slow else [])]
    return [(net, row, True) for row in rows]


def _boundary_bytes(net: Net) -> int:
    """Of the boundary: 28x28 images are halved once before it."""
    return int(net.batches * net.batch_size * net.model["width"] * 14 * 14 * 4)


@contextmanager
def _slowed(folder: Path) -> Iterator[Path | None]:
    """A cgroup whose processes read the disk of `folder` at SLOW_MBS; None where there can be none."""
    group = BLKIO / f"edge-trgl-bench-{os.getpid()}"
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        group.mkdir()
        (group / "blkio.throttle.read_bps_device").write_text(f"{name} {SLOW_MBS * 1e6:.0f}")
    except OSError:
        with suppress(OSError):
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        with suppress(OSError):  # a process may still be ending
            group.rmdir()


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """At least 97 % of the step rate, and within 10 % of what the slowed disk allows."""
    targets = [
        target(f"cached boundary, step rate of {name}", 1 / found[name]["median"], 0.97, least=True)
        for name in (DISK, SPARED)
        if name in found
    ]
    if SLOW in found:
        name = f"cached boundary at {SLOW_MBS:.0f} MB/s, time / max(compute, bytes / bandwidth)"
        targets.append(target(name, found[SLOW]["median"], 1.10))
    return targets


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    return [
        f"cached    {found['net']} ({found['boundary_mb']:.0f} MB)",
        *(
            f"cached    time {name}: {one['median']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
            for name, one in found.items()
            if isinstance(one, dict)
        ),
    ]
