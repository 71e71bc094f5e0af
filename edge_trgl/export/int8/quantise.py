"""A model with integers of 8 bits in its convolutions and matrix products, as QuantizeLinear and DequantizeLinear
nodes about them, which a runtime takes into the operations.

Weights have a scale for each output channel, activations one for the tensor; a batch norm behind a convolution
becomes part of it. There are two forms. The one for CPUs: activations uint8 with a zero point, weights int8 and
biases int32 in the file; what leaves a convolution is quantised as well, without which onnxruntime computes none
in integers. The one for TensorRT: everything symmetric, with zero points of 0; weights stay float32 in the file
with a pair of nodes behind them, and biases float32, for that is what its parser reads.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import NodeProto

from edge_trgl.export.arrays import Array
from edge_trgl.export.graph.names import prefix_of
from edge_trgl.export.int8.integers import LARGEST_BIAS, Step, as_int8, as_int32, channel_scales
from edge_trgl.export.int8.sites import Site, sites
from edge_trgl.export.onnx_file.made_weights import Made
from edge_trgl.export.onnx_file.stream_reader import Written
from edge_trgl.export.onnx_file.weights import Weight


def watched(written: Written, depth: int, *, symmetric: bool) -> dict[int, list[str]]:
    """By module, from 1 to `depth`: the tensors whose values must be known to quantise it."""
    found = {}
    for number in range(1, depth + 1):
        there = sites(written, number)
        names = [site.entry for site in there]
        if not symmetric:
            names += [site.leaving for site in there if site.leaving is not None]
        found[number] = list(dict.fromkeys(names))
    return found


def quantised(written: Written, depth: int, steps: Mapping[str, Step], made: Made, *, symmetric: bool) -> Written:
    """`written`, a float32 model of `depth` modules, in one of the two forms; its new weights are in `made`.

    Memory: one tensor of weights, and a copy of it.

    Args:
        written: its weights are read.
        depth: its modules.
        steps: of every tensor that `watched` names, in the same form.
        made: takes the weights.
        symmetric: the form for TensorRT.
    """
    there = {number: sites(written, number) for number in range(1, depth + 1)}
    leaving = {
        site.leaving for found in there.values() for site in found if site.leaving is not None and not symmetric
    }
    model = onnx.ModelProto()
    model.CopyFrom(written.model)
    del model.graph.node[:]
    weights: dict[str, Weight] = {}
    for number, found in there.items():
        module = _Module(written, number, steps, made, leaving, symmetric=symmetric)
        model.graph.node.extend(module.nodes(found))
        weights |= module.weights
    read = {name for node in model.graph.node for name in node.input}
    kept = {name: weight for name, weight in written.weights.items() if name in read}
    return Written(model=model, weights=kept | weights)


class _Module:
    """The nodes of one module; `weights` fills up with what they read that was not there before."""

    def __init__(
        self,
        written: Written,
        number: int,
        steps: Mapping[str, Step],
        made: Made,
        leaving: set[str],
        *,
        symmetric: bool,
    ) -> None:
        self._written, self._prefix = written, prefix_of(number)
        self._steps, self._made, self._leaving, self._symmetric = steps, made, leaving, symmetric
        self._entered: set[str] = set()
        self._new: list[NodeProto] = []
        self.weights: dict[str, Weight] = {}

    def nodes(self, found: list[Site]) -> list[NodeProto]:
        by_name = {site.node.name: site for site in found}
        gone = {node.name for site in found for node in (site.turned, site.norm) if node is not None}
        for node in self._written.model.graph.node:
            if not node.name.startswith(self._prefix) or node.name in gone:
                continue
            site = by_name.get(node.name)
            made = NodeProto()
            made.CopyFrom(node)
            if site is not None:
                self._rewrite(made, site)
            self._new.append(made)
            for place, name in enumerate(made.output):
                if name in self._leaving:
                    made.output[place] = f"{self._prefix}exact/{name}"
                    self._pair(name, made.output[place], name)
        return self._new

    def _rewrite(self, node: NodeProto, site: Site) -> None:
        """Let `node` read what is quantised, and give what the norm gave."""
        values, bias = _folded(site, self._written.weights)
        inputs = [self._entry(site.entry), self._weight(node.name, values, bias, site)]
        if bias is not None:
            inputs.append(self._bias(node.name, bias, site))
        node.input[:] = inputs
        node.output[:] = [site.output]

    def _entry(self, name: str) -> str:
        """The activations `name` as a site reads them: quantised, here or where they left a convolution."""
        if name in self._leaving:
            return name
        target = f"{self._prefix}dequantised/{name}"
        if name not in self._entered:
            self._entered.add(name)
            self._pair(name, name, target)
        return target

    def _pair(self, name: str, source: str, target: str) -> None:
        """Q and DQ, by the step of `name`."""
        step, between = self._steps[name], f"{self._prefix}quantised/{name}"
        scale = self._add(f"{self._prefix}scale/{name}", np.asarray(step.scale))
        zero = self._add(f"{self._prefix}zero/{name}", np.asarray(step.zero))
        self._node("QuantizeLinear", [source, scale, zero], between)
        self._node("DequantizeLinear", [between, scale, zero], target)

    def _weight(self, name: str, values: Array, bias: Array | None, site: Site) -> str:
        scales = channel_scales(values, site.axis, self._smallest(bias, site))
        scale = self._add(f"{name}/weight/scale", scales)
        zero = self._add(f"{name}/weight/zero", np.zeros(scales.shape, np.int8))
        target, between = f"{name}/weight/dequantised", f"{name}/weight/quantised"
        if self._symmetric:
            whole = self._add(f"{name}/weight", values)
            self._node("QuantizeLinear", [whole, scale, zero], between, site.axis)
        else:
            self._add(between, as_int8(values, scales, site.axis))
        self._node("DequantizeLinear", [between, scale, zero], target, site.axis)
        return target

    def _smallest(self, bias: Array | None, site: Site) -> Array | None:
        if bias is None or self._symmetric:
            return None
        smallest: Array = np.abs(bias) / (float(self._steps[site.entry].scale) * LARGEST_BIAS)
        return smallest

    def _bias(self, name: str, bias: Array, site: Site) -> str:
        if self._symmetric:
            return self._add(f"{name}/bias", bias)
        channels = self.weights[f"{name}/weight/scale"].read()
        scales = np.asarray(channels * self._steps[site.entry].scale, np.float32)
        scale = self._add(f"{name}/bias/scale", scales)
        whole = self._add(f"{name}/bias/quantised", as_int32(bias, scales))
        self._node("DequantizeLinear", [whole, scale], f"{name}/bias/dequantised", 0)
        return f"{name}/bias/dequantised"

    def _add(self, name: str, values: Array) -> str:
        self.weights[name] = self._made.add(name, values)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        node = onnx.helper.make_node(kind, inputs, [output], name=f"{self._prefix}{kind}/{output}")
        if axis is not None:
            node.attribute.append(onnx.helper.make_attribute("axis", axis))
        self._new.append(node)


def _folded(site: Site, weights: Mapping[str, Weight]) -> tuple[Array, Array | None]:
    """The weights and the bias of a site, in float32, with the batch norm behind it as a part of them."""
    values: Array = site.weight.read()
    if site.turned is not None:
        values = np.ascontiguousarray(values.T)
    bias: Array | None = None if site.bias is None else site.bias.read()
    if site.norm is None:
        return values, bias
    gain, offset, mean, variance = (weights[name].read().astype(np.float64) for name in site.norm.input[1:])
    epsilon = next((one.f for one in site.norm.attribute if one.name == "epsilon"), 1e-5)
    factor = gain / np.sqrt(variance + epsilon)
    values *= factor.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    shift = mean if bias is None else mean - bias
    folded: Array = offset - shift * factor
    return values, folded.astype(np.float32)
