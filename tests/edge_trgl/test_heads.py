"""Auxiliary classifiers: parameters, and the forward written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edge_trgl.heads import ConvHead, build_head, to_two_by_two


def _num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_head_has_its_parameters():
    assert _num_parameters(build_head("conv", (256, 16, 16), 100, to_two_by_two)) == 692_836
    assert _num_parameters(build_head("conv", (256, 16, 16), 100, lambda side: 8)) == 692_836
    # conv 64·64·9, BN 2·64, linear 64·1·10 + 10: one position of 8 pixels.
    assert _num_parameters(build_head("conv", (64, 8, 8), 10, lambda side: 8)) == 36_864 + 128 + 650


def test_linear_head_has_weights_and_biases():
    assert _num_parameters(build_head("linear", (7, 4, 4), 5, to_two_by_two)) == 7 * 5 + 5


@pytest.mark.parametrize(("side", "kernel"), [(1, 1), (2, 1), (3, 1), (7, 3), (8, 4), (14, 7), (16, 8)])
def test_two_by_two_positions(side, kernel):
    assert to_two_by_two(side) == kernel
    assert side // kernel == (2 if side not in (1, 3) else side)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (4, 8), (1, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_conv_head_step_by_step(height, width, training):
    head = ConvHead((6, height, width), 3).train(training)
    head.norm.running_mean.fill_(0.3)
    x = torch.randn(5, 6, height, width)
    expected = torch.relu(functional.conv2d(x, head.conv.weight, padding=1))
    expected = functional.avg_pool2d(expected, max(min(height, width) // 2, 1))
    mean, variance = head.norm.running_mean.clone(), head.norm.running_var.clone()
    expected = functional.batch_norm(expected, mean, variance, training=training)
    expected = expected.flatten(1) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 4)])
def test_linear_head_takes_the_mean_over_positions(shape):
    head = build_head("linear", shape, 3, to_two_by_two)
    x = torch.randn(5, *shape)
    mean = x.reshape(5, 6, -1).mean(2)
    torch.testing.assert_close(head(x), mean @ head.linear.weight.T + head.linear.bias)


def test_shapes_that_do_not_suit_are_named():
    with pytest.raises(
        ValueError, match=r"the conv head reads maps \[C, H, W\]; this module's output is \[6, 5\]"
    ):
        build_head("conv", (6, 5), 3, to_two_by_two)
    with pytest.raises(ValueError, match=r"output \[6, 0, 4\] is empty: the input is too small"):
        build_head("linear", (6, 0, 4), 3, to_two_by_two)
