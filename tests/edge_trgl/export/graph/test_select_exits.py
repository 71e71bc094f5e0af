"""A traced module without some of its exits."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from edge_trgl.export.graph.select_exits import select_exits
from edge_trgl.export.graph.stage import Stage
from edge_trgl.export.graph.trace import Traced, trace

SHAPE = (3, 8, 8)


@pytest.fixture
def traced(net):
    (trunk, head), _ = net.modules
    stage = Stage(trunk, head, goes_on=True, normalisation=None)
    return trace(stage, 1, SHAPE, ["boundary_1", "logits_1"], opset=17)


def test_all_exits_are_the_whole_module(traced):
    names = {"boundary_1": "boundary_1", "logits_1": "logits_1"}
    assert select_exits(traced, names) == traced


def test_without_its_classifier(traced):
    found = select_exits(traced, {"boundary_1": "boundary_1"})
    assert found.exits == {"boundary_1": (4, 8, 8)}
    assert {own.split(".")[0] for own in found.weights.values()} == {"trunk"}
    assert {own.split(".")[0] for own in traced.weights.values()} == {"trunk", "head"}
    assert not [node for node in found.nodes if node.op_type in ("Gemm", "Flatten", "AveragePool")]


def test_an_exit_under_another_name_alone(traced):
    found = select_exits(traced, {"logits_1": "logits"})
    assert found.exits == {"logits": (5,)}
    assert found.weights == traced.weights  # the classifier reads the boundary
    outputs = {name for node in found.nodes for name in node.output}
    assert "logits" in outputs and "logits_1" not in outputs
    assert "logits_1" in {name for node in traced.nodes for name in node.output}  # which stays as it was


def test_what_a_graph_inside_a_node_reads_is_kept():
    inner = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["made"], ["out"])], "then", [], [])
    nodes = [
        onnx.helper.make_node("Abs", ["input"], ["made"]),
        onnx.helper.make_node("Exp", ["input"], ["unused"]),
        onnx.helper.make_node("If", ["condition"], ["logits"], then_branch=inner, else_branch=inner),
    ]
    traced = Traced(nodes=nodes, weights={}, exits={"logits": (2,)})
    assert [node.op_type for node in select_exits(traced, {"logits": "logits"}).nodes] == ["Abs", "If"]


def test_a_weight_of_both_stays_with_either():
    linear = nn.Linear(4, 4)
    stage = Stage(linear, nn.Sequential(linear), goes_on=True, normalisation=None)
    traced = trace(stage.requires_grad_(requires_grad=False), 1, (4,), ["boundary_1", "logits_1"], opset=17)
    assert torch.equal(stage(torch.zeros(1, 4))[0], linear.bias[None])
    for name in ("boundary_1", "logits_1"):
        assert select_exits(traced, {name: name}).weights == traced.weights
