"""Prove the budget: compare plans with measured peaks, inside cgroups of exactly the budget.

    python -m tools.prove [--sections NAME ...] [--nets NAME ...] [--regimes NAME ...] [--threads N]
                          [--json FILE|-] [--quick]

Every command runs in a memory cgroup of exactly its budget where this process may make one (root), else under the
product's own guard. Sections: `rows`, three budgets of every net in every regime, planned and measured; `minimum`,
what lies below the smallest budget; `state`, a net of four times the budget, killed, resumed and evaluated in it;
`balloon`, a worker that the kernel kills for another process; `depth`, the peak of 10 to 100 modules. With --json
FILE every figure is kept as it comes, and a proof that was cut goes on: what is in the file is not measured again,
but for what failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from edge_trgl.run.folder import RUNS
from tools.common.book import Book
from tools.common.machine import machine
from tools.common.options import command_line
from tools.prove.cases import (
    DEPTHS,
    LEVELS,
    MINIMUM_CASES,
    NETS,
    QUICK_DEPTHS,
    QUICK_MINIMUM_CASES,
    QUICK_NETS,
    REGIMES,
)
from tools.prove.judge import judge
from tools.prove.kills import balloon, state
from tools.prove.limits import depth, minimum
from tools.prove.proof import Proof
from tools.prove.table import table
from tools.prove.watch import why_no_cgroup

SECTIONS = ("rows", "minimum", "state", "balloon", "depth")


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    ungrouped = why_no_cgroup()
    file = None if options.json in (None, "-") else Path(options.json)
    book = Book(file, {**machine(options.threads), "cgroup": ungrouped is None})
    RUNS.mkdir(exist_ok=True)
    # Beside the runs and not in /tmp, which is memory on many boards.
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=RUNS) as scratch:
        proof = Proof(book, Path(scratch).absolute(), options.threads, grouped=ungrouped is None)
        measure(proof, options)
    targets = judge(book)
    ok = bool(targets) and all(target["ok"] for target in targets)
    verdict = {"no_cgroup": ungrouped, "targets": targets, "ok": ok}
    book.save(verdict)
    document = book.document(verdict)
    print(json.dumps(document, indent=1) if options.json == "-" else table(document))
    return 0 if document["ok"] else 1


def measure(proof: Proof, options: argparse.Namespace) -> None:
    """Everything that was asked for and is not in the book."""
    if "rows" in options.sections:
        for net in options.nets:
            for regime in options.regimes:
                for level in LEVELS:
                    proof.row(net, regime, level)
    if "minimum" in options.sections:
        for net, regime in QUICK_MINIMUM_CASES if options.quick else MINIMUM_CASES:
            minimum(proof, net, regime)
    if "state" in options.sections:
        state(proof)
    if "balloon" in options.sections and proof.grouped:
        balloon(proof)
    if "depth" in options.sections:
        for num_modules in QUICK_DEPTHS if options.quick else DEPTHS:
            depth(proof, num_modules)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("prove", __doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="default: all; --quick: all but state")
    parser.add_argument("--nets", nargs="+", choices=NETS, help="default: all; --quick: three")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES), help="default: all")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every run [2]")
    parser.add_argument("--json", metavar="FILE|-", help="keep the figures in a file, or print them as JSON")
    parser.add_argument("--quick", action="store_true", help="three nets and short sections, to try the tool")
    options = parser.parse_args(arguments)
    options.nets = options.nets or list(QUICK_NETS if options.quick else NETS)
    quick_sections = tuple(name for name in SECTIONS if name != "state")
    options.sections = options.sections or list(quick_sections if options.quick else SECTIONS)
    return options


if __name__ == "__main__":
    sys.exit(main())
