"""Works are measured by real steps, kept, and refused before they take more than there is room for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import own_process
import pytest
from plans import PLENTY

from edge_trgl.config.sources import resolve
from edge_trgl.jobs import prepare
from edge_trgl.jobs.requests import PrepareRequest, ProbeRequest
from edge_trgl.planning import forms, measure
from edge_trgl.planning.choose import choose
from edge_trgl.planning.demand import store_demand
from edge_trgl.run.folder import Run
from edge_trgl.runtime.memory import counters
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.planner.demand import FORWARD, REFUSED, Measurement, ModuleRow
from edge_trgl.runtime.processes.supervisor import run_child
from edge_trgl.runtime.records import to_json
from tests.conftest import TINY

PLENTY_MB = 1e5


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A run whose plan waits for measurements, and what it waits for; the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Run.create(tmp_path / "run", resolve(TINY, {"budget": {"probe": True}}))
    prepare.run(run, PrepareRequest())
    store_demand(run, PLENTY)
    return run, choose(run, PLENTY).wanted


@pytest.mark.slow
def test_a_plan_rests_on_steps_that_were_measured(planned):
    run, wanted = planned
    assert {one.work for one in wanted} == {"none", FORWARD}
    request = json.dumps(to_json(ProbeRequest(wanted=wanted, limits=PLENTY)))
    run_child(["-m", "edge_trgl.jobs", "probe", str(run.folder), request], on_message=lambda message: None)
    assert choose(run, PLENTY).wanted == ()
    facts = run.facts()
    assert facts.planned.plan.probed
    assert all(row.step_s > 0 for row in facts.planned.table)
    kept = measurements_cache.recall([one.key for one in wanted])
    assert kept == facts.measured
    for one in kept.values():
        assert one.fixed_mb > 50  # a process with torch in it
        assert one.opening_mb >= 0
    facts.close()


@pytest.mark.slow
@pytest.mark.parametrize(("allocator", "work_mb"), [("heap", 103.0), ("huge", 100.0), ("default", 103.0)])
def test_where_tensors_find_places_on_a_heap_a_step_may_take_more(planned, monkeypatch, allocator, work_mb):
    run, wanted = planned
    one = Measurement(work_mb=100.0, opening_mb=1.0, fixed_mb=200.0, seconds=1.0)
    monkeypatch.setattr(measure.process_setup, "begin", lambda device, limits, others_mb: None)
    monkeypatch.setattr(measure, "_prepared", lambda run, facts, one, device: None)
    monkeypatch.setattr(measure, "_measured", lambda work, size, room_mb, device: one)
    facts = run.facts()
    facts.counted = dataclasses.replace(facts.counted, allocator=allocator)
    measure.measure(run, wanted[:1], PLENTY)
    assert facts.measured[wanted[0].key].work_mb == pytest.approx(work_mb)
    facts.close()


@pytest.mark.parametrize(
    ("message", "num_measured"), [("can't allocate memory", 2), ("could not create a primitive", 1)]
)
def test_after_a_lasting_refusal_the_rest_is_left_to_another_process(planned, monkeypatch, message, num_measured):
    def refuse(run, facts, one, device):
        raise RuntimeError(message)

    run, wanted = planned
    monkeypatch.setattr(measure.process_setup, "begin", lambda device, limits, others_mb: None)
    monkeypatch.setattr(measure, "_prepared", refuse)
    measure.measure(run, wanted[:2], PLENTY)
    facts = run.facts()
    assert facts.measured == {one.key: REFUSED for one in wanted[:num_measured]}
    facts.close()


@pytest.fixture(scope="module")
def measured():
    """What `tests/support/measured_steps.py` found, by case."""
    return own_process.result_of(Path(own_process.__file__).with_name("measured_steps.py"))


@pytest.mark.slow
def test_what_would_take_more_than_there_is_room_for_is_never_done_whole(measured):
    found = measured["no room"]
    assert found["measurement"] == dataclasses.asdict(REFUSED)
    assert max(found["sizes"]) == 32


def test_what_there_is_room_for_is_measured_whole(measured):
    """But for a few pages, which the kernel counts in portions."""
    found = measured["room"]
    assert found["measurement"]["work_mb"] == pytest.approx(64, abs=4)
    assert found["sizes"][-1] == 64


def test_what_a_step_takes_on_its_device_is_measured_too(measured):
    """Where a step takes two MiB there for each that it takes in the process, beside 300 MiB of context."""
    found, rest_mb = measured["device"]["measurement"], measured["device"]["before_mb"] + 300
    assert found["work_mb"] == pytest.approx(192, abs=4)
    assert found["fixed_mb"] == pytest.approx(rest_mb, abs=20)
    assert measured["no room on the device"]["measurement"] == dataclasses.asdict(REFUSED)


@pytest.mark.parametrize("place", ["second", "last"])
def test_the_highest_of_the_measured_steps_counts(measured, place):
    assert measured[place]["measurement"]["work_mb"] == pytest.approx(80, abs=4)


def test_code_that_later_works_load_counts_for_all(monkeypatch):
    one = Measurement(work_mb=1.0, opening_mb=1.0, fixed_mb=200.0, seconds=1.0)
    now = dataclasses.replace(counters.usage(), file=90.0)
    monkeypatch.setattr(counters, "usage", lambda: now)
    found = measure._with_all_code({"early": (one, 80.0), "late": (one, 90.0)})
    assert (found["early"].fixed_mb, found["late"].fixed_mb) == (210.0, 200.0)


def test_in_parts_all_gradients_are_there_while_the_next_part_is_computed(planned):
    run, _ = planned
    facts = run.facts()
    exact, halves = facts.counted.demand.forms[:2]
    facts.close()
    assert (halves.lossy, halves.size) == (("micro-batch",), exact.size // 2)
    row = ModuleRow(
        kind="k", weights=5, momentum=8, opening=6, gradients=1, works={FORWARD: 10, "none": 20}, reads=0, writes=0
    )
    parts = forms._in_parts(row, 4)
    assert (parts.works, parts.gradients) == ({FORWARD: 10, "none": 24}, 4)
