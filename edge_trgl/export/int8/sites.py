"""Find the operations of a graph that are worth quantising, those that multiply by weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import NodeProto

from edge_trgl.export.graph.names import prefix_of
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.export.onnx_file.weights import Weight


@dataclass(frozen=True, kw_only=True)
class Site:
    """One Conv, Gemm or MatMul of a module.

    Args:
        node: the operation; its first input are activations.
        weight: its weights, a tensor of the model.
        axis: the axis of the output channels in the weights as the node reads them.
        turned: the Transpose between the weights and the node; None if there is none.
        bias: a tensor of the model; None if there is none.
        norm: the BatchNormalization that can be folded into a Conv, as its only reader; None if there is none.
        leaving: the output of a Conv together with its norm and the ReLU behind it; None for other operations,
            and if that is an output of the graph.
    """

    node: NodeProto
    weight: Weight
    axis: int
    turned: NodeProto | None
    bias: Weight | None
    norm: NodeProto | None
    leaving: str | None

    @property
    def entry(self) -> str:
        """The name of the activations that it reads."""
        return str(self.node.input[0])

    @property
    def output(self) -> str:
        """The name of its output, that of the norm if there is one."""
        return str((self.norm or self.node).output[0])


def sites(written: StreamedModel, number: int) -> list[Site]:
    """Find the sites of module `number`, counted from 1, in the graph's order."""
    return _Module(written, number).sites()


class _Module:
    def __init__(self, written: StreamedModel, number: int) -> None:
        self._prefix, self._weights = prefix_of(number), written.weights
        self._nodes = [node for node in written.model.graph.node if node.name.startswith(self._prefix)]
        self._makers = {name: node for node in self._nodes for name in node.output}
        self._readers: Mapping[str, list[NodeProto]] = defaultdict(list)
        for node in written.model.graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._given = {value.name for value in written.model.graph.output}

    def sites(self) -> list[Site]:
        return [site for node in self._nodes if (site := self._site(node)) is not None]

    def _site(self, node: NodeProto) -> Site | None:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[0] in self._weights:
            return None
        given = _attributes(node)
        if (given.get("alpha", 1.0), given.get("beta", 1.0), given.get("transA", 0)) != (1.0, 1.0, 0):
            return None
        weight, turned = self._weight(node)
        bias = self._weights.get(node.input[2]) if len(node.input) > 2 else None
        if weight is None or (len(node.input) > 2 and (bias is None or len(bias.shape) != 1)):
            return None
        norm = self._norm(node) if node.op_type == "Conv" else None
        return Site(
            node=node,
            weight=weight,
            axis=0 if node.op_type == "Conv" or given.get("transB", 0) else 1,
            turned=turned,
            bias=bias,
            norm=norm,
            leaving=self._leaving(norm or node) if node.op_type == "Conv" else None,
        )

    def _weight(self, node: NodeProto) -> tuple[Weight | None, NodeProto | None]:
        name, turned = node.input[1], None
        maker = self._makers.get(name)
        if maker is not None and maker.op_type == "Transpose" and self._only_reader(name) is not None:
            name, turned = maker.input[0], maker
        weight = self._weights.get(name)
        if weight is None or (node.op_type != "Conv" and len(weight.shape) != 2):
            return None, None
        return weight, turned

    def _norm(self, node: NodeProto) -> NodeProto | None:
        reader = self._only_reader(node.output[0])
        if reader is None or reader.op_type != "BatchNormalization" or len(reader.output) != 1:
            return None
        return reader if all(name in self._weights for name in reader.input[1:]) else None

    def _leaving(self, node: NodeProto) -> str | None:
        reader = self._only_reader(node.output[0])
        name = str((reader if reader is not None and reader.op_type == "Relu" else node).output[0])
        return None if name in self._given else name

    def _only_reader(self, name: str) -> NodeProto | None:
        """The only node that reads `name`, if it is in this module and `name` is not an output; else None."""
        readers = self._readers.get(name, [])
        if len(readers) != 1 or name in self._given or not readers[0].name.startswith(self._prefix):
            return None
        return readers[0]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
