"""Both int8 forms of a small network: which nodes, which integers, and what they compute."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edge_trgl.config.export_request import TARGETS
from edge_trgl.export.compare.module_by_module import ModuleByModule, batches_of
from edge_trgl.export.compare.session import Session
from edge_trgl.export.int8.activation_ranges import histograms, steps_of
from edge_trgl.export.int8.quantise import quantised, watched
from edge_trgl.export.onnx_file import onnx_file
from edge_trgl.export.onnx_file.made_weights import MadeWeights
from edge_trgl.runtime.errors import ExportRejectedError

SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["cpu", "tensorrt"])


@pytest.fixture
def quantise(tmp_path, unpublished):
    """Quantises modules by images [N, ...]; gives the float model and the other, as read back, and its path."""

    def make(modules, normalisation, x, *, symmetric, target="generic", **options):
        floats = unpublished(tmp_path, modules, normalisation, target=target, **options).read()
        names = watched(floats, len(modules), symmetric=symmetric)
        numbers = range(1, len(modules) + 1)
        running = ModuleByModule(floats, numbers, scratch=tmp_path, batch=options.get("batch"), threads=1)
        images = SimpleNamespace(pixels=lambda samples: x[samples.start : samples.stop])
        exits = [value.name for value in floats.model.graph.output]
        seen = histograms(running, batches_of(len(x), 4), images, exits, names)
        assert set(seen) == {name for found in names.values() for name in found}
        steps = steps_of(seen, "minmax", symmetric=symmetric)
        made = MadeWeights(tmp_path / "made")
        model = quantised(floats, len(modules), steps, made, symmetric=symmetric)
        files = onnx_file.write(model.model, list(model.weights.values()), tmp_path / "small.onnx")
        found = onnx_file.check(files, TARGETS[target])
        return SimpleNamespace(floats=floats, model=found, path=onnx_file.new_of(files.model), steps=steps)

    return make


def values(model, name):
    return model.weights[name].read()


def kinds(model):
    return Counter(node.op_type for node in model.model.graph.node)


@pytest.fixture
def images(small):
    return small.images(12).numpy()


# First module: normalise, Conv, BN, ReLU. Second: BN, ReLU, Conv, Add. Their heads: Conv, ReLU, pool, BN, Gemm.


def test_nodes_of_the_form_for_cpus(quantise, net, images):
    """Nine tensors: five that enter a Conv or Gemm, and did not leave a Conv, and four that leave one."""
    found = kinds(quantise(net.modules, net.normalisation, images, symmetric=False).model)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (9, 9 + 6 + 3)  # six weights, three biases
    assert (found["Conv"], found["Gemm"], found["BatchNormalization"]) == (4, 2, 3)


def test_nodes_of_the_form_for_tensorrt(quantise, net, images):
    """Six tensors enter, and six weights."""
    found = kinds(quantise(net.modules, net.normalisation, images, symmetric=True, target="jetpack4").model)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (12, 12)
    assert (found["Conv"], found["Gemm"], found["BatchNormalization"]) == (4, 2, 3)


@SYMMETRIC
def test_it_gives_what_the_network_gives(quantise, net, images, small, symmetric):
    found = quantise(net.modules, net.normalisation, images, symmetric=symmetric)
    x = torch.from_numpy(images)
    for number, expected in enumerate(net.infer(x), 1):
        logits = small.run_file(found.path, x)[f"logits_{number}"]
        assert (logits - expected).abs().max() < 0.05 * expected.abs().max()
        assert not torch.equal(logits, expected)


def test_every_operation_is_computed_in_integers(quantise, net, images, tmp_path):
    path = quantise(net.modules, net.normalisation, images, symmetric=False).path
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert (found["QLinearConv"], found["QGemm"], found["Conv"], found["Gemm"], found["Relu"]) == (4, 2, 0, 0, 0)


def test_weights_by_hand(quantise, net, images):
    """The scale of a channel is its largest weight by 127; that of a folded norm is folded before."""
    model = quantise(net.modules, net.normalisation, images, symmetric=False).model
    for name, layer in (
        ("module1/Conv", fuse_conv_bn_eval(net.modules[0][0][0], net.modules[0][0][1])),
        ("module1/Conv_1", net.modules[0][1][0]),
        ("module1/Gemm", net.modules[0][1][5]),
    ):
        weights = layer.weight.detach().numpy()
        largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
        scales = values(model, f"{name}/weight/scale")
        np.testing.assert_allclose(scales, largest / 127, rtol=1e-5)
        integers = values(model, f"{name}/weight/quantised")
        assert integers.dtype == np.int8
        assert (np.abs(integers.reshape(len(weights), -1).astype(int)).max(axis=1) == 127).all()
        each = scales.reshape(-1, *[1] * (weights.ndim - 1))
        np.testing.assert_allclose(integers * each, weights, rtol=0, atol=0.51 * scales.max())
        assert not values(model, f"{name}/weight/zero").any()
        if layer.bias is None:
            assert f"{name}/bias/quantised" not in model.weights
            continue
        bias, steps = values(model, f"{name}/bias/quantised"), values(model, f"{name}/bias/scale")
        assert bias.dtype == np.int32
        np.testing.assert_allclose(bias * steps, layer.bias.detach().numpy(), rtol=0, atol=0.51 * steps.max())


def test_the_scale_of_a_bias_is_that_of_the_products(quantise, net, images):
    found = quantise(net.modules, net.normalisation, images, symmetric=False)
    entering = found.steps["module1/Div_1_output_0"].scale
    normalised = net.normalisation(torch.from_numpy(images)).numpy()
    low, high = min(normalised.min(), 0), normalised.max()
    assert entering == pytest.approx((high - low) / 255, rel=1e-5)
    products = values(found.model, "module1/Conv/weight/scale") * entering
    np.testing.assert_allclose(values(found.model, "module1/Conv/bias/scale"), products, rtol=1e-6)
    assert values(found.model, "module1/zero/module1/Div_1_output_0") == round(float(-low / entering))


def test_tensorrt_finds_float_weights_and_no_zero_points(quantise, net, images):
    model = quantise(net.modules, net.normalisation, images, symmetric=True).model
    fused = fuse_conv_bn_eval(net.modules[0][0][0], net.modules[0][0][1])
    np.testing.assert_allclose(values(model, "module1/Conv/weight"), fused.weight.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(values(model, "module1/Conv/bias"), fused.bias.detach().numpy(), rtol=1e-4)
    zeros = [weight for name, weight in model.weights.items() if "/zero" in name]
    assert len(zeros) == 12
    assert all(weight.dtype == "int8" and not weight.read().any() for weight in zeros)


@SYMMETRIC
def test_what_is_out_of_range_is_cut_off(quantise, net, images, symmetric):
    found = quantise(net.modules, net.normalisation, images, symmetric=symmetric)
    name = "module1/Div_1_output_0"
    step, seen = found.steps[name], f"module1/dequantised/{name}"
    dequantised = Session(found.model, 1, 1, [seen])(images * 10 - 1000)[seen]
    least, most = (-127, 127) if symmetric else (0, 255)
    ends = (np.array([least, most]) - int(step.zero)) * float(step.scale)
    assert (dequantised.min(), dequantised.max()) == pytest.approx(tuple(ends), rel=1e-2)


def test_a_bias_that_needs_more_than_32_bits_makes_its_steps_longer(quantise, net, images):
    with torch.no_grad():
        conv, norm = net.modules[0][0][:2]
        conv.weight[1] = 0
        conv.weight[2] *= 1e-9
        norm.bias[2] = 3
    found = quantise(net.modules, net.normalisation, images, symmetric=False)
    bias, steps = (values(found.model, f"module1/Conv/bias/{part}") for part in ("quantised", "scale"))
    expected = fuse_conv_bn_eval(conv, norm).bias.detach().numpy()
    np.testing.assert_allclose(bias * steps.astype(np.float64), expected, rtol=1e-5, atol=1e-3)
    assert not values(found.model, "module1/Conv/weight/quantised")[1].any()


@SYMMETRIC
def test_a_linear_layer_over_tokens(quantise, small, symmetric):
    """Its weights are transposed in the graph; in the file they lie as the product reads them."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Flatten(2), nn.Linear(64, 6), nn.GELU(), nn.Flatten(), nn.Linear(18, 4))
    net = SimpleNamespace(modules=[(trunk.eval(), nn.Linear(4, 5))], normalisation=small.network().normalisation)
    x = small.images(8)
    found = quantise(net.modules, net.normalisation, x.numpy(), symmetric=symmetric)
    assert (kinds(found.model)["MatMul"], kinds(found.model)["Transpose"]) == (1, 0)
    weights = trunk[1].weight.detach().numpy().T
    scales = values(found.model, "module1/MatMul/weight/scale")
    np.testing.assert_allclose(scales, np.abs(weights).max(axis=0) / 127, rtol=1e-6)
    if not symmetric:
        integers = values(found.model, "module1/MatMul/weight/quantised")
        np.testing.assert_allclose(integers * scales, weights, rtol=0, atol=0.51 * scales.max())
    with torch.no_grad():
        expected = net.modules[0][1](trunk(net.normalisation(x)))
    found_logits = small.run_file(found.path, x)["logits"]
    assert (found_logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_values_that_are_not_finite_cannot_be_counted(quantise, net, images):
    images[3] = math.nan
    with pytest.raises(ExportRejectedError, match=r"quantised: .* has values that are not finite"):
        quantise(net.modules, net.normalisation, images, symmetric=False)


def test_a_fixed_batch_is_kept(quantise, net, images):
    found = quantise(net.modules, net.normalisation, images, symmetric=False, batch=5)
    assert found.model.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 5
