"""When the memory that steps free goes back to the system."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge_trgl.runtime.memory import allocator, counters, guard
from edge_trgl.runtime.memory.headroom import Headroom


@pytest.fixture
def calls(monkeypatch):
    """What a process of 80 MiB does, in order."""
    made = []
    monkeypatch.setattr(counters, "usage", lambda: SimpleNamespace(rss=80.0))
    monkeypatch.setattr(allocator, "no_huge_pages_in_heap", lambda: made.append("keep"))
    monkeypatch.setattr(allocator, "trim", lambda: made.append("trim"))
    monkeypatch.setattr(guard, "renew_guard", lambda: made.append("renew"))
    return made


@pytest.mark.parametrize(("fragmentation_mb", "goes"), [(0.0, False), (19.9, False), (20.1, True)])
def test_it_stays_for_a_step_like_the_last_while_a_tensor_has_room_beside_it(calls, fragmentation_mb, goes):
    Headroom(100.0, fragmentation_mb).after()
    assert calls == ["keep", *(["trim", "renew"] if goes else [])]


@pytest.mark.parametrize(
    ("works_mb", "trims"),
    [
        ((19.9, 19.9), 0),  # there is room beside it
        ((30.0, 30.0, 30.0), 1),  # the first, and none that is like the one before
        ((30.0, 21.0, 25.0, 25.0, 1.0, 21.0), 3),
        ((30.0, 1.0, 19.0), 1),
    ],
)
def test_it_goes_before_a_larger_step_that_has_no_room_beside_it(calls, works_mb, trims):
    headroom = Headroom(100.0, 20.0)
    for work_mb in works_mb:
        headroom.before(work_mb)
    assert calls == ["trim", "renew"] * trims


def test_without_a_limit_it_never_goes(calls):
    headroom = Headroom(None, 1e9)
    headroom.before(1e9)
    headroom.after()
    assert calls == ["keep"]


def test_it_is_looked_at_again_only_after_page_faults(calls, monkeypatch):
    faults = iter((7, 7, 8))
    monkeypatch.setattr(counters, "page_faults", lambda: next(faults))
    headroom = Headroom(100.0, 20.1)
    for _ in range(3):
        headroom.after()
    assert calls == ["keep", "trim", "renew"] * 2
