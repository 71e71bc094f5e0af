"""What a machine computes with, and how fast, as `edge-trgl probe` measures it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """What this machine computes with, and how fast.

    Attributes:
        device: cuda if there is a GPU, else cpu.
        gpu: its name, or "none".
        images_per_s: images per second in the local step of the reference module.
        relative_speeds: speed of a convolution in each number type relative to fp32; None where torch has no
            kernel for it here.
        counters: names of the memory counters that can be read.
    """

    device: str
    gpu: str
    images_per_s: float
    relative_speeds: Mapping[str, float | None]
    counters: tuple[str, ...]
