"""Where a branch joins its shortcut: additions among the calls of a piece, marked for the transport cost.

A mark takes the place of a call's target: `residue.norm NAME`, `residue.add` or `residue`, for the methods of
`method.transport.Residue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge_trgl.networks.cutting.expressions import Expression, references
from edge_trgl.networks.cutting.recording import Call, Value

_ADDITIONS = ("torch.Tensor.add", "torch.Tensor.add_", "torch.add")


@dataclass(frozen=True, kw_only=True)
class _Join:
    """An addition of a branch to its shortcut: the number of the call, and the values of its operands."""

    number: int
    shortcut: int
    branch: int


def mark_residues(calls: Sequence[Call], values: Sequence[Value], called_once: Mapping[str, bool]) -> list[Call]:
    """Return the calls with every residue marked in the form that costs least memory.

    Args:
        calls: those of one piece; value 0 is its input.
        values: the piece's values, by number.
        called_once: for each batch norm among the layers, whether it is called just once.
    """
    replacements: dict[int, list[Call]] = {}
    unused_number = 1 + max((number for call in calls for number in call.makes), default=0)
    for join in _joins(calls, values):
        maker = _maker(calls, join.branch)
        norm = calls[maker].target.removeprefix("layer ")
        read_once = sum(join.branch in call.reads for call in calls) == 1
        if called_once.get(norm) and read_once:
            replacements[maker] = [replace(calls[maker], target=f"residue.norm {norm}")]
        elif not _is_changed(calls, values, join):
            arguments = ["list", ["value", join.shortcut], ["value", join.branch]]
            replacements[join.number] = [_replaced(calls[join.number], "residue.add", arguments)]
        else:
            replacements[join.number] = _kept(calls[join.number], join, unused_number)
            unused_number += 1
    return [call for number, original in enumerate(calls) for call in replacements.get(number, [original])]


def _replaced(call: Call, target: str, arguments: Expression) -> Call:
    return replace(call, target=target, arguments=arguments, options=["dict"], changes=())


def _kept(call: Call, join: _Join, unused_number: int) -> list[Call]:
    """Keep the residue for its energy: the sum must then not be written into its memory."""
    mark = replace(_replaced(call, "residue", ["list", ["value", join.branch]]), result=["value", unused_number])
    return [mark, _replaced(call, "torch.add", ["list", ["value", join.shortcut], ["value", unused_number]])]


def _joins(calls: Sequence[Call], values: Sequence[Value]) -> list[_Join]:
    ancestors = _ancestors(calls)
    joins = []
    for number, call in enumerate(calls):
        operands = list(references(call.arguments, "value"))
        if (
            call.target not in _ADDITIONS
            or len(operands) != 2
            or len(call.arguments) != 3
            or len(call.options) > 1
        ):
            continue
        shapes = {values[value].shapes for value in (*operands, *call.makes)}
        # An operand that does not come from the input is a bias or an embedding of positions, not a branch.
        if len(shapes) > 1 or operands[0] == operands[1] or not all(0 in ancestors[value] for value in operands):
            continue
        shortcut, branch = _shortcut_and_branch(calls, ancestors, operands[0], operands[1])
        if _num_layers(calls, ancestors[branch]):
            joins.append(_Join(number=number, shortcut=shortcut, branch=branch))
    return joins


def _shortcut_and_branch(
    calls: Sequence[Call], ancestors: Mapping[int, frozenset[int]], left: int, right: int
) -> tuple[int, int]:
    """Tell the operands of an addition apart: the branch is computed from the shortcut, or has more layers."""
    if left in ancestors[right]:
        return left, right
    if right in ancestors[left] or _num_layers(calls, ancestors[right]) < _num_layers(calls, ancestors[left]):
        return right, left
    return left, right


def _ancestors(calls: Sequence[Call]) -> dict[int, frozenset[int]]:
    """Return, for each value, the values that it is computed from, itself among them."""
    ancestors = {0: frozenset({0})}
    for call in calls:
        inherited = frozenset().union(*(ancestors[value] for value in call.reads))
        for value in references(call.result, "value"):
            ancestors[value] = inherited | {value}
    return ancestors


def _num_layers(calls: Sequence[Call], values: frozenset[int]) -> int:
    """Return how many calls of layers made these values."""
    return sum(call.layer_name is not None and not values.isdisjoint(call.makes) for call in calls)


def _maker(calls: Sequence[Call], value: int) -> int:
    return next(number for number, call in enumerate(calls) if value in call.makes)


def _is_changed(calls: Sequence[Call], values: Sequence[Value], join: _Join) -> bool:
    """Return whether any other call writes into the shortcut or into the sum."""
    total = next(references(calls[join.number].result, "value"))
    protected = {values[join.shortcut].storage, values[total].storage}
    return any(
        values[value].storage in protected
        for number, call in enumerate(calls)
        if number != join.number
        for value in call.changes
    )
