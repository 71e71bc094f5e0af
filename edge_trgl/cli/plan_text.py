"""A plan as people read it."""

from __future__ import annotations

from typing import Any

from edge_trgl.cli.progress import duration

COLUMNS = ("weights", "gradients", "momentum", "activations", "workspace", "buffers", "peak")
RECOMPUTED = {
    "none": "",
    "norms": ", normalisations computed again in the backward",
    "blocks": ", blocks computed again in the backward",
}


def plan_text(document: dict[str, Any]) -> str:
    """The document of `edge-trgl plan` as a table and a few sentences."""
    plan, table = document["plan"], document["table"]
    lines = ["module" + "".join(f"{name:>12}" for name in COLUMNS) + "  MiB"]
    for row in table:
        sizes = "".join(f"{row[f'{name}_mb']:12.1f}" for name in COLUMNS)
        head = f", {row['head']} head" if row["head"] else ""
        lines.append(f"{row['module']:6d}{sizes}  {row['name']}{head}")
    lines += [
        _layout(plan, len(table)) + _missed(document["missed"]),
        *_traffic(document["traffic"]),
        *_alternatives(plan, document["alternatives"]),
    ]
    basis = "measured by steps in a process of their own" if plan["probed"] else "estimated; no step was measured"
    fits = "fits" if plan["peak_mb"] <= document["budget_mb"] else "does not fit"
    lines += [
        f"peak {plan['peak_mb']:.0f} MiB of {document['budget_mb']:.0f} MiB: {fits}; "
        f"{plan['fixed_mb']:.0f} MiB are there before any module ({basis})"
    ]
    fits = "fits" if plan["disk_mb"] <= document["disk_limit_mb"] else "does not fit"
    lines.append(f"on the disk {plan['disk_mb']:.0f} MiB at most of {document['disk_limit_mb']:.0f} MiB: {fits}")
    others = ", ".join(f"{phase['name']} {phase['peak_mb']:.0f}" for phase in document["phases"])
    lines.append(f"peaks before training: {others} MiB")
    fits = "fits" if document["export_mb"] <= document["budget_mb"] else "does not fit"
    lines.append(f"exporting the network takes {document['export_mb']:.0f} MiB at most: {fits}")
    if plan["lossy"]:
        lines.append(f"this changes results: {', '.join(plan['lossy'])}")
    return "\n".join(lines)


def _layout(plan: dict[str, Any], num_modules: int) -> str:
    layout = plan["layout"]
    ahead = ", what comes next is read ahead" if layout["prefetch"] else ""
    return (
        f"{layout['resident']} of {num_modules} modules in memory, chunks of {layout['chunk']} batches, "
        f"boundaries {'in memory' if layout['placement'] == 'memory' else 'on disk'}{ahead}"
        + RECOMPUTED[layout["recompute"]]
        + (f", batches in parts of {plan['micro_batch']}" if plan["micro_batch"] else "")
    )


def _missed(found: dict[str, float]) -> str:
    """What it would take to do without a saving."""
    return "".join(f"; {name} would take {peak_mb:.0f} MiB" for name, peak_mb in found.items())


def _traffic(traffic: dict[str, Any]) -> list[str]:
    epochs, read_mb, written_mb = traffic["epochs"], traffic["read_mb"], traffic["written_mb"]
    each = f"an epoch reads {_size(read_mb / epochs)} and writes {_size(written_mb / epochs)}"
    whole = f"all {epochs} read {_size(read_mb)} and write {_size(written_mb)}"
    if traffic["seconds"] is not None:
        each += f" in {duration(traffic['seconds'] / epochs)}"
        whole += f" in {duration(traffic['seconds'])}"
    if traffic["wear"] is not None:
        whole += f", {traffic['wear']:.2%} of what the storage endures"
    return [f"{each}; {whole}"]


def _alternatives(plan: dict[str, Any], found: list[dict[str, Any]]) -> list[str]:
    """What more copies of a cached boundary, or none, mean for the result, for the storage and for the time."""
    if not found:
        return []
    here, *more, none = found
    in_memory = plan["layout"]["placement"] == "memory"
    each = f"the same {here['copies']} augmented copies" if here["copies"] > 1 else "the same augmented copy"
    words = [f"cached boundaries show every epoch {each} of an image" if more else "cached boundaries are exact"]
    for one in more:
        takes = "fills as many times their memory" if in_memory else _writes(one)
        words.append(f"--views {one['copies']} varies them more, {takes}{_time(one, here)}")
    draws = "draws anew in every epoch, " if more else ""
    takes = "keeps none" if in_memory else _writes(none)
    words.append(f"--cache none {draws}{takes}{_time(none, here)}")
    return ["; ".join(words)]


def _writes(one: dict[str, Any]) -> str:
    return f"writes {_size(one['traffic']['written_mb'])} in all"


def _time(one: dict[str, Any], here: dict[str, Any]) -> str:
    """How long it takes, where that is known."""
    seconds, ours = one["traffic"]["seconds"], here["traffic"]["seconds"]
    return "" if seconds is None else f", takes {seconds / ours:.1f} times as long"


def _size(mb: float) -> str:
    return f"{mb / 1024:.1f} GiB" if mb >= 1024 else f"{mb:.0f} MiB"
