"""The checks by name, their settings and their results. Does not import torch, for the parent process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a check found; `skipped`: why a part of it could not be looked at here."""

    name: str
    ok: bool
    details: dict[str, Any]
    skipped: str | None = None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where a check works: `quick` has tiny sizes; `scratch` is the same for all checks of one command."""

    device: str
    quick: bool
    threads: int
    scratch: Path


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check: `seconds` of the ten minutes that it may take; `function` as `module.name`."""

    title: str
    seconds: float
    function: str


CHECKS = {
    "agreement": Check(
        title="every regime trains as on the CPU, within the rounding of float32",
        seconds=90,
        function="equal.agreement",
    ),
    "paging": Check(title="paged and resident training give the same bits", seconds=65, function="equal.paging"),
    "memory": Check(
        title="what is counted is what the driver counts",
        seconds=80,
        function="memory.memory_check",
    ),
    "refusal": Check(
        title="a refused allocation takes a step down the ladder, and training finishes",
        seconds=65,
        function="refusal.refusal",
    ),
    "bf16": Check(title="bfloat16 trains", seconds=30, function="equal.bf16"),
    "export": Check(
        title="the exported network gives the same in onnxruntime", seconds=45, function="export.export"
    ),
    "speed": Check(title="each regime beside bare PyTorch", seconds=150, function="speed.speed"),
    "full-speed": Check(title="K-M 10-1 of width 256 at full speed", seconds=65, function="speed.full_speed"),
}
