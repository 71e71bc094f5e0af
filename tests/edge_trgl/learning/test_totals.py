"""The totals of a module are sums over samples, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.learning.totals import Totals
from edge_trgl.method.transport import Transport
from edge_trgl.networks.chain import Chain


def test_totals_are_sums_over_samples():
    """A head that reads its input as logits: every number can be worked out by hand."""
    chain = Chain.from_blocks([nn.Identity], input_shape=(2,), num_classes=2, head="linear")
    local = LocalModule(chain, 0, (2,), StepConfig(transport=Transport(tau=1.0))).materialise("cpu")
    with torch.no_grad():
        local.head.linear.weight.copy_(torch.eye(2))
        local.head.linear.bias.zero_()
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    local.train_step(x[:2], torch.tensor([0, 0]), lr=0.0, seed=0)
    local.train_step(x[2:], torch.tensor([0]), lr=0.0, seed=1)
    num_images, loss, correct, transport, *_ = local.take_totals()
    # ln 2 for equal logits, ln(1 + e^-1), ln(1 + e^3); of equal logits the first is taken.
    assert (num_images, correct, transport) == (3, 2, 0)
    assert loss == pytest.approx(0.6931472 + 0.3132617 + 3.0485874, rel=1e-6)
    assert local.take_totals() == Totals()


def test_transport_is_summed_over_samples():
    def doubled():
        layer = nn.Linear(2, 2, bias=False)
        nn.init.eye_(layer.weight)
        layer.weight.data *= 2
        return layer

    chain = Chain.from_blocks([doubled], input_shape=(2,), num_classes=2, head="linear")
    local = LocalModule(chain, 0, (2,), StepConfig(transport=Transport(tau=1.0))).materialise("cpu")
    local.train_step(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 1]), lr=0.0, seed=0)
    # r = 2x − x = x; mean of squares (1 + 4 + 9 + 0) / 4, for each of two samples.
    assert local.take_totals()[3] == pytest.approx(7.0)
