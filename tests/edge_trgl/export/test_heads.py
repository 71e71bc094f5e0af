"""Every head as an ONNX file, over sides that its poolings do not divide too."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from edge_trgl.export.graph.stage import Normalisation
from edge_trgl.networks.heads import HEADS, build_head, to_two_by_two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"), [*itertools.product(HEADS, [(6, 16, 16), (6, 7, 7), (6, 9, 5), (6, 1, 1), (6, 17)])]
)
def test_an_exported_head_gives_the_same_logits(tmp_path, exported, small, name, shape):
    head = build_head(name, shape, 3, to_two_by_two)
    plain = Normalisation(mean=(0.0,) * 6, std=(1.0,) * 6, scale=1, input_shape=shape)
    path = exported(tmp_path, [(nn.Sequential(), head)], plain)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(0))
    found = small.run_file(path, x)["logits"]
    torch.testing.assert_close(found, head.eval()(x).detach(), rtol=1e-4, atol=1e-5)
