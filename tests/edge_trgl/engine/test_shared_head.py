"""One classifier for all modules: planned, resumed, scored; its numbers are in the reference loops."""

from __future__ import annotations

import pytest
from plans import PLENTY

from edge_trgl.engine import evaluation, training
from edge_trgl.engine.open_run import open_run
from edge_trgl.planning.choose import choose
from edge_trgl.runtime.errors import DoesNotFitError, StoppedError, UsageError
from edge_trgl.runtime.memory.headroom import Headroom
from edge_trgl.runtime.memory.high_water import Meter
from edge_trgl.runtime.memory.limits import Limits

SHARED = {"model__shared_head": True, "model__downsample": ()}


def heads(run):
    """What each trained module's file has for its head: weights and buffers, by name."""
    opened = open_run(run)
    modules = opened.modules()
    tensors = [modules.open(module).final_tensors() for module in range(len(opened))]
    found = [{name: t.tolist() for name, t in each.items() if name.startswith("head.")} for each in tensors]
    return [head for head in found if head]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_all_trained_modules_end_with_one_head(train_run, frozen):
    shared = train_run("shared", **SHARED, train__freeze=frozen)
    found = heads(shared.run)
    assert len(found) == 3 - frozen
    assert all(head == found[0] for head in found)
    other = train_run("other", model__downsample=(), train__freeze=frozen)
    assert (shared.sha256 == other.sha256) == (frozen == 2)  # the only trained module shares it with nobody


@pytest.mark.slow
def test_stopped_after_every_visit_it_gives_the_same_weights(plan_run, train_run, finish):
    """At the end of the epoch, the last visit, all modules have the same head; before that they differ."""
    settings = {**SHARED, "train__optimizer": "adamw", "train__epochs": "1"}
    whole, run = train_run("whole", **settings), plan_run("broken", **settings)
    for position in range(1, NUM_VISITS + 1):
        _stopped(run)
        assert run.facts().position() == position
        found = heads(run)
        assert all(head == found[0] for head in found) == (position == NUM_VISITS)
    assert finish(run).sha256 == whole.sha256


NUM_VISITS = 12
"""Of three modules to each of four batches."""


def _stopped(run):
    """Train until the first safe point."""
    with pytest.raises(StoppedError):
        training.train(open_run(run), limits=PLENTY, others_mb=0.0, stop_requested=lambda: True)


def test_every_depth_is_scored_with_it(train_run):
    trained = train_run("run", **SHARED)
    opened = open_run(trained.run)
    again = evaluation.evaluate(opened, opened.modules(), Meter(), Headroom(None), lambda visit: None)
    assert again == trained.result.scores
    assert len(again.per_depth) == 3


@pytest.mark.slow
def test_the_plan_keeps_every_module_in_memory(plan_run, monkeypatch, tmp_path):
    """And counts what it keeps: a head with each module."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # estimates alone: nothing that was measured before
    plans = [
        plan_run(name, budget__probe=False, **settings).facts().planned.plan
        for name, settings in (
            ("shared", SHARED),
            ("apart", {"model__downsample": (), "budget__chunk": "1", "budget__resident": "3"}),
        )
    ]
    assert (plans[0].layout.resident, plans[0].layout.chunk) == (3, 1)
    assert plans[0].layout == plans[1].layout
    above_mb = [[peak - one.fixed_mb for peak in one.peaks_mb] for one in plans]
    assert above_mb[0] == pytest.approx(above_mb[1])
    runs = {
        name: plan_run(f"least {name}", None, **settings, model__width=256)
        for name, settings in (("shared", SHARED), ("apart", {"model__downsample": ()}))
    }
    least = {name: run.facts().planned.plan for name, run in runs.items()}
    above = {name: one.peak_mb - one.fixed_mb for name, one in least.items()}  # the rest is this process
    assert above["shared"] > above["apart"] + 16
    with pytest.raises(DoesNotFitError):
        choose(runs["shared"], Limits(budget_mb=least["shared"].peak_mb - 8, disk_mb=1e6))


def test_modules_of_other_shapes_are_refused(plan_run):
    with pytest.raises(
        UsageError, match=r"module 0 gives \[4, 14, 14\] \(conv\), module 1 gives \[8, 7, 7\]"
    ) as caught:
        plan_run("run", model__shared_head=True)
    assert "model.downsample=[]" in caught.value.hint
