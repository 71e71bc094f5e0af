"""The job `scan`: train a little with one value of tau, to choose it by validation images."""

from __future__ import annotations

from edge_trgl.engine import training
from edge_trgl.jobs.requests import ScanRequest
from edge_trgl.run import tau_scan
from edge_trgl.run.facts import Result
from edge_trgl.run.folder import Run


def run(run: Run, request: ScanRequest) -> Result:
    """Train what is left of the short training within the requested limits; see `training.run`."""
    candidate = tau_scan.Candidate(number=request.number, tau=tau_scan.CANDIDATES[request.number])
    return training.run(tau_scan.run_of(run, candidate), request.limits)
