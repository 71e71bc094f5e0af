"""A step with a decoder: a loop written out gives the same weights, and labels change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.networks.heads import DECODER
from edge_trgl.networks.zoo import km_resnet

IMAGE, BATCH, STEPS, RATE = (1, 9, 7), 6, 3, 0.05
CONFIG = StepConfig(transport=Transport(tau=None), momentum=0.0)


def _local(**changes):
    chain = km_resnet(2, 1, input_shape=IMAGE, num_classes=2, width=4, downsample=(1,)).regroup((0,))
    torch.manual_seed(0)
    local = LocalModule(replace(chain, head=DECODER), 0, (8, 3, 2), replace(CONFIG, **changes))
    return local.materialise("cpu")


def _batches():
    generator = torch.Generator().manual_seed(1)
    shape = (STEPS, BATCH, *IMAGE)
    return [x.contiguous(memory_format=torch.channels_last) for x in torch.randn(shape, generator=generator)]


def _trained(labels=0, **changes):
    local = _local(**changes)
    for x in _batches():
        local.train_step(x, torch.full((BATCH,), labels), lr=RATE, seed=0)
    return local


def _same(first, second):
    return all(torch.equal(t, second[name]) for name, t in first.items())


def test_a_loop_written_out_gives_the_same_weights():
    other, losses = _local(), []
    other.train()
    for x in _batches():
        loss = functional.mse_loss(other.head(other.trunk(x)), x)
        losses.append(loss.item())
        weights = list(other.parameters())
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.sub_(RATE * gradient)
    local = _trained()
    for name, tensor in local.final_tensors().items():
        torch.testing.assert_close(tensor, other.final_tensors()[name], rtol=1e-4, atol=1e-5)
    totals = local.take_totals()
    assert (totals.num_images, totals.correct) == (STEPS * BATCH, 0)
    assert totals.loss == pytest.approx(BATCH * sum(losses), rel=1e-4)


def test_labels_are_not_read():
    assert _same(_trained(labels=0).tensors(), _trained(labels=1).tensors())


@pytest.mark.parametrize("recompute", ["blocks", "layers"])
def test_recomputing_changes_no_bit(recompute):
    assert _same(_trained().tensors(), _trained(recompute=recompute).tensors())


def test_micro_batches_rebuild_their_own_samples():
    """Of a batch that is one pair of samples over and over, each pair is the batch, batch norms included."""
    x = _batches()[0][:2].repeat(BATCH // 2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    whole, parts = _local(), _local(micro_batch=2)
    for local in (whole, parts):
        local.train_step(x, torch.zeros(BATCH, dtype=torch.int64), lr=RATE, seed=0)
    assert parts.take_totals().loss == pytest.approx(whole.take_totals().loss, rel=1e-4)
    for name, tensor in parts.head.named_parameters():
        torch.testing.assert_close(tensor, dict(whole.head.named_parameters())[name], rtol=1e-4, atol=1e-5)


def test_a_forward_pass_scores_what_is_rebuilt():
    local, x = _trained(), _batches()[0]
    local.take_totals()
    local.infer(x, torch.zeros(BATCH, dtype=torch.int64), None)
    totals = local.take_totals()
    with torch.no_grad():
        expected = functional.mse_loss(local.head(local.trunk(x)), x).item()
    assert totals.loss / totals.num_images == pytest.approx(expected, rel=1e-6)
