"""Targets of the proof, and whether its figures meet them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tools.common.book import Book, Item
from tools.prove.cases import STATE_FACTOR
from tools.prove.limits import GENEROSITY
from tools.prove.proof import measured_mb

PROBED_ERROR, INSTANT_ERROR, SHORTFALL, GROWTH = 0.03, 0.10, 0.02, 1.03


def judge(book: Book) -> list[Item]:
    """The targets that the book has something to say about."""
    return [
        *_judge_rows(book.items("rows")),
        *_judge_minimum(book.items("minimum")),
        *_judge_state(book.items("state")),
        *_judge_balloon(book.items("balloon")),
        *_judge_depth(book.items("depth")),
    ]


def _judge_rows(rows: Sequence[Item]) -> list[Item]:
    if not rows:
        return []
    done = [row for row in rows if "error" not in row]
    found = [_at_least("rows that finished within their budget, none killed", _count(rows, "kept"), len(rows))]
    found.append(_at_most("rows with a step that is not exact", sum(bool(row["lossy"]) for row in done), 0))
    probed = [row for row in done if row["probed"]]
    alike = [row for row in done if row["instant_layout"] == row["layout"]]
    for name, some, limit in (("probed", probed, PROBED_ERROR), ("instant", alike, INSTANT_ERROR)):
        errors = [_error(row, "planned_mb" if name == "probed" else "instant_mb") for row in some]
        if errors:
            title = f"{name} plan against measured, {len(errors)} rows"
            found.append(_at_most(f"{title}: 95th percentile of the error", percentile(errors, 95), limit))
            found.append(_at_most(f"{title}: most below", max(0.0, -min(errors)), SHORTFALL))
    return found


def _judge_minimum(items: Sequence[Item]) -> list[Item]:
    found = []
    for item in items:
        name = f"{item['net']}, {item['regime']}"
        found.append(_at_least(f"{name}: a step below the smallest budget is refused", item.get("refused", 0), 1))
        if "error" not in item:
            share = item["minimum_mb"] / item["measured_mb"]
            found.append(_at_most(f"{name}: smallest budget / measured peak", share, GENEROSITY))
            passed = item["forced_peak_mb"] / item["forced_mb"]
            found.append(_at_least(f"{name}: forced {GENEROSITY} times below it, peak / budget", passed, 1))
    return found


def _judge_state(items: Sequence[Item]) -> list[Item]:
    found = []
    for item in items:
        good = "error" not in item and item["same_weights"] and len(item["killed"]) == 2
        found.append(_at_least("a net larger than its budget: killed, resumed and evaluated", int(good), 1))
        if good:
            weight, peak = (mb / item["budget_mb"] for mb in (item["state_mb"], max(item["peaks_mb"].values())))
            found.append(_at_least("its weights and momentum / budget", weight, STATE_FACTOR))
            found.append(_at_most("its peak / budget", peak, 1))
            found.append(_at_most("its processes killed by the kernel", item["kernel_kills"], 0))
    return found


def _judge_balloon(items: Sequence[Item]) -> list[Item]:
    found = []
    for item in items:
        good = "error" not in item and item["kills"] > 0 and item["restarts"] > 0
        found.append(_at_least("killed by the kernel, the run came to its end by itself", int(good), 1))
        if good:
            exact = item["same_weights"] and not item["lossy"]
            found.append(_at_least("its weights are those of an undisturbed run", int(exact), 1))
            found.append(_at_most("its peak / budget", item["outside_mb"] / item["budget_mb"], 1))
    return found


def _judge_depth(items: Sequence[Item]) -> list[Item]:
    peaks = {item["modules"]: measured_mb(item) for item in items if "error" not in item}
    found = [_at_least("depths that were trained", len(peaks), len(items))] if items else []
    if len(peaks) > 1:
        fewest, most = min(peaks), max(peaks)
        growth = peaks[most] / peaks[fewest]
        found.append(_at_most(f"peak RSS, {most} modules / {fewest}, one in memory", growth, GROWTH))
    return found


def percentile(errors: Sequence[float], percent: int) -> float:
    """The smallest magnitude that `percent` % of `errors` do not exceed."""
    ranked = sorted(map(abs, errors))
    return ranked[math.ceil(len(ranked) * percent / 100) - 1]


def _error(row: Mapping[str, Any], planned: str) -> float:
    """Planned over measured, less one: below zero where more was needed than was planned."""
    return float(row[planned]) / measured_mb(row) - 1


def _count(items: Sequence[Item], name: str) -> int:
    return sum(bool(item.get(name)) for item in items)


def _at_most(name: str, value: float, limit: float) -> Item:
    return {"name": name, "value": value, "limit": limit, "bound": "at most", "ok": value <= limit}


def _at_least(name: str, value: float, limit: float) -> Item:
    return {"name": name, "value": value, "limit": limit, "bound": "at least", "ok": value >= limit}
