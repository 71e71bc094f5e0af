"""Cuts the model of a run into blocks, before its modules are counted."""

from __future__ import annotations

from collections.abc import Callable

from edge_trgl.data import open_survey
from edge_trgl.engine.normalisation import IMAGENET
from edge_trgl.networks.cutting.libraries import timm_mean_and_std
from edge_trgl.networks.open_net import open_net
from edge_trgl.run.facts import Normalisation
from edge_trgl.run.folder import Run
from edge_trgl.runtime.storage import files


def cut_model(run: Run, warn: Callable[[str], None]) -> None:
    """Cut the model and store it as the run's net; store {} if the model is a chain already.

    What the model's library normalises pixels with is stored, too, if there is a pretrained file.

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
    if config.model.pretrained is not None:
        facts.library_normalisation = _of_library(config.model.name)
    facts.net = net.document() if net else {}
    facts.close()


def _of_library(name: str) -> Normalisation | None:
    """Return what the published weights of a library's model expect; None if that is not known."""
    package, _, model = name.partition(":")
    if package == "torchvision":
        return IMAGENET
    known = timm_mean_and_std(model) if package == "timm" else None
    return None if known is None else Normalisation(name=f"{name} expects", mean=known[0], std=known[1])
