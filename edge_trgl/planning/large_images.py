"""Whether large images fit the budget at their own size, before they are decoded; and the size that would fit."""

from __future__ import annotations

import math
from collections.abc import Callable

from edge_trgl.planning import calibrated
from edge_trgl.runtime.errors import DoesNotFitError, EdgeTrglError
from edge_trgl.runtime.planner import planner
from edge_trgl.runtime.planner.demand import Demand
from edge_trgl.runtime.planner.plan import Plan

SIDES = (224, 128, 64, 32)
"""Sides of square images that are proposed, in pixels, the largest first."""


def check_fit(demand: Demand, budget_mb: float, at_side: Callable[[int], Demand], shortest: int) -> None:
    """Refuse images that no plan has room for.

    `demand`: of training on them. `at_side`: gives the demand of training on square images with that many pixels a
    side. `shortest`: the shorter side of the images, in pixels.

    Raises:
        DoesNotFitError: no plan fits; the hint names the largest size that would, and its peak.
    """
    try:
        planner.choose(demand, budget_mb, {}, probing=False)
    except DoesNotFitError as error:
        if _fits(demand, calibrated.HOPE * budget_mb):
            return
        sides = (side for side in SIDES if side < shortest)
        proposal = next((text for side in sides if (text := _proposal(side, budget_mb, at_side))), None)
        if proposal is None:
            raise
        hint = f"Give {proposal}; or {error.hint[0].lower()}{error.hint[1:]}"
        raise DoesNotFitError(error.message, hint=hint) from error


def _fits(demand: Demand, budget_mb: float) -> bool:
    try:
        planner.choose(demand, budget_mb, {}, probing=False)
    except DoesNotFitError:
        return False
    return True


def _proposal(side: int, budget_mb: float, at_side: Callable[[int], Demand]) -> str | None:
    try:
        plan = planner.choose(at_side(side), budget_mb, {}, probing=False)
    except EdgeTrglError:  # it does not fit, or the net cannot read so small an image
        return None
    assert isinstance(plan, Plan)
    return f"--image-size {side} (peak {math.ceil(plan.peak_mb)} MiB)"
