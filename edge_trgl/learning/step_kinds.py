"""The kinds of steps, in plain Python, for schedules."""

from __future__ import annotations

from typing import Literal

StepKind = Literal["train", "forward", "ascend", "backward", "recalibrate"]
"""What is done with a module on one batch.

train: forward, the module's own loss, backward, update. forward: a pass in evaluation mode, which changes nothing.
ascend: the forward pass of a step whose backward comes later, or never, in training mode. backward: that backward,
from the gradient of the output, and the update. recalibrate: a forward pass in training mode, head included, that
measures the running statistics of norms again."""


def trains(kind: StepKind) -> bool:
    """Whether a step of this kind updates weights."""
    return kind in ("train", "backward")
