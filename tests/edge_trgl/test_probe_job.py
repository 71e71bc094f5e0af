"""Works are measured by real steps, kept, and refused before they take more than there is room for."""

from __future__ import annotations

import dataclasses

import pytest

from edge_trgl.jobs import costs, plan, prepare, probe
from edge_trgl.run import Run
from edge_trgl.runtime import memory, probes
from edge_trgl.runtime.demand import FORWARD, REFUSED, Demand, Measurement, ModuleRow
from edge_trgl.runtime.device import Cpu
from edge_trgl.settings import resolve
from tests.conftest import TINY

PLENTY_MB = 1e5


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A run whose plan waits for measurements, and what it waits for; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Run.create(tmp_path / "run", resolve(TINY, {"budget": {"probe": True}}))
    prepare.run(run)
    costs.run(run, PLENTY_MB)
    return run, plan.run(run, PLENTY_MB, PLENTY_MB)["wanted"]


def test_a_plan_rests_on_steps_that_were_measured(planned, monkeypatch):
    run, wanted = planned
    assert {one["work"] for one in wanted} == {"none", FORWARD}
    monkeypatch.setattr(probe.process, "begin", lambda device, room_mb: None)  # no limit on the tests themselves
    probe.run(run, wanted, PLENTY_MB)
    assert plan.run(run, PLENTY_MB, PLENTY_MB)["wanted"] == []
    state = run.state()
    assert state.meta("plan")["probed"]
    assert all(row["step_s"] > 0 for row in state.meta("table"))
    kept = probes.recall([one["key"] for one in wanted])
    assert {key: dataclasses.asdict(one) for key, one in kept.items()} == state.meta("measured")
    for one in kept.values():
        assert one.fixed_mb > 50  # a process with torch in it
        assert one.opening_mb >= 0
    state.close()


@pytest.mark.parametrize(("allocator", "work_mb"), [("held", 103.0), ("huge", 100.0), ("own", 103.0)])
def test_where_tensors_find_places_on_a_heap_a_step_may_take_more(planned, monkeypatch, allocator, work_mb):
    run, wanted = planned
    one = Measurement(work_mb=100.0, opening_mb=1.0, fixed_mb=200.0, seconds=1.0)
    monkeypatch.setattr(probe.process, "begin", lambda device, room_mb: None)
    monkeypatch.setattr(probe, "_prepared", lambda run, state, one, device: None)
    monkeypatch.setattr(probe, "_measured", lambda work, size, room_mb, device: one)
    state = run.state()
    state.set_meta("allocator", allocator)
    probe.run(run, wanted[:1], PLENTY_MB)
    assert state.meta("measured")[wanted[0]["key"]]["work_mb"] == pytest.approx(work_mb)
    state.close()


class Work:
    """Each sample of a step takes a MiB, and the step `at` a place `more`; knows the sizes of its steps."""

    parts = 1
    opening_mb = 0.0

    def __init__(self, *, more=0, at=0):
        self.sizes, self.more, self.at = [], more, at

    def step(self, size):
        self.sizes.append(size)
        size += self.more if self.sizes.count(size) == self.at else 0
        bytearray(size * memory.MIB)[::4096] = bytes(size * memory.MIB // 4096)

    def own_mb(self):
        return 0.0


def room_for(mb):
    """The process and `mb` more, without what earlier tests left on the heap, as before a step measured."""
    memory.trim()
    return memory.usage().rss + mb


def test_what_would_take_more_than_there_is_room_for_is_never_done_whole():
    work = Work()
    assert probe._measured(work, 64, room_for(40), Cpu()) == REFUSED
    assert max(work.sizes) == 32


def test_what_there_is_room_for_is_measured_whole():
    work = Work()
    found = probe._measured(work, 64, room_for(200), Cpu())
    assert found.work_mb == pytest.approx(64, abs=4)
    assert work.sizes[-1] == 64


class Gpu(Cpu):
    """Beside 300 MiB of context, a step takes two MiB here for each that it takes in the process."""

    def __init__(self, work):
        super().__init__()
        self.work = work

    def rest_mb(self):
        return 300.0

    def peak_mb(self):
        return 300.0 + 2 * self.work.sizes[-1]


def test_what_a_step_takes_on_its_device_is_measured_too():
    work = Work()
    found = probe._measured(work, 64, room_for(600), Gpu(work))
    assert found.work_mb == pytest.approx(192, abs=4)
    assert found.fixed_mb == pytest.approx(room_for(300), abs=20)
    assert probe._measured(work, 64, room_for(450), Gpu(work)) == REFUSED


@pytest.mark.parametrize("at", [2, 1 + probe.PEAKS])
def test_the_highest_of_the_measured_steps_counts(at):
    found = probe._measured(Work(more=16, at=at), 64, room_for(200), Cpu())
    assert found.work_mb == pytest.approx(80, abs=4)


def test_code_that_later_works_load_counts_for_all(monkeypatch):
    one = Measurement(work_mb=1.0, opening_mb=1.0, fixed_mb=200.0, seconds=1.0)
    now = dataclasses.replace(memory.usage(), file=90.0)
    monkeypatch.setattr(memory, "usage", lambda: now)
    found = probe._with_all_code({"early": (one, 80.0), "late": (one, 90.0)})
    assert (found["early"].fixed_mb, found["late"].fixed_mb) == (210.0, 200.0)


def test_in_parts_all_gradients_are_there_while_the_next_part_is_computed(planned):
    run, _ = planned
    state = run.state()
    exact, halves = Demand.from_document(state.meta("demand")).forms[:2]
    state.close()
    assert (halves.lossy, halves.size) == (("micro-batch",), exact.size // 2)
    row = ModuleRow(
        kind="k", weights=5, momentum=8, opening=6, gradients=1, works={FORWARD: 10, "none": 20}, reads=0, writes=0
    )
    parts = costs._in_parts(row, 4)
    assert (parts.works, parts.gradients) == ({FORWARD: 10, "none": 24}, 4)
