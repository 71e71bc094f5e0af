"""When a smaller file is refused, and what is said then."""

from __future__ import annotations

import numpy as np
import pytest

from edge_trgl.export.compare.comparison import Tally
from edge_trgl.export.compare.verdicts import largest_loss, verdict, why_far, why_lossy
from edge_trgl.run.export_record import Verdict


def judged(**changes):
    figures = {"depth": 2, "num_images": 1000, "accuracy_fp32": 0.9, "accuracy": 0.9}
    return Verdict(**{**figures, "top1_agreement": 1.0, "max_relative_diff": 0.0, **changes})


def test_what_is_counted():
    tally = Tally()
    expected = np.array([[0.0, 8.0], [4.0, 1.0], [2.0, 3.0]])
    tally.add(expected, expected + np.array([[0.0, 0.4], [0.0, 0.0], [1.5, 0.0]]), np.array([1, 0, 1]))
    found = verdict(3, tally)
    assert (found.depth, found.num_images) == (3, 3)
    assert (found.accuracy_fp32, found.accuracy, found.top1_agreement) == pytest.approx((1.0, 2 / 3, 2 / 3))
    assert found.max_relative_diff == pytest.approx(1.5 / 8)
    assert found.loss == pytest.approx(1 / 3)


def test_two_points_may_be_lost():
    assert why_lossy("model.int8.onnx", [judged(accuracy=0.8801), judged(accuracy=0.95)]) is None
    told = why_lossy("model.int8.onnx", [judged(), judged(depth=3, accuracy=0.879)])
    assert told == (
        "model.int8.onnx loses 2.1 points of accuracy at depth 3, 87.90% against 90.00% over 1000 images; "
        "2 are accepted"
    )


@pytest.mark.parametrize("difference", [0.011, float("nan"), float("inf")])
def test_a_hundredth_may_differ(difference):
    assert why_far("model.fp16.onnx", [judged(max_relative_diff=0.0099)]) is None
    told = why_far("model.fp16.onnx", [judged(max_relative_diff=difference)])
    assert told == (
        f"model.fp16.onnx differs at depth 2 by {difference:.3g} of the largest logit over 1000 images; "
        "0.01 is accepted"
    )


def test_the_worst_exit_counts():
    assert largest_loss([judged(accuracy=0.89), judged(accuracy=0.91)]) == pytest.approx(0.01)
