"""A worker that is killed or refused memory is started again from the last commit, one step down the ladder."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from made_up_jobs import make_up

from edge_trgl.config.sources import resolve
from edge_trgl.pipeline.pipeline import Pipeline
from edge_trgl.pipeline.training import ATTEMPTS
from edge_trgl.run.folder import Run
from edge_trgl.runtime.errors import OverBudgetError
from edge_trgl.runtime.planner.demand import REFUSED, Measurement
from edge_trgl.runtime.planner.plan import PlanStep
from tests.conftest import TINY, flat

LONG = {
    "data": {"limit": 400},
    "train": {"epochs": "3", "checkpoint_minutes": 0.0},
    "model": {"name": "km-2-2", "width": 8},
    "budget": {"mb": "auto"},  # as large as may be: the suite is the parent here, and counts
}


@pytest.fixture
def undisturbed(trained_copy):
    """The same settings trained in one go, however often they are committed."""
    return trained_copy("undisturbed", **{**flat(LONG), "train__checkpoint_minutes": 1e9})


def pipeline_of(folder, listener, *settings):
    return Pipeline(Run.create(folder, resolve(TINY, LONG, *settings)).folder, listener)


class Killer:
    """A listener that kills the worker, the latest of the jobs, when it tells of its progress, so many times."""

    def __init__(self, times, jobs):
        self.left = times
        self.jobs = jobs
        self.warnings = []

    def __call__(self, message):
        if message["kind"] == "warning":
            self.warnings.append(message["text"])
        if message["kind"] == "progress" and self.left:
            self.left -= 1
            self.jobs[-1].kill()


def events(run, kind):
    facts = run.facts()
    found = [event.text for event in facts.events() if event.kind == kind]
    facts.close()
    return found


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_weights_stay_the_same(tmp_path, undisturbed, forked_jobs):
    killer = Killer(2, forked_jobs)
    pipeline = pipeline_of(tmp_path / "killed", killer)
    summary = pipeline.train()
    assert killer.left == 0
    assert summary["weights_sha256"] == undisturbed.sha256
    assert summary["restarts"] == 2
    assert summary["lossy"] == []
    told = events(Run(pipeline.folder), "restart")
    assert len(told) == 2
    assert all("killed from outside" in text for text in told)
    assert "->" in told[0]  # a plan of less memory
    assert len(killer.warnings) == 2


@pytest.mark.slow
def test_without_progress_it_stops_and_can_be_resumed(tmp_path, undisturbed, forked_jobs):
    never = {"train": {"checkpoint_minutes": 1e9}}
    pipeline = pipeline_of(tmp_path / "run", Killer(ATTEMPTS, forked_jobs), never)
    with pytest.raises(OverBudgetError) as caught:
        pipeline.train()
    assert caught.value.exit_code == 6
    assert "3 times without progress" in events(Run(pipeline.folder), "stop")[0]
    assert len(events(Run(pipeline.folder), "restart")) == ATTEMPTS - 1
    resumed = Pipeline(pipeline.folder, Killer(0, forked_jobs)).train()
    assert resumed["weights_sha256"] == undisturbed.sha256


def test_what_one_budget_had_no_room_for_is_tried_again_under_another(plan_run, monkeypatch):
    run = plan_run("run", budget__mb=900.0)
    facts = run.facts()
    accepted = Measurement(work_mb=1.0, opening_mb=1.0, fixed_mb=200.0, seconds=1.0)
    facts.measured = {"a": REFUSED, "b": accepted}
    larger = replace(facts.planned.plan, floor_mb=1000.0)
    facts.planned = replace(facts.planned, plan=larger)
    asked = make_up(monkeypatch, lambda job, request: PlanStep())
    assert Pipeline(run.folder, lambda message: None).plan()["limits"]["budget_mb"] == 900
    assert [(name, request.limits.budget_mb) for name, request in asked] == [("plan", 900)]
    assert facts.measured == {"b": accepted}
    facts.close()


WIDE = """
from torch import nn
from edge_trgl.networks.chain import Chain

def net(input_shape, num_classes):
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    first = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 64))
    blocks = [lambda: first, lambda: nn.Linear(64, 65536)]
    return Chain.from_blocks(blocks, input_shape=input_shape, num_classes=num_classes)
"""


def edge_trgl(folder, *arguments):
    command = [sys.executable, "-m", "edge_trgl", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_refused_allocation_leads_to_the_same_place(tmp_path):
    (tmp_path / "wide.py").write_text(WIDE)
    flags = ["--model", "wide:net", "--batch-size", "64", "--epochs", "1", "--threads", "1", "--no-probe"]
    told = edge_trgl(tmp_path, "plan", *flags, "--budget-mb", "100").stderr
    # What the processes take without a module: no room for the first step.
    (before_mb,) = re.findall(r"(\d+) of it before any module", told)
    done = edge_trgl(tmp_path, "train", *flags, "--budget-mb", before_mb, "--force", "--run", "run")
    assert done.returncode == OverBudgetError.exit_code, done.stderr
    told = events(Run.open(tmp_path / "run"), "restart")
    assert len(told) == ATTEMPTS - 1
    assert "an allocation was refused" in told[0]
