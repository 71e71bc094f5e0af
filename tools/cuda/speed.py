"""Measure images/s and peak memory of each regime and of bare PyTorch on one GPU, and of a wide network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tools.bench.nets import GREEDY, ROWS, TINY, Net, Row
from tools.bench.regime_runs import Bench
from tools.cuda.checks import Result, Setting

NET = Net(
    title="K-M 10-1, width 64",
    model={"name": "km-10-1", "width": 64},
    num_modules=10,
    batches=8,
    tight_mb=0,
    epochs=8,
    batch_size=128,
)
WIDE = Net(
    title="K-M 10-1, width 256",
    model={"name": "km-10-1", "width": 256},
    num_modules=10,
    batches=8,
    tight_mb=0,
    epochs=4,
    batch_size=128,
)

UNMEASURED = {"probe": False}
"""The budget decides nothing here, and steps that are measured for a plan would take their time."""

PRODUCT = {
    "parallel": Row(title="parallel", loop="product", train={}, budget={**UNMEASURED, "chunk": "1"}),
    "sequential": Row(title="sequential", loop="product", train={"regime": "sequential"}, budget={**UNMEASURED}),
    "multi-lap": Row(
        title="multi-lap, 2 laps", loop="product", train={"regime": "multi-lap", "laps": 2}, budget={**UNMEASURED}
    ),
    "end-to-end": Row(
        title="end-to-end",
        loop="product",
        train={"regime": "end-to-end"},
        budget={**UNMEASURED, "resident": "auto"},
    ),
}
"""Every regime with all of its modules in memory."""

BARE = {"bare end-to-end": ROWS["end-to-end"], "bare greedy": GREEDY}
BASE = "bare greedy"
"""What images a second are held against."""


def speed(setting: Setting) -> Result:
    """The rows of `PRODUCT` and `BARE`, one after the other."""
    rows = {**PRODUCT, **BARE}
    wanted = {name: rows[name] for name in ("parallel", BASE)} if setting.quick else rows
    return _measured("speed", setting, TINY if setting.quick else NET, wanted)


def full_speed(setting: Setting) -> Result:
    """Parallel training of the wide net, and the bare loop over the same modules."""
    wanted = {"parallel": PRODUCT["parallel"], BASE: GREEDY}
    if setting.quick:
        del wanted[BASE]
    return _measured("full-speed", setting, TINY if setting.quick else WIDE, wanted)


def _measured(name: str, setting: Setting, net: Net, rows: Mapping[str, Row]) -> Result:
    scratch = setting.scratch / name
    scratch.mkdir()
    bench = Bench(scratch, setting.threads, setting.device)
    return judge_rows(name, net.title, {title: bench.figures(net, row) for title, row in rows.items()})


def judge_rows(name: str, net: str, rows: Mapping[str, Mapping[str, Any]]) -> Result:
    """Whether every row has its figures; how fast they are is for people to judge, beside the bare greedy loop."""
    failed = [title for title, row in rows.items() if "error" in row or not row["images_per_s"] > 0]
    shown = ("error", "images_per_s", "peak_mb", "rss_mb", "seconds", "accuracy")
    figures = {title: {key: row[key] for key in shown if key in row} for title, row in rows.items()}
    speeds = {title: row["images_per_s"] for title, row in rows.items() if title not in failed}
    shares = {title: speed / speeds[BASE] for title, speed in speeds.items()} if BASE in speeds else {}
    details = {"net": net, "rows": figures, "times_bare_greedy": shares, "failed": failed}
    return Result(name=name, ok=not failed, details=details)
