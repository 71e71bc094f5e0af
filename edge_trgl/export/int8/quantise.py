"""Quantise the convolutions and matrix products of a model to int8.

The quantisation is written as QuantizeLinear and DequantizeLinear nodes around the operations, which a runtime
fuses with them. Weights have one scale per output channel, activations one per tensor; a batch norm behind a
convolution is folded into it. There are two forms:

* For CPUs: activations are uint8 with a zero point; the file stores weights as int8 and biases as int32. The
  outputs of convolutions are quantised too, because otherwise onnxruntime computes none of them in integers.
* For TensorRT, called symmetric: all zero points are 0. The file stores weights and biases as float32, with a pair
  of nodes behind the weights, because that is what TensorRT's parser reads.
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
from edge_trgl.export.onnx_file.made_weights import MadeWeights
from edge_trgl.export.onnx_file.stream_reader import StreamedModel
from edge_trgl.export.onnx_file.weights import Weight


def watched(written: StreamedModel, depth: int, *, symmetric: bool) -> dict[int, list[str]]:
    """The names of the tensors whose ranges are needed to quantise each module, by module from 1 to `depth`."""
    tensors = {}
    for number in range(1, depth + 1):
        module_sites = sites(written, number)
        names = [site.entry for site in module_sites]
        if not symmetric:
            names += [site.leaving for site in module_sites if site.leaving is not None]
        tensors[number] = list(dict.fromkeys(names))
    return tensors


def quantised(
    written: StreamedModel, depth: int, steps: Mapping[str, Step], made: MadeWeights, *, symmetric: bool
) -> StreamedModel:
    """Return `written` in one of the two quantised forms.

    Memory: one tensor of weights, and a copy of it.

    Args:
        written: a float32 model.
        depth: the number of its modules.
        steps: scale and zero point of every tensor that `watched` names for the same form.
        made: stores the new weights.
        symmetric: whether to write the form for TensorRT.
    """
    sites_of = {number: sites(written, number) for number in range(1, depth + 1)}
    leaving = {
        site.leaving
        for module_sites in sites_of.values()
        for site in module_sites
        if site.leaving is not None and not symmetric
    }
    model = onnx.ModelProto()
    model.CopyFrom(written.model)
    del model.graph.node[:]
    weights: dict[str, Weight] = {}
    for number, module_sites in sites_of.items():
        module = _Module(written, number, steps, made, leaving, symmetric=symmetric)
        model.graph.node.extend(module.nodes(module_sites))
        weights |= module.weights
    read = {name for node in model.graph.node for name in node.input}
    kept = {name: weight for name, weight in written.weights.items() if name in read}
    return StreamedModel(model=model, weights=kept | weights)


class _Module:
    """Builds the nodes of one quantised module; `weights` collects the new tensors that they read, by name."""

    def __init__(
        self,
        written: StreamedModel,
        number: int,
        steps: Mapping[str, Step],
        made: MadeWeights,
        leaving: set[str],
        *,
        symmetric: bool,
    ) -> None:
        self._written, self._prefix = written, prefix_of(number)
        self._steps, self._made, self._leaving, self._symmetric = steps, made, leaving, symmetric
        self._entered: set[str] = set()
        self._new: list[NodeProto] = []
        self.weights: dict[str, Weight] = {}

    def nodes(self, module_sites: list[Site]) -> list[NodeProto]:
        by_name = {site.node.name: site for site in module_sites}
        folded = {node.name for site in module_sites for node in (site.turned, site.norm) if node is not None}
        for node in self._written.model.graph.node:
            if not node.name.startswith(self._prefix) or node.name in folded:
                continue
            site = by_name.get(node.name)
            copy = NodeProto()
            copy.CopyFrom(node)
            if site is not None:
                self._rewrite(copy, site)
            self._new.append(copy)
            for place, name in enumerate(copy.output):
                if name in self._leaving:
                    copy.output[place] = f"{self._prefix}exact/{name}"
                    self._pair(name, copy.output[place], name)
        return self._new

    def _rewrite(self, node: NodeProto, site: Site) -> None:
        """Make `node` read quantised inputs and write the output of the norm that is folded into it."""
        values, bias = _folded(site, self._written.weights)
        inputs = [self._entry(site.entry), self._weight(node.name, values, bias, site)]
        if bias is not None:
            inputs.append(self._bias(node.name, bias, site))
        node.input[:] = inputs
        node.output[:] = [site.output]

    def _entry(self, name: str) -> str:
        """The name of the quantised form of the activations `name`.

        Those that leave a convolution are quantised there and keep their name.
        """
        if name in self._leaving:
            return name
        target = f"{self._prefix}dequantised/{name}"
        if name not in self._entered:
            self._entered.add(name)
            self._pair(name, name, target)
        return target

    def _pair(self, name: str, source: str, target: str) -> None:
        """Add QuantizeLinear and DequantizeLinear from `source` to `target`, with the scale of `name`."""
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
    """The float32 weights and bias of a site, with the batch norm behind it folded in."""
    values: Array = site.weight.read()
    if site.turned is not None:
        values = np.ascontiguousarray(values.T)
    bias: Array | None = None if site.bias is None else site.bias.read()
    if site.norm is None:
        return values, bias
    gain, offset, mean, variance = (weights[name].read().astype(np.float64) for name in site.norm.input[1:])
    epsilon = next((attribute.f for attribute in site.norm.attribute if attribute.name == "epsilon"), 1e-5)
    factor = gain / np.sqrt(variance + epsilon)
    values *= factor.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    shift = mean if bias is None else mean - bias
    folded: Array = offset - shift * factor
    return values, folded.astype(np.float32)
