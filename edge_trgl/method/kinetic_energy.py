"""The kinetic energy mean(|r|^p) of a residue r, at no memory of its own.

Four functions return a value together with the energy of r, by where r can be found in the backward: r is the
value itself (`kept`), the difference of two tensors that the step holds anyway (`added`, `moved`), or the output
of a batch norm, whose energy and gradients follow from its scale, its shift and the variance of the batch
(`normed`). In the backward they add the energy's gradient to the one that arrives for the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class Measure:
    """How the energy is computed: mean(|r|^`power`), power ≥ 1.

    `gauge`: None, or float64 [2] to which a backward adds the squared norms of two gradients with respect to r:
    the gradient of the energy, and that of the rest of the loss. `factors`: what the energy is multiplied by in
    the loss, in the order in which a backward meets them, so that an energy may come without a graph of its own;
    None if the loss has every energy as a term.
    """

    power: float = 2.0
    gauge: Tensor | None = None
    factors: tuple[float, ...] | None = None


class Statistics(NamedTuple):
    """What a batch norm's backward needs of its forward: mean and 1/deviation [C], and what its kernel keeps."""

    mean: Tensor
    deviation: Tensor
    reserve: Tensor
    kernel: int


def kept(residue: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    """The residue [B, ...], which is kept for the backward, and its energy (0-d)."""
    return _Kept.apply(residue, measure)  # type: ignore[no-untyped-call,no-any-return]


def added(x: Tensor, residue: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    """x + r and the energy of r, all [B, ...] of one floating dtype; x and the sum must not be changed in place.

    If the factors are known and the power is 2, the energy has no graph: its gradient is added to that of r where
    autograd passes, with the same bits and fewer operations.
    """
    if measure.factors is None or measure.power != 2 or not residue.requires_grad:
        return _Added.apply(x, residue, measure)  # type: ignore[no-untyped-call,no-any-return]
    out, energy = x + residue, mean_power(residue.detach(), measure.power)
    # Detached: with its graph, the sum would hold the hook that holds it.
    ends = [out.detach(), x.detach()]

    def with_energy(gradient: Tensor) -> Tensor:
        below, above = ends.pop(), ends.pop()
        return difference_gradient(gradient, _of_energy(energy, measure), energy, above, below, measure)

    residue.register_hook(with_energy)  # type: ignore[no-untyped-call]
    return out, energy


def moved(x: Tensor, out: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    """`out` unchanged, and the energy of r = out − x; neither tensor may be changed in place."""
    return _Moved.apply(x, out, measure)  # type: ignore[no-untyped-call,no-any-return]


def normed(norm: BatchNorm, x: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    """r = norm(x) in training mode, x [B, C, ...], and mean(r²); `measure.power` must be 2."""
    return _Normed.apply(x, norm.weight, norm.bias, norm, measure)  # type: ignore[no-untyped-call,no-any-return]


# ---- values


def mean_power(residue: Tensor, power: float) -> Tensor:
    """mean(|r|^power) of r [B, ...], 0-d, in float32 or wider."""
    dtype = torch.promote_types(residue.dtype, torch.float32)
    # One norm for each sample: a single running sum over a whole batch would lose digits.
    dims = tuple(range(1, residue.dim()))
    norms: Tensor = torch.linalg.vector_norm(residue, power, dim=dims, dtype=dtype)
    return norms.pow_(power).sum() / residue.numel()


def norm_energy(norm: BatchNorm, statistics: Statistics) -> Tensor:
    """mean(norm(x)²), 0-d: the mean over channels of γ² v/(v + ε) + β², where v is the variance of the batch."""
    return (norm.weight.detach().square() * _spread(norm, statistics)).add_(norm.bias.detach().square()).mean()


def _spread(norm: BatchNorm, statistics: Statistics) -> Tensor:
    """v/(v + ε) [C]: the variance of a normalised channel."""
    return 1 - norm.eps * statistics.deviation.square()


def batch_normed(norm: BatchNorm, x: Tensor) -> tuple[Tensor, Statistics]:
    """norm(x) in training mode, which updates the running statistics."""
    momentum = 0.0
    if norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    return _batch_normed(norm, x, *_running(norm), momentum)


def batch_normed_again(norm: BatchNorm, x: Tensor) -> tuple[Tensor, Statistics]:
    """The same without updating the running statistics."""
    return _batch_normed(norm, x, None, None, 0.0)


def _running(norm: BatchNorm) -> tuple[Tensor | None, Tensor | None]:
    return (norm.running_mean, norm.running_var) if norm.track_running_stats else (None, None)


def _batch_normed(
    norm: BatchNorm, x: Tensor, mean: Tensor | None, variance: Tensor | None, momentum: float
) -> tuple[Tensor, Statistics]:
    found = torch._batch_norm_impl_index(
        x,
        norm.weight,
        norm.bias,
        mean,
        variance,
        training=True,
        momentum=momentum,
        eps=norm.eps,
        cudnn_enabled=torch.backends.cudnn.enabled,
    )
    return found[0], Statistics(*found[1:])


# ---- gradients


def _of_energy(energy: Tensor, measure: Measure) -> Tensor:
    """The gradient of the energy in the loss, 0-d: the product of its factors, rounded as in a backward."""
    assert measure.factors is not None
    product = torch.ones_like(energy)
    for factor in measure.factors:
        product.mul_(factor)
    return product


def difference_gradient(
    gradient: Tensor, of_energy: Tensor, energy: Tensor, out: Tensor, x: Tensor, measure: Measure
) -> Tensor:
    """`gradient` of r = out − x plus the gradient of the energy, as a new tensor."""
    if measure.power == 2:
        slope = of_energy * (2 / out.numel())
        _gauge(measure, gradient, of_energy, energy)
        # Two passes over memory; computing the difference would take a third one, and another map.
        return torch.addcmul(gradient, out, slope).addcmul_(x, slope, value=-1)
    return power_gradient(out - x, gradient, of_energy, energy, measure)


def power_gradient(
    residue: Tensor, gradient: Tensor, of_energy: Tensor, energy: Tensor, measure: Measure
) -> Tensor:
    """`gradient` of r plus the gradient of the energy, computed in r's memory."""
    _gauge(measure, gradient, of_energy, energy, residue)
    return _slope_in_place(residue, measure.power, of_energy).add_(gradient)


def _slope_in_place(residue: Tensor, power: float, of_energy: Tensor) -> Tensor:
    """The gradient of the energy with respect to r, p |r|^(p − 1) sign(r) / n, in r's memory."""
    if power != 2:
        signs = residue.sign()
        residue.abs_().pow_(power - 1).mul_(signs)
    # A 0-d factor joins a bfloat16 residue without widening it.
    return residue.mul_(of_energy * (power / residue.numel()))


def norm_gradients(
    norm: BatchNorm,
    x: Tensor,
    gradient: Tensor,
    statistics: Statistics,
    *,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x (if `wanted`), of the scale and of the shift, from the gradient of norm(x)."""
    scales, shifts = norm.weight.requires_grad, norm.bias.requires_grad
    back, weight, bias = torch.ops.aten._batch_norm_impl_index_backward(
        statistics.kernel,
        x,
        gradient,
        norm.weight,
        None,
        None,
        statistics.mean,
        statistics.deviation,
        train=True,
        eps=norm.eps,
        output_mask=(wanted, scales, shifts),
        reservedSpace=statistics.reserve,
    )
    return back, weight, bias


def normed_gradients(
    norm: BatchNorm,
    x: Tensor,
    gradients: tuple[Tensor, Tensor],
    statistics: Statistics,
    measure: Measure,
    *,
    wanted: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The same from the gradients of norm(x) and of its energy mean(norm(x)²)."""
    if measure.gauge is not None:
        _gauge(measure, *gradients, norm_energy(norm, statistics))
    back, weight, bias = norm_gradients(norm, x, gradients[0], statistics, wanted=wanted)
    slope = gradients[1] * (2 / len(norm.weight))
    if weight is not None:
        weight.add_(slope * norm.weight.detach() * _spread(norm, statistics))
    if bias is not None:
        bias.add_(slope * norm.bias.detach())
    if back is not None:
        _add_spread_gradient(back, norm, x, statistics, slope)
    return back, weight, bias


def _add_spread_gradient(
    gradient: Tensor, norm: BatchNorm, x: Tensor, statistics: Statistics, slope: Tensor
) -> None:
    """Add the gradient through v/(v + ε), in place: 2γ²/(C n) · ε (x − μ)/(v + ε)², with the mean μ."""
    size = x.numel() // len(norm.weight)
    rate = slope * norm.weight.detach().square() * statistics.deviation.pow(4) * (norm.eps / size)
    shape = (-1, *(1,) * (x.dim() - 2))
    gradient.addcmul_(x, rate.view(shape)).sub_((rate * statistics.mean).view(shape))


def _gauge(
    measure: Measure, gradient: Tensor, of_energy: Tensor, energy: Tensor, residue: Tensor | None = None
) -> None:
    """Add squared norms to the gauge: of the energy's gradient (power 2 needs no residue), and of `gradient`."""
    if measure.gauge is None:
        return
    if measure.power == 2:  # ‖2r/n‖² = 4 mean(r²)/n
        own = of_energy.double().square() * energy * (4 / gradient.numel())
    else:
        assert residue is not None
        power = 2 * measure.power - 2
        steepness = torch.linalg.vector_norm(residue, power, dtype=torch.float32).double().pow(power)
        own = (of_energy.double() * (measure.power / residue.numel())).square() * steepness
    rest = torch.linalg.vector_norm(gradient, dtype=torch.float32).double().square()
    measure.gauge.add_(torch.stack((own, rest)))


# ---- functions


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residue: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
        energy = mean_power(residue, measure.power)
        ctx.save_for_backward(residue, energy)
        ctx.measure = measure
        return residue.view_as(residue), energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        residue, energy = ctx.saved_tensors
        return power_gradient(residue.clone(), gradients[0], gradients[1], energy, ctx.measure), None


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residue: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
        out, energy = x + residue, mean_power(residue, measure.power)
        ctx.save_for_backward(x, out, energy)
        ctx.measure = measure
        return out, energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, out, energy = ctx.saved_tensors
        return gradients[0], difference_gradient(gradients[0], gradients[1], energy, out, x, ctx.measure), None


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
        energy = mean_power(out - x, measure.power)
        ctx.save_for_backward(x, out, energy)
        ctx.measure = measure
        return out.view_as(out), energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, out, energy = ctx.saved_tensors
        if not ctx.needs_input_grad[0]:
            # The arithmetic below, bit for bit, because whether x has a gradient depends on what is recomputed.
            return None, power_gradient(out - x, gradients[0], gradients[1], energy, ctx.measure), None
        residue = out - x
        _gauge(ctx.measure, gradients[0], gradients[1], energy, residue)
        own = _slope_in_place(residue, ctx.measure.power, gradients[1])
        return own.neg(), own.add_(gradients[0]), None


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: BatchNorm, measure: Measure
    ) -> tuple[Tensor, Tensor]:
        out, statistics = batch_normed(norm, x)
        energy = norm_energy(norm, statistics)
        # The weights too, so that autograd notices if one is changed before the backward.
        ctx.save_for_backward(x, weight, bias)
        ctx.norm, ctx.statistics, ctx.measure = norm, statistics, measure
        return out, energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, wanted = ctx.saved_tensors[0], ctx.needs_input_grad[0]
        of_value, of_energy = gradients
        found = normed_gradients(ctx.norm, x, (of_value, of_energy), ctx.statistics, ctx.measure, wanted=wanted)
        return *found, None, None
