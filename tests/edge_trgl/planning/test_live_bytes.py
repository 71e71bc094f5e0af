"""Bytes alive at every moment of a run, at any batch size."""

from __future__ import annotations

import torch

from edge_trgl.planning import calibrated, live_bytes
from edge_trgl.planning.live_bytes import Effort, Timeline, timeline_of


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


def test_multiplications_by_hand():
    conv = torch.nn.Conv2d(2, 4, 3, padding=1)
    linear = torch.nn.Linear(4 * 5 * 5, 3)
    batched = torch.ones(6, 2, 7)

    def work(size):
        x = torch.zeros(size, 2, 5, 5, requires_grad=True)
        return lambda: linear(conv(x).flatten(1)).sum().backward()

    small, larger = timeline_of(work).effort
    forward = 4 * 5 * 5 * (2 * 3 * 3) + 3 * (4 * 5 * 5)  # of a sample
    # The backward goes to the input and to the weights.
    assert (small.multiplications, larger.multiplications) == (2 * 3 * forward, 3 * 3 * forward)
    assert small.operations == larger.operations > 6
    with live_bytes._LiveBytes() as live:
        torch.bmm(batched, batched.transpose(1, 2)).relu()
    assert live.effort() == Effort(operations=3, multiplications=6 * 2 * 2 * 7)


def test_seconds_are_of_operations_bytes_and_multiplications(monkeypatch):
    for name, seconds in (("OPERATION_S", 1000.0), ("BYTE_S", 1.0), ("MULTIPLICATION_S", 0.001)):
        monkeypatch.setattr(calibrated, name, seconds)
    effort = (Effort(operations=7, multiplications=20), Effort(operations=7, multiplications=30))
    found = Timeline((), (), (), ((100, 101), (30, 70)), effort)
    # At 5 samples the tensors have 103 and 150 bytes.
    assert abs(found.seconds(5) - 7253.05) < 1e-9
