"""The section `loss`: the local loss to which the transport term is added."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.fields import Bounds, setting

WEIGHT = Bounds(at_least=0, below=math.inf)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The local loss of a module, apart from the transport term."""

    name: Literal["cross-entropy", "predsim", "infopro", "infopro-contrast", "autoencoder"] = setting(
        "cross-entropy",
        "local loss, apart from the transport term",
        more="autoencoder: reads no labels, and trains all blocks as one module with a decoder, whatever modules "
        "and heads are asked for; see pretrain",
    )
    beta: float = setting(0.99, "share of similarity matching in predsim", bounds=Bounds(above=0, at_most=1))
    lambda1: tuple[float, ...] = setting(
        (5.0, 0.5),
        "weight of the reconstruction in infopro",
        more="in the first module and in the last but one; it changes linearly in between",
        bounds=WEIGHT,
        length=2,
    )
    lambda2: tuple[float, ...] = setting(
        (0.2, 1.0),
        "weight of the label term in infopro",
        more="in the first module and in the last but one; it changes linearly in between",
        bounds=WEIGHT,
        length=2,
    )

    @property
    def compares_samples(self) -> bool:
        """Whether the loss compares the samples of a batch, so that micro-batches would change it."""
        return self.name in ("predsim", "infopro-contrast")

    @property
    def reads_labels(self) -> bool:
        """Whether the loss reads labels; without them, samples are rebuilt."""
        return self.name != "autoencoder"

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        ends = zip(self.lambda1, self.lambda2, strict=False)
        if all(image or label for image, label in ends):
            return []
        return ["loss.lambda1 and loss.lambda2 must not both be 0 for a module"]
