"""Part of a model as a module of its own, built from its description without the model's code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import Pieces
from edge_trgl.networks.cutting.expressions import Bindings, Expression, decode, references, torch_function
from edge_trgl.networks.cutting.layers import build_layer
from edge_trgl.networks.cutting.piece_source import CallSource, PieceSource


class Piece(nn.Module):
    """Calls of layers and functions, one after the other: [B, C, ...] → [B, C', ...].

    Its layers and weights have the names of the model, below `net`.
    """

    def __init__(self, source: PieceSource) -> None:
        super().__init__()
        self.net = nn.Module()
        # Sorted by name, as JSON has them: a layer comes before those that it holds.
        for name, layer in source.layers.items():
            _add_layer(self.net, name, build_layer(layer))
        for name, weight in source.weights.items():
            _add_tensor(self.net, name, weight.build())
        # A piece without a mark is a plain layer, whose residue is its output minus its input.
        marked = any(call.target.startswith("residue") for call in source.calls)
        self.residue = Residue() if marked else None
        self._weight_getters = {name: attrgetter(name) for name in source.weights}
        self._calls = [(self._function(call.target), call) for call in source.calls]
        self._dropped_after = _dropped_after(source.calls, source.output)
        self._output = source.output
        self._channels_last = source.channels_last

    def forward(self, x: Tensor) -> Tensor:
        """Run the calls; every value is dropped after the call that reads it last."""
        # Axes are counted from the front: the exporter joins permutations wrongly where one counts from the end.
        values: dict[int, Tensor] = {0: x.movedim(1, x.dim() - 1) if self._channels_last[0] else x}
        weights = {name: get(self.net) for name, get in self._weight_getters.items()}
        bindings = Bindings(values=values, weights=weights, x=x, training=self.training)
        for (function, call), dropped in zip(self._calls, self._dropped_after, strict=True):
            arguments, options = decode(call.arguments, bindings), decode(call.options, bindings)
            _bind(call.result, function(*arguments, **options), values)
            del arguments, options  # or a tensor that is dropped below would live through the next call
            for number in dropped:
                del values[number]
        out = values[self._output]
        return out.movedim(out.dim() - 1, 1) if self._channels_last[1] else out

    def _function(self, target: str) -> Callable[..., Any]:
        kind, _, name = target.partition(" ")
        if kind == "layer":
            return self.net.get_submodule(name)
        if not kind.startswith("residue"):
            return torch_function(target)
        assert self.residue is not None
        if kind == "residue.norm":
            return partial(self.residue.norm, self.net.get_submodule(name))  # type: ignore[arg-type]
        return self.residue.add if kind == "residue.add" else self.residue


def build_block(texts: Sequence[str]) -> nn.Module:
    """Build a block from the JSON of its pieces; the class of each piece is named after the model's own."""
    pieces = [_build_titled(PieceSource.from_json(text)) for text in texts]
    return pieces[0] if len(pieces) == 1 else Pieces(*pieces)


def _build_titled(source: PieceSource) -> Piece:
    return type(source.title, (Piece,), {})(source)  # type: ignore[no-any-return]


def _add_layer(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Add `layer` under its dotted name, below modules that only hold others."""
    *above, last = name.split(".")
    _holder(root, above).add_module(last, layer)


def _add_tensor(root: nn.Module, name: str, tensor: Tensor) -> None:
    *above, last = name.split(".")
    holder = _holder(root, above)
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(last, tensor)
    else:
        holder.register_buffer(last, tensor)


def _holder(root: nn.Module, names: Sequence[str]) -> nn.Module:
    for name in names:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _dropped_after(calls: Sequence[CallSource], output: int) -> list[list[int]]:
    """Return, for each call, the values that no later call needs; one that is never read goes at once."""
    last_use: dict[int, int] = {}
    for number, call in enumerate(calls):
        for expression in (call.arguments, call.options, call.result):
            last_use.update(dict.fromkeys(references(expression, "value"), number))
    return [
        [value for value, last in last_use.items() if last == number and value != output]
        for number in range(len(calls))
    ]


def _bind(names: Expression, result: Any, values: dict[int, Tensor]) -> None:
    """Store the tensors of a result under the numbers that `names` gives them."""
    if not isinstance(names, list):
        return
    if names[0] == "value":
        values[names[1]] = result
    else:
        for part, item in zip(names[1:], result, strict=True):
            _bind(part, item, values)
