"""How the modules of a run are stepped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from edge_trgl.learning.optimizers import OptimizerName
from edge_trgl.learning.step_kinds import StepKind
from edge_trgl.method.losses import CrossEntropy, LocalLoss
from edge_trgl.method.recompute import Recompute
from edge_trgl.method.transport import Transport

Emit = Callable[[Tensor], None]
"""Takes a module's output [b, ...], or the gradient of its input, as soon as it is computed, before the update."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How every module of a run is stepped.

    `transport`: the transport term. `loss`: what that term is added to. `momentum` is SGD's, `betas` are AdamW's.
    `bfloat16`: autocast to bfloat16. `micro_batch`: samples in one forward pass, None for the whole batch; smaller
    ones change batch norm and rounding, so they are not exact. `recompute`: what is computed again in the backward
    rather than kept (exact). `early_update`: update each weight in the backward, as soon as its gradient is
    complete, and free the gradient (exact). `passes`: the kinds of steps that a run takes beside those that train.
    """

    transport: Transport
    loss: LocalLoss = field(default_factory=CrossEntropy)
    label_smoothing: float = 0.0
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    betas: tuple[float, ...] = (0.9, 0.999)
    weight_decay: float = 0.0
    bfloat16: bool = False
    recompute: Recompute = "none"
    micro_batch: int | None = None
    early_update: bool = True
    passes: tuple[StepKind, ...] = ("forward",)
