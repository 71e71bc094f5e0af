"""Keep some exits of a traced module, and drop the nodes that only the others need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from edge_trgl.export.graph.trace import Traced


def select_exits(traced: Traced, names: Mapping[str, str]) -> Traced:
    """Return `traced` with only the exits that are keys of `names`, renamed to the values."""
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
    """The names that the node reads, those in its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
        yield from (value.name for value in attribute.g.output)


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    for places in (renamed.input, renamed.output):
        places[:] = [names.get(name, name) for name in places]
    return renamed
