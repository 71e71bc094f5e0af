"""Bytes alive at every moment of a run, at any batch size."""

from __future__ import annotations

import torch

from edge_trgl.planning import live_bytes
from edge_trgl.planning.live_bytes import Timeline


def test_a_timeline_grows_linearly_with_the_batch_at_every_moment():
    found = Timeline(small=(100, 90, 0), larger=(101, 120, 0), kernels=(0, 0, 0), sizes=((100, 101), (30, 70)))
    # At 2 samples the first moment is the highest, at 5 the second: 90 + 3 · 30.
    assert [found.peak(size) for size in (2, 3, 5)] == [100, 120, 180]
    assert [found.largest(size) for size in (2, 3, 5)] == [100, 101, 150]
    nothing = Timeline((), (), (), ())
    assert nothing.peak(8) == nothing.peak_tensors(8) == nothing.largest(8) == 0


def test_what_a_kernel_holds_does_not_grow_with_the_batch():
    found = Timeline(small=(100, 90), larger=(101, 92), kernels=(0, 50), sizes=())
    assert (found.peak(2), found.peak_tensors(2)) == (140, 100)
    assert (found.peak(12), found.peak_tensors(12)) == (160, 110)


def test_live_bytes_by_hand():
    before = torch.zeros(1000)
    with live_bytes._LiveBytes() as live:
        first = torch.zeros(10)
        view = first.view(2, 5)
        second = first + 1
        del first, view
        third = torch.zeros(5, dtype=torch.int8)
        before.add_(1)
        second.mul_(2)
        del second, third
        torch.zeros(3, dtype=torch.float64)
    # A view and an in-place operation make no storage; what was there before is not counted.
    assert live.moments == [40, 80, 45, 24]
