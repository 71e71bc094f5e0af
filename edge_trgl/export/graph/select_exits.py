"""A traced module with some of its exits: what only the others need is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from edge_trgl.export.graph.trace import Traced


def giving(traced: Traced, names: Mapping[str, str]) -> Traced:
    """The same module with those of its exits that `names` has, under the names that stand there."""
    needed, kept = set(names), []
    for node in reversed(traced.nodes):
        if needed.isdisjoint(node.output):
            continue
        needed.update(_read(node))
        kept.append(_renamed(node, names))
    return Traced(
        nodes=kept[::-1],
        weights={name: own for name, own in traced.weights.items() if name in needed},
        exits={names[name]: shape for name, shape in traced.exits.items() if name in names},
    )


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """What the node reads, in the graphs inside it too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
        yield from (value.name for value in attribute.g.output)


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    found = onnx.NodeProto()
    found.CopyFrom(node)
    for places in (found.input, found.output):
        places[:] = [names.get(name, name) for name in places]
    return found
