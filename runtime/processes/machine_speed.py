"""What a machine computes with, and how fast; measured by `edge-trgl probe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MachineSpeed:
    """What this machine computes with, and how fast.

    `device`: cuda if there is one, else cpu; `gpu`: its name, or "none". `images_per_s`: of the reference module's
    local step. `relative_speeds`: speed of a convolution in each type relative to fp32, None where torch has no
    kernel for it here. `counters`: names of the memory counters that can be read.
    """

    device: str
    gpu: str
    images_per_s: float
    relative_speeds: Mapping[str, float | None]
    counters: tuple[str, ...]
