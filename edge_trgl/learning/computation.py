"""Forward and backward of one part of a batch, with every activation kept or one stage at a time: equal bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.learning.norms import buffers_kept
from edge_trgl.learning.objective import Objective
from edge_trgl.learning.optimizers import Optimizer
from edge_trgl.learning.parts import Part, gradient_of, hand_back, leaf, rows_of
from edge_trgl.learning.segments import Seed, Segment, last_uses
from edge_trgl.learning.totals import RunningTotals
from edge_trgl.learning.transport_term import TransportTerm

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True, kw_only=True)
class Computation:
    """What a step of one module computes with.

    `segments`: the trunk, in order. `weights`: all of the module's. `objective` and `transport` make the loss,
    `totals` counts it, `optimizer` updates weights in the backward of a part that has a rate. `autocast` surrounds
    every forward pass.
    """

    segments: Sequence[Segment]
    weights: Sequence[nn.Parameter]
    objective: Objective
    transport: TransportTerm
    optimizer: Optimizer
    totals: RunningTotals
    autocast: Autocast

    def ascend(self, x: Tensor, part: Part) -> None:
        """Emit the output of the part of a whole batch x; call it without recording gradients."""
        with self.autocast():
            part.emit(_forward(self.segments, rows_of(x, part.rows), part.seed))

    def recalibrate(self, x: Tensor, part: Part) -> None:
        """The same, and the head reads the output."""
        with self.autocast():
            out = _forward(self.segments, rows_of(x, part.rows), part.seed)
            part.emit(out)
            self.objective.head(out)

    def train(self, x: Tensor, target: Tensor, image: Tensor | None, part: Part) -> Tensor:
        """Forward and backward of the loss with every activation kept; the loss of the head (0-d)."""
        start = leaf(x, wants_gradient=part.send_back is not None)
        with self.autocast():
            out, costs = self.transport.trace(self.segments, start, part.seed, part.share)
            part.emit(out.detach())
            made, terms = self.objective.read(out, target, image)
        del out
        criterion = self.objective.criterion
        head_loss = criterion.loss(made, target)
        correct = criterion.num_correct(made, target)
        self.totals.count(head_loss.detach(), len(target), correct, _sum([cost.detach() for cost in costs]))
        loss, penalty = sum(terms, head_loss), _penalty(costs)
        loss = loss if penalty is None else loss + penalty * self.transport.weight()
        del made, terms
        with self.optimizer.in_backward(self.weights, part.rate):
            (loss if part.share == 1 else loss * part.share).backward()  # type: ignore[no-untyped-call]
        hand_back(start, part)
        return head_loss.detach()

    def train_by_segment(self, x: Tensor, target: Tensor, image: Tensor | None, part: Part) -> Tensor:
        """The same numbers with the activations of one segment alive at a time."""
        stages = [[segment] for segment in self.segments]
        with torch.no_grad(), self.autocast():
            *inputs, out = _ascent(stages, x, part.seed)
        part.emit(out)
        out = leaf(out, wants_gradient=True)
        with self.autocast():
            made, terms = self.objective.read(out, target, image)
        head_loss = self.objective.criterion.loss(made, target)
        loss = sum(terms, head_loss)
        with self.optimizer.in_backward(self.objective.weights(), part.rate):
            (loss if part.share == 1 else loss * part.share).backward()  # type: ignore[no-untyped-call]
        made, head_loss = made.detach(), head_loss.detach()
        del loss, terms
        stack = [*inputs, gradient_of(out)]
        del inputs, out  # the stack alone holds them, and lets go of each in its turn
        costs = self._descend(stages, stack, part)
        self.totals.count(head_loss, len(target), self.objective.criterion.num_correct(made, target), _sum(costs))
        return head_loss

    def backward(self, x: Tensor, gradient: Tensor, part: Part, *, by_segment: bool) -> None:
        """Compute the part of a whole batch x again, and send back the `gradient` of its output."""
        stages = [[segment] for segment in self.segments] if by_segment else [self.segments]
        with torch.no_grad(), buffers_kept(_layers(self.segments)), self.autocast():
            inputs = _ascent(stages[:-1], rows_of(x, part.rows), part.seed)
        # Taken here, so that a copy of the gradient is not alive in the ascent, and the stack alone holds it.
        self._descend(stages, [*inputs, rows_of(gradient, part.rows)], part)

    def _descend(
        self, stages: Sequence[Sequence[Segment]], stack: list[Tensor | None], part: Part
    ) -> list[Tensor]:
        """Backward through `stages`, the last first, each computed again from its input; what their residues cost.

        `stack`: the input of each stage and, on top, the gradient of the last one's output; it is used up.
        """
        costs: list[Tensor] = []
        for stage, weights in reversed(list(zip(stages, last_uses(stages), strict=True))):
            gradient, below = stack.pop(), stack.pop()
            assert below is not None
            start = leaf(below, wants_gradient=bool(stack) or part.send_back is not None)
            del below
            with buffers_kept(_layers(stage)), self.autocast():
                out, own = self.transport.trace(stage, start, part.seed, part.share)
                through = Seed.apply(out, gradient)  # type: ignore[no-untyped-call]
            del out, gradient
            costs = [cost.detach() for cost in own] + costs
            penalty = _penalty(own)
            loss = through if penalty is None else through + penalty * self.transport.weight() * part.share
            del through, own
            if loss.requires_grad:  # a first piece without weights has nothing to learn
                with self.optimizer.in_backward(weights, part.rate):
                    loss.backward()
            if stack:
                stack.append(gradient_of(start))
        hand_back(start, part)
        return costs


def _layers(segments: Sequence[Segment]) -> Iterator[nn.Module]:
    return (segment.layer for segment in segments)


def _penalty(costs: list[Tensor]) -> Tensor | None:
    """What `costs` add to the loss; those without a graph are in it already."""
    return _sum([cost for cost in costs if cost.requires_grad])


def _sum(costs: list[Tensor]) -> Tensor | None:
    """The sum of `costs` (0-d), if there are any."""
    if len(costs) < 2:
        return costs[0] if costs else None
    return torch.stack(costs).sum()


def _ascent(stages: Sequence[Sequence[Segment]], x: Tensor, seed: int) -> list[Tensor]:
    """The input of every stage, and the output of the last."""
    values = [x]
    for stage in stages:
        values.append(_forward(stage, values[-1], seed))
    return values


def _forward(stage: Sequence[Segment], x: Tensor, seed: int) -> Tensor:
    for segment in stage:
        x = segment(x, seed)
    return x
