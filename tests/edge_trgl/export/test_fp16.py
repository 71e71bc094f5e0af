"""A network in half precision: what is halved, and what stays."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edge_trgl.config.export_request import TARGETS
from edge_trgl.export.compare.session import Session
from edge_trgl.export.fp16 import to_half_precision
from edge_trgl.export.graph.stage import Normalisation
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.made_weights import MadeWeights


@pytest.fixture
def halve(tmp_path, unpublished):
    """The model in half precision, as read back, and its path."""

    def make(modules, normalisation, target="generic"):
        floats = unpublished(tmp_path, modules, normalisation, target=target).read()
        model = to_half_precision(floats, MadeWeights(tmp_path / "made"))
        files = onnx_file.write(model.model, list(model.weights.values()), tmp_path / "half.onnx")
        found = onnx_file.check(files, TARGETS[target])
        return SimpleNamespace(floats=floats, model=found, path=onnx_file.new_of(files.model))

    return make


@pytest.mark.parametrize("target", ["generic", "jetpack4", "ort"])
def test_it_gives_what_the_network_gives(halve, net, small, target):
    path = halve(net.modules, net.normalisation, target).path
    x = small.images(9)
    for number, expected in enumerate(net.infer(x), 1):
        found = small.run_file(path, x)[f"logits_{number}"]
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 1e-2 * expected.abs().max()
        assert not torch.equal(found, expected)


def test_weights_are_halved_and_the_ends_are_not(halve, net):
    found = halve(net.modules, net.normalisation)
    assert {weight.dtype for weight in found.model.weights.values()} == {"float16"}
    assert found.model.weights.keys() == found.floats.weights.keys()
    for name, weight in found.model.weights.items():
        np.testing.assert_array_equal(weight.read(), found.floats.weights[name].read().astype(np.float16))
    graph = found.model.model.graph
    ends = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert ends == dict.fromkeys(("input", "logits_1", "logits_2"), onnx.TensorProto.FLOAT)
    assert [value.type.tensor_type.elem_type for value in graph.value_info] == [onnx.TensorProto.FLOAT16]


def test_modules_one_after_another(halve, net, small):
    model = halve(net.modules, net.normalisation).model
    x = small.images(3)
    boundary = Session(model, 1, 1)(x.numpy())["boundary_1"]
    assert boundary.dtype == np.float16
    found = Session(model, 2, 1)(boundary.astype(np.float32))["logits_2"]
    expected = net.infer(x)[1].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_windows_are_normalised_before_they_are_halved(halve, small):
    """Values that float16 does not have, and whose differences it would lose."""
    torch.manual_seed(0)
    normalisation = Normalisation(mean=(1e6,), std=(2.0,), scale=1.0, input_shape=(1, 16))
    trunk = nn.Sequential(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten()).eval()
    head = nn.Linear(42, 4).eval()
    x = 1e6 + 4 * torch.randn(5, 1, 16)
    with torch.no_grad():
        expected = head(trunk(normalisation(x)))
    found = small.run_file(halve([(trunk, head)], normalisation).path, x)["logits"]
    assert (found - expected).abs().max() < 1e-2 * expected.abs().max()


def test_what_is_out_of_range_becomes_the_end_of_it(halve, net):
    with torch.no_grad():
        net.modules[0][1][5].bias[:2] = torch.tensor([1e6, -1e6])
    bias = halve(net.modules, net.normalisation).model.weights["module1/head.5.bias"].read()
    assert bias[:2].tolist() == [65504, -65504]


def test_sizes_are_not_values(halve, net, small):
    """A resize takes its factors in float32 whatever it resizes."""
    trunk, head = net.modules[0]
    wide = nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2))
    found = halve([(nn.Sequential(*trunk, wide), head)], net.normalisation)
    assert "Resize" in {node.op_type for node in found.model.model.graph.node}
    x = small.images(2)
    expected = net.infer(x)[0]
    assert (small.run_file(found.path, x)["logits"] - expected).abs().max() < 1e-2 * expected.abs().max()
