"""Cached boundaries that were lost are written again: by the frozen passes that wrote them, from what is left."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from edge_trgl.engine.passes import write_next
from edge_trgl.engine.visits import IMAGES, Boundary, JobSize, Visit

_CACHED = re.compile(r"(?:lap(?P<lap>\d+)|frozen)-b(?P<module>\d+)")


def can_rebuild(name: str) -> bool:
    """Whether a boundary is one that frozen modules wrote. What trained modules handed on is gone with the weights
    that they had then."""
    return _CACHED.fullmatch(name) is not None


def rebuilding(
    job: JobSize, lost: Mapping[str, Sequence[int]], kept: Iterable[str], *, once: bool = False
) -> Iterator[Visit]:
    """The visits that write `lost` again, with so many records of each copy: those that a commit counted.

    Every module before a cached boundary is still as it was when the boundary was written, so its records come out
    the same. `kept`: the names of the boundaries that are good; the passes begin at the nearest below, else at the
    images. `once`: all laps come from the images of the first, because modules are frozen.
    """
    good = {name: _boundary(job, name, 1) for name in kept if can_rebuild(name)}
    for name in sorted(lost, key=_module):
        if not any(lost[name]):
            continue
        wanted = _boundary(job, name, len(lost[name]))
        below = [one for one in good.values() if one.module < wanted.module and _goes_with(one.name, name)]
        start = max(below, key=lambda one: one.module, default=IMAGES)
        lap = 0 if once and start is IMAGES else _lap(name)
        yield from _passes(job, start, wanted, lost[name], lap)
        good[name] = wanted


def _passes(job: JobSize, start: Boundary, wanted: Boundary, counts: Sequence[int], lap: int) -> Iterator[Visit]:
    """Frozen passes of a lap from `start` up to `wanted`."""
    reads = start
    for module in range(start.module, wanted.module - 1):
        writes = replace(wanted, name=f"again-b{module + 1}", module=module + 1)
        yield from write_next(job, module, reads, writes, lap, read_again=reads is start)
        reads = writes
    done = (
        visit
        for visit in write_next(job, wanted.module - 1, reads, wanted, lap, read_again=True)
        if visit.span.start * job.batch_size < counts[visit.span.epoch % wanted.copies]
    )
    *others, last = done
    yield from others
    yield last if reads is start else replace(last, drops=(reads.name,))


def _boundary(job: JobSize, name: str, copies: int) -> Boundary:
    return Boundary(name, _module(name), job.num_samples, copies)


def _goes_with(below: str, above: str) -> bool:
    """Whether `above` came from `below`: of the same lap, or from frozen modules."""
    return below.startswith("frozen") or (above.startswith("lap") and _lap(below) == _lap(above))


def _module(name: str) -> int:
    found = _CACHED.fullmatch(name)
    assert found is not None, name
    return int(found["module"])


def _lap(name: str) -> int:
    found = _CACHED.fullmatch(name)
    assert found is not None, name
    return int(found["lap"] or 0)
