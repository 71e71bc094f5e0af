"""One module with its head and optimizer state, and the local step: forward, loss, backward, update."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_trgl.chain import Chain, Pieces, Shape
from edge_trgl.keys import key
from edge_trgl.transport import Residue, Transport, energy, residues

Emit = Callable[[Tensor], None]
"""Takes a module's output [b, ...] as soon as it is computed, before the module's own step."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How every module of a run is stepped.

    `micro_batch`: samples a forward pass, None for the whole batch (smaller ones change BN and rounding:
    lossy). `recompute`: keep only each block's input and compute the block again in the backward (exact).
    """

    transport: Transport
    label_smoothing: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    bfloat16: bool = False
    recompute: bool = False
    micro_batch: int | None = None


class LocalModule(nn.Module):
    """Module T_k, its auxiliary classifier F_k, momentum, and λ: all that a visit holds.

    Raises:
        ValueError: the head cannot read the module's output.
    """

    def __init__(self, chain: Chain, module: int, output_shape: Shape, config: StepConfig) -> None:
        super().__init__()
        self.index = module
        self.config = config
        self.trunk = chain.trunk(module)
        self.head = chain.classifier(output_shape)
        self.weight = config.transport.weight(module, len(chain))
        exempt = chain.encoder_exempt and module == 0
        self.penalised = not exempt and (self.weight > 0 or config.transport.multipliers is not None)
        for mark in self.trunk.modules():
            if isinstance(mark, Residue):
                mark.recording = self.penalised
        self._momentum: dict[str, Tensor] = {}
        self._multiplier = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64, device="cpu")
        self._totals = torch.zeros(4, dtype=torch.float64, device="cpu")

    def materialise(self, device: str) -> LocalModule:
        """Give every meta tensor real, uninitialised memory on `device`; others are moved there."""
        made: dict[int, Tensor] = {}  # a weight that stands in two places stays one weight
        for part in self.modules():
            for table in (part._parameters, part._buffers):
                for name, old in table.items():
                    if old is not None:
                        new = made.setdefault(id(old), _laid_out(old, device))
                        table[name] = new  # type: ignore[assignment]
        self._momentum = {name: torch.zeros_like(weight) for name, weight in self.named_parameters()}
        self._totals = self._totals.to(device)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a visit, by name: weights, buffers, momentum and λ."""
        kept = {name: weight.detach() for name, weight in self.named_parameters()} | dict(self.named_buffers())
        kept |= {f"momentum.{name}": tensor for name, tensor in self._momentum.items()}
        if self.config.transport.multipliers:
            kept["multiplier"] = self._multiplier
        return kept

    def final_tensors(self) -> dict[str, Tensor]:
        """What the trained network consists of: weights and buffers, in order."""
        return {name: t for name, t in self.tensors().items() if name.startswith(("trunk.", "head."))}

    # ---- frozen

    @torch.no_grad()
    def infer(self, x: Tensor, y: Tensor | None, emit: Emit | None) -> None:
        """Forward [B, ...] in evaluation mode; emits the output and, given labels [B], scores the head."""
        self.eval()
        with self._autocast():
            out = self.trunk(x)
            if emit:
                emit(out)
            if y is not None:
                logits = self.head(out).float()
                self._count(functional.cross_entropy(logits, y), logits, y, torch.zeros(()))

    # ---- trained

    def train_step(
        self, x: Tensor, y: Tensor, *, lr: float, seed: int, lap: int = 0, emit: Emit | None = None
    ) -> None:
        """One step of SGD on the local loss of a batch x [B, ...] with labels y [B] (int64).

        `seed` keys all that the blocks draw at random. `x` must not require a gradient.
        """
        self.accumulate(x, y, seed=seed, lap=lap, emit=emit)
        self._update(lr)

    def accumulate(self, x: Tensor, y: Tensor, *, seed: int, lap: int = 0, emit: Emit | None = None) -> None:
        """The step without its update: gradients of the local loss, emitted outputs, totals."""
        if not self.training:
            self.train()
        if self.config.transport.multipliers:
            self.config.transport.multipliers.begin(self._multiplier, lap)
        size = self.config.micro_batch or len(x)
        run = self._recomputed if self.config.recompute else self._direct
        cross_entropy = torch.zeros(())
        for start in range(0, len(x), size):
            stop = min(start + size, len(x))
            share = (stop - start) / len(x)
            part = run(x[start:stop], y[start:stop], share, key(seed, start), emit or _ignore)
            cross_entropy = part if share == 1 else cross_entropy + share * part
        if self.config.transport.multipliers:
            self.config.transport.multipliers.advance(self._multiplier, cross_entropy)

    def _direct(self, x: Tensor, y: Tensor, share: float, seed: int, emit: Emit) -> Tensor:
        """Forward and backward with every activation kept."""
        transport: list[Tensor] = []
        with self._autocast():
            for number, segment in enumerate(self._segments()):
                out = self._forward(segment, x, seed, number)
                transport += self._energies(segment, x, out)
                x = out
            emit(x.detach())
            logits = self.head(x)
        del x, out
        cross_entropy = self._cross_entropy(logits, y)
        penalty = torch.stack(transport).sum() if transport else torch.zeros(())
        self._count(cross_entropy, logits, y, penalty)
        loss = cross_entropy + penalty * self._penalty_weight() if transport else cross_entropy
        del logits
        (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        return cross_entropy.detach()

    def _recomputed(self, x: Tensor, y: Tensor, share: float, seed: int, emit: Emit) -> Tensor:
        """The same numbers with one segment's activations alive at a time."""
        segments = self._segments()
        inputs = []
        with torch.no_grad(), self._autocast():
            for number, segment in enumerate(segments):
                inputs.append(x)
                x = self._forward(segment, x, seed, number)
        emit(x)
        x.requires_grad_()
        with self._autocast():
            logits = self.head(x)
        cross_entropy = self._cross_entropy(logits, y)
        (cross_entropy if share == 1 else cross_entropy * share).backward()  # type: ignore[no-untyped-call]
        logits, cross_entropy = logits.detach(), cross_entropy.detach()
        gradient = x.grad
        del x  # the output: nothing below needs it
        energies: list[Tensor] = []
        for number in reversed(range(len(segments))):
            part, gradient = self._backward_segment(segments[number], inputs.pop(), gradient, number, share, seed)
            energies = part + energies
        penalty = torch.stack(energies).sum() if energies else torch.zeros(())
        self._count(cross_entropy, logits, y, penalty)
        return cross_entropy

    def _backward_segment(
        self, segment: nn.Module, x: Tensor, gradient: Tensor | None, number: int, share: float, seed: int
    ) -> tuple[list[Tensor], Tensor | None]:
        """Compute `segment` again and send `gradient` of its output back; its energy and its input's gradient."""
        if number > 0:
            x.requires_grad_()
        with _buffers_kept(segment), self._autocast():
            out = self._forward(segment, x, seed, number)
            transport = self._energies(segment, x, out)
            through = _Seed.apply(out, gradient)  # type: ignore[no-untyped-call]
        del out, gradient
        penalty = torch.stack(transport).sum() if transport else torch.zeros(())
        loss = through + penalty * self._penalty_weight() * share if transport else through
        energies = [part.detach() for part in transport]
        del through, transport
        if loss.requires_grad:  # a first piece without weights has nothing to learn
            loss.backward()
        return energies, x.grad

    def _segments(self) -> list[nn.Module]:
        """The smallest parts that are recomputed: blocks, or the pieces of a block that is made of them."""
        return [part for block in self.trunk for part in (block if isinstance(block, Pieces) else (block,))]

    def _forward(self, segment: nn.Module, x: Tensor, seed: int, number: int) -> Tensor:
        # Dropout draws from the default generator; keyed here, it draws the same in every order of visits.
        torch.default_generator.manual_seed(seed + number)
        if x.is_cuda:
            torch.cuda.default_generators[x.get_device()].manual_seed(seed + number)
        out: Tensor = segment(x)
        return out

    def _energies(self, segment: nn.Module, x: Tensor, out: Tensor) -> list[Tensor]:
        if not self.penalised:
            return []
        return [energy(residue, self.config.transport.reduction) for residue in residues(segment, x, out)]

    def _penalty_weight(self) -> float:
        return 1 / float(self._multiplier[0]) if self.config.transport.multipliers else self.weight

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), y, label_smoothing=self.config.label_smoothing)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if not self.config.bfloat16:
            return contextlib.nullcontext()
        return torch.autocast(self._totals.device.type, dtype=torch.bfloat16)

    @torch.no_grad()
    def _update(self, lr: float) -> None:
        weights = dict(self.named_parameters())
        gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
        # The functional form: torch.optim would load torch._dynamo, 70 MiB of the user's budget.
        torch._fused_sgd_(
            [weights[name] for name in gradients],
            list(gradients.values()),
            [self._momentum[name] for name in gradients] if self.config.momentum else [],
            weight_decay=self.config.weight_decay,
            momentum=self.config.momentum,
            lr=lr,
            dampening=0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        for weight in weights.values():
            weight.grad = None

    # ---- totals

    @torch.no_grad()
    def _count(self, cross_entropy: Tensor, logits: Tensor, y: Tensor, penalty: Tensor) -> None:
        self._totals[0] += len(y)
        self._totals[1] += cross_entropy.detach() * len(y)
        self._totals[2] += (logits.argmax(1) == y).sum()
        self._totals[3] += penalty.detach() * len(y)

    def take_totals(self) -> tuple[int, float, int, float]:
        """(samples, Σ cross-entropy, number correct, Σ transport) since the last call."""
        samples, loss, correct, transport = self._totals.tolist()
        self._totals.zero_()
        return int(samples), loss, int(correct), transport


def _laid_out(old: Tensor, device: str) -> Tensor:
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


class _Seed(torch.autograd.Function):
    """Starts a backward at `out` with a given gradient.

    `backward(out, gradient)` would do, but checking the gradient's shape there loads sympy: 35 MiB.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return out.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient, None


@contextlib.contextmanager
def _buffers_kept(segment: nn.Module) -> Iterator[None]:
    """BN with batch statistics and no update of its running ones: those were updated the first time."""
    norms = [
        part
        for part in segment.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
