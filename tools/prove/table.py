"""Print the results of the proof as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.prove.proof import measured_mb

NOTE = (
    "(MiB. RSS: the largest sum of high-water marks of processes alive at one moment. cgroup: the most that the\n"
    "kernel charged, which page cache fills up to the limit. ~: the instant plan lays the run out otherwise.)"
)


def table(document: Mapping[str, Any]) -> str:
    """Format the results as text."""
    sections = document["sections"]
    lines = _row_lines(list(sections.get("rows", {}).values()))
    if document["no_cgroup"]:
        lines.append(f"No memory cgroup: {document['no_cgroup']}. The product's own guard holds; no balloon.")
    lines += [_minimum_line(item) for item in sections.get("minimum", {}).values()]
    lines += [_state_line(item) for item in sections.get("state", {}).values()]
    lines += [_balloon_line(item) for item in sections.get("balloon", {}).values()]
    lines += [_depth_line(item) for item in sections.get("depth", {}).values()]
    for target in document["targets"]:
        verdict = "met   " if target["ok"] else "MISSED"
        lines.append(f"{verdict} {target['name']}: {target['value']:.4g}, {target['bound']} {target['limit']:.4g}")
    return "\n".join(lines)


def _row_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = f"{'budget':>8}{'planned':>9}{'instant':>9}{'RSS':>8}{'cgroup':>8}{'restarts':>10}  verdict"
    head = f"{'net':11}{'regime':12}{'level':9}{columns}"
    return [head, *map(_row_line, rows), NOTE] if rows else []


def _row_line(row: Mapping[str, Any]) -> str:
    title = f"{row['net']:11}{row['regime']:12}{row['level']:9}"
    if "error" in row:
        return f"{title}  {_last_line(row)}"
    other = " " if row["instant_layout"] == row["layout"] else "~"
    plans = f"{row['budget_mb']:8.0f}{row['planned_mb']:9.1f}{row['instant_mb']:8.1f}{other}"
    charge = f"{row['cgroup_mb']:8.0f}" if row["cgroup_mb"] is not None else f"{'-':>8}"
    highest = max(row["phases_mb"], key=row["phases_mb"].get)
    verdict = "kept" if row["kept"] else "KILLED" if row["kills"] else f"PASSED, highest in {highest}"
    return f"{title}{plans}{measured_mb(row):8.1f}{charge}{row['restarts']:10d}  {verdict}"


def _minimum_line(item: Mapping[str, Any]) -> str:
    title = f"minimum   {item['net']}, {item['regime']}: "
    if "error" in item:
        return title + _last_line(item)
    return title + (
        f"{item['minimum_mb']:.0f} MiB stated, {item['measured_mb']:.1f} measured; forced in "
        f"{item['forced_mb']:.0f}: {item['forced_peak_mb']:.1f}, exit code {item['forced_code']}"
    )


def _state_line(item: Mapping[str, Any]) -> str:
    if "error" in item:
        return f"state     {_last_line(item)}"
    peaks = ", ".join(f"{name} {peak:.0f}" for name, peak in item["peaks_mb"].items())
    return f"state     {item['state_mb']:.0f} MiB of weights and momentum in {item['budget_mb']:.0f}: {peaks}"


def _balloon_line(item: Mapping[str, Any]) -> str:
    if "error" in item:
        return f"balloon   {_last_line(item)}"
    return (
        f"balloon   budget {item['budget_mb']:.0f} MiB, cgroup of {item['room_mb']:.0f}: {item['kills']} kills, "
        f"{item['restarts']} restarts, peak {item['outside_mb']:.0f}"
    )


def _depth_line(item: Mapping[str, Any]) -> str:
    text = _last_line(item) if "error" in item else f"peak RSS {measured_mb(item):.1f} MiB"
    return f"depth     {item['modules']:3d} modules, one in memory: {text}"


def _last_line(item: Mapping[str, Any]) -> str:
    """Of an error; the document has all of it."""
    return str(item["error"]).rstrip().rpartition("\n")[2]
