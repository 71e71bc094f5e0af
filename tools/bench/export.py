"""Measure the peak memory of exporting networks that would not fit into memory as a whole.

    python -m tools.bench.export [--nets NAME ...] [--threads N] [--json FILE|-] [--quick]

Each net is trained for one epoch of a few batches and exported with every exit. The peak is the high-water mark of
the process that writes the file, and of the one that runs it in onnxruntime; each is a process of its own, so that
its mark begins at nothing. The parent that lives beside them is counted with them. The limit is 320 MiB and 2.2
times the heaviest module's weights; the budget is the run's own. Where this process may make one (root), the
export runs in a memory cgroup of the smaller of the two; `tree_mb` is what its processes held together, seen from
outside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS, Run
from edge_trgl.runtime.storage import safetensors_file
from edge_trgl.runtime.units import MIB
from tools.common.machine import origin
from tools.common.options import command_line
from tools.common.processes import CommandError, edge_trgl
from tools.common.programs import environment
from tools.prove.watch import watch, why_no_cgroup

FIXED_MB, COPIES = 320.0, 2.2
"""The promise: MiB, and times the heaviest module."""

IMAGES, BATCH_SIZE = 64, 16


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net, and the budget in MiB that it is trained and exported in."""

    title: str
    model: tuple[str, ...]
    budget_mb: float


OWN = "tools.bench.export_nets"
NETS = {
    "km": Net(title="K-M 10-1, width 32", model=("--model", "km-10-1"), budget_mb=320),
    "huge-layer": Net(title="a layer of 128 MiB", model=("--model", "tools.prove.nets:huge"), budget_mb=760),
    "huge-convolution": Net(
        title="a convolution of 126 MiB",
        model=("--model", f"{OWN}:huge_convolution"),
        budget_mb=1000,
    ),
    "many-layers": Net(title="60 layers of 16 MiB", model=("--model", f"{OWN}:many_layers"), budget_mb=470),
}
QUICK = {
    "small-convolution": Net(
        title="a small convolution", model=("--model", f"{OWN}:small_convolution"), budget_mb=400
    ),
    "few-layers": Net(title="3 small layers", model=("--model", f"{OWN}:few_layers"), budget_mb=400),
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    nets = QUICK if options.quick else {name: NETS[name] for name in options.nets}
    RUNS.mkdir(exist_ok=True)
    # Beside the runs and not in /tmp, which is memory on many boards.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=RUNS) as scratch:
        rows = [measure(net, Path(scratch).absolute() / name, options.threads) for name, net in nets.items()]
    document = {
        **origin(options.threads),
        "rows": rows,
        "ok": all(row["within_limit"] and row["within_budget"] for row in rows),
    }
    text = json.dumps(document, indent=1)
    if options.json not in (None, "-"):
        Path(options.json).write_text(text + "\n")
    print(text if options.json == "-" else _table(rows))
    return 0 if document["ok"] else 1


def measure(net: Net, folder: Path, threads: int) -> dict[str, Any]:
    """Train and export one net."""
    print(net.title, file=sys.stderr, flush=True)
    settings = ("--set", f"data.limit={IMAGES}", "--batch-size", str(BATCH_SIZE), "--epochs", "1", "--no-probe")
    budget = ("--budget-mb", f"{net.budget_mb:g}", "--threads", str(threads))
    _train(*net.model, *settings, *budget, "--run", str(folder))
    facts = Run(folder).facts()
    records = facts.modules()
    sizes = [_weights_mb(folder / "modules" / record.name) for record in records.values()]
    limit_mb = FIXED_MB + COPIES * max(sizes)
    grouped = None if why_no_cgroup() else min(limit_mb, net.budget_mb)
    command = edge_trgl("export", str(folder), "--depth", "all", "--json")
    watched = watch(command, environment=environment(), limit_mb=grouped)
    exported = watched.document()
    peaks = {phase.name: phase.peak_mb for phase in facts.phases()}
    facts.close()
    peak_mb = max(peaks["export"], peaks["check"], watched.peak_mb)
    return {
        "net": net.title,
        "modules": len(sizes),
        "weights_mb": round(sum(sizes), 1),
        "heaviest_mb": round(max(sizes), 1),
        "budget_mb": net.budget_mb,
        "export_mb": round(peaks["export"], 1),
        "check_mb": round(peaks["check"], 1),
        "tree_mb": round(watched.peak_mb, 1),
        "cgroup_mb": None if watched.cgroup_mb is None else round(watched.cgroup_mb, 1),
        "kills": watched.kills,
        "limit_mb": round(limit_mb, 1),
        "files": [file["name"] for file in exported["files"]],
        "max_abs_diff": exported["max_abs_diff"],
        "within_limit": peak_mb <= limit_mb,
        "within_budget": peak_mb <= net.budget_mb,
    }


def _train(*arguments: str) -> None:
    command = edge_trgl("train", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    if done.returncode != 0:
        raise CommandError(f"{' '.join(command)}\nended with code {done.returncode}\n{done.stderr[-2000:]}")


def _weights_mb(path: Path) -> float:
    infos = safetensors_file.read_header(path)
    return (
        sum(info.stop - info.start for name, info in infos.items() if name.startswith(("trunk.", "head."))) / MIB
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["net | weights | heaviest module | budget | export | check | tree | limit | files | difference"]
    for row in rows:
        figures = [
            row[name]
            for name in ("weights_mb", "heaviest_mb", "budget_mb", "export_mb", "check_mb", "tree_mb", "limit_mb")
        ]
        verdict = "" if row["within_limit"] and row["within_budget"] else "  MISSED"
        shown = " | ".join(f"{figure:.0f}" for figure in figures)
        lines.append(f"{row['net']} | {shown} | {', '.join(row['files'])} | {row['max_abs_diff']:.1e}{verdict}")
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.export", __doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), help="default: all")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of every run [1]")
    parser.add_argument("--json", metavar="FILE|-", help="write the figures to a file, or print them, as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny nets, only to try the tool")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
