"""Sizes and verdicts shared by the sections of the storage benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.common.intervals import median_ratio


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured, and how. `scratch`: a folder on the disk that is measured."""

    rounds: int
    threads: int
    quick: bool
    scratch: Path


def target(name: str, value: float, limit: float, *, least: bool = False) -> dict[str, Any]:
    """A figure against its limit: the most that it may be or, with `least`, the least."""
    ok = value >= limit if least else value <= limit
    return {"name": name, "value": value, "sense": "at least" if least else "at most", "limit": limit, "ok": ok}


def ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The median of a/b with its 95 % interval, and what it comes from."""
    median, low, high = median_ratio(pairs)
    return {"median": median, "low": low, "high": high, "seconds": pairs}
