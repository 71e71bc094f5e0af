"""The description of a piece: everything needed to build it without the model's own code, and its JSON.

Equal pieces have equal descriptions, and so equal texts.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_trgl.networks.cutting.expressions import Expression
from edge_trgl.runtime.records import document_of, read_record


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """A layer: the full name of its class, and the options of its constructor that are not the defaults."""

    class_name: str
    options: Mapping[str, Expression]


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """A tensor that belongs to no layer.

    Args:
        shape: its shape.
        dtype: the name of its dtype, such as "float32".
        trained: whether it is a parameter with a gradient.
        data: the values of a buffer or constant (base64 of zlib of the bytes); None for a parameter.
    """

    shape: tuple[int, ...]
    dtype: str
    trained: bool = False
    data: str | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> WeightSource:
        """Describe `tensor`: the values of buffers and constants, the shape of parameters."""
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if isinstance(tensor, nn.Parameter):
            return cls(shape=shape, dtype=dtype, trained=tensor.requires_grad)
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return cls(shape=shape, dtype=dtype, data=base64.b64encode(zlib.compress(flat.numpy().tobytes())).decode())

    def build(self) -> Tensor:
        """Return a new parameter, filled with zeros, or a buffer with its values."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        if self.data is None:
            return nn.Parameter(torch.zeros(self.shape, dtype=dtype), requires_grad=self.trained)
        content = bytearray(zlib.decompress(base64.b64decode(self.data)))
        with torch.device("cpu"):
            flat = torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
            return flat.clone().view(dtype).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class CallSource:
    """One call.

    Args:
        target: `layer NAME`, the full name of a function of torch, or a mark of the transport cost (see
            `residues`).
        arguments: an expression for the positional arguments.
        options: an expression for the keyword arguments.
        result: an expression that says which values the results become.
    """

    target: str
    arguments: Expression
    options: Expression
    result: Expression


@dataclass(frozen=True, kw_only=True)
class PieceSource:
    """A piece of a model.

    Args:
        title: the name of the class that the piece gets.
        layers: by name, relative to the piece.
        weights: the tensors that belong to no layer, by name.
        calls: in the order in which they run; value 0 is the input.
        output: the number of the value that the piece returns.
        channels_last: whether the calls expect channels as the last axis of the input, and of the output.
    """

    title: str
    layers: Mapping[str, LayerSource]
    weights: Mapping[str, WeightSource]
    calls: tuple[CallSource, ...]
    output: int
    channels_last: tuple[bool, bool]

    @classmethod
    def from_json(cls, text: str) -> PieceSource:
        """Read what `to_json` wrote."""
        return read_record(cls, json.loads(text))

    def to_json(self) -> str:
        """Return the description as JSON; equal descriptions give equal texts."""
        return json.dumps(document_of(self), sort_keys=True)
