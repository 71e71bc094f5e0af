"""One module with its head, optimizer and counters: all that a visit holds, and what is done with it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edge_trgl.learning.computation import Computation
from edge_trgl.learning.criterion import Criterion, CrossEntropyOfLogits, SquaredError
from edge_trgl.learning.materialise import made_real
from edge_trgl.learning.norms import statistics_averaged
from edge_trgl.learning.objective import Objective
from edge_trgl.learning.optimizers import AdamW, Optimizer, Sgd, Weights
from edge_trgl.learning.parts import ignore, parts_of, rows_of
from edge_trgl.learning.segments import segments_of
from edge_trgl.learning.step_config import Emit, StepConfig
from edge_trgl.learning.totals import RunningTotals, Totals
from edge_trgl.learning.transport_term import TransportTerm
from edge_trgl.method.losses import Mix, Place
from edge_trgl.method.recompute import Recompute, spare
from edge_trgl.networks.chain import Chain, Shape


class LocalModule(nn.Module):
    """Module T_k, its auxiliary classifier F_k, other parts of its loss, the optimizer's moments, and λ.

    In an autoencoder a decoder stands in the place of F_k.

    Raises:
        ValueError: the head or the loss cannot read the module's output, or the loss does not allow micro-batches.
    """

    def __init__(self, chain: Chain, module: int, output_shape: Shape, config: StepConfig) -> None:
        super().__init__()
        self.index = module
        self.config = config
        self.trunk = chain.trunk(module)
        self.first_block = chain.starts[module]
        self.has_head = chain.has_head(module)
        self.reconstructs = chain.reconstructs(module)
        self.head = chain.classifier(module, output_shape) if self.has_head else nn.Identity()
        self.mix = config.loss.of(module, len(chain)) if self.has_head else Mix()
        if config.micro_batch and self.mix.compares_samples:
            raise ValueError(f"{config.loss} compares the samples of a batch, which micro-batches take apart")
        place = Place(output_shape=output_shape, image_shape=chain.input_shape, num_classes=chain.num_classes)
        self.aux = nn.ModuleList(kind(place) for kind in self.mix.kinds)
        self.transport = TransportTerm(
            config.transport,
            module - chain.frozen,
            len(chain) - chain.frozen,
            exempt=chain.is_exempt(module),
        )
        self._optimizer = _optimizer(config, {})
        self._totals = RunningTotals()
        self._made: Computation | None = None

    def materialise(self, device: str) -> LocalModule:
        """Give every meta tensor real, uninitialised memory on `device`; others are moved there."""
        made_real(self, device)
        learning = {name: weight for name, weight in self.named_parameters() if weight.requires_grad}
        self._optimizer = _optimizer(self.config, learning)
        self._totals.move_to(device)
        self._made = None
        return self

    def reconfigure(self, *, recompute: Recompute, micro_batch: int | None) -> None:
        """Take the next steps with another level of recomputation, and in micro-batches of another size."""
        self.config = replace(self.config, recompute=recompute, micro_batch=micro_batch)
        self._made = None

    # ---- what it holds

    def readers(self) -> nn.ModuleList:
        """All that reads the module's output: its head first, then the auxiliary parts of its loss."""
        return nn.ModuleList([self.head, *self.aux])

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that outlives a visit, by name: weights, buffers, moments and λ."""
        kept = {name: weight.detach() for name, weight in self.named_parameters()} | dict(self.named_buffers())
        return kept | self.moments() | self.transport.tensors()

    def moments(self) -> dict[str, Tensor]:
        """Those of them that are the optimizer's."""
        return self._optimizer.tensors()

    def final_tensors(self) -> dict[str, Tensor]:
        """What the trained network consists of: weights and buffers, in order."""
        return {name: t for name, t in self.tensors().items() if name.startswith(("trunk.", "head."))}

    def take_totals(self) -> Totals:
        """What was counted since the last call; waits for the device."""
        return self._totals.take()

    # ---- what is done with it: `steps.take_step` chooses

    @torch.no_grad()
    def infer(self, x: Tensor, y: Tensor | None, emit: Emit | None) -> None:
        """Forward [B, ...] in evaluation mode; emits the output and, given labels [B], scores the head, if any.

        A decoder is scored on x.
        """
        self.eval()
        size = self.config.micro_batch or len(x)
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            self._infer(rows_of(x, rows), y[rows] if y is not None and self.has_head else None, emit or ignore)

    def _infer(self, x: Tensor, y: Tensor | None, emit: Emit) -> None:
        with _autocast(self.config, self._totals.device_type):
            out = self.trunk(x)
            emit(out)
            if y is not None:
                target, criterion = self._target(x, y), self._criterion(label_smoothing=0.0)
                made = self.head(out).float()
                self._totals.count(criterion.loss(made, target), len(y), criterion.num_correct(made, target), None)

    @torch.no_grad()
    def ascend(self, x: Tensor, *, seed: int, emit: Emit | None) -> None:
        """Forward [B, ...] in training mode; emits the output.

        The forward of a step whose backward is `backward_step`; batch norm's running statistics are updated here.
        """
        computation = self._computation()
        for part in parts_of(len(x), self.config.micro_batch, seed, emit=emit):
            computation.ascend(x, part)

    @torch.no_grad()
    def recalibrate(self, x: Tensor, *, seed: int, first: bool, emit: Emit | None) -> None:
        """Forward [B, ...] in training mode, trunk and head; emits the output.

        Running statistics become the plain mean of those of all batches since the `first`.
        """
        computation = self._computation()
        with statistics_averaged(self, anew=first):
            for part in parts_of(len(x), self.config.micro_batch, seed, emit=emit):
                computation.recalibrate(x, part)

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

        A decoder learns to rebuild x, whatever the labels. `seed` keys all that the blocks draw at random.
        `gauged`: the totals get the gradients in the residues.
        `image`: what x came from, [B, C, H, W] from 0 to 1, if the loss wants it. `emit` takes the output,
        `send_back` the gradient of x. `x` must not require a gradient.
        """
        self._optimizer.begin()
        self.transport.begin(lap, self._totals.gauge if gauged else None)
        computation = self._computation()
        # Of a single segment there is nothing to let go of before its own backward.
        by_segment = self.config.recompute == "blocks" and len(computation.segments) > 1
        run = computation.train_by_segment if by_segment else computation.train
        target, head_loss = self._target(x, y), torch.zeros(())
        rate = lr if self.config.early_update else None
        for part in parts_of(len(x), self.config.micro_batch, seed, rate=rate, emit=emit, send_back=send_back):
            seen = None if image is None else rows_of(image, part.rows)
            wanted = target if part.share == 1 else target[part.rows]
            found = run(rows_of(x, part.rows), wanted, seen, part)
            head_loss = found if part.share == 1 else head_loss + part.share * found
        self.transport.advance(head_loss)
        self._optimizer.step(computation.weights, lr)

    def backward_step(
        self, x: Tensor, gradient: Tensor, *, lr: float, seed: int, send_back: Emit | None = None
    ) -> None:
        """The step of a module without a loss of its own, after `ascend` on the same batch with the same seed.

        The output for x [B, ...] is computed again, without a trace in batch norm's running statistics; `gradient`
        is that of the output, in its shape and dtype. `send_back` takes the gradient of x, in x's dtype.
        """
        self._optimizer.begin()
        computation = self._computation()
        rate = lr if self.config.early_update else None
        for part in parts_of(len(x), self.config.micro_batch, seed, rate=rate, send_back=send_back):
            computation.backward(x, gradient, part, by_segment=self.config.recompute == "blocks")
        self._optimizer.step(computation.weights, lr)

    def _target(self, x: Tensor, y: Tensor) -> Tensor:
        """What the head is to give for x [B, ...] with labels y [B]."""
        return x if self.reconstructs else y

    def _criterion(self, *, label_smoothing: float) -> Criterion:
        return SquaredError() if self.reconstructs else CrossEntropyOfLogits(label_smoothing=label_smoothing)

    def _computation(self) -> Computation:
        """In training mode, keeping for the backward what the configuration says."""
        if not self.training:
            self.train()
        if self._made is None:  # once: walks through the layers would be repeated in every step
            spare(self, self.config.recompute)
            self._made = self._new_computation()
        return self._made

    def _new_computation(self) -> Computation:
        return Computation(
            segments=segments_of(self.trunk, self.first_block),
            weights=list(self.parameters()),
            objective=Objective(
                head=self.head,
                aux=self.aux,
                mix=self.mix,
                criterion=self._criterion(label_smoothing=self.config.label_smoothing),
            ),
            transport=self.transport,
            optimizer=self._optimizer,
            totals=self._totals,
            # Not a method, which would tie the module into a cycle: it would not be freed at once.
            autocast=partial(_autocast, self.config, self._totals.device_type),
        )


def _autocast(config: StepConfig, device_type: str) -> contextlib.AbstractContextManager[Any]:
    if not config.bfloat16:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=torch.bfloat16)


def _optimizer(config: StepConfig, weights: Weights) -> Optimizer:
    if config.optimizer == "adamw":
        return AdamW(weights, betas=config.betas, weight_decay=config.weight_decay)
    return Sgd(weights, momentum=config.momentum, weight_decay=config.weight_decay)
