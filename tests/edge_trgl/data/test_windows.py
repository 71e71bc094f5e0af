"""Windows cut from a stream of readings are those that a plain loop over the whole recording cuts."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_trgl.data.sources.readings.windows import GAP_STEPS, Cutter, Readings, Tally

STEP = 0.5


def _recording(draw_steps, labels, groups):
    times = np.cumsum(np.array(draw_steps) * STEP)
    values = np.stack([np.arange(len(times)), -np.arange(len(times))], axis=1).astype(np.float32)
    return Readings(
        values=values, labels=np.array(labels, np.int64), groups=np.array(groups, np.int64), times=times
    )


@st.composite
def recordings(draw):
    size = draw(st.integers(1, 60))
    # Most steps are usual ones, so that the median is one, too.
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 1, 1, 4, 9, -3]), min_size=size, max_size=size))
    labels = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    groups = draw(st.lists(st.sampled_from([0, 0, 0, 0, 0, 1]), min_size=size, max_size=size))
    return _recording(steps, labels, np.maximum.accumulate(groups))


def _plain(recording, window, stride):
    """The first reading, the label and the group of each window."""
    largest = GAP_STEPS * recording.usual_step()
    stretches = [[0]]
    for row in range(1, len(recording.labels)):
        step = recording.times[row] - recording.times[row - 1]
        if recording.groups[row] != recording.groups[row - 1] or step < 0 or step > largest:
            stretches.append([])
        stretches[-1].append(row)
    found = []
    for stretch in stretches:
        for start in range(0, len(stretch) - window + 1, stride):
            rows = stretch[start : start + window]
            ((label, count),) = Counter(recording.labels[rows].tolist()).most_common(1)
            if count * 2 > window:
                found.append((rows[0], label, int(recording.groups[rows[0]])))
    return found


def _cut(recording, window, stride, sizes=(10**6,), tally=None):
    cutter = Cutter(window, stride, tally or Tally())
    cut, first, turns = [], 0, itertools.cycle(sizes)
    while first < len(recording.labels):
        stop = first + next(turns)
        part = slice(first, stop)
        cut += cutter.feed(
            Readings(
                values=recording.values[part],
                labels=recording.labels[part],
                groups=recording.groups[part],
                times=recording.times[part],
            )
        )
        first = stop
    cutter.end_stretch()
    return cut


def _flat(cut, window):
    found = []
    for some in cut:
        values = np.concatenate([np.empty((0, window, 2), np.float32), *some.batches()])
        assert values.shape == (len(some.labels), window, 2)
        assert (np.diff(values[..., 0], axis=1) == 1).all() and (values[..., 1] == -values[..., 0]).all()
        found += [(int(v[0, 0]), label, some.group) for v, label in zip(values, some.labels.tolist(), strict=True)]
    return found


@given(recording=recordings(), window=st.integers(2, 9), stride=st.integers(1, 12))
def test_windows_are_those_of_a_plain_loop(recording, window, stride):
    assert _flat(_cut(recording, window, stride), window) == _plain(recording, window, stride)


@given(
    labels=st.lists(st.integers(0, 1), min_size=7, max_size=60),
    gaps=st.sets(st.integers(7, 59), max_size=3),
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    window=st.integers(2, 9),
    stride=st.integers(1, 12),
)
def test_the_parts_that_a_recording_arrives_in_do_not_matter(labels, gaps, sizes, window, stride):
    # The usual step is taken from the first part, which has no gap.
    steps = [9 if row in gaps else 1 for row in range(len(labels))]
    recording = _recording(steps, labels, [0] * len(labels))
    found = _flat(_cut(recording, window, stride, (7, *sizes)), window)
    assert found == _plain(recording, window, stride)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_what_is_left_out_is_counted(stride):
    tally = Tally()
    steps = [1] * 10 + [6] + [1] * 2 + [-1] + [1] * 9
    recording = _recording(steps, [0] * 23, [0] * 23)
    cut = _cut(recording, 4, stride, tally=tally)
    assert (tally.gaps, tally.short, tally.mixed, tally.longest) == (2, 1, 0, 10)
    assert _flat(cut, 4) == _plain(recording, 4, stride)


def test_a_window_without_a_label_for_more_than_half_is_left_out():
    tally = Tally()
    recording = _recording([1] * 6, [0, 0, 1, 1, 1, 2], [0] * 6)
    cut = _cut(recording, 4, 1, tally=tally)
    assert _flat(cut, 4) == [(1, 1, 0), (2, 1, 0)]
    assert tally.mixed == 1


def test_batches_are_about_a_megabyte():
    values = np.zeros((40_000, 2), np.float32)
    zeros = np.zeros(40_000, np.int64)
    cutter = Cutter(1000, 100, Tally())
    (cut,) = cutter.feed(Readings(values=values, labels=zeros, groups=zeros, times=None))
    sizes = [batch.nbytes for batch in cut.batches()]
    assert len(sizes) > 1
    assert max(sizes) <= 2**20
