"""The job `count`: count what each module costs, and store the run's demand."""

from __future__ import annotations

from edge_trgl.engine.normalisation import choose_normalisation
from edge_trgl.jobs.requests import CountRequest
from edge_trgl.planning.demand import store_demand
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes import messages


def run(run: Run, request: CountRequest) -> None:
    """Count the modules, and choose what pixels are normalised with."""
    chosen = choose_normalisation(run)
    if chosen is not None:
        messages.send("note", text=chosen.text)
    store_demand(run, request.limits)
