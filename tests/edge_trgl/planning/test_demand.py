"""What is counted at all: a net is built whole only where training it whole may fit."""

from __future__ import annotations

import pytest
from torch import nn

import edge_trgl
from edge_trgl.config.sources import resolve
from edge_trgl.engine import process_setup
from edge_trgl.learning.step_config import StepConfig
from edge_trgl.method.transport import Transport
from edge_trgl.planning import calibrated, demand, forms
from edge_trgl.planning.count import chain_costs
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import UsageError
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.planner import measurements_cache
from edge_trgl.runtime.storage.storage_speed import StorageSpeed
from edge_trgl.runtime.units import MIB

PAGED = {"train__regime": "end-to-end", "model__name": "km-4-2", "model__width": 32}


@pytest.fixture
def paged(plan_run, process_size):
    """An end-to-end run of several modules, and the bytes that all its weights and momentum take."""
    run = plan_run("run", **PAGED)
    rows = run.facts().counted.demand.forms[-1].rows
    assert len(rows) == 4
    return run, sum(row.weights + row.momentum for row in rows)


def _orders(run, budget_mb):
    demand.store_demand(run, Limits(budget_mb=budget_mb))
    return [form.order for form in run.facts().counted.demand.forms]


@pytest.mark.slow
def test_a_net_is_not_whole_where_its_weights_fit_but_no_step(paged):
    run, states = paged
    fixed_mb = run.facts().counted.demand.fixed_mb
    room_mb = calibrated.WHOLE_FACTOR * states / MIB
    assert "stream" in _orders(run, fixed_mb + room_mb + 200)
    assert "stream" not in _orders(run, fixed_mb + room_mb + 1)
    assert "stream" not in _orders(run, None)


@pytest.mark.slow
def test_a_net_is_paged_where_that_is_asked_for(paged, plan_run):
    """Whatever room there is for the whole of it."""
    run, states = paged
    plenty_mb = run.facts().counted.demand.fixed_mb + calibrated.WHOLE_FACTOR * states / MIB + 200
    assert "stream" in _orders(run, plenty_mb)
    assert "stream" not in _orders(plan_run("two", **PAGED, budget__resident="2"), plenty_mb)


@pytest.fixture(scope="module")
def single(nets):
    """A chain whose batch norm sees one position of an image, and what it costs."""
    chain = nets.chain_of(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)), head="linear")
    return chain, chain_costs(chain, StepConfig(transport=Transport(tau=None)))


@pytest.mark.parametrize(("size", "sizes"), [(8, [8, 4, 2]), (9, [9]), (10, [10, 5, 2]), (11, [11])])
def test_no_part_of_a_batch_is_one_image_where_a_batch_norm_needs_two(single, size, sizes):
    offered = forms._variants("stream", *single, size, "")
    assert [shaped.form.size for shaped in offered] == sizes


def test_a_batch_of_one_image_is_refused_where_a_batch_norm_needs_two(single):
    forms._check_size(2, single[1])
    with pytest.raises(UsageError, match="a batch norm of module 0 sees a single position"):
        forms._check_size(1, single[1])


@pytest.mark.parametrize(
    ("board", "probe", "expected"),
    [
        ({}, True, (90.0, 40.0)),
        ({}, False, (calibrated.STORAGE_MBS, calibrated.STORAGE_MBS)),
        ({"storage_read_mbs": 45.0, "storage_write_mbs": 20.0}, True, (45.0, 20.0)),
        ({"storage_write_mbs": 20.0}, True, (90.0, 20.0)),
    ],
)
def test_the_profile_knows_the_disk_or_it_is_measured(tmp_path, monkeypatch, board, probe, expected):
    speed = StorageSpeed(read_mbs=90.0, write_mbs=40.0, random_iops=1.0, method="O_DIRECT", file_mb=16.0)
    monkeypatch.setattr(measurements_cache, "disk_speed", lambda folder: speed)
    config = resolve({"board": board, "budget": {"probe": probe}})
    assert demand._disk_speed(config, Run(tmp_path)) == expected


@pytest.mark.slow
def test_the_largest_tensor_decides_what_becomes_of_freed_memory(plan_run, monkeypatch):
    def planned(name, without=()):
        facts = plan_run(name, budget__without=list(without)).facts()
        found = facts.counted.allocator, facts.counted.fragmentation_bytes
        facts.close()
        return found

    kind, largest = planned("heap")
    assert kind == "heap"
    assert largest > 0
    assert planned("default", ["allocator"]) == ("default", 0)
    monkeypatch.setattr(allocator, "SMALL_BYTES", largest // 2 + 1)
    assert planned("a few larger ones") == ("heap", largest)
    monkeypatch.setattr(allocator, "SMALL_BYTES", largest // 2)
    assert planned("larger") == ("huge", 0)


@pytest.mark.slow
def test_near_the_budget_freed_memory_is_not_kept_beside_large_tensors(plan_run, monkeypatch):
    def allocator(name, budget_mb):
        facts = plan_run(name, budget_mb).facts()
        found, placeless_mb = facts.counted.allocator, facts.counted.fragmentation_bytes / MIB
        facts.close()
        return found, placeless_mb

    found, tensor_mb = allocator("roomy", 1e5)
    assert found == "heap"
    monkeypatch.setattr(calibrated, "FRAGMENTED_SHARE", calibrated.FRAGMENTED_TENSORS * tensor_mb / 2e5)
    assert [allocator(f"{mb}", mb)[0] for mb in (200_001.0, 199_999.0, None)] == ["heap", "huge", "huge"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "edge-trgl", "threads", "processor"])
def test_what_was_measured_elsewhere_is_measured_anew(plan_run, monkeypatch, name):
    """By another version, which may compute a step otherwise, with other threads, on another processor."""
    here = process_setup.environment("cpu")
    ours = _kinds(plan_run("here"))
    monkeypatch.setattr(process_setup, "environment", lambda device: {**here, name: "another"})
    assert ours and not ours & _kinds(plan_run("elsewhere"))


def _kinds(run):
    facts = run.facts()
    kinds = {row.kind for form in facts.counted.demand.forms for row in form.rows}
    facts.close()
    return kinds


def test_the_version_is_part_of_where_a_run_computes():
    assert process_setup.environment("cpu")["edge-trgl"] == edge_trgl.__version__
