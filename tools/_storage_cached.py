"""A module trained on its cached boundary: in RAM, on this disk, on a slow disk. A section of bench_storage.py."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from _bench import Bench
from _nets import Net, Row
from _storage_scale import Scale, ratio, target

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

BLKIO = Path("/sys/fs/cgroup/blkio")


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Seconds of an epoch in RAM, on disk and, where that can be made, on a slowed disk; each over that in RAM."""
    net = TINY if scale.quick else NET
    with _slowed(scale.scratch) as group:
        rows = {"RAM": replace(ROW, placement="memory"), "disk": replace(ROW, placement="disk")}
        if group is not None:
            rows["slow disk"] = replace(rows["disk"], group=group)
        rounds = bench.race([(net, row, True) for row in rows.values()], scale.rounds)
    arms = [dict(zip(rows, turns, strict=True)) for turns in rounds]
    figures: dict[str, Any] = {"net": net.title, "boundary_mb": _boundary_bytes(net) / 1e6}
    figures["disk / RAM"] = ratio([(turn["disk"], turn["RAM"]) for turn in arms])
    if group is None:
        return {**figures, "no_slow_disk": "no io cgroup can be made here"}
    least_s = max(statistics.median(turn["RAM"] for turn in arms), _boundary_bytes(net) / (SLOW_MBS * 1e6))
    figures["slow disk / its limit"] = ratio([(turn["slow disk"], least_s) for turn in arms])
    return figures


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
    rate = 1 / found["disk / RAM"]["median"]
    targets = [target("cached boundary, step rate on disk / in RAM", rate, 0.97, least=True)]
    if "slow disk / its limit" in found:
        over = found["slow disk / its limit"]["median"]
        name = f"cached boundary at {SLOW_MBS:.0f} MB/s, time / max(compute, bytes / bandwidth)"
        targets.append(target(name, over, 1.10))
    return targets


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """For people."""
    return [
        f"cached    {found['net']} ({found['boundary_mb']:.0f} MB)",
        *(
            f"cached    time {name}: {one['median']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
            for name, one in found.items()
            if isinstance(one, dict)
        ),
    ]
