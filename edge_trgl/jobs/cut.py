"""The job `cut`: cut a library's or a user's model into blocks; of later jobs only `convert` loads the library."""

from __future__ import annotations

from edge_trgl.data import open_survey
from edge_trgl.jobs.requests import Nothing
from edge_trgl.networks.open_net import open_net
from edge_trgl.run.folder import Run


def run(run: Run, request: Nothing) -> None:
    """Cut the model and store it as the run's net; store {} if the model is a chain already."""
    info, facts = open_survey(run.data), run.facts()
    name = run.config().model.name
    net = open_net(name, input_shape=info.input_shape, num_classes=info.num_classes)
    facts.net = net.document() if net else {}
    facts.close()
