"""Measure how far an exported file's logits are from the network's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edge_trgl.export.arrays import Array
from edge_trgl.run.export_record import Comparison

TOLERANCE = 1e-4
"""The largest accepted difference of a logit: absolute if all logits are at most 1 in size, else relative to the
largest logit, because rounding errors grow with the numbers.

It is 840 float32 rounding errors. Adding up n products in L layers in another order changes the result by about
√(n·L) rounding errors, 250 in ResNet-110; 5 to 20 were measured, depending on the instruction set. A wrong weight
changes it far more.
"""


@dataclass
class Tally:
    """Accumulates the differences between network and file at one exit, a batch at a time."""

    differences: list[Array] = field(default_factory=list)
    largest: float = 1.0
    agreeing: int = 0
    right: int = 0
    right_onnx: int = 0

    def add(self, expected: Array, computed: Array, labels: Array) -> None:
        """Add a batch.

        Args:
            expected: the network's logits, float32 [N, num_classes].
            computed: the file's logits, float32 [N, num_classes].
            labels: int64 [N].
        """
        self.differences.append(np.abs(computed - expected).max(axis=1))
        self.largest = max(self.largest, float(np.abs(expected).max()))
        ours, theirs = expected.argmax(axis=1), computed.argmax(axis=1)
        self.agreeing += int((ours == theirs).sum())
        self.right += int((ours == labels).sum())
        self.right_onnx += int((theirs == labels).sum())

    def comparison(self, depth: int) -> Comparison:
        """The comparison of the exit at `depth` over all batches so far."""
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
    """A sentence that says why a comparison failed."""
    return (
        f"{name} does not give what the network gives: at depth {comparison.depth}, over "
        f"{comparison.num_images} images, the largest difference of a logit is {comparison.max_abs_diff:.3g}, the "
        f"median {comparison.median_abs_diff:.3g}, and {comparison.top1_agreement:.2%} of the predictions agree"
    )
