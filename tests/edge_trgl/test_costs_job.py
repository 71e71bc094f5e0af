"""What is counted at all: a net is built whole only where training it whole may fit."""

from __future__ import annotations

import pytest

from edge_trgl.jobs import costs
from edge_trgl.run import Run
from edge_trgl.runtime import probes
from edge_trgl.runtime.memory import MIB
from edge_trgl.runtime.storage_speed import StorageSpeed
from edge_trgl.settings import resolve


@pytest.fixture
def paged(plan_run):
    """An end-to-end run of several modules, and the bytes that all its weights and momentum take."""
    run = plan_run("run", train__regime="end-to-end", model__name="km-4-2", model__width=32)
    rows = run.state().meta("demand")["forms"][-1]["rows"]
    assert len(rows) == 4
    return run, sum(row["weights"] + row["momentum"] for row in rows)


def _orders(run, budget_mb):
    costs.run(run, budget_mb)
    return [form["order"] for form in run.state().meta("demand")["forms"]]


def test_a_net_is_not_whole_where_its_weights_fit_but_no_step(paged):
    run, states = paged
    fixed_mb = run.state().meta("demand")["fixed_mb"]
    room_mb = costs.WHOLE * states / MIB
    assert "stream" in _orders(run, fixed_mb + room_mb + 200)
    assert "stream" not in _orders(run, fixed_mb + room_mb + 1)
    assert "stream" not in _orders(run, None)


@pytest.mark.parametrize(
    ("board", "probe", "expected"),
    [
        ({}, True, (90.0, 40.0)),
        ({}, False, (costs.STORAGE_MBS, costs.STORAGE_MBS)),
        ({"storage_read_mbs": 45.0, "storage_write_mbs": 20.0}, True, (45.0, 20.0)),
        ({"storage_write_mbs": 20.0}, True, (90.0, 20.0)),
    ],
)
def test_the_profile_knows_the_disk_or_it_is_measured(tmp_path, monkeypatch, board, probe, expected):
    speed = StorageSpeed(read_mbs=90.0, write_mbs=40.0, random_iops=1.0, method="O_DIRECT", file_mb=16.0)
    monkeypatch.setattr(probes, "disk_speed", lambda folder: speed)
    config = resolve({"board": board, "budget": {"probe": probe}})
    assert costs._disk_speed(config, Run(tmp_path)) == expected
