"""What more views, no cache, or more memory would mean, in words."""

from __future__ import annotations

import pytest

from edge_trgl.cli.plan import _alternatives, _cell, _missed
from edge_trgl.runtime.planner.plan import Alternative, Traffic


def _one(copies, written_mb, seconds):
    traffic = Traffic(epochs=3, read_mb=0.0, written_mb=written_mb, compute_s=None, seconds=seconds, wear=None)
    return Alternative(copies=copies, traffic=traffic)


FOUND = [_one(1, 800.0, 100.0), _one(4, 3200.0, 130.0), _one(0, 1.0, 320.0)]


@pytest.mark.parametrize(
    ("placement", "found", "text"),
    [
        (
            "disk",
            FOUND,
            "cached boundaries show the same augmented copy of an image in every epoch; --views 4 varies the "
            "images more, writes 3.1 GiB in all, takes 1.3 times as long; --cache none augments anew in every "
            "epoch, writes 1 MiB in all, takes 3.2 times as long",
        ),
        (
            "memory",
            FOUND,
            "cached boundaries show the same augmented copy of an image in every epoch; --views 4 varies the "
            "images more, takes as many times their memory, takes 1.3 times as long; --cache none augments anew "
            "in every epoch, keeps none, takes 3.2 times as long",
        ),
        (
            "disk",
            [_one(1, 800.0, None), _one(0, 1.0, None)],
            "cached boundaries are exact; --cache none writes 1 MiB in all",
        ),
    ],
)
def test_alternatives_in_words(placement, found, text):
    assert _alternatives(found, in_memory=placement == "memory") == [text]


def test_nothing_is_said_where_nothing_is_cached():
    assert _alternatives([], in_memory=False) == []


def test_what_more_memory_would_spare():
    assert _missed({}) == ""
    found = _missed({"boundaries in memory": 811.7, "all modules in memory": 640.0})
    assert found == "; boundaries in memory would take 812 MiB; all modules in memory would take 640 MiB"


@pytest.mark.parametrize(
    ("size_mb", "text"),
    [(0, "0.0"), (0.0001, "1 KiB"), (0.01, "10 KiB"), (0.049, "50 KiB"), (0.05, "0.1"), (1234.56, "1234.6")],
)
def test_small_sizes_are_not_nothing(size_mb, text):
    assert _cell(size_mb) == f"{text:>12}"
