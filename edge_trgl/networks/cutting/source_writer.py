"""A stretch of a recording written down as a piece: plain values, from which `piece` builds a module."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from edge_trgl.networks.cutting.cut_points import Flow
from edge_trgl.networks.cutting.expressions import references, renamed
from edge_trgl.networks.cutting.layers import norm_class, written
from edge_trgl.networks.cutting.piece import packed
from edge_trgl.networks.cutting.recorder import Call, Recording
from edge_trgl.networks.cutting.residues import marked
from edge_trgl.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as it is cut: its structure on the device meta, its buffers' values, and what it does."""

    net: nn.Module
    buffers: dict[str, Tensor]
    recording: Recording
    flow: Flow

    def tensor(self, name: str) -> Tensor:
        """A parameter, buffer or constant; parameters have no values."""
        if name in self.buffers:
            return self.buffers[name]
        if name in self.recording.constants:
            return self.recording.constants[name]
        return self.net.get_parameter(name)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The calls from `start` to before `stop`, which make `output` of `entering`; see `Piece` for `turned`."""

    start: int
    stop: int
    entering: int
    output: int
    turned: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A piece as JSON; in the model its weights' names begin with `prefix`."""

    text: str
    prefix: str


def write(model: Model, stretch: Stretch, title: str) -> Writing:
    """Write the stretch down, its names and numbers such that equal pieces have equal texts.

    Raises:
        InputError: it changes its input in place in a way for which there is no other form.
    """
    numbers = calls_of(model, stretch)
    values = {stretch.entering: 0}
    calls = [_renumbered(model.recording.calls[number], values) for number in numbers]
    infos = [model.recording.values[number] for number in values]
    calls = marked(calls, infos, _norms(model, calls))
    entering = infos[0].storage
    calls = [_apart(call, [infos[value].storage for value in call.changes], entering) for call in calls]
    names = sorted({name for call in calls for name in _names(call)})
    prefix = _prefix(names)
    local = {name: name.removeprefix(prefix) for name in names}
    document = {
        "title": title,
        "layers": {local[name]: _layer(model, calls, name) for name in _layer_names(calls)},
        "weights": {local[name]: _weight(model, name) for name in _weight_names(calls)},
        "calls": [_call(call, local) for call in calls],
        "output": values[stretch.output],
        "turned": list(stretch.turned),
    }
    return Writing(text=json.dumps(document, sort_keys=True), prefix=prefix)


def calls_of(model: Model, stretch: Stretch) -> list[int]:
    """The numbers of the calls that a stretch consists of.

    What is computed from weights alone is with those that read it, wherever the model computes it.
    """
    flow, calls = model.flow, model.recording.calls
    touched = [flow.reads[number] | flow.makes[number] for number in range(len(calls))]
    chosen = {number for number in range(stretch.start, stretch.stop) if touched[number] & flow.depends}
    while True:
        read = {value for number in chosen for value in flow.reads[number]}
        more = {
            number
            for number, call in enumerate(calls)
            if not touched[number] & flow.depends and (flow.makes[number] | set(call.changes)) & read
        }
        if more <= chosen:
            return sorted(chosen)
        chosen |= more


def names_in(model: Model, stretch: Stretch) -> set[str]:
    """The layers and weights that a stretch uses."""
    return {name for number in calls_of(model, stretch) for name in _names(model.recording.calls[number])}


def _renumbered(call: Call, numbers: dict[int, int]) -> Call:
    """The call with its values counted in the order in which a piece meets them."""
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


def _norms(model: Model, calls: Sequence[Call]) -> dict[str, bool]:
    targets = [call.target for call in calls]
    return {
        name: targets.count(f"layer {name}") == 1
        for name in _layer_names(calls)
        if norm_class(model.net.get_submodule(name))
    }


def _apart(call: Call, changed: Sequence[int], entering: int) -> Call:
    """The call in the form that leaves the piece's input as it is: others may read it, too."""
    if entering not in changed:
        return call
    if call.target.startswith("layer "):
        return replace(call, target=call.target + " apart", changes=())
    if ["item", "inplace", True] in call.options:
        options = [part for part in call.options if part != ["item", "inplace", True]]
        return replace(call, options=options, changes=())
    if call.target.endswith("_") and not call.target.endswith("__"):
        return replace(call, target=call.target[:-1], changes=())
    raise InputError(
        f"the model cannot be cut: at {call.place}, {call.target} changes what a block reads",
        hint="Use a form that is not in place there.",
    )


def _names(call: Call) -> set[str]:
    found = {*references(call.arguments, "weight"), *references(call.options, "weight")}
    layer = _layer_of(call)
    return found | {layer} if layer else found


def _layer_of(call: Call) -> str | None:
    kind, _, name = call.target.partition(" ")
    return name.removesuffix(" apart") if kind in ("layer", "residue.norm") else None


def _layer_names(calls: Sequence[Call]) -> list[str]:
    # A layer may hold others, which are put into it after it.
    return sorted({name for call in calls if (name := _layer_of(call))}, key=lambda name: (name.count("."), name))


def _weight_names(calls: Sequence[Call]) -> list[str]:
    found = {
        name
        for call in calls
        for name in (*references(call.arguments, "weight"), *references(call.options, "weight"))
    }
    return sorted(found)


def _prefix(names: Sequence[str]) -> str:
    """What all names begin with, up to a dot; none of them is used up."""
    parts = [name.split(".")[:-1] for name in names]
    shared = 0
    while parts and all(len(one) > shared and one[shared] == parts[0][shared] for one in parts):
        shared += 1
    return "".join(f"{part}." for part in parts[0][:shared]) if parts else ""


def _layer(model: Model, calls: Sequence[Call], name: str) -> dict[str, Any]:
    layer = written(model.net.get_submodule(name))
    if any(call.target == f"layer {name} apart" for call in calls):
        return {**layer, "options": {**layer["options"], "inplace": False}}
    return layer


def _weight(model: Model, name: str) -> dict[str, Any]:
    tensor = model.tensor(name)
    if not isinstance(tensor, nn.Parameter):
        return packed(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"shape": list(tensor.shape), "dtype": dtype, "trained": tensor.requires_grad}


def _call(call: Call, local: dict[str, str]) -> list[Any]:
    layer = _layer_of(call)
    target = call.target if layer is None else f"{call.target.partition(' ')[0]} {local[layer]}"
    return [target, renamed(call.arguments, "weight", local), renamed(call.options, "weight", local), call.result]
