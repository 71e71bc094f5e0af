"""Exported files: what writing them takes, how near they are to torch, and leaving early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tools.results.markdown import ratio, rounded, table
from tools.results.source import document, origin

EXITS = {"bench_exits": 10, "bench_exits_3": 3}
"""Stages of the network in each file."""


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    yield f"""## Exporting

The promise is a peak of 320 MiB and 2.2 times the weights of the heaviest module. Every exit in one file, one
thread, each export in a memory cgroup of the smaller of promise and budget; MiB, the parent process counted.

{_peaks()}

{origin("bench_export", "tools.bench.export")}

## Exported networks beside torch

A few steps of training, `export --depth all`, 1,000 real images through onnxruntime in batches of 1 to 64:
differences of a logit, the worst depth. The goal is 1e-04, median 1e-05. torchvision's vgg11_bn at side 32 misses
it, whose logits reach 380 (2e-06 of them).

{_equal()}

{origin("export_models", "tools.models.export")}

## The time of leaving early

K-M 10-1 of width 16 (0.6 ms an image), batch 1, one thread, with the cascade of stages, with one file of nested
`If` nodes, and with `model.onnx`, in turns; median ratios with 95 % intervals; graphs as written."""

    for name, stages in EXITS.items():
        yield f"{stages} stages:\n\n{_exits(name)}\n"
        yield origin(name, "tools.bench.exits RUN")

    yield """One file of nested `If` nodes is faster, by about 0.1 ms a stage passed, which is what a call into
onnxruntime costs. Stages are files nonetheless: they load when they are needed, and take batches in which some
images leave and others go on (an `If` takes one decision a batch). Take few stages (`--stages`) where a module
takes less than a millisecond."""


def _peaks() -> str:
    head = ("net", "weights", "heaviest module", "budget", "writing", "checking", "promised", "largest difference")
    return table(head, map(_peak_row, document("bench_export")["rows"]))


def _peak_row(row: Mapping[str, Any]) -> Sequence[str]:
    heaviest = row["heaviest_mb"]
    held = row["within_limit"] and row["within_budget"] and not row["kills"]
    return (
        row["net"] if held else f"{row['net']} (**missed**)",
        rounded(row["weights_mb"]),
        rounded(heaviest, 0 if heaviest >= 1 else 1),
        *(rounded(row[name]) for name in ("budget_mb", "export_mb", "check_mb", "limit_mb")),
        f"{row['max_abs_diff']:.0e}",
    )


def _equal() -> str:
    head = ("network", "side", "depths", "largest", "median", "of logits to", "same class")
    return table(head, map(_equal_row, document("export_models")["rows"]))


def _equal_row(row: Mapping[str, Any]) -> Sequence[str]:
    largest, median, scale = (
        max(depth[name] for depth in row["depths"]) for name in ("largest", "median", "scale")
    )
    same = min(depth["same_class"] for depth in row["depths"])
    return (
        row["model"] if row["ok"] else f"{row['model']} (**missed**)",
        str(row["side"]),
        str(len(row["depths"])),
        f"{largest:.0e}",
        f"{median:.0e}",
        f"{float(f'{scale:.2g}'):g}",
        f"{100 * same:g} %",
    )


def _exits(name: str) -> str:
    rows = [row for row in document(name)["rows"] if not row["optimize"]]
    return table(
        ("threshold", "FLOPs", "cascade / nested `If`", "cascade / `model.onnx`"),
        (
            (
                str(row["threshold"]),
                f"{100 * row['compute_share']:.0f} %",
                ratio(*row["cascade_to_nested"]),
                ratio(*row["cascade_to_model"]),
            )
            for row in rows
        ),
    )
