"""Near the budget and above the plan, what can be given back is given back."""

from __future__ import annotations

import pytest

from edge_trgl.ledger import Ledger, Policy
from edge_trgl.runtime import memory
from edge_trgl.runtime.activations import ActivationStore
from edge_trgl.runtime.memory import Meter
from edge_trgl.runtime.state import RunState
from edge_trgl.schedule import IMAGES, Span, Visit
from edge_trgl.totals import Totals

VISIT = Visit("train", 1, Span("train", 0, 0, 1, shuffled=True, augmented=False), (IMAGES,))


class Modules:
    """Knows what was released."""

    def __init__(self):
        self.loads = 0
        self.kept = []

    def release(self, *, keep):
        self.kept.append(keep)


class Peak(Meter):
    """A meter that reads what it is told."""

    def __init__(self, peak_mb):
        super().__init__()
        self.peak_mb = peak_mb

    def read(self):
        self.highest = max(self.highest, self.peak_mb)
        return self.peak_mb


class Nothing:
    """A device without memory of its own, and a module that counted nothing."""

    name = "none"

    def memory_mb(self):
        return 0.0

    def take_totals(self):
        return Totals(1, 0.5, 1)


@pytest.fixture
def trims(monkeypatch):
    calls = []
    monkeypatch.setattr(memory, "trim", lambda: calls.append(1))
    return calls


@pytest.fixture
def ledger_at(tmp_path):
    """Makes a ledger whose visits peak at so many MiB, of a budget of 1000; 900 are planned."""
    state = RunState(tmp_path / "state.db")

    def make(peak_mb, *, trim=True):
        policy = Policy(
            checkpoint_s=1e9,
            budget_mb=1000.0,
            others_mb=20.0,
            planned_mb=(800.0, 900.0),
            num_heads=2,
            trim=trim,
            total_steps=10,
            stop_requested=lambda: False,
            learning_rate=lambda visit, batch: 0.1,
        )
        return Ledger(
            state=state,
            modules=Modules(),
            activations=ActivationStore(tmp_path / "boundaries", 10, 4),
            meter=Peak(peak_mb),
            device=Nothing(),
            policy=policy,
        )

    yield make
    state.close()


def test_a_visit_above_its_plan_and_near_the_budget_frees_the_memory_of_others(ledger_at, trims):
    ledger = ledger_at(930.0)
    ledger.after(1, VISIT, Nothing())
    ledger.after(2, VISIT, Nothing())
    assert ledger.modules.kept == [1, 1]
    assert len(trims) == 2
    (event,) = ledger.state.events()  # told once
    assert (event.kind, "950 MiB, 900 were planned" in event.text) == ("governor", True)


@pytest.mark.parametrize("peak_mb", [860.0, 880.0, 895.0])
def test_a_visit_as_planned_is_left_alone(ledger_at, trims, peak_mb):
    ledger = ledger_at(peak_mb)
    ledger.after(1, VISIT, Nothing())
    assert ledger.modules.kept == []
    assert trims == []


@pytest.mark.parametrize("trim", [True, False])
def test_the_heap_is_trimmed_when_a_module_has_made_room(ledger_at, trims, trim):
    ledger = ledger_at(500.0, trim=trim)
    for loads in (0, 1, 1, 2):
        ledger.modules.loads = loads
        ledger.after(1, VISIT, Nothing())
    assert len(trims) == (2 if trim else 0)
