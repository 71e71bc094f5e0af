"""Render the report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_trgl.report import wording
from edge_trgl.report.document import Data, DepthAccuracy, Event, LossPoint, ModuleMemory, Report
from edge_trgl.run import data_wording
from edge_trgl.run.wording import samples_word, validation_samples

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_EVENTS = 400
MAX_TEXT = 400
MAX_CLASSES = 200
MAX_FILES = 100
MAX_CHANGES = 4


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """A row of the table of modules."""

    depth: int
    cost: ModuleMemory
    loss: LossPoint | None
    influence: float | None
    accuracy: DepthAccuracy | None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A legend entry of the comparison: a run, its colour, and the settings in which it differs from this run."""

    name: str
    colour: str
    changes: str


def render(report: Report) -> str:
    """Render one HTML page below 1 MB that has no scripts and fetches nothing; equal reports give equal pages.

    Imports jinja2 and matplotlib (61 MB), so call it in a process of its own.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        size=wording.size,
        size_of_bytes=wording.size_of_bytes,
        duration=wording.duration,
        moment=wording.moment,
        percent=wording.percent,
        share=wording.share,
        number=wording.number,
        count=wording.count,
        short=_short,
        sentence=_sentence,
    )
    return environment.get_template("report.html.j2").render(_contents(report))


def _contents(report: Report) -> dict[str, object]:
    from edge_trgl.report import plots

    memory = report.summary["memory"]
    shown, left_out = _some_events(report.events)
    return {
        "report": report,
        "summary": report.summary,
        "rebuilt": report.summary.get("reconstruction"),
        "verdict": wording.verdict(memory),
        "kept": _kept(memory),
        "half_test": report.summary["accuracy"]["chosen_on"] == "half-test",
        "chosen_on": _chosen_on(report),
        "samples": _samples(report),
        "share": _share(memory),
        "plots": _plots(report),
        "phases": plots.phase_colours(report.memory),
        "ramp": plots.RAMP,
        "rows": _rows(report),
        "compared": [
            Compared(name=run.name, colour=colour, changes=_changes(report.config, run.config))
            for run, colour in zip(report.against, plots.RUNS[1:], strict=False)
        ],
        "compared_on": _compared_on(report),
        "events": shown,
        "events_left_out": left_out,
        "data_facts": _data_facts(report.data),
        "max_classes": MAX_CLASSES,
        "max_files": MAX_FILES,
        "config": wording.flatten(report.config),
    }


def _data_facts(data: Data | None) -> list[tuple[str, str]]:
    """What was found in the data: titles and sentences."""
    if data is None:
        return []
    summary = data.summary
    rows = {
        "Source": f"{summary.source} ({summary.format})",
        "Found": data_wording.total(summary),
        "Largest / smallest class": f"{summary.imbalance:.3g}",
        "Size": data_wording.sizes(summary),
        "Becomes": data_wording.becomes(summary),
        "Augmented": data_wording.augmented(data.augmentation),
        "Normalised": data.normalised,
        "Left out, no images": data_wording.by_ending(summary.no_images),
        "Left out, cannot be read": f"{len(summary.unreadable):,}" if summary.unreadable else None,
        "Notices": "; ".join(summary.notices),
    }
    return [(title, text) for title, text in rows.items() if text]


def _plots(report: Report) -> dict[str, Markup]:
    from markupsafe import Markup

    from edge_trgl.report import plots

    drawn = {}
    if report.memory:
        drawn["memory"] = plots.memory(report.memory, report.summary["memory"]["budget_mb"])
    if report.modules:
        drawn["modules"] = plots.modules(report.modules)
    if report.accuracy:
        scored = report.summary["accuracy"]
        drawn["accuracy"] = plots.accuracy(report.accuracy, scored["chosen_depth"], _chosen_on(report))
    if report.against and report.accuracy:
        runs = [report.accuracy, *(run.accuracy for run in report.against)]
        drawn["against"] = plots.against(runs, tested=_tested(report), images=_compared_on(report))
    if report.early_exit:
        drawn["early_exit"] = plots.early_exit(report.early_exit)
    if report.losses:
        drawn["losses"] = plots.losses(report.losses)
    if report.looks:
        drawn["looks"] = plots.looks(report.looks, _chosen_on(report))
    if report.io:
        drawn["io"] = plots.io(report.io)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _rows(report: Report) -> list[ModuleRow]:
    losses = {point.module: point for point in sorted(report.losses, key=lambda point: point.epoch)}
    accuracy = {entry.depth: entry for entry in report.accuracy}
    return [
        ModuleRow(
            depth=cost.module + 1,
            cost=cost,
            loss=losses.get(cost.module),
            influence=report.influences.get(cost.module),
            accuracy=accuracy.get(cost.module + 1),
        )
        for cost in report.modules
    ]


def _tested(report: Report) -> bool:
    """Whether every depth of all compared runs was scored on test images."""
    runs = (report.accuracy, *(run.accuracy for run in report.against))
    return all(entry.test is not None for depths in runs for entry in depths)


def _samples(report: Report) -> str:
    return "images" if report.data is None else samples_word(report.data.summary.shape)


def _chosen_on(report: Report) -> str:
    return validation_samples(report.summary["accuracy"]["chosen_on"], _samples(report))


def _compared_on(report: Report) -> str:
    if _tested(report):
        return f"test {_samples(report)}"
    return _chosen_on(report)


def _changes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The settings in which another run differs from this one, in words, except those of the board."""
    our_values = dict(wording.flatten({**ours, "board": {}}))
    their_values = wording.flatten({**theirs, "board": {}})
    changes = [f"{name} = {value}" for name, value in their_values if our_values.get(name) != value]
    more = [f"and {len(changes) - MAX_CHANGES} more"] if len(changes) > MAX_CHANGES else []
    return ", ".join([*changes[:MAX_CHANGES], *more]) or "same settings"


def _kept(memory: Mapping[str, Any]) -> bool | None:
    """Whether the peak is within the budget; None if there is no budget or no measurement yet."""
    if memory["peak_mb"] is None or memory["budget_mb"] is None:
        return None
    return bool(memory["peak_mb"] <= memory["budget_mb"])


def _share(memory: Mapping[str, Any]) -> float | None:
    """The peak as a percentage of the budget, at most 100, for the meter; None as for `_kept`."""
    if _kept(memory) is None:
        return None
    return min(100.0, 100.0 * float(memory["peak_mb"]) / float(memory["budget_mb"]))


def _some_events(events: Sequence[Event]) -> tuple[list[Event], int]:
    """The first and last events, at most `MAX_EVENTS`, and the number of those left out between them."""
    left_out = max(0, len(events) - MAX_EVENTS)
    if not left_out:
        return list(events), 0
    return [*events[: MAX_EVENTS // 2], *events[-MAX_EVENTS // 2 :]], left_out


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
