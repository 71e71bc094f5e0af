"""How much a smaller file has lost of what the float32 model gives."""

from __future__ import annotations

from collections.abc import Iterable

from edge_trgl.export.compare.comparison import Tally
from edge_trgl.run.export_record import Verdict

LARGEST_LOSS = 0.02
"""The accuracy that an int8 file may lose, as a fraction."""

LARGEST_DIFFERENCE = 1e-2
"""What a logit of an fp16 file may differ by, as a share of the largest logit."""

NEAR = 0.001
"""A calibration method within this accuracy of the best counts as equally good."""


def verdict(depth: int, tally: Tally) -> Verdict:
    """The verdict on the exit at `depth`, whose differences were counted."""
    found = tally.comparison(depth)
    return Verdict(
        depth=depth,
        num_images=found.num_images,
        accuracy_fp32=found.accuracy,
        accuracy=found.accuracy_onnx,
        top1_agreement=found.top1_agreement,
        max_relative_diff=found.max_abs_diff / tally.largest,
    )


def largest_loss(verdicts: Iterable[Verdict]) -> float:
    """The largest loss of accuracy over all exits."""
    return max(one.loss for one in verdicts)


def why_lossy(name: str, verdicts: Iterable[Verdict]) -> str | None:
    """A sentence about an exit that loses too much accuracy; None if there is none."""
    for one in verdicts:
        if not one.loss <= LARGEST_LOSS:
            return (
                f"{name} loses {one.loss * 100:.1f} points of accuracy at depth {one.depth}, "
                f"{one.accuracy:.2%} against {one.accuracy_fp32:.2%} over {one.num_images} images; "
                f"{LARGEST_LOSS * 100:.0f} are accepted"
            )
    return None


def why_far(name: str, verdicts: Iterable[Verdict]) -> str | None:
    """A sentence about an exit whose logits are too far away, or not numbers; None if there is none."""
    for one in verdicts:
        if not one.max_relative_diff <= LARGEST_DIFFERENCE:
            return (
                f"{name} differs at depth {one.depth} by {one.max_relative_diff:.3g} of the largest logit over "
                f"{one.num_images} images; {LARGEST_DIFFERENCE:g} is accepted"
            )
    return None
