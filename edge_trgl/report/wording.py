"""Format numbers for readers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from edge_trgl.runtime.units import MIB

NONE = "–"
# A no-break space, so that a number and its unit stay on one line.
GAP = "\u00a0"


def size(mb: float | None) -> str:
    """Format a size in MiB, as GiB from 10 GiB on."""
    if mb is None:
        return NONE
    if mb >= 10240:
        return f"{mb / 1024:,.1f}{GAP}GiB"
    return f"{mb:,.0f}{GAP}MiB" if mb >= 10 else f"{mb:.2g}{GAP}MiB"


def size_of_bytes(num_bytes: int | None) -> str:
    """Format a size in bytes as `size` does."""
    return size(None if num_bytes is None else num_bytes / MIB)


def duration(seconds: float | None) -> str:
    """Format seconds: `1.2 s`, `3 min 4 s`, `2 h 5 min`, `1 d 3 h`."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f}{GAP}s"
    whole = round(seconds)
    for (large, large_s), (small, small_s) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if whole >= large_s:
            rest = whole % large_s // small_s
            return f"{whole // large_s}{GAP}{large}" + (f" {rest}{GAP}{small}" if rest else "")
    return f"{whole}{GAP}s"


def moment(seconds: float) -> str:
    """Format seconds since 1970 as a UTC time: `2026-11-25 23:45:12`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def share(fraction: float | None) -> str:
    """Format a fraction as a percentage with three significant digits."""
    return NONE if fraction is None else f"{100 * fraction:.3g}{GAP}%"


def percent(fraction: float | None) -> str:
    """Format a fraction as a percentage with two decimals."""
    return NONE if fraction is None else f"{fraction:.2%}".replace("%", f"{GAP}%")


def number(value: float | None) -> str:
    """Format a number with three significant digits."""
    return NONE if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """Format a count: `812`, `12.3 k`, `30.5 M`, `1.2 G`."""
    if value is None:
        return NONE
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f}{GAP}{unit}"
    return f"{value:.0f}"


def verdict(memory: Mapping[str, Any]) -> str:
    """The report's headline: peak memory against the budget, from the summary's `memory`."""
    peak, budget = memory["peak_mb"], memory["budget_mb"]
    if peak is None:
        return f"not measured yet, {size(budget)} budget" if budget is not None else "not measured yet"
    if budget is None:
        return f"peak {size(peak)}, no budget set"
    return f"peak {size(peak)} of {size(budget)} budget"


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten a nested configuration to dotted names and formatted values, in its order."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        rows += flatten(value, name + ".") if isinstance(value, Mapping) else [(name, _value(value))]
    return rows


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return NONE if value is None else str(value)
