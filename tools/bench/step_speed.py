"""Compare the speed of resident parallel training with bare PyTorch on the same net, batches and threads.

    python -m tools.bench.step_speed [--nets NAME ...] [--heads NAME ...] [--rounds N] [--threads N] [--quick]
        [--json FILE|-]

Arms, each in a process of its own, which take turns epoch by epoch: `end-to-end` and `greedy` are bare loops in
PyTorch, with no transport term, no budget and no commits; `product` trains in parallel with every module in
memory, `without` does so with no transport term. Ratios are of CPU time within a round: on one thread that is the
time which steps take where nothing else runs. The targets that the ratios are held against come last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.bench import nets
from tools.bench.nets import Net, Row
from tools.bench.regime_runs import Bench, Turn
from tools.common.intervals import median_ratio
from tools.common.machine import origin
from tools.common.options import command_line

ARMS = {
    "end-to-end": Row(
        title="bare end-to-end", loop="end-to-end", train={"regime": "end-to-end"}, budget={}, transport=False
    ),
    "greedy": Row(title="bare greedy loop", loop="greedy", train={}, budget={}, transport=False),
    "without": Row(
        title="product, no transport term", loop="product", train={}, budget={"chunk": "1"}, transport=False
    ),
    "product": Row(title="product", loop="product", train={}, budget={"chunk": "1"}),
}
PAIRS = (("without", "greedy", 1.03), ("product", "without", 1.02), ("product", "end-to-end", 1.25))
"""An arm, the arm that it is held against, and the largest ratio."""


def _km(width: int) -> Net:
    return Net(
        title=f"K-M 10-1, width {width}, 28x28, batch 32",
        model={"name": "km-10-1", "width": width},
        num_modules=10,
        batches=16,
        tight_mb=400,
        batch_size=32,
    )


NETS = {
    "km16": _km(16),
    "km32": _km(32),
    "km64": _km(64),
    "resnet110-32": Net(
        title="ResNet-110, a block a module, 32x32, batch 64",
        model={"name": "resnet110", "modules": 54},
        num_modules=54,
        batches=4,
        tight_mb=400,
        side=32,
    ),
    "resnet110-96": nets.NETS["resnet110"],
    "mobilenet-96": Net(
        title="MobileNetV2's blocks, 96x96, batch 32",
        model={"name": "tools.prove.nets:mobilenet"},
        num_modules=17,
        batches=4,
        tight_mb=400,
        side=96,
        batch_size=32,
    ),
}
TINY = replace(_km(8), title="K-M 3-1 (only to try the tool)", model={"name": "km-3-1", "width": 8}, num_modules=3)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    chosen = {"quick": TINY} if options.quick else {name: NETS[name] for name in options.nets}
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=RUNS) as scratch:
        bench = Bench(Path(scratch), options.threads)
        rows = [
            measure(bench, name, net, head, options.rounds)
            for name, net in chosen.items()
            for head in options.heads
        ]
    targets = [target for row in rows for target in judge(row)]
    ok = all(target["ok"] for target in targets)
    document = {**origin(options.threads), "rows": rows, "targets": targets, "ok": ok}
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else table(document))
    return 0 if ok else 1


def measure(bench: Bench, name: str, net: Net, head: str, num_rounds: int) -> dict[str, Any]:
    """A row: what a round took in every arm, and the ratios of `PAIRS`."""
    net = replace(net, model={**net.model, "head": head})
    rounds = bench.race([(net, row, not row.bare) for row in ARMS.values()], num_rounds)
    turns = {arm: [found[number] for found in rounds] for number, arm in enumerate(ARMS)}
    num_images = net.batches * net.batch_size
    return {
        "net": name,
        "title": net.title,
        "head": head,
        "rounds": num_rounds,
        "arms": {arm: _speeds(found, num_images) for arm, found in turns.items()},
        "ratios": [_ratio(over, under, turns) for over, under, _ in PAIRS],
    }


def _speeds(turns: Sequence[Turn], num_images: int) -> dict[str, Any]:
    """Images in a second and in a CPU second, of the median turn, and all turns."""
    seconds, cpu_seconds = [turn.seconds for turn in turns], [turn.cpu_seconds for turn in turns]
    return {
        "images_per_s": num_images / statistics.median(seconds),
        "images_per_cpu_s": num_images / statistics.median(cpu_seconds),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
    }


def _ratio(over: str, under: str, turns: Mapping[str, Sequence[Turn]]) -> dict[str, Any]:
    pairs = list(zip(turns[over], turns[under], strict=True))
    median, low, high = median_ratio([(one.cpu_seconds, other.cpu_seconds) for one, other in pairs])
    wall, _, _ = median_ratio([(one.seconds, other.seconds) for one, other in pairs])
    return {"over": over, "under": under, "median": median, "low": low, "high": high, "wall": wall}


def judge(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The targets of a row; of a tiny net, the loop around the kernels is most of the time."""
    if row["net"] not in NETS:
        return
    for ratio, (over, under, limit) in zip(row["ratios"], PAIRS, strict=True):
        name = f"{row['net']}, {row['head']} heads: CPU time, {ARMS[over].title} / {ARMS[under].title}"
        yield {"name": name, "value": ratio["median"], "limit": limit, "ok": ratio["median"] <= limit}


def table(document: Mapping[str, Any]) -> str:
    """Format the results as text."""
    lines = [f"{'net':13} {'head':8} {'arm':28}{'images/s':>10}{'/CPU s':>9}"]
    for row in document["rows"]:
        for arm, found in row["arms"].items():
            speeds = f"{found['images_per_s']:10.1f}{found['images_per_cpu_s']:9.1f}"
            lines.append(f"{row['net']:13} {row['head']:8} {ARMS[arm].title:28}{speeds}")
        for ratio in row["ratios"]:
            name = f"{ARMS[ratio['over']].title} / {ARMS[ratio['under']].title}"
            span = f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the CPU time"
            lines.append(f"{row['net']:13} {row['head']:8} {name}: {span}, {ratio['wall']:.3f} of the time")
    for target in document["targets"]:
        verdict = "met   " if target["ok"] else "MISSED"
        lines.append(f"{verdict} {target['name']}: {target['value']:.3f}, at most {target['limit']:.3g}")
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.step_speed", __doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="default: all")
    parser.add_argument("--heads", nargs="+", default=["conv"], help="kinds of heads to compare [conv]")
    parser.add_argument("--rounds", type=int, default=9, help="epochs of every arm [9]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every arm [1]")
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="a tiny net and few epochs, only to try the tool")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 2
    return options


if __name__ == "__main__":
    sys.exit(main())
