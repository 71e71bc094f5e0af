"""Share of the transport term in the gradient of the residues, measured in the first step of every epoch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from edge_trgl.runtime.storage.state import Metric

INERT = 1e-3
"""Below this share of the rest of the gradient, the term has no measurable effect."""


def influences(metrics: Iterable[Metric]) -> dict[int, float]:
    """Return, by module, the norm of the transport term's gradient over that of the rest of the loss.

    Both are gradients with respect to the residues, over all measured steps of the module's training.
    """
    terms: dict[int, float] = defaultdict(float)
    others: dict[int, float] = defaultdict(float)
    for metric in metrics:
        terms[metric.module] += metric.transport_gradient
        others[metric.module] += metric.other_gradient
    return {module: math.sqrt(terms[module] / others[module]) for module in terms if others[module] > 0}


def warning(shares: Mapping[int, float]) -> str | None:
    """Return a warning that names the modules in which the term has no effect; None if there are none."""
    inert = [module for module, share in sorted(shares.items()) if share < INERT]
    if not inert:
        return None
    most = max(shares[module] for module in inert)
    which = f"module {inert[0]}" if len(inert) == 1 else f"{len(inert)} of {len(shares)} modules"
    return (
        f"the transport term is inert in {which}: its gradient is at most {most:.1e} of the rest of the loss; "
        "a smaller --tau makes it count, --no-transport leaves it out"
    )
