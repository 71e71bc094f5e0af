"""Differences between two sets of logits."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.export.compare.comparison import TOLERANCE, Tally, why_refused
from edge_trgl.run.export_record import Comparison


def compared(expected, found, labels=(0, 1, 2)):
    tally = Tally()
    for row in range(0, len(expected), 2):
        rows = slice(row, row + 2)
        tally.add(expected[rows], found[rows], np.asarray(labels)[rows])
    return tally.comparison(4)


LOGITS = np.eye(3, dtype=np.float32)


def test_the_figures():
    found = LOGITS.copy()
    found[0, 1] += 3  # another class
    found[1, 0] += 5e-5
    assert compared(LOGITS, found) == Comparison(
        depth=4,
        num_images=3,
        max_abs_diff=3.0,
        median_abs_diff=pytest.approx(5e-5),
        top1_agreement=pytest.approx(2 / 3),
        accuracy=1.0,
        accuracy_onnx=pytest.approx(2 / 3),
        ok=False,
    )
    assert "depth 4, over 3 images, the largest difference of a logit is 3" in why_refused(
        "model.onnx", compared(LOGITS, found)
    )


def test_the_tolerance_grows_with_the_logits():
    assert compared(LOGITS, LOGITS + np.float32(0.9 * TOLERANCE)).ok
    assert not compared(LOGITS, LOGITS + np.float32(1.1 * TOLERANCE)).ok
    assert compared(100 * LOGITS, 100 * LOGITS + np.float32(90 * TOLERANCE)).ok
    assert not compared(100 * LOGITS, 100 * LOGITS + np.float32(110 * TOLERANCE)).ok


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_not_ok(value):
    wrong = np.full_like(LOGITS, value)
    with np.errstate(invalid="ignore"):
        assert not compared(LOGITS, wrong).ok
        assert not compared(wrong, LOGITS).ok
        assert not compared(wrong, wrong).ok


def test_nothing_is_not_ok():
    found = Tally().comparison(1)
    assert (found.num_images, found.max_abs_diff, found.ok) == (0, 0.0, False)
