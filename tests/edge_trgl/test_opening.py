"""A planned run as objects."""

from __future__ import annotations

import pytest

from edge_trgl.assembly import Workshop
from edge_trgl.opening import open_run
from edge_trgl.runtime import memory


@pytest.mark.parametrize(("without", "before"), [([], ["trim"]), (["trim"], [])])
def test_a_module_is_first_made_where_freed_heap_was_given_back(plan_run, monkeypatch, without, before):
    opened = open_run(plan_run("run", budget__without=without))
    done, initialise = [], Workshop.initialise

    def noted(workshop, module):
        done.append(module)
        return initialise(workshop, module)

    monkeypatch.setattr(memory, "trim", lambda: done.append("trim"))
    monkeypatch.setattr(Workshop, "initialise", noted)
    modules = opened.modules()
    for module in (0, 1, 0):
        modules.open(module)
    assert done == [*before, 0, *before, 1]
