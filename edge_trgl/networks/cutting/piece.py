"""A stretch of a network as a module of its own, from what was written down of it."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.method.transport import Residue
from edge_trgl.networks.chain import Pieces
from edge_trgl.networks.cutting.expressions import Expression, Surroundings, decode, function, references
from edge_trgl.networks.cutting.layers import built


class Piece(nn.Module):
    """Calls of layers and functions in a row: [B, C, ...] → [B, C', ...].

    `written`: `layers` and `weights` by name; `calls`: [target, arguments, options, result] each (see
    `expressions`), value 0 being the input; `output`: a value; `turned`: whether the calls have the channels of
    the input, and of the output, last.
    """

    def __init__(self, written: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = nn.Module()
        for name, layer in written["layers"].items():
            _place(self.net, name, built(layer))
        for name, weight in written["weights"].items():
            _register(self.net, name, weight)
        # Without a mark it is a plain layer, whose residue is what it adds to its input.
        marks = any(call[0].startswith("residue") for call in written["calls"])
        self.residue = Residue() if marks else None
        self._weights = {name: attrgetter(name) for name in written["weights"]}
        self._calls = [(self._function(target), *rest) for target, *rest in written["calls"]]
        self._last = _last_reads(written["calls"], written["output"])
        self._output: int = written["output"]
        self._turned: tuple[bool, bool] = tuple(written["turned"])

    def forward(self, x: Tensor) -> Tensor:
        """Every value is let go of after the call that reads it last."""
        # Axes are counted from the front: the exporter joins permutations wrongly where one counts from the end.
        values: dict[int, Tensor] = {0: x.movedim(1, x.dim() - 1) if self._turned[0] else x}
        weights = {name: get(self.net) for name, get in self._weights.items()}
        around = Surroundings(values=values, weights=weights, x=x, training=self.training)
        for (call, arguments, options, result), last in zip(self._calls, self._last, strict=True):
            _bind(result, call(*decode(arguments, around), **decode(options, around)), values)
            for number in last:
                del values[number]
        out = values[self._output]
        return out.movedim(out.dim() - 1, 1) if self._turned[1] else out

    def _function(self, target: str) -> Callable[..., Any]:
        kind, _, name = target.partition(" ")
        if kind == "layer":
            return self.net.get_submodule(name)
        if not kind.startswith("residue"):
            return function(target)
        assert self.residue is not None
        if kind == "residue.norm":
            return partial(self.residue.norm, self.net.get_submodule(name))  # type: ignore[arg-type]
        return self.residue.add if kind == "residue.add" else self.residue


def build_block(texts: Sequence[str]) -> nn.Module:
    """The block of these pieces, each the JSON of what was written down of it; its class says what it is."""
    pieces = [_titled(json.loads(text)) for text in texts]
    return pieces[0] if len(pieces) == 1 else Pieces(*pieces)


def packed(tensor: Tensor) -> dict[str, Any]:
    """A tensor as plain values."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    data = base64.b64encode(zlib.compress(flat.numpy().tobytes())).decode()
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "data": data}


def _unpacked(written: Mapping[str, Any]) -> Tensor:
    data = bytearray(zlib.decompress(base64.b64decode(written["data"])))
    with torch.device("cpu"):
        flat = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return flat.clone().view(getattr(torch, written["dtype"])).reshape(written["shape"])


def _titled(written: Mapping[str, Any]) -> Piece:
    return type(written["title"], (Piece,), {})(written)  # type: ignore[no-any-return]


def _place(root: nn.Module, name: str, part: nn.Module) -> None:
    """Put `part` where it was in the model, below modules that only hold others."""
    *above, last = name.split(".")
    _holder(root, above).add_module(last, part)


def _register(root: nn.Module, name: str, weight: Mapping[str, Any]) -> None:
    *above, last = name.split(".")
    holder = _holder(root, above)
    if "data" in weight:
        holder.register_buffer(last, _unpacked(weight))
        return
    values = torch.zeros(weight["shape"], dtype=getattr(torch, weight["dtype"]))
    holder.register_parameter(last, nn.Parameter(values, requires_grad=weight["trained"]))


def _holder(root: nn.Module, names: Sequence[str]) -> nn.Module:
    for name in names:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    return root


def _last_reads(calls: Sequence[Sequence[Any]], output: int) -> list[list[int]]:
    """The values that nothing after each call needs; what is never read goes with the call that makes it."""
    last: dict[int, int] = {}
    for number, (_, *expressions) in enumerate(calls):
        for expression in expressions:
            last.update(dict.fromkeys(references(expression, "value"), number))
    return [
        [value for value, read in last.items() if read == number and value != output]
        for number in range(len(calls))
    ]


def _bind(result: Expression, found: Any, values: dict[int, Tensor]) -> None:
    if not isinstance(result, list):
        return
    if result[0] == "value":
        values[result[1]] = found
    else:
        for part, item in zip(result[1:], found, strict=True):
            _bind(part, item, values)
