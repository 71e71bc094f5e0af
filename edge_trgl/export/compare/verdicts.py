"""Judge how much accuracy an int8 or fp16 file loses against the float32 model."""

from __future__ import annotations

from collections.abc import Iterable

from edge_trgl.export.compare.comparison import Tally
from edge_trgl.run.export_record import Verdict

LARGEST_LOSS = 0.02
"""The largest accepted loss of accuracy of an int8 file, as a fraction."""

LARGEST_DIFFERENCE = 1e-2
"""The largest accepted difference of a logit of an fp16 file, as a share of the largest logit."""

NEAR = 0.001
"""Calibration methods whose accuracy, a fraction, is this close to the best count as equally good."""


def verdict(depth: int, tally: Tally) -> Verdict:
    """The verdict on the exit at `depth`, from the differences counted in `tally`."""
    comparison = tally.comparison(depth)
    return Verdict(
        depth=depth,
        num_images=comparison.num_images,
        accuracy_fp32=comparison.accuracy,
        accuracy=comparison.accuracy_onnx,
        top1_agreement=comparison.top1_agreement,
        max_relative_diff=comparison.max_abs_diff / tally.largest,
    )


def largest_loss(verdicts: Iterable[Verdict]) -> float:
    """The largest loss of accuracy over all exits, as a fraction."""
    return max(verdict.loss for verdict in verdicts)


def why_lossy(name: str, verdicts: Iterable[Verdict]) -> str | None:
    """A sentence about the first exit that loses too much accuracy; None if no exit does."""
    for exit_ in verdicts:
        if not exit_.loss <= LARGEST_LOSS:
            return (
                f"{name} loses {exit_.loss * 100:.1f} points of accuracy at depth {exit_.depth}, "
                f"{exit_.accuracy:.2%} against {exit_.accuracy_fp32:.2%} over {exit_.num_images} images; "
                f"{LARGEST_LOSS * 100:.0f} are accepted"
            )
    return None


def why_far(name: str, verdicts: Iterable[Verdict]) -> str | None:
    """A sentence about the first exit whose logits differ too much or are NaN; None if there is no such exit."""
    for exit_ in verdicts:
        if not exit_.max_relative_diff <= LARGEST_DIFFERENCE:
            return (
                f"{name} differs at depth {exit_.depth} by {exit_.max_relative_diff:.3g} of the largest logit "
                f"over {exit_.num_images} images; {LARGEST_DIFFERENCE:g} is accepted"
            )
    return None
