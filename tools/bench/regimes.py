"""Compare memory, speed, I/O and accuracy of the regimes on the same network, batches and images.

    python -m tools.bench.regimes [--nets NAME ...] [--rows NAME ...] [--threads N] [--json FILE|-] [--quick]

Rows, each in a process of its own: end-to-end and end-to-end with activation checkpointing in bare PyTorch, and
from the product parallel training with every module in memory, with one, multi-lap and sequential training.
Four more sections: `overhead`, the product against the bare greedy loop, and `savings`, one module in memory
against all and nothing saved, taking turns epoch by epoch; `growth`, the peak of K-M nets of 10, 20 and 50 modules
with one in memory; `tree`, `edge-trgl train` within a budget, its process tree watched from outside. The targets
that the figures are held against come last.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.bench.nets import GROWTH, GROWTH_MODULES, NETS, ROWS, TINY, Net
from tools.bench.regime_runs import TRAINER, Bench
from tools.common.machine import origin
from tools.common.options import command_line

SECTIONS = ("overhead", "savings", "growth", "tree")
NUM_PAIRS = 9
NOTE = (
    "Peak tensors: VmHWM over all steps less VmHWM just before the first, when everything but the net has been\n"
    "loaded and warmed up; weights and momentum count. Peak RSS: of the row's process. Images/s: images trained\n"
    "through all modules, over the time of training with its commits. Read and written: asked of the kernel, the\n"
    "page cache included. Accuracy: of the last module on test images. The bare rows have no budget, no commits.\n"
    "Every row runs with the allocator settings of the product."
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    nets = {"quick": TINY} if options.quick else {name: NETS[name] for name in options.nets}
    RUNS.mkdir(exist_ok=True)
    # Beside the runs and not in /tmp, which is memory on many boards.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=RUNS) as scratch:
        document = measure(
            Bench(Path(scratch), options.threads), nets, options.rows, options.pairs, quick=options.quick
        )
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else table(document))
    return 0 if document["ok"] else 1


def measure(
    bench: Bench, nets: Mapping[str, Net], rows: Sequence[str], num_pairs: int, *, quick: bool
) -> dict[str, Any]:
    """Everything that was asked for, as one document."""
    figures = {
        "rows": [bench.row(net, name, title) for title, net in nets.items() for name in rows if name in ROWS],
        "overhead": [],
        "savings": [],
        "growth": [],
        "tree": [],
    }
    name, heavy = ("quick", TINY) if quick else ("resnet110", NETS["resnet110"])
    if "overhead" in rows:
        items = bench.overhead(heavy, 2 if quick else num_pairs)
        figures["overhead"] = [{"net": name, **item} for item in items]
    if "savings" in rows:
        figures["savings"] = [{"net": name, **bench.savings(heavy, 2 if quick else num_pairs)}]
    if "growth" in rows:
        base = replace(GROWTH, batches=1, model={"width": 8, "downsample": []}) if quick else GROWTH
        figures["growth"] = [bench.growth(base, num) for num in (GROWTH_MODULES[:2] if quick else GROWTH_MODULES)]
    if "tree" in rows:
        figures["tree"] = [bench.tree(heavy)]
    targets = judge(figures)
    failed = [item for section in figures.values() for item in section if "error" in item]
    return {
        **origin(bench.threads),
        "note": NOTE,
        **figures,
        "targets": targets,
        "ok": not failed and all(target["ok"] for target in targets),
    }


def judge(figures: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The targets that `figures` have something to say about."""
    rows = {(row["net"], row["row"]): row for row in figures["rows"] if "error" not in row}
    growth = {item["modules"]: item["rss_mb"] for item in figures["growth"] if "error" not in item}
    found = []
    one, whole = rows.get(("resnet110", "one-module")), rows.get(("resnet110", "end-to-end"))
    if one and whole:
        share = one["tensors_mb"] / whole["tensors_mb"]
        found.append(_target("resnet110: peak tensors, one module in memory / end-to-end", share, 0.045))
    for item in figures["savings"]:
        if item["net"] == "resnet110" and "error" not in item:
            name = "resnet110: time of an epoch, one module in memory / all and nothing saved"
            found.append(_target(name, item["median"], 1.25))
    for item in figures["overhead"]:
        # On a tiny net the loop around the kernels is most of the time.
        if (item["net"], item.get("row")) == ("resnet110", TRAINER):
            found.append(_target("resnet110: time of an epoch, trainer / bare greedy loop", item["median"], 1.05))
    if len(growth) > 1:
        fewest, most = min(growth), max(growth)
        ratio = growth[most] / growth[fewest]
        found.append(_target(f"peak RSS, {most} modules / {fewest}, one in memory", ratio, 1.05))
    for item in figures["tree"]:
        if "error" not in item:
            highest = max(item["summary_mb"], item["outside_mb"])
            found.append(_target("MiB of the whole process tree within its budget", highest, item["budget_mb"]))
    return found


def table(document: Mapping[str, Any]) -> str:
    """Format the results as text."""
    columns = f"{'tensors':>9}{'RSS':>8}{'images/s':>10}{'read':>8}{'written':>9}{'accuracy':>10}"
    lines = [f"{'net':10} {'row':34}{columns}"]
    lines += [_row_line(row) for row in document["rows"]]
    lines += ["(MiB; bare: plain PyTorch)", NOTE, ""]
    for item in document["overhead"]:
        lines.append(
            _error(item)
            or f"overhead  {item['row']:44} {item['median']:.3f} "
            f"[{item['low']:.3f}, {item['high']:.3f}] of the bare greedy loop's time, {item['pairs']} pairs"
        )
    for item in document["savings"]:
        lines.append(
            _error(item)
            or f"savings   {item['row']:44} {item['median']:.3f} "
            f"[{item['low']:.3f}, {item['high']:.3f}] of the time with all in memory, {item['pairs']} pairs"
        )
    for item in document["growth"]:
        text = _error(item) or f"peak RSS {item['rss_mb']:.0f} MiB"
        lines.append(f"growth    {item['modules']:3d} modules, one in memory: {text}")
    for item in document["tree"]:
        lines.append(
            _error(item)
            or f"tree      budget {item['budget_mb']:.0f} MiB: {item['summary_mb']:.0f} in the summary, "
            f"{item['outside_mb']:.0f} from outside (sum of high-water marks)"
        )
    for target in document["targets"]:
        verdict = "met   " if target["ok"] else "MISSED"
        lines.append(f"{verdict}    {target['name']}: {target['value']:.4g}, at most {target['limit']:.4g}")
    return "\n".join(lines)


def _row_line(row: Mapping[str, Any]) -> str:
    title = f"{row['net']:10} {ROWS[row['row']].title:34}"
    if "error" in row:
        return f"{title}  {row['error']}"
    accuracy = "–" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
    sizes = f"{row['tensors_mb']:9.0f}{row['rss_mb']:8.0f}{row['images_per_s']:10.1f}"
    return f"{title}{sizes}{row['read_mb']:8.0f}{row['written_mb']:9.0f}{accuracy:>10}"


def _error(item: Mapping[str, Any]) -> str | None:
    return item.get("error")


def _target(name: str, value: float, limit: float) -> dict[str, Any]:
    return {"name": name, "value": value, "limit": limit, "ok": value <= limit}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.regimes", __doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="default: all")
    parser.add_argument(
        "--rows", nargs="+", choices=[*ROWS, *SECTIONS], help="default: all; --quick: the rows and tree"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every row [2]")
    parser.add_argument(
        "--pairs", type=int, default=NUM_PAIRS, help=f"rounds of overhead and savings [{NUM_PAIRS}]"
    )
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="a tiny net, only to try the tool")
    options = parser.parse_args(arguments)
    options.rows = options.rows or [*ROWS, *(("tree",) if options.quick else SECTIONS)]
    return options


if __name__ == "__main__":
    sys.exit(main())
