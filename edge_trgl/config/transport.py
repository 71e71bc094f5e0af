"""The section `transport`: the weight of the transport term of TRGL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edge_trgl.config.fields import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Bounds, setting


@dataclass(frozen=True, kw_only=True)
class TransportConfig:
    """How much each module's loss weighs its transport cost: by τ, or by the multipliers of appendix D."""

    enabled: bool = setting(True, "add the transport term to the loss", more="without it, training is VanGL")
    tau: Literal["auto"] | float = setting(
        0.5,
        "penalty 1/(2 tau) on how far modules move inputs",
        more="the transport term: a small tau holds modules back strongly; tau of the first half of the modules, "
        "in units of transport.reduction; transport.late_factor times as large in the second half; auto: chosen "
        "by validation images in short trainings before the long one",
        bounds=POSITIVE,
    )
    late_factor: float = setting(
        2.0,
        "factor of tau in the second half of the modules",
        more="1: the same tau at every depth",
        bounds=POSITIVE,
    )
    reduction: Literal["mean", "sum"] = setting("mean", "reduction of the transport cost over a feature map")
    p: float = setting(2.0, "power of the norm in the transport cost", bounds=Bounds(at_least=1, below=math.inf))
    multipliers: bool = setting(False, "weigh the transport by multipliers (appendix D), not by tau")
    lambda_first: float = setting(1.0, "first multiplier", bounds=POSITIVE)
    lambda_start: Literal["same", "by-depth"] = setting(
        "same",
        "how the first multiplier depends on the module",
        more="by-depth: module k, from 1, begins with k times lambda_first, as in the authors' scripts",
    )
    growth: float = setting(
        1.0, "how much a multiplier grows: growth times the cross-entropy", bounds=NOT_NEGATIVE
    )
    every: int = setting(50, "steps from one update of a multiplier to the next", bounds=AT_LEAST_ONE)

    @property
    def scans(self) -> bool:
        """Whether tau is to be chosen by short trainings."""
        return self.enabled and self.tau == "auto"

    def conflicts(self) -> list[str]:
        """A sentence for each combination of values that has no meaning."""
        if not self.scans or not self.multipliers:
            return []
        return ["transport.tau auto has no effect with transport.multipliers, which weigh the transport instead"]
