"""The transport cost against its formula, and its weights against the paper's."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.kinetic_energy import Measure, kept
from edge_trgl.method.recompute import Branch
from edge_trgl.method.transport import Energy, Multipliers, Residue, Transport, marks_of, penalised
from edge_trgl.networks.zoo import km_resnet

MEASURE = Measure()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_sum_is_the_squared_norm_of_a_sample(reduction):
    residue = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 1.0]]]])  # [2, 1, 1, 2]: norms² 25 and 1
    _, mean = kept(residue, MEASURE)
    expected = {"mean": 6.5, "sum": 13}
    assert Energy(mean, 2).reduced(reduction).item() == pytest.approx(expected[reduction])


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=30)
def test_one_penalty_under_both_reductions(batch, channels, height, width):
    size = channels * height * width
    found = Energy(kept(torch.randn(batch, channels, height, width), MEASURE)[1], size)
    mean = Transport(tau=0.5).weight(0, 2) * found.reduced("mean")
    summed = Transport(tau=0.5 * size, reduction="sum").weight(0, 2) * found.reduced("sum")
    torch.testing.assert_close(mean, summed)


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
            multipliers.begin(state, lap, 3)
            multipliers.advance(state, torch.tensor(loss))
            found.append(state[0].item())
    # Only the losses of steps 3 and 6 of a lap count, half of each.
    assert found == [2.0, 2.0, 6.0, 6.0, 6.0, 6.5, 6.5, 2.0, 2.0, 3.0]


def test_multipliers_take_the_value_of_a_loss_that_is_on_another_device():
    """Tensors of two devices do not add up, so nothing but the value may be asked for."""

    class Elsewhere:
        def __float__(self):
            return 6.0

    state = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    Multipliers(growth=0.5, every=1).advance(state, Elsewhere())
    assert state.tolist() == [4.0, 1.0, 0.0]


def test_multipliers_may_start_with_the_depth():
    """By hand: from 0, 2 and 4, half of the loss 4 is added in the second step. Where λ is 0, W weighs 1/λ₁."""
    multipliers = Multipliers(first=2.0, growth=0.5, every=2, by_depth=True)
    weights = {0: [1 / 2, 1 / 2, 1 / 2], 1: [1 / 2, 1 / 2, 1 / 4], 2: [1 / 4, 1 / 4, 1 / 6]}
    for module, expected in weights.items():
        state = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
        found = []
        for loss in (3.0, 4.0, 5.0):
            multipliers.begin(state, 0, module)
            found.append(multipliers.weight(state))
            multipliers.advance(state, torch.tensor(loss))
        assert found == expected
    multipliers.begin(state, 1, 2)
    assert state.tolist() == [4.0, 0.0, 1.0]


@pytest.mark.parametrize("frozen", [0, 1])
def test_the_depth_that_multipliers_start_with_is_counted_from_the_first_trained_module(nets, frozen):
    multipliers = Multipliers(first=3.0, by_depth=True)
    chain = nets.chain_of(nets.NormBlock, nets.NormBlock, num_modules=3, frozen=frozen)
    local = nets.built(chain, 2, StepConfig(transport=Transport(tau=None, multipliers=multipliers)))
    x, y = torch.randn(4, 4, 8, 8), torch.tensor([0, 1, 2, 0])
    local.train_step(x, y, lr=0.1, seed=0)
    assert local.tensors()["multiplier"][0] == 3.0 * (2 - frozen)


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
    """A block of two residual branches, as in a transformer; the first is kept."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.mark1, self.mark2 = Residue(), Residue()

    def forward(self, x):
        x = x + self.mark1(self.first(x))
        return self.mark2.add(x, self.second(x))


def _means(block, x):
    return [energy.mean for energy in penalised(marks_of(block), x, block(x), MEASURE)[1]]


def test_every_marked_branch_is_a_residue():
    block, x = TwoBranches(), torch.randn(3, 4)
    inner = x + block.first(x)
    torch.testing.assert_close(
        _means(block, x), [block.first(x).square().mean(), block.second(inner).square().mean()]
    )
    assert penalised(marks_of(block), x, x, MEASURE) == (x, [])  # handed over once


@pytest.mark.parametrize("wanted", [True, False])
def test_a_joined_branch_marks_its_energy_if_it_is_wanted(wanted):
    mark, conv, x = Residue(), nn.Conv2d(2, 2, 3, padding=1), torch.randn(3, 2, 5, 5)
    mark.measure = MEASURE if wanted else None
    out = mark.join(x, Branch(steps=((None, conv),)), x)
    residue = conv(x)
    assert torch.equal(out, x + residue)
    marked = mark.take()
    assert [energy.size for energy in marked] == [2 * 5 * 5] * wanted
    assert all(torch.equal(energy.mean, kept(residue, MEASURE)[1]) for energy in marked)
    assert mark.take() == []


def test_a_plain_layer_of_equal_shapes_is_out_minus_in():
    layer, x = nn.Linear(4, 4), torch.randn(3, 4)
    torch.testing.assert_close(_means(layer, x), [(layer(x) - x).square().mean()])


def test_a_change_of_shape_has_no_residue():
    assert _means(nn.Linear(4, 5), torch.randn(3, 4)) == []


@pytest.mark.parametrize("how", ["evaluating", "without gradients", "not wanted"])
def test_nothing_is_marked_when_nothing_is_trained(how):
    block, x = TwoBranches(), torch.randn(3, 4)
    block.train(how != "evaluating")
    if how == "not wanted":
        block.mark1.measure = block.mark2.measure = None
    with torch.set_grad_enabled(how != "without gradients"):
        assert _means(block, x) == []


@pytest.mark.parametrize("form", ["add", "norm"])
def test_where_a_form_does_not_hold_the_residue_is_kept(form):
    mark, x = Residue(), torch.randn(3, 4, 5, dtype=torch.bfloat16)
    norm = nn.BatchNorm1d(4)
    out = mark.add(x.float(), x) if form == "add" else mark.norm(norm, x)
    residue = x if form == "add" else nn.BatchNorm1d(4)(x)
    torch.testing.assert_close(out, x.float() + x if form == "add" else residue)
    torch.testing.assert_close(mark.take()[0].mean, residue.float().square().mean())


def test_another_power_is_taken_of_a_norm_too():
    mark, norm, x = Residue(), nn.BatchNorm2d(3), torch.randn(4, 3, 5, 5)
    mark.measure = Measure(3.0)
    out = mark.norm(norm, x)
    torch.testing.assert_close(mark.take()[0].mean, out.abs().pow(3).mean())


def _pre_activation():
    return km_resnet(2, 1, input_shape=(3, 8, 8), num_classes=3, width=8, downsample=())


@pytest.mark.parametrize("tau", [None, 0.5])
def test_no_residue_outlives_its_step(nets, tau, monkeypatch):
    """Every branch that is joined to a shortcut, watched from then on."""
    references, alive_at_emit, add = [], [], Residue.add

    def watched(mark, x, branch):
        references.append(weakref.ref(branch))
        return add(mark, x, branch)

    monkeypatch.setattr(Residue, "add", watched)
    local = nets.built(_pre_activation(), 1, StepConfig(transport=Transport(tau=tau)), shape=(8, 4, 4))
    x = torch.randn(4, 8, 4, 4)

    def emit(out):
        alive_at_emit.append(sum(reference() is not None for reference in references))

    local.train_step(x, torch.tensor([0, 1, 2, 0]), lr=0.1, seed=0, emit=emit)
    assert references
    assert alive_at_emit == [0]


def test_gauged_steps_tell_both_gradients_in_the_residue(nets):
    """Against the formula: one pre-activation block, r = its branch, by plain autograd."""
    config = StepConfig(transport=Transport(tau=0.05))
    local = nets.built(_pre_activation(), 1, config, shape=(8, 4, 4))
    block = local.trunk[0]
    x, y = torch.randn(4, 8, 4, 4), torch.tensor([0, 1, 2, 0])
    local.train()
    block.residue.measure = None
    residue = (block(x) - x).detach().requires_grad_()
    loss = nn.functional.cross_entropy(local.head(x + residue), y)
    (other,) = torch.autograd.grad(loss, residue)
    (own,) = torch.autograd.grad(local.transport.weight() * residue.square().mean(), residue)
    local.train_step(x, y, lr=0.1, seed=0, gauged=True)
    local.train_step(x, y, lr=0.1, seed=1)
    totals = local.take_totals()
    assert totals.transport_gradient == pytest.approx(own.square().sum().item(), rel=1e-4)
    assert totals.other_gradient == pytest.approx(other.square().sum().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("exempt", "penalised"), [(0, [True, True, True]), (1, [False, True, True]), (2, [False, False, True])]
)
def test_modules_with_the_encoder_and_its_block_are_exempt(nets, exempt, penalised):
    chain = nets.chain_of(nets.NormBlock, nets.NormBlock, num_modules=3, exempt_blocks=exempt)
    for module, expected in enumerate(penalised):
        local = nets.built(chain, module, StepConfig(transport=Transport(tau=0.5)))
        assert local.transport.enabled == expected


def test_no_transport_is_counted_for_an_exempt_module(nets):
    chain = nets.chain_of(nets.NormBlock, exempt_blocks=1)
    local = nets.built(chain, 0, StepConfig(transport=Transport(tau=1e-6)))
    ((x, y),) = nets.batches(1)
    local.train_step(x, y, lr=0.1, seed=0)
    assert local.take_totals()[3] == 0
