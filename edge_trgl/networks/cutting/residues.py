"""Where a branch joins its shortcut: the additions of a stretch of calls, marked for the transport cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_trgl.networks.cutting.cut_points import values_in
from edge_trgl.networks.cutting.expressions import Expression, references
from edge_trgl.networks.cutting.recorder import Call, Value

_ADDITIONS = ("torch.Tensor.add", "torch.Tensor.add_", "torch.add")


@dataclass(frozen=True)
class _Join:
    """An addition: the call's number, and the values of its operands."""

    number: int
    shortcut: int
    branch: int


def marked(calls: Sequence[Call], values: Sequence[Value], norms: Mapping[str, bool]) -> list[Call]:
    """The calls, each residue marked in the form that costs least (see `transport.Residue`).

    `norms`: whether the layer of this name is a batch norm that is called once. The targets of marks are
    `residue`, `residue.add`, and `residue.norm NAME`.
    """
    found: dict[int, list[Call]] = {}
    fresh = 1 + max((number for call in calls for number in references(call.result, "value")), default=0)
    for join in _joins(calls, values):
        made = _maker(calls, join.branch)
        norm = calls[made].target.removeprefix("layer ")
        once = sum(join.branch in values_in(call) for call in calls) == 1
        if norms.get(norm) and once:
            found[made] = [replace(calls[made], target=f"residue.norm {norm}")]
        elif not _changed(calls, values, join):
            arguments = ["list", ["value", join.shortcut], ["value", join.branch]]
            found[join.number] = [_plain(calls[join.number], "residue.add", arguments)]
        else:
            found[join.number] = _kept(calls[join.number], join, fresh)
            fresh += 1
    return [one for number, call in enumerate(calls) for one in found.get(number, [call])]


def _plain(call: Call, target: str, arguments: Expression) -> Call:
    return replace(call, target=target, arguments=arguments, options=["dict"], changes=())


def _kept(call: Call, join: _Join, fresh: int) -> list[Call]:
    """The residue is kept for its energy, so that the sum must not be written into its memory."""
    mark = replace(_plain(call, "residue", ["list", ["value", join.branch]]), result=["value", fresh])
    return [mark, _plain(call, "torch.add", ["list", ["value", join.shortcut], ["value", fresh]])]


def _joins(calls: Sequence[Call], values: Sequence[Value]) -> list[_Join]:
    sources = _sources(calls)
    found = []
    for number, call in enumerate(calls):
        operands = list(references(call.arguments, "value"))
        if (
            call.target not in _ADDITIONS
            or len(operands) != 2
            or len(call.arguments) != 3
            or len(call.options) > 1
        ):
            continue
        shapes = {values[operand].shapes for operand in (*operands, *references(call.result, "value"))}
        # What does not come from the input has no place here: a bias, an embedding of positions.
        if len(shapes) > 1 or operands[0] == operands[1] or not all(0 in sources[one] for one in operands):
            continue
        shortcut, branch = _sides(calls, sources, operands[0], operands[1])
        if _layers(calls, sources[branch]):
            found.append(_Join(number, shortcut, branch))
    return found


def _sides(calls: Sequence[Call], sources: Mapping[int, frozenset[int]], one: int, other: int) -> tuple[int, int]:
    """Shortcut and branch: the branch comes from the shortcut, or has more layers."""
    if one in sources[other]:
        return one, other
    if other in sources[one] or _layers(calls, sources[other]) < _layers(calls, sources[one]):
        return other, one
    return one, other


def _sources(calls: Sequence[Call]) -> dict[int, frozenset[int]]:
    """For each value the values that it is computed from, itself among them; that which enters is number 0."""
    sources = {0: frozenset({0})}
    for call in calls:
        read = frozenset().union(*(sources[number] for number in values_in(call)))
        for number in references(call.result, "value"):
            sources[number] = read | {number}
    return sources


def _layers(calls: Sequence[Call], values: frozenset[int]) -> int:
    """How many layers gave these values."""
    return sum(
        call.target.startswith("layer ") and not values.isdisjoint(references(call.result, "value"))
        for call in calls
    )


def _maker(calls: Sequence[Call], value: int) -> int:
    return next(number for number, call in enumerate(calls) if value in references(call.result, "value"))


def _changed(calls: Sequence[Call], values: Sequence[Value], join: _Join) -> bool:
    """Whether any other call writes into the shortcut or into the sum."""
    total = next(iter(references(calls[join.number].result, "value")))
    places = {values[join.shortcut].storage, values[total].storage}
    return any(
        values[value].storage in places
        for number, call in enumerate(calls)
        if number != join.number
        for value in call.changes
    )
