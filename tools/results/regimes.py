"""What each regime takes and gives, and what the transport term costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.bench.nets import NETS, ROWS
from tools.results.markdown import NONE, ratio, rounded, table
from tools.results.source import document, origin, targets

SAVINGS = "tools.bench.regimes --nets resnet110 --rows end-to-end one-module savings tree --pairs 3 --threads 1"
AMPLE_MB = 10_000
"""A budget above it decides nothing."""


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    yield f"""## What each regime takes and gives

Peak tensors: VmHWM over all steps less VmHWM just before the first, when all but the net has been loaded and
warmed up; weights and momentum count. Peak RSS: of the row's process. Images/s: through all modules, commits
included. Read and written: asked of the kernel, page cache included. ResNet-110 has one block in each of 54
modules and makes two steps of each. The images are CIFAR-10's, enlarged to 96×96. Bare rows are plain PyTorch:
no budget and no commits. All rows use the allocator settings of the product. 15 MiB of each budget are for the
watching process. Nothing else ran on the machine.

### ResNet-110 within 490 MiB

{_rows("bench_regimes_savings")}

{origin("bench_regimes_savings", SAVINGS)}

{_turns(document("bench_regimes_savings"))}

{_tree(document("bench_regimes_savings"))}

{targets(document("bench_regimes_savings")["targets"])}

### What each saving gave

ResNet-110 at 96×96, batch 64, 54 modules, as `plan --resident 1` measures a step of module 1: gradients,
activations and workspace, in MiB, with the version of 2026-11-28.

{_savings()}

Gradients are small here; in-place ReLU and computing a one-block module again as a whole gave nothing."""

    yield f"""## The transport term

Peak tensors of a step with it over those without it, and CPU time of a step with it over one without it (median
and 95 % interval). “Kept” is the term as a formula over residues that are kept. Blocks of ResNet-110 at 96×96 and
of K-M 10-1 of width 64, on one thread, the other core being busy.

{_transport()}

{origin("bench_transport", "tools.bench.transport --nets resnet110; python -m tools.bench.transport --rounds 11")}

{targets(document("bench_transport")["targets"])}

With the term, the backward pass of a block's last ReLU takes another way to the same bits, which is faster for
K-M: steps without the term are 0.950 [0.931, 0.975] as long on that way (norms, nine rounds), so the term itself
costs K-M about 2 %, too."""


def _rows(name: str) -> str:
    head = ("net", "row", "budget", "peak tensors", "peak RSS", "images/s", "read", "written", "accuracy")
    return table(head, map(_row, document(name)["rows"]), left=2)


def _row(row: Mapping[str, Any]) -> Sequence[str]:
    budget = row.get("budget_mb")
    return (
        NETS[row["net"]].title,
        ROWS[row["row"]].title,
        rounded(budget) if budget and budget < AMPLE_MB else NONE,
        rounded(row["tensors_mb"]),
        rounded(row["rss_mb"]),
        rounded(row["images_per_s"], 1),
        rounded(row["read_mb"]),
        rounded(row["written_mb"]),
        NONE if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %",
    )


def _turns(found: Mapping[str, Any]) -> str:
    (item,) = found["savings"]
    return (
        f"An epoch with one module in memory takes {_interval(item)} of the time of everything in memory and "
        f"nothing saved ({item['pairs']} rounds in turns)."
    )


def _tree(found: Mapping[str, Any]) -> str:
    (item,) = found["tree"]
    return (
        f"A whole run under its number: `edge-trgl train --budget-mb {item['budget_mb']:.0f} --model resnet110 "
        f"--modules 54 --batch-size 64` on 96×96 images: {item['summary_mb']:.0f} MiB stand in its summary, and "
        f"{item['outside_mb']:.0f} is the sum of the high-water marks of its processes, watched from outside."
    )


def _savings() -> str:
    rows = (
        ("everything kept", "`--without recompute`", "252 (288 while the transport term kept its residue)"),
        ("norms and ReLUs computed again", "`--budget-mb 510`", "180"),
        ("the block's first convolution too", "`--budget-mb 490`", "153"),
    )
    return table(("", "flags", "MiB"), rows, left=2)


def _transport() -> str:
    head = ("net", "computed again", "MiB without", "with", "kept", "time with", "time kept", "rounds")
    return table(head, map(_transport_row, document("bench_transport")["rows"]), left=2)


def _transport_row(row: Mapping[str, Any]) -> Sequence[str]:
    more = (f"{100 * (row['memory'][arm] - 1):+.{places}f} %" for arm, places in (("with", 3), ("kept", 1)))
    times = (_interval(row["time"][arm], 3) for arm in ("with", "kept"))
    without = rounded(row["peak_mb"]["without"], 1)
    return (NETS[row["net"]].title, row["recompute"], without, *more, *times, str(row["rounds"]))


def _interval(item: Mapping[str, Any], places: int = 2) -> str:
    return ratio(item["median"], item["low"], item["high"], places)
