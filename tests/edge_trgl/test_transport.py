"""The transport cost against its formula, and its weights against the paper's."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge_trgl.local import StepConfig
from edge_trgl.sparing import Branch
from edge_trgl.transport import Energy, Multipliers, Residue, Transport, energy, residues

SHAPES = [(2, 3), (4, 8, 5, 5), (3, 7, 16)]


@pytest.mark.parametrize("shape", SHAPES)
def test_energy_is_the_mean_square(shape):
    residue = torch.randn(shape, requires_grad=True)
    naive = residue.double().pow(2).mean()
    found = energy(residue, "mean")
    assert found.dtype == torch.float32
    assert found.dim() == 0
    torch.testing.assert_close(found.double(), naive, rtol=1e-6, atol=0)


def test_energy_of_a_large_map_is_as_exact():
    residue = torch.randn(64, 64, 16, 16)
    naive = residue.double().pow(2).mean()
    torch.testing.assert_close(energy(residue, "mean").double(), naive, rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_is_that_of_the_formula(shape, reduction):
    values = torch.randn(shape)
    ours, naive = values.clone().requires_grad_(), values.double().requires_grad_()
    (3.5 * energy(ours, reduction)).backward()
    squares = naive.pow(2)
    (3.5 * (squares.mean() if reduction == "mean" else squares.flatten(1).sum(1).mean())).backward()
    torch.testing.assert_close(ours.grad.double(), naive.grad, rtol=1e-6, atol=0)


def test_sum_is_the_squared_norm_of_a_sample():
    residue = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 1.0]]]])  # [2, 1, 1, 2]: norms² 25 and 1
    assert energy(residue, "sum").item() == pytest.approx(13)
    assert energy(residue, "mean").item() == pytest.approx(6.5)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_one_penalty_under_both_reductions(batch, channels, height, width):
    residue = torch.randn(batch, channels, height, width)
    size = channels * height * width
    mean = Transport(tau=0.5).weight(0, 2) * energy(residue, "mean")
    summed = Transport(tau=0.5 * size, reduction="sum").weight(0, 2) * energy(residue, "sum")
    torch.testing.assert_close(mean, summed)


def test_a_residue_of_zeros_has_a_gradient_of_zeros():
    residue = torch.zeros(2, 3, requires_grad=True)
    energy(residue, "mean").backward()
    assert residue.grad.tolist() == [[0.0] * 3] * 2


def test_bfloat16_residue():
    residue = torch.randn(4, 3, 8, 8).bfloat16().requires_grad_()
    found = energy(residue, "mean")
    found.backward()
    assert found.dtype == torch.float32
    assert residue.grad.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), residue.detach().double().pow(2).mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(residue.grad.float(), 2 * residue.detach().float() / 768, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("num_modules", "expected"),
    [
        (1, [0.5]),
        (2, [1.0, 0.5]),
        (5, [1.0, 1.0, 0.5, 0.5, 0.5]),
        (10, [1.0] * 5 + [0.5] * 5),
    ],
)
def test_tau_doubles_at_the_midpoint(num_modules, expected):
    transport = Transport(tau=0.5)
    assert [transport.weight(module, num_modules) for module in range(num_modules)] == expected


def test_vangl_weighs_nothing():
    assert [Transport(tau=None).weight(module, 3) for module in range(3)] == [0, 0, 0]


def test_multipliers_grow_every_few_steps_and_start_anew_with_a_lap():
    multipliers = Multipliers(first=2.0, growth=0.5, every=3)
    state = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    found = []
    for lap, losses in enumerate([[4.0, 1.0, 8.0, 2.0, 2.0, 1.0, 9.0], [6.0, 6.0, 2.0]]):
        for loss in losses:
            multipliers.begin(state, lap)
            multipliers.advance(state, torch.tensor(loss))
            found.append(state[0].item())
    # Only the losses of steps 3 and 6 of a lap count, half of each.
    assert found == [2.0, 2.0, 6.0, 6.0, 6.0, 6.5, 6.5, 2.0, 2.0, 3.0]


def test_multipliers_weigh_each_step_with_the_value_before_it(nets):
    """λ of every step, and from it the loss of the step, against the formula by hand."""
    multipliers = Multipliers(first=0.5, growth=2.0, every=2)
    config = StepConfig(transport=Transport(tau=None, multipliers=multipliers), momentum=0)
    local = nets.built(nets.chain_of(nets.PlainBlock, head="linear"), 0, config)
    expected, losses = 0.5, []
    for step, (x, y) in enumerate(nets.batches(5)):
        inner = local.trunk[0](x)
        residue = local.trunk[1](inner) - inner
        logits = local.head(inner + residue)
        loss = nn.functional.cross_entropy(logits, y)
        parameters = list(local.parameters())
        gradients = torch.autograd.grad(loss + residue.pow(2).mean() / expected, parameters)
        before = [parameter.detach().clone() for parameter in parameters]
        local.train_step(x, y, lr=0.1, seed=step)
        for parameter, start, gradient in zip(parameters, before, gradients, strict=True):
            torch.testing.assert_close(parameter.detach(), start - 0.1 * gradient, rtol=1e-5, atol=1e-7)
        losses.append(loss.item())
        if step % 2:
            expected += 2.0 * losses[-1]
        assert local.tensors()["multiplier"][0].item() == pytest.approx(expected, rel=1e-6)


class TwoBranches(nn.Module):
    """A block of two residual branches, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mark1, self.mark2 = Residue(), Residue()

    def forward(self, x):
        x = x + self.mark1(self.first(x))
        return x + self.mark2(self.second(x))


def test_every_marked_branch_is_a_residue():
    block, x = TwoBranches(), torch.randn(3, 4)
    found = list(residues(block, x, block(x)))
    inner = x + block.first(x)
    torch.testing.assert_close(found, [block.first(x), block.second(inner)])
    assert list(residues(block, x, x)) == []  # handed over once


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_energy_stands_for_its_residue(reduction):
    residue = torch.randn(4, 3, 5, 5)
    found = energy(Energy(energy(residue, "mean"), 3 * 5 * 5), reduction)
    assert torch.equal(found, energy(residue, reduction))


@pytest.mark.parametrize("recording", [True, False])
def test_a_joined_branch_marks_its_energy_if_it_is_to_be_recorded(recording):
    mark, conv, x = Residue(), nn.Conv2d(2, 2, 3, padding=1), torch.randn(3, 2, 5, 5)
    mark.recording = recording
    out = mark.join(x, Branch(steps=((None, conv),)), x)
    residue = conv(x)
    assert torch.equal(out, x + residue)
    marked = mark.take()
    if recording:
        assert marked.size == 2 * 5 * 5
        assert torch.equal(marked.mean, energy(residue, "mean"))
        assert mark.take() is None
    else:
        assert marked is None


def test_a_plain_layer_of_equal_shapes_is_out_minus_in():
    layer, x = nn.Linear(4, 4), torch.randn(3, 4)
    (found,) = residues(layer, x, layer(x))
    torch.testing.assert_close(found, layer(x) - x)


def test_a_change_of_shape_has_no_residue():
    layer, x = nn.Linear(4, 5), torch.randn(3, 4)
    assert list(residues(layer, x, layer(x))) == []


@pytest.mark.parametrize("how", ["evaluating", "without gradients", "not recording"])
def test_nothing_is_marked_when_nothing_is_trained(how):
    block, x = TwoBranches(), torch.randn(3, 4)
    block.train(how != "evaluating")
    block.mark1.recording = block.mark2.recording = how != "not recording"
    with torch.set_grad_enabled(how != "without gradients"):
        out = block(x)
    assert list(residues(block, x, out)) == []


def _watched(local):
    """Weak references to every branch output that passes a mark from now on."""
    references = []
    for mark in local.modules():
        if isinstance(mark, Residue):
            mark.register_forward_hook(lambda _, __, out: references.append(weakref.ref(out)))
    return references


@pytest.mark.parametrize("tau", [None, 0.5])
def test_no_residue_outlives_its_step_and_vangl_keeps_none_at_all(nets, tau):
    local = nets.built(nets.CHAINS["norm"](), 0, StepConfig(transport=Transport(tau=tau)))
    references, alive_at_emit = _watched(local), []
    ((x, y),) = nets.batches(1)

    def emit(out):
        alive_at_emit.append(sum(reference() is not None for reference in references))

    local.train_step(x, y, lr=0.1, seed=0, emit=emit)
    assert len(references) == 2
    assert all(reference() is None for reference in references)
    if tau is None:
        assert alive_at_emit == [0]


@pytest.mark.parametrize(("exempt", "penalised"), [(True, [False, True]), (False, [True, True])])
def test_the_module_with_the_encoder_is_exempt(nets, exempt, penalised):
    chain = nets.chain_of(nets.NormBlock, num_modules=2, encoder_exempt=exempt)
    for module, expected in enumerate(penalised):
        local = nets.built(chain, module, StepConfig(transport=Transport(tau=0.5)))
        assert local.penalised == expected


def test_no_transport_is_counted_for_an_exempt_module(nets):
    chain = nets.chain_of(nets.NormBlock, encoder_exempt=True)
    local = nets.built(chain, 0, StepConfig(transport=Transport(tau=1e-6)))
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=0.1, seed=0)
    assert local.take_totals()[3] == 0
