"""One module with its head and optimizer state, and what is done with it: steps, and passes that train nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.learning.optimizers import AdamW, Descent, Optimizer, Sgd
from edge_trgl.learning.segments import Seed, Segment, buffers_kept, laid_out, last_uses, segments_of
from edge_trgl.learning.totals import Totals
from edge_trgl.method.kinetic_energy import Measure
from edge_trgl.method.losses import CrossEntropy, LocalLoss, Mix, Place, damped
from edge_trgl.method.recompute import Recompute, spare
from edge_trgl.method.transport import Residue, Transport, penalised
from edge_trgl.networks.chain import Chain, Shape
from edge_trgl.random_keys import key

Emit = Callable[[Tensor], None]
"""Takes a module's output [b, ...], or the gradient of its input, as soon as it is computed, before the step."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How every module of a run is stepped.

    `loss`: what the transport cost is added to. `micro_batch`: samples a forward pass, None for the whole batch
    (smaller ones change BN and rounding: lossy). `recompute`: what is computed again in the backward rather than
    kept (exact).
    `early_update`: update each weight in the backward, as soon as its gradient is complete, and free the
    gradient (exact). `momentum` is SGD's, `betas` are AdamW's.
    """

    transport: Transport
    loss: LocalLoss = field(default_factory=CrossEntropy)
    label_smoothing: float = 0.0
    optimizer: Optimizer = "sgd"
    momentum: float = 0.9
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 0.0
    bfloat16: bool = False
    recompute: Recompute = "none"
    micro_batch: int | None = None
    early_update: bool = True


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A batch, or a micro-batch, on its way through a module.

    `rows` and `share` of the batch; `seed` of its draws. `rate`: in the last part, whose backward completes the
    gradients, if weights are to be updated there. `send_back` takes the gradient of the input, if anybody does.
    """

    rows: slice
    share: float
    seed: int
    rate: float | None
    emit: Emit
    send_back: Emit | None


class LocalModule(nn.Module):
    """Module T_k, its auxiliary classifier F_k, other parts of its loss, moments, and λ: all that a visit holds.

    Raises:
        ValueError: the head or the loss cannot read the module's output, or the loss is not one of micro-batches.
    """

    def __init__(self, chain: Chain, module: int, output_shape: Shape, config: StepConfig) -> None:
        super().__init__()
        self.index = module
        self.config = config
        self.trunk = chain.trunk(module)
        self.first_block = chain.starts[module]
        self.has_head = chain.has_head(module)
        self.head = chain.classifier(module, output_shape) if self.has_head else nn.Identity()
        self.mix = config.loss.of(module, len(chain)) if self.has_head else Mix()
        if config.micro_batch and self.mix.compares_samples:
            raise ValueError(f"{config.loss} compares the samples of a batch, which micro-batches take apart")
        place = Place(output_shape=output_shape, image_shape=chain.input_shape, num_classes=chain.num_classes)
        self.aux = nn.ModuleList(kind(place) for kind in self.mix.kinds)
        # The halves of τ are those of the modules that are trained.
        self._place = module - chain.frozen
        self.weight = config.transport.weight(self._place, len(chain) - chain.frozen)
        exempt = chain.encoder_exempt and module == 0
        self.penalised = not exempt and (self.weight > 0 or config.transport.multipliers is not None)
        self._descent = self._new_descent({})
        self._multiplier = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64, device="cpu")
        self._totals = torch.zeros(6, dtype=torch.float64, device="cpu")
        self._measure_by(None)

    def materialise(self, device: str) -> LocalModule:
        """Give every meta tensor real, uninitialised memory on `device`; others are moved there."""
        made_real(self, device)
        learning = {name: weight for name, weight in self.named_parameters() if weight.requires_grad}
        self._descent = self._new_descent(learning)
        self._totals = self._totals.to(device)
        return self

    def _new_descent(self, weights: dict[str, nn.Parameter]) -> Descent:
        decay = self.config.weight_decay
        if self.config.optimizer == "adamw":
            return AdamW(weights, betas=self.config.betas, weight_decay=decay)
        return Sgd(weights, momentum=self.config.momentum, weight_decay=decay)

    def readers(self) -> nn.ModuleList:
        """All that reads the module's output: its head first, then the other parts of its loss."""
        return nn.ModuleList([self.head, *self.aux])

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a visit, by name: weights, buffers, moments and λ."""
        kept = {name: weight.detach() for name, weight in self.named_parameters()} | dict(self.named_buffers())
        kept |= self.moments()
        if self.config.transport.multipliers:
            kept["multiplier"] = self._multiplier
        return kept

    def moments(self) -> dict[str, Tensor]:
        """Those of them that are the optimizer's."""
        return self._descent.tensors()

    def final_tensors(self) -> dict[str, Tensor]:
        """What the trained network consists of: weights and buffers, in order."""
        return {name: t for name, t in self.tensors().items() if name.startswith(("trunk.", "head."))}

    # ---- passes that train nothing

    @torch.no_grad()
    def infer(self, x: Tensor, y: Tensor | None, emit: Emit | None) -> None:
        """Forward [B, ...] in evaluation mode; emits the output and, given labels [B], scores the head, if any."""
        self.eval()
        size = self.config.micro_batch or len(x)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            self._infer(_rows_of(x, rows), y[rows] if y is not None and self.has_head else None, emit or _ignore)

    def _infer(self, x: Tensor, y: Tensor | None, emit: Emit) -> None:
        with self._autocast():
            out = self.trunk(x)
            emit(out)
            if y is not None:
                logits = self.head(out).float()
                self._count(functional.cross_entropy(logits, y), logits, y, torch.zeros(()))

    @torch.no_grad()
    def ascend(self, x: Tensor, *, seed: int, emit: Emit | None) -> None:
        """Forward [B, ...] in training mode; emits the output. The way up of a step whose way down is
        `backward_step`; BN's running statistics are updated here."""
        for part in self._parts(len(x), seed, emit=emit):
            with self._autocast():
                part.emit(self._forward(self._segments(), _rows_of(x, part.rows), part.seed))

    # ---- trained

    def train_step(
        self,
        x: Tensor,
        y: Tensor,
        *,
        lr: float,
        seed: int,
        lap: int = 0,
        gauged: bool = False,
        image: Tensor | None = None,
        emit: Emit | None = None,
        send_back: Emit | None = None,
    ) -> None:
        """One step on the local loss of a batch x [B, ...] with labels y [B] (int64).

        `seed` keys all that the blocks draw at random. `gauged`: the totals get the gradients of the residues.
        `image`: what x came from, [B, C, H, W] from 0 to 1, if the loss wants it. `emit` takes the output,
        `send_back` the gradient of x. `x` must not require a gradient.
        """
        self._descent.begin()
        self._measure_by(self._totals[4:] if gauged else None)
        if self.config.transport.multipliers:
            self.config.transport.multipliers.begin(self._multiplier, lap, self._place)
        # Of a single segment there is nothing to let go of before its own backward.
        by_segment = self.config.recompute == "blocks" and len(self._segments()) > 1
        run = self._recomputed if by_segment else self._direct
        cross_entropy = torch.zeros(())
        for part in self._parts(len(x), seed, lr, emit, send_back):
            seen = None if image is None else _rows_of(image, part.rows)
            found = run(_rows_of(x, part.rows), y[part.rows], seen, part)
            cross_entropy = found if part.share == 1 else cross_entropy + part.share * found
        if self.config.transport.multipliers:
            self.config.transport.multipliers.advance(self._multiplier, cross_entropy)
        self._descent.step(self.parameters(), lr)

    def backward_step(
        self, x: Tensor, gradient: Tensor, *, lr: float, seed: int, send_back: Emit | None = None
    ) -> None:
        """The step of a module without a loss of its own, after `ascend` on the same batch with the same seed.

        `x` [B, ...] is computed again, without a trace in BN's running statistics; `gradient` is that of its
        output, in the output's dtype. `send_back` takes the gradient of x, in its dtype.
        """
        self._descent.begin()
        segments = self._segments()
        stages = [[segment] for segment in segments] if self.config.recompute == "blocks" else [segments]
        for part in self._parts(len(x), seed, lr, send_back=send_back):
            with torch.no_grad(), buffers_kept(segments), self._autocast():
                inputs = self._ascent(stages[:-1], _rows_of(x, part.rows), part.seed)
            self._send_down(stages, [*inputs, _rows_of(gradient, part.rows)], part)
        self._descent.step(self.parameters(), lr)

    def _parts(
        self,
        num_samples: int,
        seed: int,
        lr: float | None = None,
        emit: Emit | None = None,
        send_back: Emit | None = None,
    ) -> Iterator[_Part]:
        if not self.training:
            self.train()
        spare(self, self.config.recompute)
        size = self.config.micro_batch or num_samples
        for start in range(0, num_samples, size):
            stop = min(start + size, num_samples)
            yield _Part(
                rows=slice(start, stop),
                share=(stop - start) / num_samples,
                seed=key(seed, start),
                rate=lr if self.config.early_update and stop == num_samples else None,
                emit=emit or _ignore,
                send_back=send_back,
            )

    def _direct(self, x: Tensor, y: Tensor, image: Tensor | None, part: _Part) -> Tensor:
        """Forward and backward with every activation kept; the cross-entropy."""
        start = _leaf(x, wants_gradient=part.send_back is not None)
        with self._autocast():
            out, transport = self._trace(self._segments(), start, part.seed)
            part.emit(out.detach())
            logits, terms = self._read(out, y, image)
        del out
        cross_entropy = self._cross_entropy(logits, y)
        penalty = torch.stack(transport).sum() if transport else torch.zeros(())
        self._count(cross_entropy, logits, y, penalty)
        loss = sum(terms, cross_entropy)
        loss = loss + penalty * self._penalty_weight() if transport else loss
        del logits, terms
        with self._descent.in_backward(self.parameters(), part.rate):
            (loss if part.share == 1 else loss * part.share).backward()  # type: ignore[no-untyped-call]
        _hand_back(start, part)
        return cross_entropy.detach()

    def _recomputed(self, x: Tensor, y: Tensor, image: Tensor | None, part: _Part) -> Tensor:
        """The same numbers with one segment's activations alive at a time."""
        stages = [[segment] for segment in self._segments()]
        with torch.no_grad(), self._autocast():
            *inputs, out = self._ascent(stages, x, part.seed)
        part.emit(out)
        out = _leaf(out, wants_gradient=True)
        with self._autocast():
            logits, terms = self._read(out, y, image)
        cross_entropy = self._cross_entropy(logits, y)
        loss = sum(terms, cross_entropy)
        with self._descent.in_backward(self.readers().parameters(), part.rate):
            (loss if part.share == 1 else loss * part.share).backward()  # type: ignore[no-untyped-call]
        logits, cross_entropy = logits.detach(), cross_entropy.detach()
        del loss, terms
        stack = [*inputs, _gradient_of(out)]
        del inputs, out  # the stack alone holds them, and lets go of each in its turn
        energies = self._send_down(stages, stack, part)
        penalty = torch.stack(energies).sum() if energies else torch.zeros(())
        self._count(cross_entropy, logits, y, penalty)
        return cross_entropy

    def _ascent(self, stages: Sequence[Sequence[Segment]], x: Tensor, seed: int) -> list[Tensor]:
        """The input of every stage, and the output of the last."""
        values = [x]
        for stage in stages:
            values.append(self._forward(stage, values[-1], seed))
        return values

    def _forward(self, stage: Sequence[Segment], x: Tensor, seed: int) -> Tensor:
        for segment in stage:
            x = segment(x, seed)
        return x

    def _send_down(
        self, stages: Sequence[Sequence[Segment]], stack: list[Tensor | None], part: _Part
    ) -> list[Tensor]:
        """Backward through `stages`, the last first, each computed again from its input; their energies.

        `stack`: the input of each stage and, on top, the gradient of the last one's output; it is used up.
        """
        energies: list[Tensor] = []
        for stage, weights in reversed(list(zip(stages, last_uses(stages), strict=True))):
            gradient, below = stack.pop(), stack.pop()
            assert below is not None
            start = _leaf(below, wants_gradient=bool(stack) or part.send_back is not None)
            del below
            with buffers_kept(stage), self._autocast():
                out, transport = self._trace(stage, start, part.seed)
                through = Seed.apply(out, gradient)  # type: ignore[no-untyped-call]
            del out, gradient
            energies = [cost.detach() for cost in transport] + energies
            penalty = torch.stack(transport).sum() if transport else torch.zeros(())
            loss = through + penalty * self._penalty_weight() * part.share if transport else through
            del through, transport
            if loss.requires_grad:  # a first piece without weights has nothing to learn
                with self._descent.in_backward(weights, part.rate):
                    loss.backward()
            if stack:
                stack.append(_gradient_of(start))
        _hand_back(start, part)
        return energies

    def _read(self, out: Tensor, y: Tensor, image: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The head's logits for the module's output, and what is added to their cross-entropy."""
        logits = self.head(damped(out, self.mix.cross_entropy))
        weights = (weight for weight, _ in self.mix.parts)
        return logits, [weight * part(out, y, image) for weight, part in zip(weights, self.aux, strict=True)]

    def _trace(self, stage: Sequence[Segment], x: Tensor, seed: int) -> tuple[Tensor, list[Tensor]]:
        """Forward with its graph: the output, and what each residue of the stage costs."""
        transport: list[Tensor] = []
        for segment in stage:
            out = segment(x, seed)
            if self._measure is not None:
                out, found = penalised(segment.layer, x, out, self._measure)
                transport += [energy.reduced(self.config.transport.reduction) for energy in found]
            x = out
        return x, transport

    def _segments(self) -> list[Segment]:
        return segments_of(self.trunk, self.first_block)

    def _measure_by(self, gauge: Tensor | None) -> None:
        """How the residues' energies are taken in the next step, if they are; `gauge`: see `Measure`."""
        self._measure = Measure(self.config.transport.power, gauge) if self.penalised else None
        for mark in self.trunk.modules():
            if isinstance(mark, Residue):
                mark.measure = self._measure

    def _penalty_weight(self) -> float:
        multipliers = self.config.transport.multipliers
        return multipliers.weight(self._multiplier) if multipliers else self.weight

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), y, label_smoothing=self.config.label_smoothing)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if not self.config.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self._totals.device.type, dtype=torch.bfloat16)

    # ---- totals

    @torch.no_grad()
    def _count(self, cross_entropy: Tensor, logits: Tensor, y: Tensor, penalty: Tensor) -> None:
        self._totals[0] += len(y)
        self._totals[1] += cross_entropy.detach() * len(y)
        self._totals[2] += (logits.argmax(1) == y).sum()
        self._totals[3] += penalty.detach() * len(y)

    def take_totals(self) -> Totals:
        """What was counted since the last call."""
        samples, loss, correct, transport, by_transport, by_rest = self._totals.tolist()
        self._totals.zero_()
        return Totals(int(samples), loss, int(correct), transport, by_transport, by_rest)


def made_real(module: nn.Module, device: str) -> None:
    """Put each tensor of `module` on `device`, with real memory."""
    made: dict[int, Tensor] = {}  # a weight that stands in two places stays one weight
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, old in table.items():
                if old is not None:
                    new = made.setdefault(id(old), _made_real(old, device))
                    table[name] = new  # type: ignore[assignment]


def _made_real(old: Tensor, device: str) -> Tensor:
    """`old`'s values, if it has any, in the one layout that a weight of its shape has in every run.

    The layout decides which kernels run and so the bits of the result.
    """
    layout = torch.channels_last if old.dim() == 4 else torch.contiguous_format
    new = torch.empty(old.shape, dtype=old.dtype, device=device, memory_format=layout)
    if not old.is_meta:
        new.copy_(old.detach())
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


def _ignore(out: Tensor) -> None:
    """Nobody reads the last module's output."""


def _rows_of(batch: Tensor, rows: slice) -> Tensor:
    """Some rows of a batch, lying in memory as a batch of their own would."""
    part = batch[rows]
    return laid_out(batch) if len(part) == len(batch) else part.clone()


def _leaf(x: Tensor, *, wants_gradient: bool) -> Tensor:
    return x.detach().requires_grad_(wants_gradient)


def _gradient_of(x: Tensor) -> Tensor | None:
    return None if x.grad is None else laid_out(x.grad)


def _hand_back(x: Tensor, part: _Part) -> None:
    if part.send_back is not None:
        gradient = _gradient_of(x)
        part.send_back(torch.zeros_like(x) if gradient is None else gradient)
