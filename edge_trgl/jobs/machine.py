"""The job `machine`: measure how fast this machine computes."""

from __future__ import annotations

from edge_trgl.jobs.requests import Nothing
from edge_trgl.planning import machine
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.machine_speed import MachineSpeed


def run(run: Run, request: Nothing) -> MachineSpeed:
    """Measure the machine; `run` is not used."""
    return machine.measure()
