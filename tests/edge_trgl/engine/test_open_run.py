"""A planned run as objects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import PLENTY

from edge_trgl.engine import open_run as opening
from edge_trgl.engine.module_factory import ModuleFactory
from edge_trgl.engine.open_run import open_run
from edge_trgl.engine.visits import Span, Visit
from edge_trgl.runtime.memory import allocator
from edge_trgl.runtime.memory.limits import Limits

MB = 2**20


@pytest.mark.parametrize(("without", "before"), [([], ["trim"]), (["trim"], [])])
def test_a_module_is_first_made_where_freed_heap_was_given_back(plan_run, monkeypatch, without, before):
    opened = open_run(plan_run("run", budget__without=without))
    done, initialise = [], ModuleFactory.initialise

    def noted(workshop, module):
        done.append(module)
        return initialise(workshop, module)

    monkeypatch.setattr(allocator, "trim", lambda: done.append("trim"))
    monkeypatch.setattr(ModuleFactory, "initialise", noted)
    modules = opened.modules()
    for module in (0, 1, 0):
        modules.open(module)
    assert done == [*before, 0, *before, 1]


@pytest.fixture
def limits(monkeypatch):
    """What `Headroom` is told."""
    told = []
    monkeypatch.setattr(opening, "Headroom", lambda *limits, **more: told.append((*limits, *more.values())))
    return told


def test_a_process_may_grow_to_the_plan_and_to_the_budget(plan_run, limits):
    opened = open_run(plan_run("run"))
    most_mb, budget_mb = opened.plan.peak_mb, PLENTY.memory_mb - 20
    for tensor_mb in (1, 3, 0):
        opened.facts.counted = replace(opened.facts.counted, fragmentation_bytes=tensor_mb * MB)
        opened.headroom(PLENTY, 20.0)
    opened.headroom(Limits(budget_mb=most_mb - 1), 20.0)
    assert limits == [
        (budget_mb, most_mb - 20, 4.0),
        (budget_mb, most_mb - 20, 6.0),
        (budget_mb, most_mb - 20, 0.0),
        (most_mb - 21, most_mb - 21, 0.0),
    ]


def test_freed_memory_stays_where_it_is_not_to_be_trimmed(plan_run, limits):
    open_run(plan_run("run", budget__without=["trim"])).headroom(PLENTY, 20.0)
    assert limits == [(None,)]


def test_a_step_takes_what_was_counted_for_its_samples(plan_run):
    opened = open_run(plan_run("run"))
    works = opened.facts.counted.demand.forms[0].rows[1].works
    work_mb = opened.work_mb()
    span = Span("train", 0, 0, 1, shuffled=True, augmented=False)
    for kind, name in {"train": "none", "backward": "none", "forward": "forward", "ascend": "forward"}.items():
        visit = Visit(kind, 1, span, (), ())
        assert [work_mb(visit, size) for size in (16, 4, 64)] == [
            pytest.approx(works[name] * share / MB) for share in (1, 0.25, 1)
        ]
