"""Compare the test accuracy of the disk-friendly sample order and of a full shuffle.

    python -m tools.bench.storage.order RUN BUDGET

is the training job of a planned run, with every epoch shuffled in full.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench.nets import Net, Row
from tools.bench.regime_runs import Bench
from tools.bench.storage.scale import Scale, target
from tools.common.intervals import mean_interval
from tools.common.processes import output_of
from tools.common.programs import program

SEEDS = 5
NET = Net(
    title="K-M 3-1, width 32, sequential, the sample",
    model={"name": "km-3-1", "width": 32},
    num_modules=3,
    batches=60,
    epochs=8,
    num_test=1000,
    tight_mb=400,
)
TINY = Net(title="K-M 2-1", model={"name": "km-2-1", "width": 4}, num_modules=2, batches=4, tight_mb=400)
ORDERS = ("windowed", "full")


def measure(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Test accuracy of the last module by seed, with either order of samples."""
    net, seeds = (TINY, 2) if scale.quick else (NET, SEEDS)
    found: dict[str, Any] = {"net": net.title, **{name: [] for name in ORDERS}}
    for seed in range(seeds):
        row = Row(title="order", loop="product", train={"regime": "sequential", "seed": seed}, budget={})
        for name in ORDERS:
            run = bench.begin(net, row)
            command = program("bench.storage.order", str(run.folder), name)
            found[name].append(json.loads(output_of(command))["accuracy"])
    return found


def judge(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The difference within what seeds differ by: its 95 % interval holds 0."""
    differences = [one - other for one, other in zip(found["windowed"], found["full"], strict=True)]
    mean, half = mean_interval(differences)
    assert half is not None
    return [
        target("order: windowed less full shuffle, |mean difference| in half its 95 % interval", abs(mean), half)
    ]


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """Format the results as lines of text."""
    texts = (f"{name} {100 * statistics.fmean(found[name]):.2f} %" for name in ORDERS)
    return [f"order     {found['net']}, {len(found['full'])} seeds, test accuracy: {', '.join(texts)}"]


def main() -> None:
    """Train a run, in the order that is asked for."""
    from edge_trgl.data import epoch_order
    from edge_trgl.engine import batches, training
    from edge_trgl.run.folder import Run
    from edge_trgl.runtime.memory.limits import Limits

    folder, order = Path(sys.argv[1]), sys.argv[2]
    if order == "full":
        vars(batches)["windowed_order"] = lambda count, seed, epoch, chunk: epoch_order(count, seed, epoch)
    result = training.run(Run(folder), Limits(budget_mb=1e5))
    sys.stdout.write(json.dumps({"accuracy": result.scores.last}) + "\n")


if __name__ == "__main__":
    main()
