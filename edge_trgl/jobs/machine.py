"""Measure this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge_trgl.planning import machine
from edge_trgl.run.folder import Run


def run(run: Run) -> dict[str, Any]:
    """See `machine.measure`; it concerns no run, so `run` is not looked at."""
    return asdict(machine.measure())
