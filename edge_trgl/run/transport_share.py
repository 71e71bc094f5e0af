"""How much of what moves the residues is the transport term: gradients gauged in the first step of an epoch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from edge_trgl.runtime.storage.state import Metric

INERT = 1e-3
"""Below this share of the rest of the gradient, the term changes nothing that anybody could measure."""


def influences(metrics: Iterable[Metric]) -> dict[int, float]:
    """|gradient of the transport term| / |gradient of all else in the loss|, of each module that was gauged.

    The norms are those of the gradients in the residues, over all gauged steps of a module's training.
    """
    terms: dict[int, float] = defaultdict(float)
    others: dict[int, float] = defaultdict(float)
    for metric in metrics:
        terms[metric.module] += metric.transport_gradient
        others[metric.module] += metric.other_gradient
    return {module: math.sqrt(terms[module] / others[module]) for module in terms if others[module] > 0}


def warning(found: Mapping[int, float]) -> str | None:
    """What to tell the user where the term does nothing, if it does nothing anywhere."""
    inert = [module for module, share in sorted(found.items()) if share < INERT]
    if not inert:
        return None
    most = max(found[module] for module in inert)
    which = f"module {inert[0]}" if len(inert) == 1 else f"{len(inert)} of {len(found)} modules"
    return (
        f"the transport term is inert in {which}: its gradient is at most {most:.1e} of the rest of the loss; "
        "a smaller --tau makes it count, --no-transport leaves it out"
    )
