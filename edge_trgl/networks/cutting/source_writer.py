"""Describes a range of a model's calls as a piece, in plain values from which `piece` builds a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_trgl.networks.cutting.expressions import references, renamed
from edge_trgl.networks.cutting.layers import batch_norm_class, describe_layer
from edge_trgl.networks.cutting.piece_source import CallSource, LayerSource, PieceSource, WeightSource
from edge_trgl.networks.cutting.recorded_model import CallRange, RecordedModel, names_in_call
from edge_trgl.networks.cutting.recording import Call
from edge_trgl.networks.cutting.residues import mark_residues
from edge_trgl.runtime.errors import InputError

_RESIDUE_NORM = "residue.norm"


@dataclass(frozen=True, kw_only=True)
class WrittenPiece:
    """The JSON of a piece (see `PieceSource`), and what the names of its weights begin with in the model."""

    text: str
    prefix: str


def write_piece(model: RecordedModel, call_range: CallRange, title: str) -> WrittenPiece:
    """Describe a range, with names and numbers chosen such that equal pieces have equal texts.

    Raises:
        InputError: it changes its input in place, in a call that has no other form.
    """
    numbers = {call_range.entering: 0}
    calls = [_renumbered(model.recording.calls[number], numbers) for number in model.call_numbers(call_range)]
    values = [model.recording.values[number] for number in numbers]
    calls = mark_residues(calls, values, _norms_called_once(model, calls))
    input_storage = values[0].storage
    changing = [input_storage in {values[value].storage for value in call.changes} for call in calls]
    not_in_place = {
        name for call, changes in zip(calls, changing, strict=True) if changes and (name := call.layer_name)
    }
    calls = [_out_of_place(call) if changes else call for call, changes in zip(calls, changing, strict=True)]
    prefix = _common_prefix(sorted({name for call in calls for name in _names(call)}))
    source = PieceSource(
        title=title,
        layers={
            name.removeprefix(prefix): _describe(model, name, out_of_place=name in not_in_place)
            for name in _layer_names(calls)
        },
        weights={
            name.removeprefix(prefix): WeightSource.of(model.tensor(name))
            for call in calls
            for name in _weight_names(call)
        },
        calls=tuple(_call_source(call, prefix) for call in calls),
        output=numbers[call_range.output],
        channels_last=call_range.channels_last,
    )
    return WrittenPiece(text=source.to_json(), prefix=prefix)


def _renumbered(call: Call, numbers: dict[int, int]) -> Call:
    """Return the call with its values numbered in the order in which the piece meets them."""
    for expression in (call.arguments, call.options, call.result):
        for value in references(expression, "value"):
            numbers.setdefault(value, len(numbers))
    return replace(
        call,
        arguments=renamed(call.arguments, "value", numbers),
        options=renamed(call.options, "value", numbers),
        result=renamed(call.result, "value", numbers),
        changes=tuple(numbers[value] for value in call.changes),
    )


def _norms_called_once(model: RecordedModel, calls: Sequence[Call]) -> dict[str, bool]:
    names = [call.layer_name for call in calls]
    return {
        name: names.count(name) == 1
        for name in _layer_names(calls)
        if batch_norm_class(model.net.get_submodule(name))
    }


def _out_of_place(call: Call) -> Call:
    """Return the form of a call that leaves the piece's input as it is: others may read it, too."""
    if call.layer_name is not None:
        return replace(call, changes=())
    in_place_option = ["item", "inplace", True]
    if in_place_option in call.options:
        options = [part for part in call.options if part != in_place_option]
        return replace(call, options=options, changes=())
    if call.target.endswith("_") and not call.target.endswith("__"):
        return replace(call, target=call.target[:-1], changes=())
    raise InputError(
        f"the model cannot be cut: at {call.source_line}, {call.target} changes the input of a block in place",
        hint="Use a form that is not in place there.",
    )


def _layer_of(call: Call) -> str | None:
    """Return the name of the layer that is called, also under a mark."""
    kind, _, name = call.target.partition(" ")
    return name if kind == _RESIDUE_NORM else call.layer_name


def _names(call: Call) -> set[str]:
    layer = _layer_of(call)
    return names_in_call(call) | ({layer} if layer else set())


def _layer_names(calls: Sequence[Call]) -> set[str]:
    return {name for call in calls if (name := _layer_of(call))}


def _weight_names(call: Call) -> list[str]:
    return [*references(call.arguments, "weight"), *references(call.options, "weight")]


def _common_prefix(names: Sequence[str]) -> str:
    """Return what all names begin with, up to a dot; every name keeps at least its last part."""
    paths = [name.split(".")[:-1] for name in names]
    depth = 0
    while paths and all(len(path) > depth and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    return "".join(f"{part}." for part in paths[0][:depth]) if paths else ""


def _describe(model: RecordedModel, name: str, *, out_of_place: bool) -> LayerSource:
    layer = describe_layer(model.net.get_submodule(name))
    return replace(layer, options={**layer.options, "inplace": False}) if out_of_place else layer


def _call_source(call: Call, prefix: str) -> CallSource:
    layer = _layer_of(call)
    target = call.target
    if layer is not None:
        target = f"{call.target.partition(' ')[0]} {layer.removeprefix(prefix)}"
    local = {name: name.removeprefix(prefix) for name in _weight_names(call)}
    return CallSource(
        target=target,
        arguments=renamed(call.arguments, "weight", local),
        options=renamed(call.options, "weight", local),
        result=call.result,
    )
