"""`edge-trgl plan`: whether a run fits its budget, and how the plan reads."""

from __future__ import annotations

import json
from typing import Any

import click

from edge_trgl.api import plan_of
from edge_trgl.cli.configured import ConfiguredVerb, configured, read_configuration
from edge_trgl.cli.progress import Terminal, duration
from edge_trgl.cli.verb import option

COLUMNS = ("weights", "gradients", "momentum", "activations", "workspace", "buffers", "peak")
RECOMPUTED = {
    "none": "",
    "norms": ", normalisations recomputed in the backward pass",
    "blocks": ", blocks recomputed in the backward pass",
}


@click.command(cls=ConfiguredVerb)
@configured
@option("--json", "as_json", is_flag=True, group="Output", help="print the plan as one JSON document")
def plan(as_json: bool, **given: Any) -> None:  # noqa: FBT001
    """Say whether a run fits its budget and what each module takes, without training."""
    document = plan_of(read_configuration(given), Terminal())
    click.echo(json.dumps(document) if as_json else plan_text(document))


def plan_text(document: dict[str, Any]) -> str:
    """Lay out the document of `edge-trgl plan` as a table and a few sentences."""
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
    basis = "measured by steps in a separate process" if plan["probed"] else "estimated; no step was measured"
    fits = "fits" if plan["peak_mb"] <= document["budget_mb"] else "does not fit"
    lines += [
        f"peak {plan['peak_mb']:.0f} MiB of {document['budget_mb']:.0f} MiB: {fits}; "
        f"{plan['fixed_mb']:.0f} MiB are fixed, before any module ({basis})"
    ]
    fits = "fits" if plan["disk_mb"] <= document["disk_limit_mb"] else "does not fit"
    lines.append(f"disk at most {plan['disk_mb']:.0f} MiB of {document['disk_limit_mb']:.0f} MiB: {fits}")
    others = ", ".join(f"{phase['name']} {phase['peak_mb']:.0f}" for phase in document["phases"])
    lines.append(f"peaks before training: {others} MiB")
    fits = "fits" if document["export_mb"] <= document["budget_mb"] else "does not fit"
    lines.append(f"exporting the network takes at most {document['export_mb']:.0f} MiB: {fits}")
    if plan["lossy"]:
        lines.append(f"this plan changes the results: {', '.join(plan['lossy'])}")
    return "\n".join(lines)


def _layout(plan: dict[str, Any], num_modules: int) -> str:
    layout = plan["layout"]
    ahead = ", the next module is read ahead" if layout["prefetch"] else ""
    return (
        f"{layout['resident']} of {num_modules} modules in memory, chunks of {layout['chunk']} batches, "
        f"boundaries {'in memory' if layout['placement'] == 'memory' else 'on disk'}{ahead}"
        + RECOMPUTED[layout["recompute"]]
        + (f", batches in parts of {plan['micro_batch']}" if plan["micro_batch"] else "")
    )


def _missed(without: dict[str, float]) -> str:
    """The peak without each saving that the budget has no room to leave out."""
    return "".join(f"; {name} would take {peak_mb:.0f} MiB" for name, peak_mb in without.items())


def _traffic(traffic: dict[str, Any]) -> list[str]:
    epochs, read_mb, written_mb = traffic["epochs"], traffic["read_mb"], traffic["written_mb"]
    each = f"an epoch reads {_size(read_mb / epochs)} and writes {_size(written_mb / epochs)}"
    whole = f"all {epochs} read {_size(read_mb)} and write {_size(written_mb)}"
    if traffic["seconds"] is not None:
        each += f" in {duration(traffic['seconds'] / epochs)}"
        whole += f" in {duration(traffic['seconds'])}"
    if traffic["wear"] is not None:
        whole += f", {traffic['wear']:.2%} of the storage's endurance"
    return [f"{each}; {whole}"]


def _alternatives(plan: dict[str, Any], found: list[dict[str, Any]]) -> list[str]:
    """What more copies of a cached boundary, or none, would mean for augmentation, storage and time."""
    if not found:
        return []
    here, *more, none = found
    in_memory = plan["layout"]["placement"] == "memory"
    each = f"the same {here['copies']} augmented copies" if here["copies"] > 1 else "the same augmented copy"
    words = [
        f"cached boundaries show {each} of an image in every epoch" if more else "cached boundaries are exact"
    ]
    for one in more:
        takes = "takes as many times their memory" if in_memory else _writes(one)
        words.append(f"--views {one['copies']} varies the images more, {takes}{_time(one, here)}")
    draws = "augments anew in every epoch, " if more else ""
    takes = "keeps none" if in_memory else _writes(none)
    words.append(f"--cache none {draws}{takes}{_time(none, here)}")
    return ["; ".join(words)]


def _writes(one: dict[str, Any]) -> str:
    return f"writes {_size(one['traffic']['written_mb'])} in all"


def _time(one: dict[str, Any], here: dict[str, Any]) -> str:
    """How long it takes, if that is known."""
    seconds, ours = one["traffic"]["seconds"], here["traffic"]["seconds"]
    return "" if seconds is None else f", takes {seconds / ours:.1f} times as long"


def _size(mb: float) -> str:
    return f"{mb / 1024:.1f} GiB" if mb >= 1024 else f"{mb:.0f} MiB"
