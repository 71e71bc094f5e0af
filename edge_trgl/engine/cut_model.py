"""Cuts the model of a run into blocks, before its modules are counted."""

from __future__ import annotations

from collections.abc import Callable

from edge_trgl.data import open_survey
from edge_trgl.networks.open_net import open_net
from edge_trgl.run.folder import Run
from edge_trgl.runtime.storage import files


def cut_model(run: Run, warn: Callable[[str], None]) -> None:
    """Cut the model and store it as the run's net; store {} if the model is a chain already.

    Args:
        run: its data is prepared, or surveyed.
        warn: called with a sentence if the model's own classifier has other classes than the data.

    Raises:
        UsageError: the library has no such model, or the user's code raises an error.
        InputError: the model cannot be imported or cut, or it is no classifier.
    """
    config, info, facts = run.config(), open_survey(run.data), run.facts()
    files.make_folder(run.scratch)
    net = open_net(
        config.model.name,
        input_shape=info.input_shape,
        num_classes=info.num_classes,
        any_classifier=config.model.pretrained is not None,
        scratch=run.scratch,
    )
    if net is not None and net.num_logits != info.num_classes:
        warn(
            f"{net.name} gives {net.num_logits} logits, and the data has {info.num_classes} classes: "
            "its last layer is replaced by a classifier of these"
        )
    facts.net = net.document() if net else {}
    facts.close()
