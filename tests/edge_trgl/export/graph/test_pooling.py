"""Adaptive average pooling in operations that ONNX has."""

import io
import warnings
from contextlib import nullcontext

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge_trgl.export.graph import pooling
from edge_trgl.runtime.errors import ExportRejectedError

OPSET = 17
SIDES = st.integers(1, 20)


@given(SIDES, SIDES)
def test_means_are_those_of_torch(size, wanted):
    values = torch.randn(1, 1, size, dtype=torch.float64)
    expected = nn.functional.adaptive_avg_pool1d(values, wanted)
    torch.testing.assert_close(values @ pooling.means(size, wanted).T.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("sides", "wanted", "operations"),
    [
        ((8, 6), 1, ["GlobalAveragePool"]),
        ((8, 6), (4, 2), ["AveragePool"]),
        ((1, 1), 7, ["MatMul", "MatMul"]),
        ((10, 5), (7, 3), ["MatMul", "MatMul"]),
    ],
)
def test_every_size_is_written(sides, wanted, operations):
    model, images = nn.AdaptiveAvgPool2d(wanted), torch.randn(3, 2, *sides)
    written = export(model, images)
    kinds = [node.op_type for node in onnx.load_from_string(written).graph.node]
    assert [kind for kind in kinds if kind != "Constant"] == operations
    (found,) = onnxruntime.InferenceSession(written).run(None, {"x": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(images))


@pytest.mark.parametrize("wanted", [7, (1, 2)])
def test_a_map_of_unknown_size_is_refused(wanted):
    with pytest.raises(ExportRejectedError, match="unknown size"):
        export(nn.AdaptiveAvgPool2d(wanted), torch.randn(1, 1, 8, 6), axes={0: "batch", 2: "height", 3: "width"})


def test_the_exporter_is_left_as_it_was():
    export(nn.AdaptiveAvgPool2d(7), torch.randn(1, 1, 1, 1))
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match="adaptive"):
        export(nn.AdaptiveAvgPool2d(7), torch.randn(1, 1, 1, 1), writing=nullcontext())


def export(model, images, *, axes=None, writing=None):
    file = io.BytesIO()
    options = {"input_names": ["x"], "opset_version": OPSET, "dynamo": False}
    options["dynamic_axes"] = {"x": axes or {0: "batch"}}
    with warnings.catch_warnings(), writing or pooling.any_size(OPSET):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), file, **options)
    return file.getvalue()
