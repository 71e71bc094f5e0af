"""How much the transport term moves: told of every module that has one, warned about where it is nothing."""

from __future__ import annotations

import json

import pytest

from edge_trgl.engine.open_run import open_run
from edge_trgl.run.transport_share import INERT, influences, warning
from edge_trgl.runtime.storage.state import Metric


def metric(module, epoch, transport, other):
    return Metric(
        kind="train",
        module=module,
        epoch=epoch,
        position=0,
        num_images=8,
        loss_sum=1.0,
        num_correct=1,
        transport_sum=1.0,
        transport_gradient=transport,
        other_gradient=other,
        lr=0.1,
    )


def test_it_is_the_ratio_of_norms_over_all_epochs():
    found = influences([metric(1, 0, 9.0, 70.0), metric(1, 1, 0.0, 30.0), metric(0, 0, 0.0, 0.0)])
    assert found == {1: pytest.approx(0.3)}  # module 0 has no residue that was gauged


def test_nothing_is_said_where_it_counts_or_is_not_there():
    assert warning({}) is None
    assert warning({1: INERT, 2: 0.5}) is None


def test_what_is_inert_is_counted():
    assert "inert in module 2: its gradient is at most 5.0e-04" in warning({1: 0.5, 2: 5e-4})
    assert "inert in 2 of 3 modules: its gradient is at most 5.0e-04" in warning({1: 0.5, 2: 5e-4, 3: 1e-6})


@pytest.mark.parametrize(("tau", "inert"), [(1e-3, False), (1e9, True)])
def test_a_run_tells(train_run, tau, inert):
    trained = train_run("run", transport__tau=tau)
    facts = open_run(trained.run).facts
    found = influences(facts.metrics("train"))
    assert set(found) == {1, 2}  # module 0 holds the encoder and is exempt
    assert all((share < INERT) == inert for share in found.values())
    said = [event.text for event in facts.events() if event.kind == "transport"]
    assert said == ([warning(found)] if inert else [])


def test_no_transport_is_not_inert(train_run):
    facts = open_run(train_run("run", transport__enabled=False).run).facts
    assert influences(facts.metrics("train")) == {}
    assert json.dumps([event.kind for event in facts.events()]).count("transport") == 0
