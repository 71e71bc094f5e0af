"""Compare classifiers, and numbers of modules: accuracy, speed and memory of one network on real images.

    python -m tools.bench.heads [--rows HEAD/MODULES ...] [--seeds N] [--images N] [--epochs N] [--width N]
                                [--rounds N] [--threads N] [--json FILE|-] [--quick]

The network is K-M 10-1, trained in parallel by `edge-trgl train` on CIFAR-10 where it is in the cache of image
sets. Accuracy is on the test images, at the depth that validation images chose; the peak is that of all processes
together, seen from outside. Speed is CPU time of training with every module in memory: all rows take turns, epoch
by epoch. With --json FILE every figure is kept as it comes, and a measurement that was cut goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_trgl.run.folder import RUNS
from tools.bench.nets import ROWS, Net
from tools.bench.regime_runs import FAILURES, Bench
from tools.common.book import Book
from tools.common.images import CACHE
from tools.common.intervals import median_ratio
from tools.common.machine import commit, machine
from tools.common.options import command_line
from tools.common.processes import CommandError, edge_trgl, output_of, watch

MODEL, BATCH, LIMIT_MB = "km-10-1", 32, 1000.0
MOST = 10
"""Modules of the network."""

PRODUCT = ROWS["parallel"]


@dataclass(frozen=True, kw_only=True)
class Way:
    """The network in so many modules, each with a head of this name."""

    head: str
    modules: int

    @property
    def name(self) -> str:
        return f"{self.head}/{self.modules}"


WAYS = [Way(head=head, modules=MOST) for head in ("conv", "lite", "deep", "pooled", "linear")]
WAYS += [Way(head=head, modules=modules) for modules in (5, 2, 1) for head in ("lite", "conv")]

BASE = WAYS[0]
"""The way that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all rows share. `images`: to train on and to choose the depth on."""

    data: str
    images: int
    epochs: int
    width: int
    threads: int

    def flags(self, way: Way) -> Sequence[str]:
        """Of `edge-trgl plan` and `train`."""
        return (
            *("--data", self.data, "--set", f"data.limit={self.images}", "--batch-size", str(BATCH)),
            *("--model", MODEL, "--width", str(self.width), "--modules", str(way.modules), "--head", way.head),
            *("--epochs", str(self.epochs), "--threads", str(self.threads)),
        )

    def net(self, way: Way, rounds: int) -> Net:
        """The same for a race, whose epochs are short."""
        model = {"name": MODEL, "width": self.width, "modules": way.modules, "head": way.head}
        return Net(
            title=way.name,
            model=model,
            num_modules=way.modules,
            batches=8,
            tight_mb=LIMIT_MB,
            side=32,
            epochs=rounds + 1,
            batch_size=BATCH,
        )


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    ways = [way for way in WAYS if way.name in options.rows]
    setting = _setting(options)
    measured_on = {key: value for key, value in machine(options.threads).items() if key != "commit"}
    file = None if options.json in (None, "-") else Path(options.json)
    book = Book(file, {**measured_on, **vars(setting), "data": Path(setting.data).name})
    RUNS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".heads-", dir=RUNS) as scratch:
        _race(book, setting, ways, options.rounds, Path(scratch))
        _train(book, setting, ways, options.seeds, Path(scratch).absolute())
    rows = list(_summarised(book, ways))
    more = {"commit": _versions(book), "rows": rows, "ok": len(rows) == len(ways)}
    book.save(more)
    print(json.dumps(book.document(more), indent=1) if options.json == "-" else _table(rows))
    return 0 if more["ok"] else 1


def _race(book: Book, setting: Setting, ways: Sequence[Way], rounds: int, scratch: Path) -> None:
    """CPU seconds of the epochs of all ways, in turns, unless a race that is kept has them all."""
    if _turns(book, ways) is not None:
        return
    ways = list(dict.fromkeys([BASE, *ways]))
    names = ",".join(way.name for way in ways)
    print(f"{rounds} rounds of {names}", file=sys.stderr, flush=True)
    nets = [setting.net(way, rounds) for way in ways]
    try:
        found = Bench(scratch, setting.threads).race([(net, PRODUCT, True) for net in nets], rounds)
    except FAILURES as error:
        book.put("speed", names, {"error": str(error)})
        return
    turns = {way.name: [turns[number].cpu_seconds for turns in found] for number, way in enumerate(ways)}
    book.put("speed", names, {"commit": commit(), "images": nets[0].batches * BATCH, "turns": turns})


def _turns(book: Book, ways: Sequence[Way]) -> dict[str, Any] | None:
    """The race in which all of them took turns."""
    races = (item for item in book.items("speed") if "error" not in item)
    return next((race for race in races if all(way.name in race["turns"] for way in [BASE, *ways])), None)


def _train(book: Book, setting: Setting, ways: Sequence[Way], num_seeds: int, scratch: Path) -> None:
    """Train what is not in the book, seed by seed, so that a cut leaves few seeds of everything."""
    for seed in range(num_seeds):
        for way in ways:
            key = f"{way.name}, seed {seed}"
            if book.find("runs", key) is None:
                print(key, file=sys.stderr, flush=True)
                try:
                    if book.find("plans", way.name) is None:
                        book.put("plans", way.name, _smallest(setting, way))
                    item = _trained(setting, way, seed, scratch / "run")
                except CommandError as error:
                    item = {"error": str(error)}
                book.put("runs", key, {"row": way.name, "seed": seed, "commit": commit(), **item})
                print(f"    {item}", file=sys.stderr, flush=True)


def _smallest(setting: Setting, way: Way) -> dict[str, Any]:
    found = json.loads(
        output_of(edge_trgl("plan", *setting.flags(way), "--budget-mb", "min", "--no-probe", "--json"))
    )
    return {"commit": commit(), "smallest_mb": found["budget_mb"]}


def _trained(setting: Setting, way: Way, seed: int, run: Path) -> dict[str, Any]:
    flags = setting.flags(way)
    command = edge_trgl(
        "train", *flags, "--budget-mb", str(LIMIT_MB), "--seed", str(seed), "--run", str(run), "--json"
    )
    try:
        done = watch(command)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    found = json.loads(done.output)
    scores = found["accuracy"]
    return {
        **{name: scores[name] for name in ("chosen", "chosen_depth", "last", "per_depth")},
        "peak_mb": round(done.peak_mb, 1),
    }


def _summarised(book: Book, ways: Sequence[Way]) -> Iterator[dict[str, Any]]:
    """One item a row; none where a run of it, or the race, failed or is missing."""
    speed = _turns(book, ways)
    for way in ways:
        runs = [item for item in book.items("runs") if item["row"] == way.name]
        plan = book.find("plans", way.name)
        if speed is None or plan is None or not runs or any("error" in run for run in runs):
            continue
        base, turns = speed["turns"][BASE.name], speed["turns"][way.name]
        ratio, low, high = median_ratio(list(zip(turns, base, strict=True)))
        scores = [run["chosen"] for run in runs]
        yield {
            "head": way.head,
            "modules": way.modules,
            "accuracy": statistics.fmean(scores),
            "lowest": min(scores),
            "highest": max(scores),
            "last": statistics.fmean(run["last"] for run in runs),
            "chosen_depths": [run["chosen_depth"] for run in runs],
            "images_per_cpu_s": round(speed["images"] / statistics.median(turns), 1),
            "cpu_ms": round(1000 * statistics.median(turns) / speed["images"], 3),
            "time": [ratio, low, high],
            "peak_mb": max(run["peak_mb"] for run in runs),
            "smallest_mb": plan["smallest_mb"],
            "runs": len(runs),
        }


def _versions(book: Book) -> str | None:
    items = [*book.items("speed"), *book.items("plans"), *book.items("runs")]
    return ", ".join(dict.fromkeys(item["commit"] for item in items if item.get("commit"))) or None


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["head     modules  accuracy   last  images/CPU s  ms an image  time  peak MiB  smallest"]
    for row in rows:
        lines.append(
            f"{row['head']:8s} {row['modules']:7d} {100 * row['accuracy']:9.2f} {100 * row['last']:6.2f} "
            f"{row['images_per_cpu_s']:13.1f} {row['cpu_ms']:12.3f} {row['time'][0]:5.2f} {row['peak_mb']:9.0f} "
            f"{row['smallest_mb']:9.0f}"
        )
    return "\n".join(lines)


def _setting(options: argparse.Namespace) -> Setting:
    real = CACHE / "cifar10"
    return Setting(
        data=str(real) if real.is_dir() and not options.quick else "sample",
        images=options.images,
        epochs=options.epochs,
        width=options.width,
        threads=options.threads,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    names = [way.name for way in WAYS]
    parser = command_line("bench.heads", __doc__)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--seeds", type=int, default=2, help="runs per row [2]")
    parser.add_argument("--images", type=int, default=4000, help="images of each run [4000]")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of each run [4]")
    parser.add_argument("--width", type=int, default=16, help="filters of the network [16]")
    parser.add_argument("--rounds", type=int, default=5, help="epochs whose CPU time is compared [5]")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads [1]")
    parser.add_argument("--json", metavar="FILE|-", help="write a file of JSON, or print it, not the table")
    parser.add_argument("--quick", action="store_true", help="two rows and few images, only to try the tool")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.seeds, options.rounds = ["conv/10", "lite/2"], 1, 1
        options.images, options.epochs, options.width = 80, 1, 4
    return options


if __name__ == "__main__":
    sys.exit(main())
