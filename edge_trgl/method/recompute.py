"""Layers that keep less for their backward than the plain form, with the same bits.

In a row of convolutions, batch norms and ReLUs only the outputs of the convolutions are kept; those of the norms
and ReLUs are computed again in the backward, by the kernels of the plain form. A backward here owns what it keeps
and frees each tensor after its last use (what `save_for_backward` holds lives until the backward returns), so it
can run only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.method.kinetic_energy import (
    Measure,
    Statistics,
    batch_normed,
    batch_normed_again,
    difference_gradient,
    mean_power,
    norm_energy,
    norm_gradients,
    normed_gradients,
    power_gradient,
)

Recompute = Literal["none", "norms", "blocks"]
"""What is computed again in the backward. norms: norms and ReLUs of `Sparing` parts, and little else. blocks: each
block as a whole, whose parts spare as well; of a module that is a single block, its first convolution."""


class Sparing(nn.Module):
    """A part of a network with two forms: the plain one, and one that keeps less for the backward.

    `spare` chooses the form. `again`: its first convolution is computed again as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sparing = self.again = False

    def spares(self, x: Tensor) -> bool:
        """Whether a forward of x keeps less: only if a backward in float32 will follow."""
        if not (self.sparing and self.training and torch.is_grad_enabled()):
            return False
        return x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)


def spare(part: nn.Module, recompute: Recompute) -> None:
    """Choose the form of everything in `part` that has two."""
    for inner in part.modules():
        if isinstance(inner, Sparing):
            inner.sparing, inner.again = recompute != "none", recompute == "blocks"


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Layers in a row: each step is ReLU(norm(·)), if it has a norm, and a convolution; `closing` ends them.

    `again`: the first convolution is computed again in the backward. `measure`: how the energy of the branch's
    output r is computed, None if it is not wanted; without a closing norm, r is the difference of sum and
    shortcut.
    """

    steps: tuple[tuple[nn.BatchNorm2d | None, nn.Conv2d], ...]
    closing: nn.BatchNorm2d | None = None
    again: bool = False
    measure: Measure | None = None

    @property
    def by_norm(self) -> bool:
        """Whether the energy follows from the closing norm."""
        return self.measure is not None and self.closing is not None and self.measure.power == 2

    def weights(self) -> list[Tensor | None]:
        """Weight and bias of every layer, in order."""
        layers = [*(layer for step in self.steps for layer in step), self.closing]
        return [weight for layer in layers if layer is not None for weight in (layer.weight, layer.bias)]


def through(branch: Branch, x: Tensor) -> Tensor:
    """branch(x) of a branch with a closing norm; x [B, C, H, W] float32."""
    out, _ = _Sum.apply(None, x, branch, *branch.weights())  # type: ignore[no-untyped-call]
    result: Tensor = out
    return result


def residual(branch: Branch, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor | None]:
    """shortcut + r with r = branch(x), and the energy of r (0-d) if wanted; x, shortcut [B, C, H, W] float32."""
    out, energy = _Sum.apply(shortcut, x, branch, *branch.weights())  # type: ignore[no-untyped-call]
    return out, energy


class _Sum(torch.autograd.Function):
    """See `residual`; without a shortcut, r alone."""

    @staticmethod
    def forward(
        ctx: Any, shortcut: Tensor | None, x: Tensor, branch: Branch, *weights: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        # The weights too, so that autograd notices where one is changed before the backward.
        ctx.save_for_backward(x, *weights)
        ctx.branch = branch
        ctx.outputs, residue = _convolved(branch, x)
        ctx.statistics, ctx.ends = None, []
        if branch.closing is not None:
            residue, ctx.statistics = batch_normed(branch.closing, residue)
        else:
            ctx.outputs[-1] = None
        if branch.again:
            ctx.outputs[0] = None
        energy = _energy_of(branch, residue, ctx.statistics)
        ctx.energy = energy if energy is None else energy.detach()  # an output on ctx would be a cycle
        if shortcut is None:
            return residue, energy
        # In the residue's memory where the layouts agree: the sum then has the layout of the plain form.
        in_place = residue.stride() == shortcut.stride()
        out = residue.add_(shortcut) if in_place else shortcut + residue
        if branch.measure is not None and branch.closing is None:
            ctx.ends = [out.detach(), shortcut]
        return out, energy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        back = _WayBack(ctx.branch, ctx.saved_tensors[0], ctx.outputs, gradients[0])
        if ctx.statistics is not None:
            back.leave_norm(ctx.statistics, ctx.energy, gradients[1])
        elif ctx.ends:
            back.leave_sum(gradients[1], ctx.energy, ctx.ends)
        last = len(ctx.branch.steps) - 1
        for number in range(last, -1, -1):
            # Until the last convolution is undone, the gradients of the sum and of r are both alive.
            crowded = number == last and back.gradient is not gradients[0] and ctx.statistics is None
            back.undo(number, wanted=number > 0 or ctx.needs_input_grad[1], crowded=crowded)
        # The shortcut's gradient comes first; autograd adds the branch's to it, as in the plain form.
        by_shortcut = gradients[0] if ctx.needs_input_grad[0] else None
        by_branch = back.gradient if ctx.needs_input_grad[1] else None
        return by_shortcut, by_branch, None, *reversed(back.found)


def _energy_of(branch: Branch, residue: Tensor, statistics: Statistics | None) -> Tensor | None:
    if branch.measure is None:
        return None
    if branch.by_norm:
        assert branch.closing is not None
        assert statistics is not None
        return norm_energy(branch.closing, statistics)
    return mean_power(residue, branch.measure.power)


def _convolved(branch: Branch, x: Tensor) -> tuple[list[Tensor | None], Tensor]:
    """The outputs of the convolutions of branch(x), and the last of them."""
    outputs: list[Tensor | None] = []
    for norm, conv in branch.steps:
        x = conv(x if norm is None else functional.relu_(norm(x)))
        outputs.append(x)
    return outputs, x


class _WayBack:
    """One backward through a branch.

    `gradient`: at the point that was reached. `found`: gradients of the weights, last layer first, bias first.
    """

    def __init__(self, branch: Branch, x: Tensor, outputs: list[Tensor | None], gradient: Tensor) -> None:
        self.gradient = gradient
        self.found: list[Tensor | None] = []
        self._branch = branch
        self._x = x
        self._outputs = outputs

    def leave_norm(self, statistics: Statistics, energy: Tensor | None, of_energy: Tensor | None) -> None:
        """Go back through the closing norm, and through its energy if there is one."""
        norm, measure, output = self._branch.closing, self._branch.measure, self._output(len(self._outputs) - 1)
        assert norm is not None
        if measure is None or energy is None or of_energy is None:
            found = norm_gradients(norm, output, self.gradient, statistics, wanted=True)
        elif self._branch.by_norm:
            gradients = (self.gradient, of_energy)
            found = normed_gradients(norm, output, gradients, statistics, measure, wanted=True)
        else:
            residue, _ = batch_normed_again(norm, output)
            joined = power_gradient(residue, self.gradient, of_energy, energy, measure)
            del residue
            found = norm_gradients(norm, output, joined, statistics, wanted=True)
        self._book_norm(*found)

    def leave_sum(self, of_energy: Tensor, energy: Tensor, ends: list[Tensor]) -> None:
        """Go back from the sum and the energy to r; `ends`, the sum and the shortcut, is emptied."""
        measure = self._branch.measure
        assert measure is not None
        self.gradient = difference_gradient(self.gradient, of_energy, energy, ends[0], ends[1], measure)
        ends.clear()

    def undo(self, number: int, *, wanted: bool, crowded: bool) -> None:
        """Go back through one step, down to its input if that is `wanted`.

        `crowded`: memory is so full that ReLU's input is computed once more instead of keeping a mask of it.
        """
        norm, conv = self._branch.steps[number]
        if norm is None:
            self.found += _weight_gradients(conv, self._x, self.gradient)
            if wanted:
                self.gradient = _input_gradient(conv, self._x, self.gradient)
            return
        before = self._x if number == 0 else self._output(number - 1)
        inner, statistics = _activated(before, norm)
        self.found += _weight_gradients(conv, inner, self.gradient)
        blocked, strides = None if crowded else inner <= 0, inner.stride()
        del inner
        # Maps with a single channel or position have several valid strides, and kernels are chosen by strides.
        self.gradient = _input_gradient(conv, before.as_strided(before.shape, strides), self.gradient)
        if blocked is not None and self.gradient.stride() == strides:
            self.gradient.masked_fill_(blocked, 0)
        else:
            self.gradient = _stopped(self.gradient, _activated(before, norm)[0])
        del blocked
        self._book_norm(*norm_gradients(norm, before, self.gradient, statistics, wanted=wanted))

    def _output(self, number: int) -> Tensor:
        """Hand over a convolution's output; the first may have to be computed again."""
        output, self._outputs[number] = self._outputs[number], None
        if output is None:
            norm, conv = self._branch.steps[number]
            output = conv(self._x if norm is None else _activated(self._x, norm)[0])
        return output

    def _book_norm(self, gradient: Tensor | None, weight: Tensor | None, bias: Tensor | None) -> None:
        self.found += [bias, weight]
        if gradient is not None:
            self.gradient = gradient


def _activated(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Statistics]:
    """ReLU(norm(x)) in training mode, without updating the norm's running statistics."""
    out, statistics = batch_normed_again(norm, x)
    return functional.relu_(out), statistics


def _weight_gradients(conv: nn.Conv2d, x: Tensor, gradient: Tensor) -> list[Tensor | None]:
    """Gradients of the bias and of the weight, where they are trained."""
    biased = conv.bias is not None and conv.bias.requires_grad
    _, weight, bias = _convolution_backward(conv, x, gradient, (False, conv.weight.requires_grad, biased))
    return [bias, weight]


def _input_gradient(conv: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the input; of x only the shape and the layout matter."""
    found: Tensor = _convolution_backward(conv, x, gradient, (True, False, False))[0]
    return found


def _convolution_backward(conv: nn.Conv2d, x: Tensor, gradient: Tensor, wanted: tuple[bool, bool, bool]) -> Any:
    """Gradients of input, weight and bias, None where not `wanted`."""
    return torch.ops.aten.convolution_backward(
        gradient,
        x,
        conv.weight,
        None if conv.bias is None else [conv.out_channels],
        conv.stride,
        conv.padding,
        conv.dilation,
        transposed=False,
        output_padding=(0, 0),
        groups=conv.groups,
        output_mask=wanted,
    )


def pooled(conv: nn.Conv2d, pool: nn.AvgPool2d, x: Tensor) -> Tensor:
    """pool(ReLU(conv(x))), x [B, C, H, W] float32."""
    result: Tensor = _Pooled.apply(x, conv, pool, conv.weight, conv.bias)  # type: ignore[no-untyped-call]
    return result


class _Pooled(torch.autograd.Function):
    """See `pooled`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: nn.Conv2d, pool: nn.AvgPool2d, *weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.layers = conv, pool
        inner = functional.relu_(conv(x))
        ctx.inner = [inner]
        out: Tensor = pool(inner)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (conv, pool), x = ctx.layers, ctx.saved_tensors[0]
        gradient = _unpooled(pool, ctx.inner.pop(), gradients[0])
        bias, weight = _weight_gradients(conv, x, gradient)
        back = _input_gradient(conv, x, gradient) if ctx.needs_input_grad[0] else None
        return back, None, None, weight, bias


def _unpooled(pool: nn.AvgPool2d, inner: Tensor, gradient: Tensor) -> Tensor:
    """Go back through the pooling and the ReLU whose output is `inner`, in one new map."""
    spread: Tensor = torch.ops.aten.avg_pool2d_backward(
        gradient,
        inner,
        pool.kernel_size,
        pool.stride,
        pool.padding,
        pool.ceil_mode,
        pool.count_include_pad,
        pool.divisor_override,
    )
    return _stopped(spread, inner)


def _stopped(gradient: Tensor, inner: Tensor) -> Tensor:
    """Go back through the ReLU whose output is `inner`, in the gradient's memory if the layouts agree."""
    # Maps with a single channel or position have no definite layout; they get the one that the operation chooses.
    if gradient.stride() == inner.stride():
        torch.ops.aten.threshold_backward.grad_input(gradient, inner, 0, grad_input=gradient)
        return gradient
    stopped: Tensor = torch.ops.aten.threshold_backward(gradient, inner, 0)
    return stopped
