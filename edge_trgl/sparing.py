"""Layers that keep less for their backward, and give the bits of the plain form.

Of convolutions, norms and ReLUs in a row only the convolutions' outputs are kept; what the norms and ReLUs made
of them is computed again in the backward, by the very kernels of the plain form. A backward here owns what it
keeps and lets go of each tensor as soon as it was used: what `save_for_backward` holds would live until the
backward returns. So it can be run only once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Recompute = Literal["none", "norms", "blocks"]
"""What is computed again in the backward. norms: in `Sparing` parts, hardly more than norms and ReLUs. blocks:
each block as a whole, and that in the sparing way; of a module that is one block, its first convolution."""


class Sparing(nn.Module):
    """A part with two forms: the plain one, and one that keeps less for the backward (`spare` chooses).

    `again`: its first convolution, too, is computed again rather than kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sparing = self.again = False

    def spares(self, x: Tensor) -> bool:
        """Whether a forward of x is to keep less: only if a backward in float32 will follow."""
        if not (self.sparing and self.training and torch.is_grad_enabled()):
            return False
        return x.dtype == torch.float32 and not torch.is_autocast_enabled(x.device.type)


def spare(part: nn.Module, recompute: Recompute) -> None:
    """Have all in `part` that can keep less do so, or not."""
    for inner in part.modules():
        if isinstance(inner, Sparing):
            inner.sparing, inner.again = recompute != "none", recompute == "blocks"


class MeanSquare(torch.autograd.Function):
    """mean(r²) without the r² that `r.pow(2).mean()` would allocate: [B, ...] → 0-d float32."""

    @staticmethod
    def forward(ctx: Any, residue: Tensor) -> Tensor:
        ctx.save_for_backward(residue)
        return _mean_square(residue)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (residue,) = ctx.saved_tensors
        scaled: Tensor = residue * _slope(residue, gradients[0])
        return scaled


def _mean_square(residue: Tensor) -> Tensor:
    # A norm a sample: one running float32 sum over a whole batch would lose digits.
    norms: Tensor = torch.linalg.vector_norm(residue, dim=tuple(range(1, residue.dim())), dtype=torch.float32)
    return norms.square_().sum() / residue.numel()


def _slope(residue: Tensor, gradient: Tensor) -> Tensor:
    # Times r, the gradient of mean(r²). A 0-d factor joins a bfloat16 residue without widening it.
    return gradient * (2 / residue.numel())


@dataclass(frozen=True, kw_only=True)
class Branch:
    """Layers in a row: in each step ReLU(norm(·)), if it has a norm, then a convolution; `closing` ends them.

    `again`: the first convolution, too, is computed again rather than kept. `energy`: mean(r²) of the branch's
    output r is wanted.
    """

    steps: tuple[tuple[nn.BatchNorm2d | None, nn.Conv2d], ...]
    closing: nn.BatchNorm2d | None = None
    again: bool = False
    energy: bool = False

    def weights(self) -> list[Tensor | None]:
        """Weight and bias of every layer, in order."""
        layers = [*(layer for step in self.steps for layer in step), self.closing]
        return [weight for layer in layers if layer is not None for weight in (layer.weight, layer.bias)]


def through(branch: Branch, x: Tensor) -> Tensor:
    """branch(x), which `closing` ends; x [B, C, H, W] float32."""
    out, _ = _Sum.apply(None, x, branch, *branch.weights())  # type: ignore[no-untyped-call]
    result: Tensor = out
    return result


def residual(branch: Branch, x: Tensor, shortcut: Tensor) -> tuple[Tensor, Tensor | None]:
    """shortcut + r, r = branch(x), and mean(r²) (0-d) if the branch wants it; x, shortcut [B, C, H, W] float32."""
    out, mean = _Sum.apply(shortcut, x, branch, *branch.weights())  # type: ignore[no-untyped-call]
    return out, mean


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
        if branch.closing is not None:
            residue = branch.closing(residue)
        elif not branch.energy:
            ctx.outputs[-1] = None
        if branch.again:
            ctx.outputs[0] = None
        mean = _mean_square(residue) if branch.energy else None
        if shortcut is None:
            return residue, mean
        # Into the residue's own memory, unless it is kept, or the sum would be laid out differently.
        kept = residue is ctx.outputs[-1]
        in_place = not kept and residue.stride() == shortcut.stride()
        return residue.add_(shortcut) if in_place else shortcut + residue, mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        back = _WayBack(ctx.branch, ctx.saved_tensors[0], ctx.outputs, gradients[0])
        back.enter(gradients[1])
        for number in reversed(range(len(ctx.branch.steps))):
            back.undo(number, wanted=number > 0 or ctx.needs_input_grad[1])
        # The shortcut's gradient comes first, for the branch's to be added to it, as in the plain form.
        by_shortcut = gradients[0] if ctx.needs_input_grad[0] else None
        by_branch = back.gradient if ctx.needs_input_grad[1] else None
        return by_shortcut, by_branch, None, *reversed(back.found)


def _convolved(branch: Branch, x: Tensor) -> tuple[list[Tensor | None], Tensor]:
    """The outputs of the convolutions of branch(x), and the last of them."""
    outputs: list[Tensor | None] = []
    for norm, conv in branch.steps:
        x = conv(x if norm is None else functional.relu_(norm(x)))
        outputs.append(x)
    return outputs, x


class _WayBack:
    """One backward through a branch.

    `gradient`: of the place that was reached; `found`: of the weights, those of the last layer first, bias first.
    """

    def __init__(self, branch: Branch, x: Tensor, outputs: list[Tensor | None], gradient: Tensor) -> None:
        self.gradient = gradient
        self.found: list[Tensor | None] = []
        self._branch = branch
        self._x = x
        self._outputs = outputs

    def enter(self, of_mean: Tensor | None) -> None:
        """From the sum, and from mean(r²) if it has a gradient, to the last convolution's output."""
        closing, last = self._branch.closing, len(self._outputs) - 1
        if closing is not None:
            output = self._output(last)
            residue, statistics = _normalised(output, closing)
            if of_mean is not None:
                self._join(residue, of_mean)
            del residue
            self._undo_norm(closing, output, statistics, wanted=True)
        elif of_mean is not None:
            self._join(self._output(last), of_mean)

    def undo(self, number: int, *, wanted: bool) -> None:
        """Back through one step, to what it read if that is `wanted`."""
        norm, conv = self._branch.steps[number]
        if norm is None:
            self.found += _weight_gradients(conv, self._x, self.gradient)
            if wanted:
                self.gradient = _input_gradient(conv, self._x, self.gradient)
            return
        before = self._x if number == 0 else self._output(number - 1)
        inner, statistics = _activated(before, norm)
        self.found += _weight_gradients(conv, inner, self.gradient)
        blocked, strides = inner <= 0, inner.stride()
        del inner
        self.gradient = _input_gradient(conv, before, self.gradient)
        if self.gradient.stride() == strides:
            self.gradient.masked_fill_(blocked, 0)
        else:  # maps of one channel or position, whose layout nobody can tell, have the one that this gives them
            self.gradient = torch.ops.aten.threshold_backward(self.gradient, _activated(before, norm)[0], 0)
        del blocked
        self._undo_norm(norm, before, statistics, wanted=wanted)

    def _output(self, number: int) -> Tensor:
        """A convolution's output, handed over; the first may have to be computed again."""
        output, self._outputs[number] = self._outputs[number], None
        if output is None:
            norm, conv = self._branch.steps[number]
            output = conv(self._x if norm is None else _activated(self._x, norm)[0])
        return output

    def _join(self, residue: Tensor, of_mean: Tensor) -> None:
        """Add what mean(r²) sends back to r, in r's own memory."""
        self.gradient = residue.mul_(_slope(residue, of_mean)).add_(self.gradient)

    def _undo_norm(self, norm: nn.BatchNorm2d, x: Tensor, statistics: _Statistics, *, wanted: bool) -> None:
        gradient, weight, bias = torch.ops.aten._batch_norm_impl_index_backward(
            statistics.kernel,
            x,
            self.gradient,
            norm.weight,
            None,
            None,
            statistics.mean,
            statistics.deviation,
            train=True,
            eps=norm.eps,
            output_mask=(wanted, norm.weight.requires_grad, norm.bias.requires_grad),
            reservedSpace=statistics.reserve,
        )
        self.found += [bias, weight]
        if wanted:
            self.gradient = gradient


class _Statistics(NamedTuple):
    """What a norm's backward needs of its forward: mean and 1/deviation of the batch, and which kernel it was."""

    mean: Tensor
    deviation: Tensor
    reserve: Tensor
    kernel: int


def _normalised(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, _Statistics]:
    """norm(x) as in training, without a trace in its running statistics."""
    out, mean, deviation, reserve, kernel = torch._batch_norm_impl_index(
        x,
        norm.weight,
        norm.bias,
        None,
        None,
        training=True,
        momentum=0.0,
        eps=norm.eps,
        cudnn_enabled=torch.backends.cudnn.enabled,
    )
    return out, _Statistics(mean, deviation, reserve, kernel)


def _activated(x: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, _Statistics]:
    """ReLU(norm(x)) in the same way."""
    out, statistics = _normalised(x, norm)
    return functional.relu_(out), statistics


def _weight_gradients(conv: nn.Conv2d, x: Tensor, gradient: Tensor) -> list[Tensor | None]:
    """Of the bias and of the weight."""
    biased = conv.bias is not None and conv.bias.requires_grad
    _, weight, bias = _convolution_backward(conv, x, gradient, (False, conv.weight.requires_grad, biased))
    return [bias, weight]


def _input_gradient(conv: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Only the shape and the layout of x matter."""
    found: Tensor = _convolution_backward(conv, x, gradient, (True, False, False))[0]
    return found


def _convolution_backward(conv: nn.Conv2d, x: Tensor, gradient: Tensor, wanted: tuple[bool, bool, bool]) -> Any:
    """Gradients of input, weight and bias, as far as wanted."""
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
    """Back through the pooling and the ReLU whose output is `inner`, in one new map."""
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
    if spread.stride() == inner.stride():
        torch.ops.aten.threshold_backward.grad_input(spread, inner, 0, grad_input=spread)
        return spread
    stopped: Tensor = torch.ops.aten.threshold_backward(spread, inner, 0)
    return stopped
