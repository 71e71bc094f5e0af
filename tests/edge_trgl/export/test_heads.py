"""Every head as an ONNX file, over sides that its poolings do not divide too."""

from __future__ import annotations

import itertools

import onnxruntime
import pytest
import torch

from edge_trgl.export import write
from edge_trgl.heads import HEADS, build_head, to_two_by_two


@pytest.mark.parametrize(
    ("name", "shape"), [*itertools.product(HEADS, [(6, 16, 16), (6, 7, 7), (6, 9, 5), (6, 1, 1), (6, 17)])]
)
def test_an_exported_head_gives_the_same_logits(tmp_path, name, shape):
    head = build_head(name, shape, 3, to_two_by_two)
    write(head, tmp_path / "head.onnx", input_shape=shape, metadata={})
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), head.eval()(x).detach(), rtol=1e-4, atol=1e-5)
