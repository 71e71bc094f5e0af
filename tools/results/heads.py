"""Accuracy, speed and memory against the kind of heads and the number of modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import ratio, rounded, table
from tools.results.source import document, origin


def sections() -> Iterator[str]:
    """The part of the page."""
    found = document("bench_heads")
    settings, rows = found["settings"], found["rows"]
    most = max(row["modules"] for row in rows)
    heads = [row for row in rows if row["modules"] == most]
    regrouped = [row for head in ("lite", "conv") for row in rows if row["head"] == head]
    images = f"{settings['images']:,}"
    yield f"""## Heads and modules

K-M 10-1 of width {settings["width"]} on CIFAR-10, trained in parallel with the default recipe for
{settings["epochs"]} epochs on {images} images, of which a tenth is held out to choose the depth; {_seeds(rows)}.
Test accuracy in %, at the chosen depth and after the last module. Images a second are those of a second of CPU
time in training with every module in memory, on one thread; time is that of an epoch over the one with `conv`
heads and ten modules (median and 95 % interval, all rows taking turns). Peak: of all processes together within
1,000 MiB, seen from outside. Smallest: what `plan --budget-mb min --no-probe` states. The machine did other work
besides. What `lite` pools, and how, was chosen among eight forms by their accuracy on 4,000 of these test images,
on one seed, so its lead is a little flattered.

### The same ten modules with other heads

{table(("head", *_COLUMNS), ((f"`{row['head']}`", *_cells(row)) for row in heads))}

### The same ten blocks in fewer modules

{table(("head", "modules", *_COLUMNS), (_regrouped(row) for row in regrouped), left=1)}

One module is end-to-end training.

`--head auto` follows from this table: it chooses among `conv`, `deep` and `lite`, and so by counted time nearly
always takes `lite`. No default follows from it yet. The runs are short, the net is narrow and the seeds are few: a
network of the paper keeps the paper's head and number of modules until longer runs on all images say the same of
wider nets.

{origin("bench_heads", "tools.bench.heads --seeds 1")}"""


_COLUMNS = ("accuracy", "last module", "chosen depth", "images/s", "time", "peak", "smallest")


def _cells(row: Mapping[str, Any]) -> Sequence[str]:
    return (
        _accuracy(row),
        f"{100 * row['last']:.1f}",
        ", ".join(map(str, row["chosen_depths"])),
        rounded(row["images_per_cpu_s"]),
        ratio(*row["time"]),
        rounded(row["peak_mb"]),
        rounded(row["smallest_mb"]),
    )


def _regrouped(row: Mapping[str, Any]) -> Sequence[str]:
    return (f"`{row['head']}`", str(row["modules"]), *_cells(row))


def _accuracy(row: Mapping[str, Any]) -> str:
    mean, lowest, highest = (f"{100 * row[key]:.1f}" for key in ("accuracy", "lowest", "highest"))
    return mean if row["runs"] == 1 else f"{mean} ({lowest} to {highest})"


def _seeds(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = [row["runs"] for row in rows]
    few, many = min(counts), max(counts)
    if many == 1:
        return "one seed"
    counted = str(many) if few == many else f"{few} to {many}"
    return f"the mean of {counted} seeds, with the lowest and the highest"
