"""Measure what boundaries on disk cost in time, page cache and writes.

    python -m tools.bench.storage [--sections NAME ...] [--rounds N] [--threads N] [--json FILE|-] [--quick]

`cached`: a module trained on its cached boundary in RAM, on this disk, and on this disk slowed to 45 MB/s (an io
cgroup; left out where this process may not make one). `reads`: the processor time of reading a boundary, without
training. `parallel`: one module in memory, as planned, against all in memory. `cache`: the page cache that a file
of 2 GB keeps while it is written and read, and the process's own memory, lap by lap. `order`: test accuracy with
the order that follows the disk against a full shuffle. `prefix`: cached boundaries against recomputing what lies
below, and bytes written by the number of views. In `cached` and `parallel` the contestants are processes that take
turns epoch by epoch; ratios are within a round.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.bench.regime_runs import Bench
from tools.bench.storage import cached, lap, order, parallel, prefix, reads
from tools.bench.storage.scale import Scale
from tools.common.machine import origin
from tools.common.options import command_line

SECTIONS = {
    "cached": cached,
    "reads": reads,
    "parallel": parallel,
    "cache": lap,
    "order": order,
    "prefix": prefix,
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    file = None if options.json in (None, "-") else Path(options.json)
    figures = json.loads(file.read_text())["figures"] if file is not None and file.is_file() else {}
    RUNS.mkdir(exist_ok=True)
    # Beside the runs and not in /tmp, which is memory on many boards.
    with tempfile.TemporaryDirectory(prefix=".storage-", dir=RUNS) as scratch:
        folder = Path(scratch).absolute()
        bench = Bench(folder, options.threads)
        scale = Scale(rounds=options.rounds, threads=options.threads, quick=options.quick, scratch=folder)
        for name in options.sections:
            figures[name] = SECTIONS[name].measure(bench, scale)
            document = _document(figures, options.threads)
            if file is not None:
                file.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1) if options.json == "-" else _table(document))
    return 0 if document["ok"] else 1


def _document(figures: Mapping[str, Any], threads: int) -> dict[str, Any]:
    targets = [target for name, found in figures.items() for target in SECTIONS[name].judge(found)]
    ok = all(target["ok"] for target in targets)
    return {**origin(threads), "figures": figures, "targets": targets, "ok": ok}


def _table(document: Mapping[str, Any]) -> str:
    lines = [line for name, found in document["figures"].items() for line in SECTIONS[name].lines(found)]
    for target in document["targets"]:
        verdict = "met   " if target["ok"] else "MISSED"
        lines.append(f"{verdict} {target['name']}: {target['value']:.4g}, {target['sense']} {target['limit']:.4g}")
    return "\n".join(lines)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.storage", __doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of turns [9]")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads [2]")
    parser.add_argument(
        "--json", metavar="FILE|-", help="keep the figures in a file of JSON, section by section, or print it"
    )
    parser.add_argument("--quick", action="store_true", help="tiny nets and files, only to try the tool")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
