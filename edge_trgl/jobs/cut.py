"""The job `cut`: cut a library's or a user's model into blocks; of later jobs only `convert` loads the library."""

from __future__ import annotations

from edge_trgl.engine.cut_model import cut_model
from edge_trgl.jobs.requests import Nothing
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes import messages


def run(run: Run, request: Nothing) -> None:
    """Cut the model and store it; see `cut_model`."""
    cut_model(run, warn=lambda text: messages.send("warning", text=text))
