"""What a plan rests on beside the steps: the jobs before training."""

from __future__ import annotations

import textwrap

from edge_trgl.jobs import plan
from edge_trgl.runtime.memory import MIB

MODEL = """
    from torch import nn

    def net(*, input_shape, num_classes):
        layers = [nn.Conv2d(input_shape[0], 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


def _planned_again(run, **peaks_mb):
    state = run.state()
    for name, peak_mb in peaks_mb.items():
        state.record_phase(name, peak_mb, seconds=1.0)
    plan.run(run, 1e5)
    return state.meta("plan")["floor_mb"]


def test_no_job_before_training_is_forgotten(plan_run):
    run = plan_run("run")
    assert _planned_again(run, prepare=100.0, costs=200.0, work=900.0) == 200.0


def test_a_model_that_is_cut_is_converted_beside_its_library(plan_run, tmp_path, monkeypatch):
    (tmp_path / "floor_models.py").write_text(textwrap.dedent(MODEL))
    monkeypatch.syspath_prepend(str(tmp_path))
    run = plan_run("run", model__name="floor_models:net")
    rows = run.state().meta("demand")["forms"][0]["rows"]
    making = max(row["opening"] + row["weights"] for row in rows)
    assert making > 0
    assert _planned_again(run, costs=200.0, cut=300.0) == 300.0 + making / MIB + plan.SPARE_MB
    assert _planned_again(run, prepare=500.0) == 500.0
