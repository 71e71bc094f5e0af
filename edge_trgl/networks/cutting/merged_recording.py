"""One recording out of several: what follows the batch size or the mode becomes an expression that says so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from edge_trgl.networks.cutting.expressions import Expression
from edge_trgl.networks.cutting.recording import BATCH_SIZES, Call, Recording, Scope
from edge_trgl.runtime.errors import InputError

PASSES = tuple(itertools.product((True, False), BATCH_SIZES))
"""Training or not, and the batch size, of the recordings that are merged, in this order."""


def merge(recordings: Sequence[Recording]) -> Recording:
    """Merge the recordings of `PASSES`.

    Raises:
        InputError: the passes differ in more than multiples of the batch size and settings of the mode.
    """
    first, second = recordings[:2]
    calls = [_merge_calls(calls, first.scopes) for calls in _in_step(recordings)]
    values = [
        replace(value, shapes=(value.shapes[0], other.shapes[0]))
        for value, other in zip(first.values, second.values, strict=True)
    ]
    return replace(first, calls=tuple(calls), values=tuple(values))


def _in_step(recordings: Sequence[Recording]) -> Iterator[tuple[Call, ...]]:
    """Yield the calls of all passes side by side; refuse passes that make different calls."""
    for calls in itertools.zip_longest(*(recording.calls for recording in recordings)):
        if None in calls or len({(call.target, call.changes) for call in calls}) > 1:
            _refuse_difference(calls, recordings)
        yield calls


def _refuse_difference(calls: Sequence[Call | None], recordings: Sequence[Recording]) -> None:
    training, evaluation = calls[0], calls[len(BATCH_SIZES)]
    by_mode = training is None or evaluation is None or training.target != evaluation.target
    call, recording = next(pair for pair in zip(calls, recordings, strict=True) if pair[0] is not None)
    assert call is not None
    scope = recording.scopes[call.scope[-1]] if call.scope else None
    inside = f" in {scope.kind.__name__} {scope.name}" if scope and scope.name else ""
    cause = "whether it is in training mode" if by_mode else "the batch size"
    raise InputError(
        f"the model cannot be cut: what it computes at {call.source_line}{inside} depends on {cause}",
        hint="Use torch's Dropout, StochasticDepth or DropPath for what is random in training only.",
    )


def _merge_calls(calls: Sequence[Call], scopes: Sequence[Scope]) -> Call:
    first = calls[0]
    try:
        return replace(
            first,
            arguments=_merge_expressions([call.arguments for call in calls]),
            options=_merge_expressions([call.options for call in calls]),
            result=_merge_expressions([call.result for call in calls]),
        )
    except ValueError as error:
        inside = scopes[first.scope[-1]].name if first.scope else ""
        raise InputError(
            f"the model cannot be cut: at {first.source_line} in {inside or 'the model'}, "
            f"{first.target} is given {error}",
            hint="Only multiples of the batch size, and settings of training and evaluation, may differ.",
        ) from error


def _merge_expressions(expressions: Sequence[Expression]) -> Expression:
    """Return one expression for those of `PASSES`."""
    first = expressions[0]
    if all(other == first and type(other) is type(first) for other in expressions):
        return first
    lists = [expression for expression in expressions if isinstance(expression, list)]
    if len(lists) == len(expressions) and all(
        len(other) == len(first) and other[0] == first[0] for other in lists
    ):
        return [first[0], *(_merge_expressions(parts) for parts in zip(*(e[1:] for e in lists), strict=True))]
    if lists:
        raise ValueError("different kinds of values in training and evaluation, or for different batch sizes")
    training, evaluation = expressions[: len(BATCH_SIZES)], expressions[len(BATCH_SIZES) :]
    if all(type(number) is int for number in expressions) and list(training) == list(evaluation):
        per_sample = {number / size for number, size in zip(training, BATCH_SIZES, strict=True)}
        if len(per_sample) == 1 and per_sample == {int(next(iter(per_sample)))}:
            return ["batch", int(next(iter(per_sample)))]
    if len(set(training)) == len(set(evaluation)) == 1:
        return ["mode", training[0], evaluation[0]]
    sizes = " and ".join(map(str, BATCH_SIZES))
    raise ValueError(f"{' and '.join(map(str, training))} for batches of {sizes}")
