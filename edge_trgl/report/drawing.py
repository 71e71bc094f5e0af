"""Render a matplotlib figure as an SVG element that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# matplotlib draws in these colours; the page replaces each with a CSS variable that follows light and dark mode.
MUTED = "#5b6676"
GRID = "#e3e7ed"
FIRST = "#2563ca"
SECOND = "#d9722b"
BUDGET = "#c62f3c"
VARIABLES = {
    MUTED: "--muted",
    GRID: "--grid",
    FIRST: "--first",
    SECOND: "--second",
    BUDGET: "--bad",
}

# Small on purpose: the page scales the figure up, so text is still about ten pixels high on a phone.
WIDTH_INCHES, HEIGHT_INCHES = 4.4, 2.7
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": MUTED,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_joinstyle": "round",
    "path.simplify": False,
}


class Drawing:
    """One plot: draw on `axes` inside `drawing`, then ask for `svg`."""

    def __init__(self) -> None:
        self._figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
        FigureCanvasSVG(self._figure)
        self.axes: Axes = self._figure.add_subplot()

    def svg(self, *, name: str, title: str, description: str) -> str:
        """Render an `<svg>` element; `name` keeps its ids distinct from those of other plots on the page."""
        text = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            self._figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        return _embed(text.getvalue(), name, title, description)


@contextmanager
def drawing() -> Iterator[Drawing]:
    """Provide a new drawing in the style of the page."""
    with matplotlib.rc_context(STYLE):
        yield Drawing()


def _embed(text: str, name: str, title: str, description: str) -> str:
    view = re.search(r'viewBox="([^"]+)"', text)
    assert view is not None, "matplotlib wrote an SVG without a viewBox"
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    return (
        f'<svg viewBox="{view.group(1)}" role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        f"{_slim(_own_ids(body))}</svg>"
    )


def _own_ids(body: str) -> str:
    """Remove ids that nothing refers to, because several plots on a page would share them."""
    used = set(re.findall(r"#([\w.-]+)", body))
    return re.sub(r'\s+id="([^"]+)"', lambda match: match.group(0) if match.group(1) in used else "", body)


def _slim(body: str) -> str:
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"(\d+\.\d\d)\d+", r"\1", body)
    return re.sub(r"\s*\n\s*", "\n", body)
