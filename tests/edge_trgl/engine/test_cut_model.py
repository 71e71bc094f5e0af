"""The model of a run is cut: what is stored and what the user is told."""

from __future__ import annotations

import sys

import pytest

from edge_trgl.config.sources import resolve
from edge_trgl.engine.cut_model import cut_model
from edge_trgl.jobs import prepare
from edge_trgl.jobs.requests import PrepareRequest
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import InputError

CODE = """
from torch import nn

def seven(input_shape, num_classes):
    layers = [nn.Conv2d(1, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 7))
"""


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Makes a prepared run of a user's net with seven logits, for data of ten classes."""
    (tmp_path / "seven_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)

    def make(**model):
        config = resolve({"model": {"name": "seven_nets:seven", **model}, "data": {"limit": 100}})
        run = Run.create(tmp_path / "run", config)
        prepare.run(run, PrepareRequest())
        return run

    yield make
    sys.modules.pop("seven_nets", None)


def test_a_classifier_that_a_pretrained_file_brings_is_replaced(prepared):
    told = []
    run = prepared(pretrained="w.pth")
    cut_model(run, warn=told.append)
    assert told == [
        "seven_nets:seven gives 7 logits, and the data has 10 classes: its last layer is replaced by a classifier "
        "of these"
    ]
    facts = run.facts()
    assert facts.net["num_logits"] == 7
    assert facts.library_normalisation is None
    facts.close()


def test_without_one_it_is_refused(prepared):
    with pytest.raises(InputError, match="gives 7 logits, and the data has 10 classes"):
        cut_model(prepared(), warn=pytest.fail)
