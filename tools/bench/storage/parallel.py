"""Compare parallel training with one module in memory and with all of them, chunks as planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.bench.nets import Net, Row
from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale, ratio, target

NETS = {
    "K-M 10-1, width 256": Net(
        title="K-M 10-1, width 256",
        model={"name": "km-10-1", "width": 256},
        num_modules=10,
        batches=12,
        tight_mb=700,
    ),
    "K-M 50-1, width 64": Net(
        title="K-M 50-1, width 64",
        model={"name": "km-50-1", "width": 64},
        num_modules=50,
        batches=20,
        tight_mb=400,
    ),
}
TINY = Net(title="K-M 3-1", model={"name": "km-3-1", "width": 8}, num_modules=3, batches=4, tight_mb=400)
ONE = Row(title="one in memory", loop="product", train={}, budget={"resident": "1"})
ALL = Row(title="all in memory", loop="product", train={}, budget={"chunk": "1"})


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """The time of an epoch with one module in memory over that with all, for each net."""
    nets = {"quick": TINY} if scale.quick else NETS
    found = {}
    for name, net in nets.items():
        rounds = bench.race([(net, ONE, True), (net, ALL, True)], scale.rounds)
        found[name] = ratio([(one.seconds, every.seconds) for one, every in rounds])
    return found


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """At least 87 % of the step rate."""
    return [
        target(f"parallel, {name}: step rate, one in memory / all", 1 / one["median"], 0.87, least=True)
        for name, one in found.items()
    ]


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    return [
        f"parallel  {name}: time, one in memory / all {one['median']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
        for name, one in found.items()
    ]
