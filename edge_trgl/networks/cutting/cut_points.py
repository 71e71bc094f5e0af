"""Where a forward pass may be cut: between two calls where one tensor alone is alive, and not inside a block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from edge_trgl.networks.cutting.recording import BATCH_SIZES, Call, Recording, Value

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class Liveness:
    """Which values are alive when.

    Args:
        reads: the values that each call reads.
        makes: the values that each call makes.
        from_input: the values that are computed from the input, which is one of them.
        alive: for each call, those of `from_input` that later calls, or the caller of the model, need.
    """

    reads: tuple[frozenset[int], ...]
    makes: tuple[frozenset[int], ...]
    from_input: frozenset[int]
    alive: tuple[frozenset[int], ...]


def liveness_of(recording: Recording) -> Liveness:
    """Follow every value from the call that makes it to the last call that reads it."""
    reads = tuple(frozenset(call.reads) for call in recording.calls)
    makes = tuple(frozenset(call.makes) for call in recording.calls)
    from_input = {0}
    for call, read, made in zip(recording.calls, reads, makes, strict=True):
        if read & from_input:
            from_input |= made | set(call.changes)
    alive: list[frozenset[int]] = []
    needed = {recording.output}
    for read, made in zip(reversed(reads), reversed(makes), strict=True):
        alive.append(frozenset(needed & from_input))
        needed = (needed - made) | read
    return Liveness(reads=reads, makes=makes, from_input=frozenset(from_input), alive=tuple(reversed(alive)))


def find_cut_points(recording: Recording, liveness: Liveness) -> list[int]:
    """Return the calls after which one batch of samples alone is alive, and that do not lie inside a block."""
    candidates = [
        number
        for number, alive in enumerate(liveness.alive[:-1])
        if len(alive) == 1 and _is_batch(recording.values[next(iter(alive))])
    ]
    block_classes = _block_classes(recording, candidates)
    return [number for number in candidates if not _is_inside(recording, number, block_classes)]


def _is_batch(value: Value) -> bool:
    """Return whether the first axis, and no other, counts samples."""
    if not value.floating or any(len(shape) < 2 for shape in value.shapes):
        return False
    sizes, rest = zip(*((shape[0], shape[1:]) for shape in value.shapes), strict=True)
    return sizes == BATCH_SIZES and len(set(rest)) == 1


def _block_classes(recording: Recording, candidates: Sequence[int]) -> set[type[nn.Module]]:
    """Return the classes of the smallest modules around calls with several tensors alive: residual blocks.

    A module of such a class is a block even where it has no shortcut.
    """
    classes = set()
    edges = [-1, *candidates, len(recording.calls) - 1]
    for before, last in pairwise(edges):
        uncut = recording.calls[before + 1 : last + 1]
        if len(uncut) < 2:
            continue
        around = _common_scopes(uncut)
        kind = recording.scopes[around[-1]].kind if len(around) > 1 else None
        if kind is not None and not issubclass(kind, CONTAINERS):
            classes.add(kind)
    return classes


def _common_scopes(calls: Sequence[Call]) -> tuple[int, ...]:
    """Return the module calls that all of `calls` are inside, the outermost first."""
    first, last = min(call.scope for call in calls), max(call.scope for call in calls)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return first[:depth]


def _is_inside(recording: Recording, number: int, block_classes: Collection[type[nn.Module]]) -> bool:
    """Return whether the cut after call `number` lies inside a block."""
    around = _common_scopes(recording.calls[number : number + 2])
    return any(recording.scopes[scope].kind in block_classes for scope in around[1:])
