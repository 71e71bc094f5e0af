"""The job `match`: open the pretrained file and store how its tensors fit the network."""

from __future__ import annotations

from edge_trgl.engine.first_modules import match_pretrained
from edge_trgl.jobs.requests import MatchRequest
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes import messages


def run(run: Run, request: MatchRequest) -> None:
    """Match the pretrained file and tell the user; see `match_pretrained`."""
    messages.send("note", text=match_pretrained(run, request.limits).text)
