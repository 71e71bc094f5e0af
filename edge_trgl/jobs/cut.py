"""Cut a library's or a user's model into blocks, once: no later job but the conversion loads the library."""

from __future__ import annotations

from edge_trgl import catalogue, cutting
from edge_trgl.data import open_dataset
from edge_trgl.run import Run


def run(run: Run) -> None:
    """Store the run's net, or that its model is a chain already."""
    info = open_dataset(run.data)
    name = run.config().model.name
    net = catalogue.open_net(name, input_shape=info.input_shape, num_classes=info.num_classes)
    cutting.store(net, run.folder)
