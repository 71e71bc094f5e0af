"""The job `convert`: write the first version of modules whose weights training does not draw itself."""

from __future__ import annotations

from edge_trgl.engine.first_modules import write_first_modules
from edge_trgl.jobs.requests import Nothing
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes import messages


def run(run: Run, request: Nothing) -> None:
    """Write and commit the first version of every module; see `write_first_modules`."""
    write_first_modules(run, warn=lambda text: messages.send("warning", text=text))
