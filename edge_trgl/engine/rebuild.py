"""Rewrites lost cached boundaries, with the frozen passes that wrote them, from the nearest data that is left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from edge_trgl.engine.passes import write_next
from edge_trgl.engine.visits import IMAGES, Boundary, JobSize, Visit

_CACHED = re.compile(r"(?:lap(?P<lap>\d+)|frozen)-b(?P<module>\d+)")


def can_rebuild(name: str) -> bool:
    """Return whether a boundary can be written again: whether modules wrote it in a frozen pass.

    The output of a module in training cannot, as the weights that it had then are gone.
    """
    return _CACHED.fullmatch(name) is not None


def rebuilding(
    job: JobSize, lost: Mapping[str, Sequence[int]], kept: Iterable[str], *, once: bool = False
) -> Iterator[Visit]:
    """Yield the visits that write the boundaries `lost` again.

    Every module before a cached boundary is still as it was when the boundary was written, so its records come out
    the same.

    Args:
        job: the size of the job.
        lost: by name, the records of each copy that the last commit counted.
        kept: names of the boundaries that are intact; passes begin at the nearest one below, else at the images.
        once: all laps read the images of the first, because modules are frozen.
    """
    intact = {name: _boundary(job, name, 1) for name in kept if can_rebuild(name)}
    for name in sorted(lost, key=_module):
        if not any(lost[name]):
            continue
        target = _boundary(job, name, len(lost[name]))
        below = [
            boundary
            for boundary in intact.values()
            if boundary.module < target.module and _goes_with(boundary.name, name)
        ]
        start = max(below, key=lambda boundary: boundary.module, default=IMAGES)
        lap = 0 if once and start is IMAGES else _lap(name)
        yield from _passes(job, start, target, lost[name], lap)
        intact[name] = target


def _passes(job: JobSize, start: Boundary, target: Boundary, counts: Sequence[int], lap: int) -> Iterator[Visit]:
    """Yield the frozen passes of a lap from `start` up to `target`, of which each copy gets `counts` records."""
    reads = start
    for module in range(start.module, target.module - 1):
        writes = replace(target, name=f"again-b{module + 1}", module=module + 1)
        yield from write_next(job, module, reads, writes, lap, read_again=reads is start)
        reads = writes
    needed = (
        visit
        for visit in write_next(job, target.module - 1, reads, target, lap, read_again=True)
        if visit.span.start * job.batch_size < counts[visit.span.epoch % target.copies]
    )
    *others, last = needed
    yield from others
    yield last if reads is start else replace(last, drops=(reads.name,))


def _boundary(job: JobSize, name: str, copies: int) -> Boundary:
    return Boundary(name, _module(name), job.num_samples, copies)


def _goes_with(below: str, above: str) -> bool:
    """Return whether `above` was made from `below`: both are of one lap, or `below` is from frozen modules."""
    return below.startswith("frozen") or (above.startswith("lap") and _lap(below) == _lap(above))


def _module(name: str) -> int:
    match = _CACHED.fullmatch(name)
    assert match is not None, name
    return int(match["module"])


def _lap(name: str) -> int:
    match = _CACHED.fullmatch(name)
    assert match is not None, name
    return int(match["lap"] or 0)
