"""Where a forward may be cut: where one tensor is alive between two calls, and not inside of a block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from edge_trgl.networks.cutting.expressions import references
from edge_trgl.networks.cutting.recorder import SIZES, Call, Recording, Value

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What is alive when.

    `reads` and `makes`: the values of each call. `depends`: the values that are computed from the input.
    `alive[n]`: of those, the ones that calls after number n need.
    """

    reads: tuple[frozenset[int], ...]
    makes: tuple[frozenset[int], ...]
    depends: frozenset[int]
    alive: tuple[frozenset[int], ...]


def flow_of(recording: Recording) -> Flow:
    """Follow every value from the call that makes it to the last that reads it."""
    calls = recording.calls
    reads = tuple(frozenset(values_in(call)) for call in calls)
    makes = tuple(frozenset(references(call.result, "value")) for call in calls)
    depends = {0}
    for call, read, made in zip(calls, reads, makes, strict=True):
        if read & depends:
            depends |= made | set(call.changes)
    alive: list[frozenset[int]] = []
    needed = {recording.output}
    for read, made in zip(reversed(reads), reversed(makes), strict=True):
        alive.append(frozenset(needed & depends))
        needed = (needed - made) | read
    return Flow(reads=reads, makes=makes, depends=frozenset(depends), alive=tuple(reversed(alive)))


def values_in(call: Call) -> set[int]:
    """The values that a call reads."""
    return {*references(call.arguments, "value"), *references(call.options, "value")}


def open_gaps(recording: Recording, flow: Flow) -> list[int]:
    """The calls after which one tensor alone is alive, a batch of samples, and no block is under way."""
    single = [
        number
        for number, alive in enumerate(flow.alive[:-1])
        if len(alive) == 1 and _is_batch(recording.values[next(iter(alive))])
    ]
    kinds = _block_kinds(recording, single)
    return [number for number in single if not _inside(recording, number, kinds)]


def _is_batch(value: Value) -> bool:
    if not value.floating or any(len(shape) < 2 for shape in value.shapes):
        return False
    sizes, rest = zip(*((shape[0], shape[1:]) for shape in value.shapes), strict=True)
    return sizes == SIZES and len(set(rest)) == 1


def _block_kinds(recording: Recording, single: Sequence[int]) -> set[type[nn.Module]]:
    """The classes of the modules that just hold a stretch in which several tensors are alive: residual blocks.

    Another of the same class is a block, too, even if it has no shortcut.
    """
    kinds = set()
    edges = [-1, *single, len(recording.calls) - 1]
    for before, last in pairwise(edges):
        stretch = recording.calls[before + 1 : last + 1]
        if len(stretch) < 2:
            continue
        around = _common([call.scope for call in stretch])
        kind = recording.scopes[around[-1]].kind if len(around) > 1 else None
        if kind is not None and not issubclass(kind, CONTAINERS):
            kinds.add(kind)
    return kinds


def _common(scopes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The calls of modules that all these are in, the outermost first."""
    first, last = min(scopes), max(scopes)
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def _inside(recording: Recording, number: int, kinds: Collection[type[nn.Module]]) -> bool:
    around = _common([recording.calls[number].scope, recording.calls[number + 1].scope])
    return any(recording.scopes[scope].kind in kinds for scope in around[1:])
