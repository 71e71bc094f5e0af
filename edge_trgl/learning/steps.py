"""The one definition of a step, for training, for counting what a step costs, and for measuring it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edge_trgl.learning.local_module import LocalModule
from edge_trgl.learning.step_config import Emit, StepConfig
from edge_trgl.learning.step_kinds import StepKind
from edge_trgl.networks.chain import Chain


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a step reads.

    `x`: the module's input [B, ...], which requires no gradient. `y`: labels, int64 [B]; train needs them, forward
    scores the head with them. `image`: what x came from, [B, C, H, W] from 0 to 1, if the loss wants it.
    `gradient`: of the module's output, in its shape and dtype; backward needs it.
    """

    x: Tensor
    y: Tensor | None = None
    image: Tensor | None = None
    gradient: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a step is taken.

    `lr`: the learning rate. `seed`: keys all that blocks draw at random; an ascend and its backward share it.
    `lap`: of multi-lap training. `first`: this is the first batch of a pass; a training step then gauges the
    gradients in the residues, and recalibration begins anew. `emit` takes the module's output, `send_back` the
    gradient of x; None where nobody reads them.
    """

    lr: float = 0.0
    seed: int = 0
    lap: int = 0
    first: bool = False
    emit: Emit | None = None
    send_back: Emit | None = None


def take_step(local: LocalModule, kind: StepKind, batch: Batch, options: StepOptions) -> None:
    """Take a step of this kind on one batch."""
    if kind == "forward":
        local.infer(batch.x, batch.y, options.emit)
    elif kind == "ascend":
        local.ascend(batch.x, seed=options.seed, emit=options.emit)
    elif kind == "recalibrate":
        local.recalibrate(batch.x, seed=options.seed, first=options.first, emit=options.emit)
    elif kind == "train":
        assert batch.y is not None
        local.train_step(
            batch.x,
            batch.y,
            lr=options.lr,
            seed=options.seed,
            lap=options.lap,
            gauged=options.first,
            image=batch.image,
            emit=options.emit,
            send_back=options.send_back,
        )
    else:
        assert batch.gradient is not None
        local.backward_step(batch.x, batch.gradient, lr=options.lr, seed=options.seed, send_back=options.send_back)


def training_kind(local: LocalModule) -> StepKind:
    """The kind of step that trains a module: on its own loss if it has one, else from its output's gradient."""
    return "train" if local.has_head else "backward"


def forward_kinds(chain: Chain, module: int, config: StepConfig) -> tuple[StepKind, ...]:
    """The kinds of steps that planning counts as a module's forward work.

    Those of the configuration, preceded end to end by the ascend of a module whose backward comes later.
    """
    ascends = chain.end_to_end and not chain.has_head(module)
    return ("ascend", *config.passes) if ascends else config.passes


def sends_back(chain: Chain, module: int) -> bool:
    """Whether a training step of `module` returns the gradient of its input: end to end, to the module before."""
    return chain.end_to_end and module > 0


def discard(values: Tensor) -> None:
    """Take what a step emits or sends back, and drop it."""
