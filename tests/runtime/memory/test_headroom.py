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
    Headroom(100.0, fragmentation_mb=fragmentation_mb).after()
    assert calls == ["keep", "renew", *(["trim", "renew"] if goes else [])]


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
    headroom = Headroom(100.0, fragmentation_mb=20.0)
    for work_mb in works_mb:
        headroom.before(work_mb)
    assert calls == ["trim", "renew"] * trims


def test_without_a_limit_it_never_goes(calls):
    headroom = Headroom(None, fragmentation_mb=1e9)
    headroom.before(1e9)
    headroom.after()
    assert calls == ["keep", "renew"]


def test_it_is_looked_at_again_only_after_page_faults(calls, monkeypatch):
    faults = iter((7, 7, 8))
    monkeypatch.setattr(counters, "page_faults", lambda: next(faults))
    headroom = Headroom(100.0, fragmentation_mb=20.1)
    for _ in range(3):
        headroom.after()
    assert calls == ["keep", "renew", "trim", "renew"] * 2


@pytest.fixture
def growing(monkeypatch):
    """Every step grows the process."""
    faults = iter(range(1000))
    monkeypatch.setattr(counters, "page_faults", lambda: next(faults))


def _trims(calls, headroom, num_steps):
    """The steps after which the heap was trimmed."""
    found = []
    for step in range(num_steps):
        calls.clear()
        headroom.after()
        found += [step] if "trim" in calls else []
    return found


@pytest.mark.usefixtures("growing")
def test_above_the_plan_it_goes_ever_more_rarely_where_that_is_no_use(calls):
    headroom = Headroom(1000.0, planned_mb=90.0, fragmentation_mb=20.0)
    assert _trims(calls, headroom, 200) == [0, 2, 6, 14, 30, 62, 126, 191]


@pytest.mark.usefixtures("growing")
@pytest.mark.parametrize(("quiet", "expected"), [(5, [1]), (200, [0, 2, 6])])
def test_above_the_plan_it_goes_at_once_again_when_it_was_below_for_long(calls, monkeypatch, quiet, expected):
    headroom = Headroom(1000.0, planned_mb=90.0, fragmentation_mb=20.0)
    assert _trims(calls, headroom, 8) == [0, 2, 6]
    for rss, num_steps, found in ((60.0, quiet, []), (80.0, 8, expected)):
        monkeypatch.setattr(counters, "usage", lambda rss=rss: SimpleNamespace(rss=rss))
        assert _trims(calls, headroom, num_steps) == found


@pytest.mark.usefixtures("growing")
def test_near_the_budget_it_always_goes(calls):
    assert _trims(calls, Headroom(90.0, planned_mb=85.0, fragmentation_mb=20.0), 5) == [0, 1, 2, 3, 4]
