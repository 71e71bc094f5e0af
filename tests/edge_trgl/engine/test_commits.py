"""Near the budget and above the plan, what can be given back is given back; commits fall where there is room."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_trgl.engine.commit_policy import CommitPolicy
from edge_trgl.engine.commits import Ledger
from edge_trgl.engine.visit_samples import SAMPLES
from edge_trgl.engine.visits import IMAGES, Span, Visit
from edge_trgl.learning.totals import Totals
from edge_trgl.run.facts import RunFacts
from edge_trgl.runtime.errors import StoppedError
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage.activation_store import ActivationStore
from edge_trgl.runtime.storage.boundary_spec import BoundarySpec

VISIT = Visit("train", 1, Span("train", 0, 0, 1, shuffled=True, augmented=False), (IMAGES,))


class Modules:
    """Knows what was released, and has no files."""

    def __init__(self):
        self.evictions = self.bytes_to_write = 0
        self.kept = []

    def release(self, *, keep):
        self.kept.append(keep)

    def commit(self):
        return {}

    def committed(self, records):
        assert records == {}


class Peak(Meter):
    """A meter that reads what it is told."""

    def __init__(self, peak_mb):
        super().__init__()
        self.last = self.peak_mb = peak_mb

    def read(self):
        self.highest = max(self.highest, self.peak_mb)
        return self.peak_mb


class Nothing:
    """A device without memory of its own, and a module that counted `loss`."""

    name = "none"
    loss = 0.5
    cuda_mb = 0.0

    def memory_mb(self):
        return self.cuda_mb

    def take_totals(self):
        return Totals(1, self.loss, 1)


@pytest.fixture
def trims(monkeypatch):
    calls = []
    monkeypatch.setattr(allocator, "trim", lambda: calls.append(1))
    return calls


@pytest.fixture
def ledger_at(tmp_path):
    """Makes a ledger whose visits peak at so many MiB, of a budget of 1000; 900 are planned."""
    facts = RunFacts(tmp_path / "state.db")

    def make(peak_mb, *, trim=True, room_mb=0.0, stopping=False):
        policy = CommitPolicy(
            checkpoint_s=1e9,
            limits=Limits(budget_mb=1000.0),
            others_mb=20.0,
            planned_mb=(800.0, 900.0),
            classifies=True,
            num_heads=2,
            trim=trim,
            total_steps=10,
            room_mb=lambda: room_mb,
            chunk=1,
            stop_requested=lambda: stopping,
            learning_rate=lambda visit, batch: 0.1,
        )
        return Ledger(
            facts=facts,
            modules=Modules(),
            activations=ActivationStore(tmp_path / "boundaries", 10, 4),
            meter=Peak(peak_mb),
            device=Nothing(),
            policy=policy,
            start=0,
        )

    yield make
    facts.close()


def test_a_visit_above_its_plan_and_near_the_budget_frees_the_memory_of_others(ledger_at, trims):
    ledger = ledger_at(930.0)
    ledger.after(1, VISIT, Nothing())
    ledger.after(2, VISIT, Nothing())
    assert ledger.modules.kept == [1, 1]
    assert len(trims) == 2
    (event,) = ledger.facts.events()  # told once
    assert (event.kind, "950 MiB, 900 were planned" in event.text) == ("governor", True)


@pytest.mark.parametrize("peak_mb", [860.0, 880.0, 895.0])
def test_a_visit_as_planned_is_left_alone(ledger_at, trims, peak_mb):
    ledger = ledger_at(peak_mb)
    ledger.after(1, VISIT, Nothing())
    assert ledger.modules.kept == []
    assert trims == []


def test_the_peak_of_a_module_has_the_devices_bytes_as_its_plan_does(ledger_at):
    ledger = ledger_at(500.0)
    ledger.device.cuda_mb = 300.0
    ledger.after(1, VISIT, Nothing())
    ledger.commit()
    assert ledger.facts.progress.module_peaks == {1: 820.0}


@pytest.mark.parametrize("trim", [True, False])
def test_the_heap_is_trimmed_when_a_module_has_made_room(ledger_at, trims, trim):
    ledger = ledger_at(500.0, trim=trim)
    for evictions in (0, 1, 1, 2):
        ledger.modules.evictions = evictions
        ledger.after(1, VISIT, Nothing())
    assert len(trims) == (2 if trim else 0)


def boundary_in(ledger, *, in_memory):
    """A boundary of one chunk that holds a record."""
    spec = BoundarySpec(name="stream1", shape=(4,), dtype="float32", records=1000, in_memory=in_memory)
    boundary = ledger.activations.create(spec)
    boundary.append(np.array([0]), torch.zeros(1, 4))
    return boundary


class TestDisk:
    def test_a_commit_in_the_middle_of_a_chunk_needs_room_for_boundaries_in_memory(self, ledger_at):
        ledger = ledger_at(500.0, room_mb=0.01, stopping=True)
        boundary_in(ledger, in_memory=True)  # 1000 records of 16 bytes and their index: 0.03 MiB
        with pytest.raises(StoppedError):
            ledger.after(1, VISIT, Nothing())
        assert ledger.facts.position() == 0
        ledger.activations.drop("stream1")
        with pytest.raises(StoppedError):
            ledger.after(2, VISIT, Nothing())
        assert ledger.facts.position() == 2

    @pytest.mark.parametrize(("in_memory", "room_mb"), [(True, 0.04), (False, 0.0)])
    def test_with_room_or_with_a_file_already_it_is_made(self, ledger_at, in_memory, room_mb):
        ledger = ledger_at(500.0, room_mb=room_mb, stopping=True)
        boundary_in(ledger, in_memory=in_memory)
        with pytest.raises(StoppedError):
            ledger.after(1, VISIT, Nothing())
        assert ledger.facts.position() == 1
        assert [record.spec.name for record in ledger.facts.boundaries()] == ["stream1"]

    def test_a_named_file_that_nobody_reads_makes_the_next_commit_due(self, ledger_at):
        ledger = ledger_at(500.0)
        path = boundary_in(ledger, in_memory=False).path
        ledger.after(1, VISIT, Nothing())
        assert ledger.facts.position() == 0  # 10^9 seconds between two
        ledger.commit()
        ledger.after(2, VISIT, Nothing())
        assert ledger.facts.position() == 1
        ledger.activations.drop("stream1")
        assert path.exists()
        ledger.after(3, VISIT, Nothing())
        assert ledger.facts.position() == 3
        assert not path.exists()

    def test_but_not_where_it_writes_what_would_stay_in_memory(self, ledger_at):
        ledger = ledger_at(500.0, room_mb=1e6)
        boundary_in(ledger, in_memory=True)
        ledger.after(1, VISIT, Nothing())
        ledger.commit()
        ledger.activations.drop("stream1")
        boundary_in(ledger, in_memory=True)
        ledger.after(2, VISIT, Nothing())
        assert ledger.facts.position() == 1
        ledger.activations.drop("stream1")
        ledger.after(3, VISIT, Nothing())
        assert ledger.facts.position() == 3

    def test_modules_that_it_writes_need_room_too(self, ledger_at):
        ledger = ledger_at(500.0, room_mb=0.04, stopping=True)
        boundary_in(ledger, in_memory=True)
        ledger.modules.bytes_to_write = 10_000
        with pytest.raises(StoppedError):
            ledger.after(1, VISIT, Nothing())
        assert ledger.facts.position() == 0

    def test_samples_come_ever_more_rarely(self, ledger_at, monkeypatch):
        ledger, clock = ledger_at(500.0), [0.0]
        monkeypatch.setattr("time.monotonic", lambda: clock[0])
        ledger.__post_init__()
        for _ in range(3 * SAMPLES):
            clock[0] += 2.5
            ledger.after(1, VISIT, Nothing())
        assert SAMPLES < len(ledger._samples.pending) < 3 * SAMPLES


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_told_once(ledger_at, loss):
    ledger, counted = ledger_at(100.0), Nothing()
    ledger.after(1, VISIT, counted)
    assert not ledger.facts.events()
    counted.loss = loss
    for position in (2, 3):
        ledger.after(position, VISIT, counted)
    (event,) = ledger.facts.events()
    assert event.kind == "diverged"
    assert "the loss of module 1 is not finite any more (epoch 1)" in event.text
