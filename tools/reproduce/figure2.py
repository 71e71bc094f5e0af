"""Draw figure 2 of the paper from kept results: test accuracy after each module, VanGL and TRGL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.reproduce.tables import TABLES, TRGL, VANGL

COLOURS = {VANGL: "tab:blue", TRGL: "tab:red"}


def panels(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """A panel for each kept table that has both rows: [mean, half its 95 % interval] after each module.

    Args:
        folder: of the results.
        quick: the results of quick tries, and no others.
    """
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("table*.json"))]
    wanted = [one for one in documents if ("quick" in one["table"].split("-")) == quick]
    wanted.sort(key=lambda one: list(TABLES).index(one["of"]))
    return [panel for one in wanted for panel in _panel(one)]


def _panel(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    case = TABLES[document["of"]].figure
    items = [item for item in document["rows"] if item["case"] == case and item["row"] in COLOURS]
    curves = {item["row"]: item["per_depth"] for item in items}
    if set(curves) != set(COLOURS):
        return []
    title = f"{document['title']}, {document['case_title']} {case}"
    seeds = {item["row"]: item["seeds"] for item in items}
    title = "\n".join([title, *document["changes"]])
    return [{"table": document["table"], "title": title, "seeds": seeds, "curves": curves}]


def draw(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write the panels side by side as a PNG; the bands are 95 % intervals over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(5.2 * len(found), 3.8), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        for row, curve in panel["curves"].items():
            seeds = panel["seeds"][row]
            _band(axes, curve, COLOURS[row], f"{row} ({seeds} seed{'' if seeds == 1 else 's'})")
        axes.set_title(panel["title"], fontsize=9)
        axes.set(xlabel="module", ylabel="test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", linewidth=0.4)
        axes.legend()
    figure.savefig(file)


def _band(axes: Any, curve: Sequence[tuple[float, float | None]], colour: str, label: str) -> None:
    modules = range(1, len(curve) + 1)
    means = [100 * mean for mean, _ in curve]
    halves = [100 * (half or 0.0) for _, half in curve]
    axes.plot(modules, means, color=colour, marker="o", markersize=3, label=label)
    low, high = ([m + sign * h for m, h in zip(means, halves, strict=True)] for sign in (-1, 1))
    axes.fill_between(modules, low, high, color=colour, alpha=0.2, linewidth=0)
