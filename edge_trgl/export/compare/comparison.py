"""How far a file's logits are from the network's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

TOLERANCE = 1e-4
"""The largest difference of a logit that is accepted, as a share of the largest logit where that is above 1:
rounding grows with the numbers that are rounded.

These are 840 roundings of a float32 number. Sums of n products in L layers, added up in another order, differ by
about √(n·L) of them, 250 in ResNet-110; measured were 5 to 20, by instruction set. A wrong weight makes far more.
"""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The logits of one exit, from the file and from the network.

    `max_abs_diff` is over all logits; `median_abs_diff` is the median over images of an image's largest
    difference; `top1_agreement` is the fraction of images with the same predicted class; `accuracy` is the
    network's and `accuracy_onnx` the file's, as fractions. `ok` says that at least one image was compared and no
    difference, and no NaN, passes the tolerance.
    """

    num_images: int
    max_abs_diff: float
    median_abs_diff: float
    top1_agreement: float
    accuracy: float
    accuracy_onnx: float
    ok: bool


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

    def comparison(self) -> Comparison:
        """What was counted, in all."""
        differences = np.concatenate([*self.differences, np.zeros(0, np.float32)])
        num_images = len(differences)
        most = float(differences.max()) if num_images else 0.0
        shared = max(num_images, 1)
        return Comparison(
            num_images=num_images,
            max_abs_diff=most,
            median_abs_diff=float(np.median(differences)) if num_images else 0.0,
            top1_agreement=self.agreeing / shared,
            accuracy=self.right / shared,
            accuracy_onnx=self.right_onnx / shared,
            ok=num_images > 0 and math.isfinite(most) and most <= TOLERANCE * self.largest,
        )


def why_refused(name: str, depth: int, comparison: Comparison) -> str:
    """A sentence about a comparison that is not ok."""
    return (
        f"{name} does not give what the network gives: at depth {depth}, over {comparison.num_images} images, the "
        f"largest difference of a logit is {comparison.max_abs_diff:.3g}, the median "
        f"{comparison.median_abs_diff:.3g}, and {comparison.top1_agreement:.2%} of the predictions agree"
    )
