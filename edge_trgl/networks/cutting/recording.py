"""A forward pass written down: the calls of layers and functions, and the tensors between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from edge_trgl.networks.cutting.expressions import Expression, references

BATCH_SIZES = (2, 3)
"""The batch sizes of the recorded passes; batch norm needs two samples."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A tensor between calls.

    Args:
        shapes: its shape in a batch of each of `BATCH_SIZES`; of the only batch in a single pass.
        floating: whether its dtype is a floating-point one.
        storage: a number that all views of one memory share.
    """

    shapes: tuple[tuple[int, ...], ...]
    floating: bool
    storage: int


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a layer or of a function of torch.

    Args:
        target: `layer NAME`, or the function's full name.
        arguments: an expression (see `expressions`) for the positional arguments.
        options: an expression for the keyword arguments.
        result: an expression that says which values the results become.
        changes: values that the call changes in place.
        scope: numbers of the module calls around it, the outermost first.
        source_line: FILE:LINE of the model's source, for messages.
    """

    target: str
    arguments: Expression
    options: Expression
    result: Expression
    changes: tuple[int, ...]
    scope: tuple[int, ...]
    source_line: str

    @property
    def layer_name(self) -> str | None:
        """The name of the layer that is called; None if a function is."""
        kind, _, name = self.target.partition(" ")
        return name if kind == "layer" else None

    @property
    def reads(self) -> set[int]:
        """The values among the arguments."""
        return {*references(self.arguments, "value"), *references(self.options, "value")}

    @property
    def makes(self) -> set[int]:
        """The values among the results."""
        return set(references(self.result, "value"))


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A call of a module that is not a layer; `name` is empty for the model itself."""

    name: str
    kind: type[nn.Module]


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A forward pass.

    Args:
        calls: in the order in which they ran.
        values: the tensors, by number; value 0 is the input.
        scopes: the module calls, by number.
        output: the number of the value that the model returns.
        constants: tensors that the forward pass uses and that are neither parameters nor buffers, by name.
    """

    calls: tuple[Call, ...]
    values: tuple[Value, ...]
    scopes: tuple[Scope, ...]
    output: int
    constants: Mapping[str, Tensor]
