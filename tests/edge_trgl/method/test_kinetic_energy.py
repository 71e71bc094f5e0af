"""The energies that keep no residue: against the plain formula, in double precision and in float32."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edge_trgl.method.kinetic_energy import Measure, added, batch_normed, kept, moved, normed

POWERS = [1.0, 1.5, 2.0, 3.0]
FORMS = {
    "kept": (lambda x, r, measure: kept(r, measure), lambda x, r: (r, r)),
    "added": (added, lambda x, r: (x + r, r)),
    "moved": (moved, lambda x, r: (r, r - x)),
}
SHAPES = [(2, 3), (4, 8, 5, 5), (3, 7, 16)]


def _double(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def _norm(channels, *, dtype=torch.float64, eps=1e-5):
    norm = nn.BatchNorm2d(channels, eps=eps, dtype=dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form, power):
    ours, _ = FORMS[form]
    assert torch.autograd.gradcheck(lambda x, r: ours(x, r, Measure(power)), (_double(3, 2, 4), _double(3, 2, 4)))


@pytest.mark.parametrize("eps", [1e-5, 0.5])  # far below the variance of the batch, and as large
def test_a_norms_gradients_are_those_of_finite_differences(eps):
    norm = _norm(3, eps=eps)
    norm.track_running_stats = False

    def ours(x, weight, bias):
        norm.weight, norm.bias = weight, bias
        return normed(norm, x, Measure())

    weight, bias = (nn.Parameter(p.detach()) for p in (norm.weight, norm.bias))
    assert torch.autograd.gradcheck(ours, (_double(4, 3, 2, 2), weight, bias))


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_value_and_gradients_are_those_of_the_formula(form, shape, power):
    ours, naive = FORMS[form]
    x, r = torch.randn(shape), torch.randn(shape)
    ends = []
    for values, run in (
        ((x, r), lambda x, r: ours(x, r, Measure(power))),
        ((x.double(), r.double()), lambda x, r: (naive(x, r)[0], naive(x, r)[1].abs().pow(power).mean())),
    ):
        x_, r_ = (value.clone().requires_grad_() for value in values)
        out, mean = run(x_, r_)
        ((out * torch.arange(out.numel()).sin().view_as(out)).sum() + 50 * mean).backward()
        ends.append([out, mean, r_.grad, *([] if x_.grad is None else [x_.grad])])
    for found, expected in zip(*ends, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # of the batch: its variance far above ε, and below it
@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (2, 3, 9, 1)])
def test_a_norms_energy_is_that_of_the_formula(shape, scale):
    norm, x = _norm(shape[1], dtype=torch.float32), torch.randn(shape) * scale
    plain, exact = copy.deepcopy(norm), copy.deepcopy(norm).double()
    x_, double = x.clone().requires_grad_(), x.double().requires_grad_()
    out, mean = normed(norm, x_, Measure())
    expected = exact(double)
    wave = torch.arange(out.numel()).sin().view_as(out)
    ((out * wave).sum() + 50 * mean).backward()
    ((expected * wave).sum() + 50 * expected.square().mean()).backward()
    assert torch.equal(out, plain(x))
    torch.testing.assert_close(mean.double(), expected.square().mean(), rtol=1e-6, atol=0)
    for found, gradient in ((x_, double), (norm.weight, exact.weight), (norm.bias, exact.bias)):
        torch.testing.assert_close(
            found.grad.double(), gradient.grad, rtol=1e-4, atol=1e-5 * gradient.grad.abs().max()
        )


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("tracks", [True, False])
def test_a_norm_is_left_as_its_own_forward_leaves_it(momentum, tracks):
    norm = nn.BatchNorm2d(3, momentum=momentum)
    norm.track_running_stats = tracks
    plain = copy.deepcopy(norm)
    for _ in range(3):
        x = torch.randn(4, 3, 5, 5)
        assert torch.equal(batch_normed(norm, x)[0], plain(x))
    for name, buffer in plain.named_buffers():
        assert torch.equal(norm.get_buffer(name), buffer), name


def test_the_energy_of_a_large_map_is_as_exact():
    residue = torch.randn(64, 64, 16, 16)
    naive = residue.double().pow(2).mean()
    torch.testing.assert_close(kept(residue, Measure())[1].double(), naive, rtol=1e-6, atol=0)


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_a_residue_of_zeros_has_a_gradient_of_zeros(power):
    residue = torch.zeros(2, 3, requires_grad=True)
    kept(residue, Measure(power))[1].backward()
    assert residue.grad.tolist() == [[0.0] * 3] * 2


def test_bfloat16_residue():
    residue = torch.randn(4, 3, 8, 8).bfloat16().requires_grad_()
    _, mean = kept(residue, Measure())
    mean.backward()
    assert mean.dtype == torch.float32
    assert residue.grad.dtype == torch.bfloat16
    torch.testing.assert_close(mean.double(), residue.detach().double().pow(2).mean(), rtol=1e-5, atol=0)
    torch.testing.assert_close(residue.grad.float(), 2 * residue.detach().float() / 768, rtol=1e-2, atol=1e-5)


@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from([2.0, 3.0]),
    st.integers(1, 5),
    st.booleans(),
    st.floats(0.1, 9),
)
@settings(max_examples=50)
def test_a_gauge_has_the_squared_norms_of_both_gradients(form, power, batch, wanted, factor):
    gauge = torch.zeros(2, dtype=torch.float64)
    x, r = torch.randn(batch, 3, requires_grad=wanted), torch.randn(batch, 3, requires_grad=True)
    out, mean = FORMS[form][0](x, r, Measure(power, gauge))
    wave = torch.randn(out.shape)
    ((out * wave).sum() + factor * mean).backward()
    residue = FORMS[form][1](x, r)[1].detach().double().requires_grad_()
    (own,) = torch.autograd.grad(factor * residue.abs().pow(power).mean(), residue)
    expected = torch.stack((own.square().sum(), wave.double().square().sum()))
    torch.testing.assert_close(gauge, expected, rtol=1e-4, atol=1e-9)


def test_a_gauge_of_a_norm():
    gauge = torch.zeros(2, dtype=torch.float64)
    norm, x = _norm(3, dtype=torch.float32), torch.randn(4, 3, 5, 5)
    out, mean = normed(norm, x, Measure(2.0, gauge))
    wave = torch.randn(out.shape)
    ((out * wave).sum() + 7 * mean).backward()
    own = 7 * 2 * out.detach().double() / out.numel()
    expected = torch.stack((own.square().sum(), wave.double().square().sum()))
    torch.testing.assert_close(gauge, expected, rtol=1e-4, atol=0)


def test_what_comes_in_is_left_as_it_was():
    for ours, _ in FORMS.values():
        x, r = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
        before = [x.detach().clone(), r.detach().clone()]
        out, mean = ours(x, r, Measure())
        gradient = torch.randn(out.shape)
        copied = gradient.clone()
        torch.autograd.backward((out, mean), (gradient, torch.tensor(1.0)))
        assert torch.equal(gradient, copied)
        assert torch.equal(x, before[0])
        assert torch.equal(r, before[1])


@pytest.mark.parametrize("factors", [(1.0, 0.7), (0.3, 1.25)])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_energy_whose_factors_are_known_gives_the_same_bits_without_a_graph(shape, factors):
    x, r = torch.randn(shape), torch.randn(shape)
    found = []
    for measure in (Measure(), Measure(factors=factors)):
        gauge = torch.zeros(2, dtype=torch.float64)
        x_, r_ = x.clone().requires_grad_(), r.clone().requires_grad_()
        out, mean = added(x_, r_ * 2, replace(measure, gauge=gauge))
        share, weight = factors
        loss = (out * torch.arange(out.numel()).sin().view_as(out)).sum() / share
        loss = loss + mean * weight if mean.requires_grad else loss
        (loss * share).backward()
        found.append([out, mean, x_.grad, r_.grad, gauge])
    assert not found[1][1].requires_grad
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*found, strict=True))


def test_a_graph_with_known_factors_goes_when_nobody_needs_it():
    class Held:
        """Something that the graph holds."""

    x, r = torch.randn(4, 3), torch.randn(4, 3, requires_grad=True) * 2
    held = Held()
    r.register_hook(lambda gradient, held=held: None)
    out, _ = added(x, r, Measure(factors=(1.0, 1.0)))
    gone = weakref.ref(held)
    del held, out, r
    assert gone() is None
