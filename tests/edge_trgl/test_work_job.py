"""The training job: the budget holds to its end."""

from __future__ import annotations

import pytest

from edge_trgl import evaluate
from edge_trgl.jobs import work
from edge_trgl.opening import open_run
from edge_trgl.runtime.errors import OverBudgetError

MB = 2**20


def test_the_checksum_of_the_weights_is_counted_and_held_to_the_budget(plan_run, train_run, monkeypatch):
    usual = train_run("usual").result
    real = evaluate.weights_sha256

    def hungry(modules, num_modules):
        held = b"x" * (256 * MB)
        return real(modules, num_modules) if held else ""

    monkeypatch.setattr(evaluate, "weights_sha256", hungry)
    budget_mb = usual["peak_mb"] + 64.0
    run = plan_run("held")
    with pytest.raises(OverBudgetError, match="at the checksum of the weights"):
        work.train(open_run(run), budget_mb=budget_mb, others_mb=0.0, stop=[])
    monkeypatch.undo()
    again = work.train(open_run(run), budget_mb=1e5, others_mb=0.0, stop=[])
    assert again["weights_sha256"] == usual["weights_sha256"]
    assert again["work"]["steps"] == usual["work"]["steps"]
