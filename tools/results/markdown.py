"""Tables and numbers in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A table whose first `left` columns are text, aligned left; the others are numbers, aligned right."""
    rule = ["---" if index < left else "--:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in (head, rule, *rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def rounded(value: float | None, places: int = 0) -> str:
    """With a comma between thousands."""
    return NONE if value is None else f"{value:,.{places}f}"


def percent(accuracy: Sequence[float | None] | None, *, signed: bool = False) -> str:
    """[mean, half its 95 % interval], fractions, in percent."""
    if accuracy is None:
        return NONE
    mean, half = accuracy
    assert mean is not None
    text = f"{100 * mean:{'+' if signed else ''}.2f}".replace("-", "−")
    return text if half is None else f"{text} ± {100 * half:.2f}"


def ratio(median: float, low: float, high: float, places: int = 2) -> str:
    """A median and its 95 % interval."""
    return f"{median:.{places}f} [{low:.{places}f}, {high:.{places}f}]"
