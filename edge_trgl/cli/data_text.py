"""How the summary of a data set reads on a terminal: about ten lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from edge_trgl.run import data_wording
from edge_trgl.run.data_summary import Augmentation, DataSummary, UnreadableFile

SHOWN_FILES = 2
SHOWN_NOTICES = 2
LONGEST_NAME = 24


def data_text(summary: DataSummary, augmentation: Augmentation, columns: int) -> str:
    """Lay out a summary in lines of at most `columns` characters."""
    becomes = data_wording.becomes(summary)
    lines = [
        f"data {summary.source}: {data_wording.total(summary)}",
        *([_classes(summary, columns)] if summary.has_labels else []),
        f"  size: {data_wording.sizes(summary)}",
        *([f"  each becomes {becomes}"] if becomes else []),
        f"  augmented: {data_wording.augmented(augmentation)}",
        *_left_out(summary.no_images, summary.unreadable),
        *_notices(summary.notices),
    ]
    return "\n".join(_fitted(line, columns) for line in lines)


def _classes(summary: DataSummary, columns: int) -> str:
    """The training images of the first classes, as many as one line has room for."""
    counts = [count.train for count in summary.classes]
    if len(set(counts)) == 1:
        each = [_short(count.name) for count in summary.classes]
        balance = f" ({counts[0]:,} {data_wording.things_of(summary)} each)"
    else:
        each = [f"{_short(count.name)} {count.train:,}" for count in summary.classes]
        balance = f" (largest / smallest {summary.imbalance:.3g})"
    text = f"  training: {', '.join(each)}{balance}"
    shown = len(each)
    while len(text) > columns and shown > 1:
        shown -= 1
        text = f"  training: {', '.join(each[:shown])}, and {len(each) - shown:,} more{balance}"
    return text


def _left_out(no_images: Mapping[str, int], unreadable: tuple[UnreadableFile, ...]) -> list[str]:
    lines = [f"  left out, no images: {data_wording.by_ending(no_images)}"] if no_images else []
    if unreadable:
        number, more = len(unreadable), len(unreadable) - SHOWN_FILES
        lines.append(f"  left out, cannot be read: {number:,} image{'' if number == 1 else 's'}")
        lines += [f"    {file.file}: {file.reason}" for file in unreadable[:SHOWN_FILES]]
        lines += [f"    and {more:,} more; --json lists all"] if more > 0 else []
    return lines


def _notices(notices: Iterable[str]) -> list[str]:
    every = [f"  notice: {text}" for text in notices]
    more = len(every) - SHOWN_NOTICES
    return every if more <= 0 else [*every[:SHOWN_NOTICES], f"  and {more} more; --json lists all"]


def _fitted(line: str, columns: int) -> str:
    """Wrap a line; of one that would fill more than two, the middle is left out."""
    indent = " " * (len(line) - len(line.lstrip()))
    if len(line) > 2 * columns - 10:
        line = f"{line[: columns // 2]} … {line[-columns:]}"
    return "\n".join(textwrap.wrap(line, columns, subsequent_indent=indent + "  ", break_on_hyphens=False))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
