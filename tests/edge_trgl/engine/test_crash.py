"""Real kills of the real training process: what is resumed ends in the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import own_process
import preloaded
import pytest
from plans import PLENTY

from edge_trgl.jobs.requests import TrainRequest
from edge_trgl.run.folder import Run
from edge_trgl.runtime.processes.messages import DESCRIPTOR
from edge_trgl.runtime.records import document_of

KILLS = 5
"""In each of ten ways to train."""

WAYS = {
    "parallel": {"budget__chunk": "2", "budget__resident": "1"},
    "adamw": {
        "train__regime": "parallel",
        "train__optimizer": "adamw",
        "train__warmup_epochs": 2,
        "budget__chunk": "2",
        "budget__resident": "1",
    },
    "shared head": {"train__regime": "parallel", "model__shared_head": True, "model__downsample": ()},
    "multi-lap": {"train__laps": 2, "train__views": 2},
    "sequential": {"train__views": 2},
    "autoencoder": {"train__regime": "parallel", "loss__name": "autoencoder", "model__blocks": 2},
    "growing": {
        "train__regime": "sequential",
        "train__grow": True,
        "train__grow_patience": 1,
        "model__name": "km-6-1",
    },
    "end-to-end": {},
    "paged": {"train__regime": "end-to-end"},
    "frozen": {"train__regime": "parallel", "train__freeze": 1, "train__views": 2, "budget__chunk": "2"},
}


TIGHT = Path(own_process.__file__).with_name("tight_budget.py")


def start(run: Run, messages: int) -> subprocess.Popen[bytes]:
    request = json.dumps(document_of(TrainRequest(limits=PLENTY)))
    command = [sys.executable, "-m", "edge_trgl.jobs", "train", str(run.folder), request]
    return subprocess.Popen(command, env={**os.environ, DESCRIPTOR: str(messages)}, pass_fds=[messages])


def position(run: Run) -> int:
    facts = run.facts()
    try:
        return facts.position()
    finally:
        facts.close()


def kill_in_training(run: Run, moment: random.Random, errors: Path) -> None:
    """Start the worker, wait until it has committed something new, and kill it a little later."""
    before = position(run)
    worker = preloaded.start("train", run.folder, errors, TrainRequest(limits=PLENTY))
    while worker.is_alive() and position(run) == before:
        time.sleep(0.005)
    time.sleep(moment.uniform(0, 0.15))
    worker.kill()
    worker.join()
    assert worker.exitcode in (-signal.SIGKILL, 0), errors.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_gives_the_same_weights(plan_run, finish, follow, way, tmp_path):
    settings = {"train__regime": way, "train__epochs": "6", "model__width": 8, **WAYS[way]}
    whole = plan_run("unbroken", **settings)
    run = plan_run("broken", **settings, train__checkpoint_minutes=0.0)
    if way == "paged":
        follow(whole, "rounds")
        follow(run, "rounds")
    unbroken = finish(whole)
    moment, errors = random.Random(way), tmp_path / "errors"
    for _ in range(KILLS):
        kill_in_training(run, moment, errors)
    last = preloaded.start("train", run.folder, errors, TrainRequest(limits=PLENTY))
    last.join()
    assert last.exitcode == 0, errors.read_text()
    facts = run.facts()
    assert facts.result.weights_sha256 == unbroken.sha256
    # Nothing was counted twice or lost, however often it was killed.
    images = {
        kind: sum(m.num_images for m in s.metrics("train"))
        for kind, s in (("broken", facts), ("whole", unbroken.run.facts()))
    }
    assert images["broken"] == images["whole"]
    facts.close()


@pytest.mark.slow
def test_terminated_worker_commits_and_stops(plan_run):
    run = plan_run("stopped", train__epochs="500")
    reading, writing = os.pipe()
    worker = start(run, writing)
    os.close(writing)
    with os.fdopen(reading) as messages:
        # What adds nothing after two epochs may be told before.
        assert any(json.loads(line)["kind"] == "progress" for line in messages)
        assert position(run) == 0
        worker.send_signal(signal.SIGTERM)
        last = json.loads(messages.readlines()[-1])
    assert worker.wait() == last["exit_code"] == 75
    assert position(run) > 0


@pytest.mark.slow
def test_over_budget_stops_resumable(plan_run, train_run, finish):
    """A limit that the run passes: exit 6, whether the guard refuses an allocation or the check sees the peak."""
    settings = {"train__epochs": "2", "model__width": 64}
    unbroken = train_run("unbroken", **settings)
    run = plan_run("tight", **settings, train__checkpoint_minutes=0.0)
    assert own_process.result_of(TIGHT, run.folder) == 6
    assert finish(run).sha256 == unbroken.sha256


@pytest.mark.slow
def test_going_on_elsewhere_is_said(plan_run):
    run = plan_run("moved")
    facts = run.facts()
    environment = {**facts.counted.environment, "torch": "2.4.0", "processor": "Cortex-A72"}
    del environment["board"]  # as of a run that did not record it yet
    facts.counted = replace(facts.counted, environment=environment)
    reading, writing = os.pipe()
    worker = start(run, writing)
    os.close(writing)
    assert worker.wait() == 0
    with os.fdopen(reading) as messages:
        warnings = [m["text"] for m in map(json.loads, messages) if m["kind"] == "warning"]
    assert len(warnings) == 1
    assert "torch 2.4.0 -> " in warnings[0]
    assert "processor Cortex-A72 -> " in warnings[0]
    assert "board" not in warnings[0]
    assert [event.text for event in facts.events()] == warnings
    facts.close()
