"""Measure how far a file's logits are from the network's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.run.export_record import Comparison

TOLERANCE = 1e-4
"""The largest difference of a logit that is accepted, as a share of the largest logit where that is above 1:
rounding grows with the numbers that are rounded.

These are 840 roundings of a float32 number. Sums of n products in L layers, added up in another order, differ by
about √(n·L) of them, 250 in ResNet-110; measured were 5 to 20, by instruction set. A wrong weight makes far more.
"""


@dataclass
class Tally:
    """Counts the differences of one exit, a batch at a time."""

    differences: list[Array] = field(default_factory=list)
    largest: float = 1.0
    agreeing: int = 0
    right: int = 0
    right_onnx: int = 0

    def add(self, expected: Array, found: Array, labels: Array) -> None:
        """Logits [N, num_classes] of the network and of the file, and labels [N]."""
        self.differences.append(np.abs(found - expected).max(axis=1))
        self.largest = max(self.largest, float(np.abs(expected).max()))
        ours, theirs = expected.argmax(axis=1), found.argmax(axis=1)
        self.agreeing += int((ours == theirs).sum())
        self.right += int((ours == labels).sum())
        self.right_onnx += int((theirs == labels).sum())

    def comparison(self, depth: int) -> Comparison:
        """All that was counted, as the comparison of the exit at `depth`."""
        differences = np.concatenate([*self.differences, np.zeros(0, np.float32)])
        num_images = len(differences)
        most = float(differences.max()) if num_images else 0.0
        shared = max(num_images, 1)
        return Comparison(
            depth=depth,
            num_images=num_images,
            max_abs_diff=most,
            median_abs_diff=float(np.median(differences)) if num_images else 0.0,
            top1_agreement=self.agreeing / shared,
            accuracy=self.right / shared,
            accuracy_onnx=self.right_onnx / shared,
            ok=num_images > 0 and math.isfinite(most) and most <= TOLERANCE * self.largest,
        )


def why_refused(name: str, comparison: Comparison) -> str:
    """A sentence about a comparison that is not ok."""
    return (
        f"{name} does not give what the network gives: at depth {comparison.depth}, over "
        f"{comparison.num_images} images, the largest difference of a logit is {comparison.max_abs_diff:.3g}, the "
        f"median {comparison.median_abs_diff:.3g}, and {comparison.top1_agreement:.2%} of the predictions agree"
    )
