"""What a plan rests on beside the steps: the jobs before training."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import pytest

from edge_trgl.planning import calibrated, choose
from edge_trgl.runtime.errors import DoesNotFitError
from edge_trgl.runtime.memory.limits import Limits
from edge_trgl.runtime.storage.boundary_spec import BoundaryRecord, BoundarySpec
from edge_trgl.runtime.units import MIB

MODEL = """
    from torch import nn

    def net(*, input_shape, num_classes):
        layers = [nn.Conv2d(input_shape[0], 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def _planned_again(run, budget_mb=1e5, **peaks_mb):
    facts = run.facts()
    for name, peak_mb in peaks_mb.items():
        facts.record_phase(name, peak_mb, seconds=1.0)
    choose.choose(run, Limits(budget_mb=budget_mb, disk_mb=1e6))
    return facts.planned.plan.floor_mb


def test_no_job_before_training_is_forgotten(plan_run):
    run = plan_run("run")
    assert _planned_again(run, prepare=100.0, count=200.0, work=900.0) == 200.0


def test_the_least_leaves_the_jobs_of_other_runs_a_little_more(plan_run):
    run = plan_run("run")
    assert _planned_again(run, count=200.0) == 200.0
    assert _planned_again(run, budget_mb=None, count=200.0) == 200.0 + calibrated.JOB_MARGIN_MB


def test_a_refusal_names_a_budget_that_leaves_them_a_little_more(plan_run):
    run = plan_run("run")
    with pytest.raises(DoesNotFitError, match=r"before training .* need 5003 MiB") as caught:
        _planned_again(run, budget_mb=4999.0, count=5000.0)
    assert caught.value.hint.startswith("Give --budget-mb 5003")
    assert _planned_again(run, budget_mb=5003.0, count=5002.9) == 5002.9


def test_a_model_that_is_cut_is_converted_beside_its_library(plan_run, tmp_path, monkeypatch):
    (tmp_path / "floor_models.py").write_text(textwrap.dedent(MODEL))
    monkeypatch.syspath_prepend(str(tmp_path))
    run = plan_run("run", model__name="floor_models:net")
    rows = run.facts().counted.demand.forms[0].rows
    making = max(row.opening + row.weights for row in rows)
    assert making > 0
    assert _planned_again(run, count=200.0, cut=300.0) == 300.0 + making / MIB + calibrated.JOB_MARGIN_MB
    assert _planned_again(run, prepare=500.0) == 500.0


def _chunks_of(run, *names, position=1):
    """The chunks with which the run may go on from a commit that names boundaries of these names."""
    facts = run.facts()
    specs = [BoundarySpec(name=name, shape=(4,), dtype="float32", records=10) for name in names]
    records = [BoundaryRecord(spec=spec, file=spec.name, counts=(0,), index_checksum="") for spec in specs]
    facts.commit(position=position, modules=[], boundaries=records)
    demand, before = facts.counted.demand, facts.planned.plan
    before = replace(before, layout=replace(before.layout, chunk=12))
    found = choose._begun(facts, demand, before)
    assert found.live_bytes == 10 * (16 + 16) * len(names)
    facts.close()
    return found.chunks


def test_a_chunk_may_become_shorter_only_where_one_ends(plan_run):
    run = plan_run("run")
    assert _chunks_of(run) == _chunks_of(run, "frozen-b1") == (12, 6, 4, 3, 2, 1)
    assert _chunks_of(run, "stream1") == (12,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"budget__chunk": "12"},
        {"train__regime": "sequential"},
        {"train__regime": "sequential", "train__cache": "none"},
    ],
)
def test_nor_where_it_was_asked_for_or_says_nothing(plan_run, settings):
    assert _chunks_of(plan_run("run", **settings)) == (12,)


def test_what_an_export_will_take_is_told_beforehand(plan_run):
    run = plan_run("run")
    facts = run.facts()
    plan, export_mb = facts.planned.plan, facts.planned.export_mb
    heaviest_mb = max(row.weights_mb for row in facts.planned.table)
    facts.close()
    assert export_mb == pytest.approx(plan.fixed_mb + calibrated.EXPORTER_MB + 2.2 * heaviest_mb)
