"""What boundaries and modules on disk cost."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from tools.results.markdown import ratio, rounded, table
from tools.results.source import document, origin, targets


def sections() -> Iterator[str]:
    """The parts of the page, in order."""
    figures = document("bench_storage")["figures"]
    order = ", ".join(f"{100 * statistics.fmean(figures['order'][name]):.1f} %" for name in ("windowed", "full"))
    yield f"""## Boundaries on disk

{_cached(figures["cached"])}

Where both cores compute, the reader takes 0.12 s of CPU, 0.10 of that in the kernel, and the thread on the other
core waits for the one whose core it takes. The slow disk is one slowed to 45 MB/s, against the slower of compute
and disk.

{_cache(figures["cache"])}

The order that follows the disk, and a full shuffle: {order} test accuracy ({figures["order"]["net"]}, five seeds),
within what seeds differ by.

In parallel training, one module in memory and chunks as planned over all in memory:

{_parallel(figures["parallel"])}

Views of an image in a cached boundary (K-M 10-1 of width 16, sequential, four epochs on the sample in 330 MiB):

{_prefix(figures["prefix"])}

{origin("bench_storage", "tools.bench.storage")}

{targets(document("bench_storage")["targets"])}"""


def _cached(found: Mapping[str, Any]) -> str:
    title = f"time of an epoch: {found['net']} ({found['boundary_mb']:.0f} MB)"
    return table(
        (title, "median [95 %]"),
        ((name, _interval(item)) for name, item in found.items() if isinstance(item, dict)),
    )


def _cache(found: Mapping[str, Any]) -> str:
    head = ("boundary", "laps", "MiB in the page cache at most", "process, first lap", "last lap")
    return table(
        head,
        (
            (
                name,
                str(item["laps"]),
                rounded(item["cached_mb"]),
                *(rounded(item["rss_mb"][lap], 1) for lap in (0, -1)),
            )
            for name, item in found.items()
        ),
    )


def _parallel(found: Mapping[str, Any]) -> str:
    return table(
        ("net", "time", "rounds"),
        ((name, _interval(item), str(len(item["seconds"]))) for name, item in found.items()),
    )


def _prefix(found: Mapping[str, Any]) -> str:
    base = found["1 views"]["seconds"]
    return table(
        ("", "time", "MiB written", "accuracy"),
        (
            (name, f"{item['seconds'] / base:.2f}", rounded(item["written_mb"]), f"{100 * item['accuracy']:.1f} %")
            for name, item in found.items()
        ),
    )


def _interval(item: Mapping[str, Any]) -> str:
    return ratio(item["median"], item["low"], item["high"])
